"""Cut heads and neurons out of a Wan transformer: the student's matrices are parts of the teacher's (PARE, width).

A block's tensors go in and come out under the names they have in the block, so that the same function cuts a model in
memory and one on disk, block by block.
"""

import hashlib
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights

from pare import mask as masks
from pare import student
from pare.errors import InputError
from pare.geometry import Geometry
from pare.mask import Mask
from pare.student import QueryKeyNorm
from pare.transformer import PareWanTransformer3DModel
from pare.versions import versions
from pare.width.compensation import OUTPUTS, compensated_bias, mean_outputs
from pare.width.qk_norm import fold_constants

SCHEMA = "pare-student/1"
NO_MOMENTS = "qk_norm fold needs the moments of a run; without one it became none"
_ATTENTION = {"attn1": "self_heads", "attn2": "cross_heads"}
_QUERY_KEY = ("to_q", "to_k", "norm_q", "norm_k", "add_k_proj", "norm_added_k")
_VALUE = ("to_v", "add_v_proj")


@dataclass(frozen=True)
class Axis:
    """Where the units of a tensor lie: the part of the mask that counts them, the axis, and whether they are
    queries or keys, which stay whole under qk_norm exact."""

    part: str
    axis: int
    query_key: bool = False


@dataclass(frozen=True, eq=False)
class Cut:
    """One cut of a whole model: the mask, how the query/key norm is treated, and what goes with either.

    `constants` are those of `fold_constants`, `means` those of `mean_outputs`; empty for none.
    """

    mask: Mask
    head_dim: int
    qk_norm: QueryKeyNorm = "none"
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    means: Mapping[str, np.ndarray] = field(default_factory=dict)


def prune(
    transformer: Any,
    mask: Mask,
    moments: Mapping[str, np.ndarray] | None = None,
    qk_norm: QueryKeyNorm = "fold",
    compensate: bool = False,
) -> PareWanTransformer3DModel:
    """The student that keeps what the mask keeps: copies of the teacher's sub-matrices, in the teacher's precision.

    `moments` are the means of a run by name (`self/query_square` [block, head], …). `qk_norm` says what becomes of the
    norm across all heads: `fold` multiplies its weight by one calibrated constant (needs moments; without them it
    becomes `none`, with a warning), `exact` keeps queries, keys and norm whole and equals masking, `none` cuts it like
    the rest. `compensate` adds what is removed, on average, to the output biases (needs moments).
    A full mask gives the same weights. Raises `InputError` for a mask of other shapes, a model that was pruned before
    or carries adapters or fused projections, and moments that do not fit.

    >>> student = prune(pipe.transformer, mask)  # doctest: +SKIP
    """
    with init_empty_weights(include_buffers=False):
        cut = plan_cut(transformer.config, mask, moments, qk_norm, compensate)
        pruned = PareWanTransformer3DModel.from_config(student_config(transformer.config, cut))
    source = transformer.state_dict()
    if set(source) != set(pruned.state_dict()):
        odd = sorted(set(source) ^ set(pruned.state_dict()))[0]
        raise InputError(
            "transformer",
            got=f"{odd}, which a plain Wan transformer has otherwise",
            expected="no adapters and no fused projections",
            fix="fuse and unload adapters, unfuse_qkv_projections(), then prune",
        )
    state = {name: tensor.clone() for name, tensor in source.items() if not name.startswith("blocks.")}
    for index, block in enumerate(transformer.blocks):
        cut_tensors = cut_block(block.state_dict(), cut, index)
        state |= {f"blocks.{index}.{name}": tensor for name, tensor in cut_tensors.items()}
    pruned.load_state_dict(state, assign=True)
    device = next(iter(state.values())).device
    # Tables of positions and of kept heads are no weights; everything else is there already.
    return pruned.to(device).train(transformer.training)


def plan_cut(
    config: Mapping[str, Any],
    mask: Mask,
    moments: Mapping[str, np.ndarray] | None = None,
    qk_norm: QueryKeyNorm = "fold",
    compensate: bool = False,
) -> Cut:
    """Check the mask and the moments against a transformer's config, and work out what goes into the norms and biases.

    Raises `InputError`, as `prune` does.
    """
    if qk_norm not in student.QUERY_KEY_NORMS:
        known = ", ".join(student.QUERY_KEY_NORMS)
        raise InputError("--qk-norm", got=qk_norm, expected=f"one of {known}", fix="--qk-norm fold")
    if student.is_pruned(config):
        raise InputError(
            "transformer", got="one that was pruned before", expected="a dense one", fix="prune the base model"
        )
    masks.check(mask, Geometry.from_config(config), {})
    if compensate and moments is None:
        raise InputError("--compensate", got="no moments", expected="those of a run", fix="--run RUN")
    if qk_norm == "fold" and moments is None:
        warnings.warn(NO_MOMENTS, stacklevel=3)
        qk_norm = "none"
    image = config.get("added_kv_proj_dim") is not None
    constants = fold_constants(moments, mask, image=image) if qk_norm == "fold" and moments is not None else {}
    means = mean_outputs(moments, mask) if compensate and moments is not None else {}
    return Cut(mask, config["attention_head_dim"], qk_norm, constants, means)


