"""How many feed-forward neurons stay in a block: the share asked for, aligned for the matrix products."""

from fractions import Fraction

from pare.errors import InputError
from pare.width.heads import check_ratio

MULTIPLE, SMALL_MULTIPLE, SMALL = 128, 8, 2048


def neuron_multiple(ffn: int) -> int:
    """What the number of neurons is aligned to: 128, in small models (fewer than 2,048 neurons) 8.

    >>> neuron_multiple(13824), neuron_multiple(640)
    (128, 8)
    """
    return MULTIPLE if ffn >= SMALL else SMALL_MULTIPLE


def kept_neurons(ffn: int, ratio: float, multiple: int | None = None) -> int:
    """floor(F·(1 − p)) to a multiple of `multiple` (default: `neuron_multiple`), at least one multiple; p = 0 keeps all.

    The floor reproduces the published sizes (9,600 of 13,824). Raises InputError for p outside [0, 1) and a multiple
    outside 1..F.

    >>> kept_neurons(13824, 0.3), kept_neurons(8960, 0.3), kept_neurons(640, 0.3)
    (9600, 6272, 448)
    """
    check_ratio(ratio)
    step = min(neuron_multiple(ffn), ffn) if multiple is None else multiple
    if not 1 <= step <= ffn:
        fix = f"--neuron-multiple {min(neuron_multiple(ffn), ffn)}"
        raise InputError("--neuron-multiple", got=step, expected=f"1 to {ffn}", fix=fix)
    if ratio == 0:
        return ffn
    # The decimal that was typed, as for heads.
    return max(step, int(ffn * (1 - Fraction(str(ratio)))) // step * step)
