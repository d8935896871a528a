"""The query and key norms of a model whose heads are cut: one constant that stands for the heads that are gone.

Wan's norm runs over all heads at once: RMSNorm(q) = q / rms(q over all heads) · w. Cut to the kept heads it would
divide by their rms instead, and so rescale every logit. Where the mean squares are known, the weight w takes up the
difference on average.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from pare.errors import InputError
from pare.mask import Mask

# Norm of a block → the heads it sees, and the moment of what enters it.
NORMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "attn1.norm_q": ("self_heads", "self/query_square"),
        "attn1.norm_k": ("self_heads", "self/key_square"),
        "attn2.norm_q": ("cross_heads", "cross/query_square"),
        "attn2.norm_k": ("cross_heads", "cross/key_square"),
        "attn2.norm_added_k": ("cross_heads", "cross/added_key_square"),
    }
)


def fold_constants(moments: Mapping[str, np.ndarray], mask: Mask, *, image: bool) -> dict[str, np.ndarray]:
    """The constant [block] of every norm: c = sqrt(mean over kept heads of E[x²] / mean over all heads of E[x²]).

    With it, w·c·q / rms_kept(q) = w·q / rms_all(q) wherever rms_kept / rms_all is what it is on average. `moments` are a
    run's means [block, head] by name (`NORMS`); `image`: whether the model has added image keys. A block that keeps all
    heads gets exactly 1. Raises `InputError` for a moment that is missing.

    >>> keep = np.array([[True, False]])
    >>> squares = dict.fromkeys(("self/query_square", "self/key_square"), np.array([[2.0, 6.0]]))
    >>> squares |= dict.fromkeys(("cross/query_square", "cross/key_square"), np.array([[1.0, 1.0]]))
    >>> constants = fold_constants(squares, Mask(keep, keep, keep), image=False)
    >>> [round(float(each[0]), 3) for each in constants.values()]
    [0.707, 0.707, 1.0, 1.0]
    """
    constants = {}
    for norm, (part, name) in NORMS.items():
        if not image and norm == "attn2.norm_added_k":
            continue
        keep = getattr(mask, part)
        squares = moment(moments, name, keep.shape)
        kept = (squares * keep).sum(axis=1) / keep.sum(axis=1)
        ratio = np.sqrt(kept / squares.mean(axis=1))
        constants[norm] = np.where(keep.all(axis=1), 1.0, ratio)
    return constants


def moment(moments: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """One moment in float64, its first axes `shape`; raises `InputError` where it is missing or of another model."""
    fix = "capture the model again with --statistics all"
    if name not in moments:
        raise InputError("moments", got=f"none called {name}", expected=name, fix=fix)
    values = np.asarray(moments[name], np.float64)
    if values.shape[: len(shape)] != shape:
        raise InputError(f"moments, {name}", got=list(values.shape), expected=f"{list(shape)} first", fix=fix)
    if np.isnan(values).any():
        block = int(np.argwhere(np.isnan(values))[0][0])
        raise InputError(f"moments, {name}", got=f"none of block {block}", expected="one of every block", fix=fix)
    return values
