"""`pare info`: what a model is made of and what one forward costs, without its weights."""

import dataclasses
from typing import Any

from pare import cost, reference
from pare.errors import InputError
from pare.geometry import Clip, Geometry, check_clip, latent_frames, tokens, tokens_per_frame
from workbench.plan import tera


def info(
    model: str, *, height: int | None = None, width: int | None = None, frames: int | None = None
) -> dict[str, Any]:
    """Geometry, parameters, tokens and operations of a model at one size (default: the model's own).

    Reads JSON files only; those of a hub id come from the local cache or are downloaded. Raises `InputError` for an
    unknown model, a size that it cannot do, and a size that neither the command nor the model gives.
    """
    known = reference.resolve(model)
    geometry, kept = reference.model_geometry(known), reference.cost_arguments(known)
    stored = reference.defaults(known, height=height, width=width)
    given = {"height": height, "width": width, "frames": frames}
    size: dict[str, Any] = {name: stored.get(name) if value is None else value for name, value in given.items()}
    if missing := [f"--{name}" for name, value in size.items() if value is None]:
        raise InputError(
            " ".join(missing), got="no value", expected=f"a size, since {model} comes without one", fix="add the flags"
        )
    clip = Clip(size["height"], size["width"], size["frames"])
    check_clip(geometry, clip)
    work = cost.flops(geometry, clip, **kept)
    return {
        "model": model,
        "kind": known.kind,
        "repo_id": known.repo_id,
        "geometry": geometry.to_dict() | {"dim": geometry.dim, "image_to_video": geometry.image_to_video},
        "parameters": dataclasses.asdict(cost.parameters(geometry, **kept))
        | {"per_block": dataclasses.asdict(block := cost.block_parameters(geometry)) | {"total": block.total}},
        "kept": kept,
        "clip": size,
        "latent_frames": latent_frames(geometry, clip.frames),
        "tokens_per_frame": tokens_per_frame(geometry, clip.height, clip.width),
        "tokens": tokens(geometry, clip),
        "uniform_ratio": 1 / latent_frames(geometry, clip.frames),
        "flops_per_forward": dataclasses.asdict(work) | {"total": work.total, "self_core_share": work.self_core_share},
        "defaults": stored,
    }


def render(result: dict[str, Any]) -> str:
    """The result for people: one fact a line."""
    count, clip, work = result["parameters"], result["clip"], result["flops_per_forward"]
    shape = {name: value for name, value in result["geometry"].items() if name not in ("dim", "image_to_video")}
    geometry = Geometry.from_dict(shape)
    block = count["per_block"]
    lines = [
        f"{result['model']}  ({'image' if geometry.image_to_video else 'text'}-to-video)",
        f"blocks          {geometry.blocks} of {geometry.heads} heads x {geometry.head_dim} = {geometry.dim}, "
        f"{geometry.ffn:,} neurons",
        f"parameters      {count['total']:,}  ({count['in_blocks']:,} in blocks, {count['outside']:,} outside)",
        *_kept(result["kept"]),
        f"one block       {block['total']:,}  (self {block['attn1']:,}, cross {block['attn2']:,}, ffn {block['ffn']:,})",
        f"removing one    self head {count['per_self_head']:,}, cross head {count['per_cross_head']:,}, "
        f"neuron {count['per_neuron']:,}",
        f"clip            {clip['height']} x {clip['width']} pixels, {clip['frames']} video frames",
        f"tokens          {result['tokens']:,} = {result['latent_frames']} latent frames x "
        f"{result['tokens_per_frame']:,}",
        f"one forward     {tera(work['total'])}, {work['self_core_share']:.1%} of it in the core of self-attention",
        f"uniform ratio   {result['uniform_ratio']:.6f} = 1 / {result['latent_frames']}",
    ]
    if result["defaults"]:
        named = ", ".join(f"{name} {value}" for name, value in result["defaults"].items())
        lines.append(f"defaults        {named}")
    return "\n".join(lines)


def _kept(kept: dict[str, Any]) -> list[str]:
    """What a pruned model keeps, in one line; the line on one block, which follows, is then the dense block's."""
    parts = [
        f"{low if (low := min(counts)) == (high := max(counts)) else f'{low} to {high}'} {name.replace('_', '-')}"
        for name, counts in kept.items()
        if isinstance(counts, list)
    ]
    return [f"kept            {', '.join(parts)} in every block (the rest is of the dense model)"] if parts else []
