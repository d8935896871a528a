"""`pare info`: what a model is made of and what one forward costs, without its weights."""

import dataclasses
from pathlib import Path
from typing import Any

from pare import cost, reference
from pare import mask as masks
from pare.errors import InputError
from pare.fit import Fit, fits
from pare.geometry import Clip, Geometry, check_clip, latent_frames, tokens, tokens_per_frame
from pare.student import QUERY_KEY_NORMS
from workbench.plan import BYTES, encoder_bytes, gibi, tera


def info(
    model: str,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    mask: str | Path | None = None,
    qk_norm: str = "fold",
    gib: float | None = None,
    dtype: str = "bfloat16",
) -> dict[str, Any]:
    """Geometry, parameters, tokens, operations and memory of a model at one size (default: the model's own).

    With `mask`, those of the model that the mask makes of it (with `qk_norm` exact, queries and keys stay whole); with
    `gib`, whether one forward in `dtype` fits into so much memory, and up to which size, with all weights there or one
    block at a time. Reads JSON files only; those of a hub id come from the local cache or are downloaded. Raises
    `InputError` for an unknown model, a mask of another one, a size that it cannot do, and a size that neither the
    command nor the model gives.
    """
    for flag, value, choices in (("--dtype", dtype, tuple(BYTES)), ("--qk-norm", qk_norm, QUERY_KEY_NORMS)):
        if value not in choices:
            raise InputError(flag, got=value, expected=f"one of {', '.join(choices)}", fix=f"{flag} {choices[0]}")
    known = reference.resolve(model)
    geometry, kept = reference.model_geometry(known), reference.cost_arguments(known)
    if mask is not None:
        kept = _masked(known, geometry, kept, mask, qk_norm)
    stored = reference.defaults(known, height=height, width=width)
    given = {"height": height, "width": width, "frames": frames}
    size: dict[str, Any] = {name: stored.get(name) if value is None else value for name, value in given.items()}
    if missing := [f"--{name}" for name, value in size.items() if value is None]:
        raise InputError(
            " ".join(missing), got="no value", expected=f"a size, since {model} comes without one", fix="add the flags"
        )
    clip = Clip(size["height"], size["width"], size["frames"])
    check_clip(geometry, clip)
    work, dense = cost.flops(geometry, clip, **kept), cost.flops(geometry, clip)
    need = cost.memory(geometry, clip, bytes_per_value=BYTES[dtype], **kept)
    around = encoder_bytes(model)
    found = None if gib is None else fits(
        geometry, clip, gib, bytes_per_value=BYTES[dtype], around_bytes=around or 0, **kept
    )  # fmt: skip
    return {
        "model": model,
        "mask": None if mask is None else str(mask),
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
        "flops_per_forward": dataclasses.asdict(work)
        | {"total": work.total, "self_core_share": work.self_core_share, "outside": cost.outside_flops(geometry, clip)},
        "dense": {"parameters": cost.parameters(geometry).total, "flops_per_forward": dense.total},
        "memory": {
            "dtype": dtype,
            "weights": need.weights,
            "activations": need.activations,
            "encoders_and_vae": around,
        },
        "gib": gib,
        "fits": None if found is None else {mode: _fit(fit) for mode, fit in found.items()},
        "defaults": stored,
    }


def render(result: dict[str, Any]) -> str:
    """The result for people: one fact a line."""
    count, clip, work, memory = (result[name] for name in ("parameters", "clip", "flops_per_forward", "memory"))
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
        *_saved(result),
        f"uniform ratio   {result['uniform_ratio']:.6f} = 1 / {result['latent_frames']}",
        f"memory          weights {gibi(memory['weights'])} in {memory['dtype']}, activations of one forward "
        f"{gibi(memory['activations'])}",
        *_fitting(result),
    ]
    if result["defaults"]:
        named = ", ".join(f"{name} {value}" for name, value in result["defaults"].items())
        lines.append(f"defaults        {named}")
    return "\n".join(lines)


def _masked(
    known: reference.ModelRef, geometry: Geometry, kept: dict[str, Any], path: str | Path, qk_norm: str
) -> dict[str, Any]:
    """What `pare.cost` is to be told of a model that a mask has pruned."""
    if kept:
        raise InputError(
            "--mask", got=f"{known.name}, which was pruned before", expected="a dense model", fix="leave --mask out"
        )
    chosen = masks.load(path)
    identity = {"model_id": known.name} if known.kind == "preset" else reference.model_identity(known)
    masks.check(chosen, geometry, identity)
    return {**chosen.counts(), "whole_query_key": qk_norm == "exact"}


def _fit(fit: Fit) -> dict[str, Any]:
    return dataclasses.asdict(fit) | {"total": fit.total, "fits": fit.fits}


def _saved(result: dict[str, Any]) -> list[str]:
    """What is left of the dense model's cost, where anything was cut."""
    dense, work = result["dense"], result["flops_per_forward"]["total"]
    if not result["kept"]:
        return []
    return [
        f"of the dense    {result['parameters']['total'] / dense['parameters']:.1%} of {dense['parameters']:,} parameters, "
        f"{work / dense['flops_per_forward']:.1%} of {tera(dense['flops_per_forward'])}"
    ]


def _fitting(result: dict[str, Any]) -> list[str]:
    """A line for either way to hold the weights."""
    if result["fits"] is None:
        return []
    names = {"none": "all weights there", "group": "one block at a time (--offload group)"}
    around = result["memory"]["encoders_and_vae"]
    lines = []
    for mode, fit in result["fits"].items():
        largest = fit["largest"]
        verdict = "fits" if fit["fits"] else "does not fit"
        size = f"up to {largest['height']} x {largest['width']}" if largest else "at no size"
        start = f"in {result['gib']:g} GiB".ljust(16)
        lines.append(f"{start}{names[mode]}: {verdict}, {gibi(fit['total'])}; {size}")
    with_encoders = f"with encoders and VAE ({gibi(around)})" if around else "text encoder and VAE not counted"
    return [*lines, f"                {with_encoders}; decoding by the VAE not counted"]


def _kept(kept: dict[str, Any]) -> list[str]:
    """What a pruned model keeps, in one line; the line on one block, which follows, is then the dense block's."""
    parts = [
        f"{low if (low := min(counts)) == (high := max(counts)) else f'{low} to {high}'} {name.replace('_', '-')}"
        for name, counts in kept.items()
        if isinstance(counts, list)
    ]
    return [f"kept            {', '.join(parts)} in every block (the rest is of the dense model)"] if parts else []
