"""Cut a LoRA of a dense model to the heads and neurons that a pruned one kept."""

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch

from pare import mask as masks
from pare.errors import InputError
from pare.geometry import Geometry
from pare.lora import BEFORE_NORM, LoraTensor, check_block, check_lora
from pare.mask import Mask
from pare.student import QueryKeyNorm

__all__ = ["check_lora", "slice_lora", "to_diffusers"]

StateDict: TypeAlias = dict[str, torch.Tensor]
# How the names of Wan's own layout and of kohya's begin.
FOREIGN = ("diffusion_model.", "lora_unet_")


def to_diffusers(lora: Mapping[str, torch.Tensor]) -> StateDict:
    """The same LoRA under diffusers' names, `transformer.blocks.0.attn1.to_q.lora_A.weight`, by diffusers' own converter.

    Wan's own names (`diffusion_model.blocks.0.self_attn.q…`) and kohya's (`lora_unet_blocks_0_self_attn_q…`) are
    converted, their alphas multiplied in; diffusers' and peft's names stay. Raises `InputError` for a LoRA that
    diffusers cannot read.
    """
    if not any(key.startswith(FOREIGN) for key in lora):
        return dict(lora)
    # Seconds of import, and only for foreign names.
    from diffusers.loaders.lora_pipeline import WanLoraLoaderMixin

    try:
        return dict(WanLoraLoaderMixin.lora_state_dict(dict(lora)))
    except (KeyError, ValueError, IndexError) as error:
        raise InputError(
            "LoRA", got=f"names that diffusers cannot convert ({error})", expected="a LoRA for Wan", fix="use another"
        ) from error


def slice_lora(
    lora: Mapping[str, torch.Tensor], mask: Mask, geometry: Geometry, *, qk_norm: QueryKeyNorm = "fold"
) -> StateDict:
    """The LoRA of a dense model, cut for the model that `mask` prunes from it; cutting and merging commute.

    With ΔW = s·B·A of rank r, a layer that loses output rows keeps the other rows of B (and of its bias), one that
    loses input columns the other columns of A: prune(W + s·B·A) = prune(W) + s·slice(B)·slice(A). Names become
    diffusers'; alphas, and layers outside of the blocks' attention and feed-forward, stay as they are. `qk_norm` is
    how the model was pruned: with `exact` its queries and keys are whole. Raises `InputError` for a mask of another
    shape, sizes that are not the dense model's, and adapters that cannot be cut (DoRA, LoKr).

    >>> from pare.geometry import PRESETS
    >>> wan = PRESETS["wan2.1-t2v-1.3b"].geometry
    >>> three, all_heads, neurons = np.arange(12) < np.full((30, 1), 3), np.ones((30, 12), bool), np.ones((30, 8960), bool)
    >>> lora = {"transformer.blocks.0.attn1.to_q.lora_B.weight": torch.zeros(1536, 4)}
    >>> {name: list(value.shape) for name, value in slice_lora(lora, Mask(three, all_heads, neurons), wan).items()}
    {'transformer.blocks.0.attn1.to_q.lora_B.weight': [384, 4]}
    """
    masks.check(mask, geometry, {})
    keep = {"attn1": mask.self_heads, "attn2": mask.cross_heads, "ffn": mask.neurons}
    result: StateDict = {}
    for name, value in to_diffusers(lora).items():
        result[name] = value
        tensor = LoraTensor.read(name)
        if tensor is None:
            continue
        check_block(name, tensor, geometry.blocks)
        if tensor.axis is None or (qk_norm == "exact" and tensor.layer in BEFORE_NORM):
            continue
        row = keep[tensor.part][tensor.block]
        row = row if tensor.part == "ffn" else np.repeat(row, geometry.head_dim)
        if value.shape[tensor.axis] != len(row):
            raise InputError(
                f"LoRA, {name}",
                got=f"{value.shape[tensor.axis]} values",
                expected=f"{len(row)}, those of the dense model",
                fix="use a LoRA of the model that the mask is for",
            )
        kept = torch.from_numpy(np.flatnonzero(row)).to(value.device)
        result[name] = value.index_select(tensor.axis, kept)
    return result
