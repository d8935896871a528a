"""What a run will cost, before it starts: parameters, tokens, operations, memory, time."""

import math
from typing import Any

from pare import cost, reference
from pare.errors import InputError
from pare.geometry import latent_frames, tokens
from workbench.settings import RunSettings

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def plan(
    model: str,
    settings: RunSettings,
    *,
    device: str,
    forwards: int,
    clips: int = 1,
    flops_per_second: float | None = None,
    disk_bytes: int | None = None,
    share: float = 1.0,
) -> dict[str, Any]:
    """Cost of `clips` clips of `forwards` transformer forwards each, from the model's geometry alone.

    `device` is where it will run (a resolved name, since it decides what precision auto means); `flops_per_second`,
    when measured, gives the time; `disk_bytes`, when known, is what will be written. Text encoder and VAE are counted
    by the size of their files, where these are at hand. `share` of the blocks runs, on average over the steps.
    """
    geometry, kept = reference.model_geometry(model), reference.cost_arguments(model)
    clip = settings.clip
    dtype = settings.dtype if settings.dtype != "auto" else "bfloat16" if device.startswith("cuda") else "float32"
    forward = cost.flops(geometry, clip, **kept).total * share
    total = forward * forwards * clips
    memory = cost.memory(geometry, clip, bytes_per_value=BYTES[dtype], **kept)
    others = encoder_bytes(model)
    return {
        "dry_run": True,
        "model": model,
        "device": device,
        "dtype": dtype,
        "clip": {"height": clip.height, "width": clip.width, "frames": clip.frames},
        "parameters": cost.parameters(geometry, **kept).total,
        "latent_frames": latent_frames(geometry, clip.frames),
        "tokens": tokens(geometry, clip),
        "clips": clips,
        "forwards": forwards * clips,
        "flops_per_forward": forward,
        "flops": total,
        "block_share": share,
        "memory": {
            "transformer": memory.weights,
            "activations": memory.activations,
            "encoders_and_vae": others,
            "total": memory.total + (others or 0),
        },
        "seconds": None if flops_per_second is None else total / flops_per_second,
        "flops_per_second": flops_per_second,
        "disk_bytes": disk_bytes,
        "settings": settings.model_dump(),
    }


def expectation(result: dict[str, Any]) -> str:
    """Time, memory and disk of a plan in one line.

    >>> expectation({"seconds": 75, "memory": {"total": 2**31}, "disk_bytes": 3 * 2**20})
    'about 1 min 15 s, 2.0 GiB of memory, 3.0 MiB of disk'
    """
    time = "" if result["seconds"] is None else f"about {duration(result['seconds'])}, "
    disk = "" if result["disk_bytes"] is None else f", {gibi(result['disk_bytes'])} of disk"
    return f"{time}{gibi(result['memory']['total'])} of memory{disk}"


def check_fits(result: dict[str, Any], *, memory: int | None, disk: int, max_disk: float) -> None:
    """Refuses a plan that memory (bytes; None: not asked), free disk (bytes) or `max_disk` (GiB) cannot hold.

    Raises `InputError` that names the flag to turn.
    """
    if not (math.isfinite(max_disk) and max_disk > 0):
        raise InputError("--max-disk", got=max_disk, expected="a number of GiB above 0", fix="--max-disk 10")
    need = result["memory"]["total"]
    if memory is not None and need > memory:
        raise InputError(
            "memory",
            got=f"a need of {gibi(need)} with {gibi(memory)} on {result['device']}",
            expected="a model and clip that fit",
            fix="--offload model or --offload group (with a GPU), --dtype bfloat16, fewer --frames or a smaller --height",
        )
    written = result["disk_bytes"] or 0
    if written > max_disk * 2**30:
        raise InputError(
            "disk",
            got=f"a run of {gibi(written)}",
            expected=f"at most --max-disk {max_disk:g} GiB",
            fix=f"--max-disk {written / 2**30 * 1.1:.0f}, fewer --samples, or --statistics all,maps:8",
        )
    if written > disk:
        raise InputError(
            "disk",
            got=f"a run of {gibi(written)} with {gibi(disk)} free",
            expected="a run that fits",
            fix="another --out, fewer --samples, or --statistics basic",
        )


def encoder_bytes(model: str) -> int | None:
    """Bytes of the weights around the transformer, as stored; None when they are not on this machine."""
    known = reference.resolve(model)
    if known.kind == "preset":
        return None
    folder = reference.description_folder(known)
    files = [path for path in folder.glob("*/*.safetensors") if path.parent.name != "transformer"]
    return sum(path.stat().st_size for path in files) or None


def forwards_per_clip(settings: RunSettings) -> int:
    """Transformer forwards of one generated clip: steps, twice with guidance."""
    assert settings.steps is not None and settings.guidance is not None
    return settings.steps * (2 if settings.guidance > 1 else 1)


def render_plan(result: dict[str, Any]) -> str:
    """A plan for people: one fact a line."""
    clip, memory = result["clip"], result["memory"]
    lines = [
        f"plan for {result['model']} on {result['device']} in {result['dtype']} (nothing was run)",
        f"clip        {clip['height']} x {clip['width']} pixels, {clip['frames']} video frames",
        f"tokens      {result['tokens']:,} in {result['latent_frames']} latent frames",
        f"parameters  {result['parameters']:,}",
        f"work        {result['clips']} clip(s), {result['forwards']} forwards of {tera(result['flops_per_forward'])}, "
        f"{tera(result['flops'])} in all",
        f"memory      {gibi(memory['total'])}: transformer {gibi(memory['transformer'])}, activations "
        f"{gibi(memory['activations'])}, "
        + (
            f"encoders and VAE {gibi(memory['encoders_and_vae'])}" if memory["encoders_and_vae"] else "without encoders"
        ),
    ]
    if result.get("block_share", 1.0) < 1:
        lines.append(f"blocks      {result['block_share']:.1%} of them run, on average over the steps")
    if result["disk_bytes"] is not None:
        lines.append(f"disk        {gibi(result['disk_bytes'])}")
    if result["seconds"] is not None:
        lines.append(
            f"time        about {duration(result['seconds'])} at the {tera(result['flops_per_second'])}/s that a matrix "
            "product reaches here"
        )
    return "\n".join(lines)


def tera(flops: float) -> str:
    """Operations for people.

    >>> tera(1678.3e12), tera(2.5e9), tera(3e5)
    ('1,678.3 TFLOP', '2.5 GFLOP', '0.3 MFLOP')
    """
    for size, unit in ((1e12, "TFLOP"), (1e9, "GFLOP")):
        if flops >= size:
            return f"{flops / size:,.1f} {unit}"
    return f"{flops / 1e6:,.1f} MFLOP"


def gibi(size: float) -> str:
    """Bytes for people.

    >>> gibi(3 * 2**30), gibi(5 * 2**20), gibi(2048)
    ('3.0 GiB', '5.0 MiB', '2.0 KiB')
    """
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size / 2**10:,.1f} KiB"


def duration(seconds: float) -> str:
    """Seconds for people.

    >>> duration(0.4), duration(75), duration(7300)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
