"""The parts of a mask in words."""

from collections.abc import Sequence

PARTS = {"self_heads": "self-attention heads", "cross_heads": "cross-attention heads", "neurons": "neurons"}


def span(counts: Sequence[int]) -> str:
    """The smallest and the largest of some counts.

    >>> span([7, 7]), span([5, 9, 7])
    ('7', '5 to 9')
    """
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