def student_config(
    config: Mapping[str, Any], cut: Cut, base: Mapping[str, Any] | None = None, run: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The student's config: the teacher's, with the widths, the indices, and where it comes from.

    `base` is the teacher's identity (by default what the mask says of its model), `run` names the run of the moments.
    """
    keep = {part: getattr(cut.mask, part) for part in masks.PARTS}
    entries = student.describe(keep)
    if not entries:
        cut = Cut(cut.mask, cut.head_dim)
    about = {
        "schema": SCHEMA,
        "base": dict(base or cut.mask.metadata.get("model", {})),
        "mask": {"hash": mask_hash(cut.mask), "settings": dict(cut.mask.metadata.get("settings", {}))},
        "run": dict(run or {}),
        "compensated": bool(cut.means),
        "versions": versions(),
    }
    # Names with an underscore say how a file was written.
    public = {name: value for name, value in config.items() if not name.startswith("_")}
    return {**public, **entries, "qk_norm_mode": cut.qk_norm, "pruning": about}


def cut_block(state: Mapping[str, torch.Tensor], cut: Cut, index: int) -> dict[str, torch.Tensor]:
    """The tensors of block `index` of the student from those of the teacher's block; nothing is shared between them."""
    result = {}
    for name, tensor in state.items():
        layer = name.rpartition(".")[0]
        where = unit_axis(name)
        if where is None or (where.query_key and cut.qk_norm == "exact"):
            result[name] = tensor.clone()
        else:
            keep = getattr(cut.mask, where.part)[index]
            width = 1 if where.part == "neurons" else cut.head_dim
            result[name] = select_units(tensor, keep, width, where.axis)
        if layer in cut.constants:
            result[name] = _scaled(result[name], float(cut.constants[layer][index]))
        if name.endswith(".bias") and layer in cut.means:
            keep = getattr(cut.mask, OUTPUTS[layer][0])[index]
            result[name] = compensated_bias(state[f"{layer}.weight"], tensor, keep, cut.means[layer][index])
    return result


def unit_axis(name: str) -> Axis | None:
    """Where heads or neurons lie in a tensor of a block, by its name in the block; None where it has none.

    >>> unit_axis("attn1.to_out.0.weight")
    Axis(part='self_heads', axis=1, query_key=False)
    >>> unit_axis("attn2.add_k_proj.bias")
    Axis(part='cross_heads', axis=0, query_key=True)
    >>> unit_axis("attn1.to_out.0.bias") is None
    True
    """
    if found := re.fullmatch(r"(attn[12])\.(\w+)(?:\.0)?\.(weight|bias)", name):
        attention, layer, kind = found.groups()
        if layer in _QUERY_KEY or layer in _VALUE:
            return Axis(_ATTENTION[attention], 0, layer in _QUERY_KEY)
        return Axis(_ATTENTION[attention], 1) if (layer, kind) == ("to_out", "weight") else None
    if name in ("ffn.net.0.proj.weight", "ffn.net.0.proj.bias"):
        return Axis("neurons", 0)
    return Axis("neurons", 1) if name == "ffn.net.2.weight" else None


def select_units(tensor: torch.Tensor, keep: np.ndarray, width: int, axis: int) -> torch.Tensor:
    """The rows or columns of the kept units, `width` for each, as a new tensor.

    >>> select_units(torch.arange(6), np.array([True, False, True]), 2, 0).tolist()
    [0, 1, 4, 5]
    """
    if keep.all():
        return tensor.clone()
    indices = torch.from_numpy(np.flatnonzero(np.repeat(keep, width))).to(tensor.device)
    return tensor.index_select(axis, indices)


def mask_hash(mask: Mask) -> str:
    """SHA-256 of what the mask keeps, whatever file it lies in."""
    digest = hashlib.sha256()
    for part in masks.PARTS:
        values = getattr(mask, part)
        digest.update(f"{part} {list(values.shape)} ".encode() + np.packbits(values).tobytes())
    return digest.hexdigest()


def _scaled(weight: torch.Tensor, constant: float) -> torch.Tensor:
    # Computed wide, so that half precision rounds once.
    return weight if constant == 1 else (weight.double() * constant).to(weight.dtype)
