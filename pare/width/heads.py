"""Which attention heads stay: as many in every block, or as many in all with a floor per block, the highest scores."""

import math
from fractions import Fraction

import numpy as np

from pare.errors import InputError

ALLOCATIONS = ("uniform", "global", "global-l2")


def default_min_heads(heads: int) -> int:
    """K_min = ceil(8·H/40): the paper's floor of 8 of 40 heads, in proportion.

    >>> default_min_heads(40), default_min_heads(12), default_min_heads(10)
    (8, 3, 2)
    """
    return math.ceil(Fraction(8 * heads, 40))


def kept_count(heads: int, ratio: float, min_heads: int | None = None) -> int:
    """K = max(K_min, ceil(H·(1 − p))) heads per block (PARE, width pruning); p = 0 keeps all.

    `min_heads` is K_min, by default `default_min_heads`. Raises InputError for p outside [0, 1) or K_min outside 1..H.

    >>> kept_count(40, 0.3), kept_count(12, 0.3), kept_count(40, 0.95)
    (28, 9, 8)
    """
    check_ratio(ratio)
    if min_heads is None:
        min_heads = default_min_heads(heads)
    if not 1 <= min_heads <= heads:
        fix = f"for example --min-heads {default_min_heads(heads)}"
        raise InputError("--min-heads", got=min_heads, expected=f"1 to {heads} heads", fix=fix)
    # The decimal that was typed: in floats, 10·(1 − 0.7) is above 3 and would round up to 4.
    return max(min_heads, math.ceil(heads * (1 - Fraction(str(ratio)))))


def check_ratio(ratio: float, flag: str = "--ratio") -> None:
    """Raise InputError unless 0 <= p < 1.

    >>> check_ratio(0.3)
    """
    if not 0 <= ratio < 1:
        raise InputError(flag, got=ratio, expected="a number from 0 to below 1", fix=f"{flag} 0.3")


def select_heads(scores: np.ndarray, count: int) -> np.ndarray:
    """True for the `count` highest scores of each block; [block, head] in and out, a tie goes to the lower index.

    Raises InputError for scores that are missing (NaN).

    >>> select_heads(np.array([[3.0, 1.0, 3.0], [1.0, 1.0, 1.0]]), 2).tolist()
    [[True, False, True], [True, True, False]]
    """
    scores = _whole(scores)
    order = np.argsort(-scores, axis=1, kind="stable")
    keep = np.zeros(scores.shape, bool)
    np.put_along_axis(keep, order[:, :count], True, axis=1)
    return keep


def select_global(scores: np.ndarray, total: int, min_heads: int) -> np.ndarray:
    """True for the `total` highest scores of all blocks together, at least `min_heads` of them in each block.

    The floor is filled first (the highest of each block); a tie goes to the lower block, then the lower head. Scores
    must be comparable across blocks: see `normalised`. Raises InputError for missing scores (NaN) and for a total
    below the floor or above all heads.

    >>> select_global(np.array([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]]), total=4, min_heads=1).tolist()
    [[True, True, True], [False, False, True]]
    """
    scores = _whole(scores)
    blocks, heads = scores.shape
    if not blocks * min_heads <= total <= scores.size or min_heads > heads:
        expected = f"{blocks * min_heads} to {scores.size} heads in {blocks} blocks"
        raise InputError("heads to keep", got=total, expected=expected, fix="another --ratio or --min-heads")
    keep = select_heads(scores, min_heads)
    rest = np.flatnonzero(~keep.ravel())
    order = np.argsort(-scores.ravel()[rest], kind="stable")
    keep.ravel()[rest[order[: total - blocks * min_heads]]] = True
    return keep


def normalised(scores: np.ndarray) -> np.ndarray:
    """Scores of each block over their root sum of squares (Molchanov et al. 2017, section 2.3): [block, head].

    Residual streams grow with depth, and so does Eq. 3; what is left compares a head with the others of its block. A
    block of zeros stays as it is.

    >>> normalised(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    scores = np.asarray(scores, float)
    size = np.sqrt(np.square(scores).sum(axis=1, keepdims=True))
    return np.divide(scores, size, out=scores.copy(), where=size > 0)


def allocate(scores: np.ndarray, count: int, allocation: str = "uniform", min_heads: int | None = None) -> np.ndarray:
    """Heads that stay [block, head] when each of N blocks keeps `count` of them, or all together keep N·count.

    `allocation`: uniform (the paper: the same count everywhere) or global, one ranking of all blocks with `min_heads`
    as the floor of each; global-l2 is the same of scores that were `normalised` before protection.

    >>> allocate(np.array([[9.0, 8.0, 7.0], [1.0, 2.0, 3.0]]), 2, "global", min_heads=1).sum(axis=1).tolist()
    [3, 1]
    """
    check_allocation(allocation)
    if allocation == "uniform":
        return select_heads(scores, count)
    blocks, heads = np.shape(scores)
    return select_global(scores, blocks * count, default_min_heads(heads) if min_heads is None else min_heads)


def check_allocation(allocation: str) -> None:
    """Raise InputError unless heads can be allocated this way.

    >>> check_allocation("global")
    """
    if allocation not in ALLOCATIONS:
        expected = f"one of {', '.join(ALLOCATIONS)}"
        raise InputError("--allocation", got=allocation, expected=expected, fix="--allocation uniform")


def _whole(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, float)
    if np.isnan(scores).any():
        block, head = np.argwhere(np.isnan(scores))[0]
        raise InputError("scores", got=f"none for block {block} head {head}", expected="one per head", fix="measure it")
    return scores
