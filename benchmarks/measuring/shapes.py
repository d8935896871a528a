"""Shapes to measure: the demo model's and the presets', few blocks of them with random weights.

Time and memory do not depend on the values of weights. A few blocks of a real shape are enough for a ratio, since every
block costs the same and almost nothing lies outside of the blocks.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pare.errors import InputError
from pare.geometry import PRESETS, Clip, Geometry, check_clip, tokens
from workbench.demo.settings import DemoSettings

FEW_BLOCKS = 2


@dataclass(frozen=True)
class Case:
    """One shape to measure: a model's geometry with so many of its blocks, and a clip."""

    model: str
    geometry: Geometry
    clip: Clip

    @property
    def tokens(self) -> int:
        """Tokens of one forward."""
        return tokens(self.geometry, self.clip)


def demo_geometry() -> Geometry:
    """The geometry of the bundled demo model, from the settings of its build."""
    build = DemoSettings()
    channels, text_dim = build.vae.z_dim, build.text.dim
    named = {"in_channels": channels, "out_channels": channels, "text_dim": text_dim}
    transformer = dataclasses.asdict(build.transformer) | named
    spatial = build.vae.patch_size * 2 ** (len(build.vae.dim_mult) - 1)
    temporal = 2 ** sum(build.vae.temperal_downsample)
    reductions = {"scale_factor_spatial": spatial, "scale_factor_temporal": temporal, "z_dim": channels}
    return Geometry.from_config(transformer, reductions)


def geometries() -> dict[str, Geometry]:
    """Every model that can be measured, by name."""
    return {"demo": demo_geometry(), **{name: preset.geometry for name, preset in PRESETS.items()}}


def cases(
    preset: str | None,
    blocks: int | None,
    clip: tuple[int, int, int] | None,
    default: Sequence[tuple[str, int, int, int, int]],
) -> list[Case]:
    """What is to be measured: the default cases (model, blocks, height, width, frames), those of one model, or one clip."""
    known = geometries()
    if preset is not None and preset not in known:
        raise InputError("--preset", got=preset, expected=f"one of {', '.join(known)}", fix="--preset demo")
    if clip is not None and preset is None:
        raise InputError("--clip", got="no model", expected="a clip of one model", fix="--preset demo")
    chosen = [each for each in default if preset in (None, each[0])]
    if preset is not None and (clip is not None or not chosen):
        defaults = PRESETS[preset].defaults if preset in PRESETS else {}
        height, width, frames = clip or (defaults["height"], defaults["width"], defaults["frames"])
        chosen = [(preset, FEW_BLOCKS, height, width, frames)]
    found = []
    for model, own_blocks, height, width, frames in chosen:
        number = own_blocks if blocks is None else blocks
        if not 1 <= number <= known[model].blocks:
            raise InputError(
                "--blocks", got=number, expected=f"1 to {known[model].blocks}", fix=f"--blocks {FEW_BLOCKS}"
            )
        check_clip(known[model], Clip(height, width, frames))
        found.append(Case(model, dataclasses.replace(known[model], blocks=number), Clip(height, width, frames)))
    return found


def build(geometry: Geometry, device: Any, dtype: Any, pruned: Mapping[str, Any] | None = None) -> Any:
    """A transformer of this geometry with random weights; what diffusers keeps in float32 is kept in float32.

    The stock class, or with `pruned` (entries of its config, `self_heads` [block] and so on) the pruned one.
    """
    import torch
    from diffusers import WanTransformer3DModel

    kind: Any = WanTransformer3DModel
    if pruned is not None:
        from pare.transformer import PareWanTransformer3DModel

        kind = PareWanTransformer3DModel

    standard = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with device:
            transformer = kind(
                patch_size=geometry.patch,
                num_attention_heads=geometry.heads,
                attention_head_dim=geometry.head_dim,
                in_channels=geometry.in_channels,
                out_channels=geometry.out_channels,
                text_dim=geometry.text_dim,
                freq_dim=geometry.freq_dim,
                ffn_dim=geometry.ffn,
                num_layers=geometry.blocks,
                cross_attn_norm=geometry.cross_attn_norm,
                image_dim=geometry.image_dim,
                added_kv_proj_dim=geometry.added_kv_proj_dim,
                rope_max_seq_len=geometry.max_positions,
                pos_embed_seq_len=geometry.pos_embed_tokens,
                **(pruned or {}),
            )
    finally:
        torch.set_default_dtype(standard)
    for name, weight in transformer.named_parameters():
        if set(name.split(".")) & set(transformer._keep_in_fp32_modules):
            weight.data = weight.data.float()
    return transformer.eval().requires_grad_(False)


def free_bytes(device: Any) -> int:
    """Memory that is free on a device."""
    import psutil
    import torch

    free: int = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return free
