"""Which attention heads stay: the same count in every block, the highest scores of each block."""

import math
from fractions import Fraction

import numpy as np

from pare.errors import InputError


def kept_count(heads: int, ratio: float, k_min: int | None = None) -> int:
    """K = max(k_min, ceil(H·(1 − p))) heads per block (PARE, width pruning).

    `k_min` is by default the paper's 8 of 40 in proportion, ceil(8·H/40). Raises InputError for p outside (0, 1) or
    k_min outside 1..H.

    >>> kept_count(40, 0.3), kept_count(12, 0.3), kept_count(40, 0.95)
    (28, 9, 8)
    """
    if not 0 < ratio < 1:
        raise InputError("--ratio", got=ratio, expected="a number between 0 and 1, both excluded", fix="--ratio 0.3")
    if k_min is None:
        k_min = math.ceil(Fraction(8 * heads, 40))
    if not 1 <= k_min <= heads:
        raise InputError(
            "--k-min", got=k_min, expected=f"1 to {heads} heads", fix=f"for example --k-min {min(8, heads)}"
        )
    # The decimal that was typed: in floats, 10·(1 − 0.7) is above 3 and would round up to 4.
    return max(k_min, math.ceil(heads * (1 - Fraction(str(ratio)))))


def select_heads(scores: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` highest scores of each block; [block, head] in and out, a tie goes to the lower index.

    Raises InputError for scores that are missing (NaN).

    >>> select_heads(np.array([[3.0, 1.0, 3.0], [1.0, 1.0, 1.0]]), 2).tolist()
    [[True, False, True], [True, True, False]]
    """
    scores = np.asarray(scores, float)
    if np.isnan(scores).any():
        block, head = np.argwhere(np.isnan(scores))[0]
        raise InputError("scores", got=f"none for block {block} head {head}", expected="one per head", fix="measure it")
    order = np.argsort(-scores, axis=1, kind="stable")
    keep = np.zeros(scores.shape, bool)
    np.put_along_axis(keep, order[:, :count], True, axis=1)
    return keep
