"""`pare doctor`: what this machine has, whether it is enough for a model, and whether a capture leaves it as it is."""

import dataclasses
import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pare.errors import Cancelled, InputError
from pare.geometry import Clip, Geometry, check_clip, latent_frames
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.machine import Finding, as_text, from_json, inspect_machine, to_json
from workbench.places import WORKSPACE_VARIABLE, Places
from workbench.plan import encoder_bytes, forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings

# A forward that would take longer, at the speed of a matrix product, is measured on a smaller clip.
FORWARD_SECONDS = 5.0
# Latent frames and patches a side of the clip on which attention is written out.
SHORT_FRAMES, SHORT_PATCHES = 4, 4


def doctor(
    model: str | None = None,
    *,
    workspace: str | Path = "./workspace",
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Versions, devices and their free memory, the attention kernel in use; with a model, checks of it on this machine.

    `machine` holds one finding a line (packages, ffmpeg, memory, disk, `workspace`, models, torch): ok, warn or fail, each
    with its fix (`workbench.machine`).
    `memory`: what a forward needs against what is free; for presets, which have no weights, this check only. Then, on
    the loaded model: `identity` (the same bits with capture on and off), `hooks` (none left), `ratio` (against float64
    on a short clip), `backend`, `overhead` in percent. `settings` are the fields of `RunSettings`, as for the command
    that is planned; with `dry_run` no model is loaded. `load` stands in for `pare.models.load_pipeline`. Raises
    `InputError` for an unknown model or device.
    """
    import psutil
    import torch

    from pare import models

    run = RunSettings.of(**settings)
    device = models.check_device(run.device)
    memory = psutil.virtual_memory()
    devices = [{"name": "cpu", "about": platform.processor() or platform.machine(), "memory_free": memory.available}]
    for number in range(torch.cuda.device_count()):
        free, _ = torch.cuda.mem_get_info(number)
        devices.append({"name": f"cuda:{number}", "about": torch.cuda.get_device_name(number), "memory_free": free})
    dtype = models.check_dtype(run.dtype, device)
    result: dict[str, Any] = {
        "versions": versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": devices,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "attention": _attention_kernel(device, dtype),
        "flops_per_second": models.measure_speed(device, dtype),
    }
    places = Places.from_environment({**os.environ, WORKSPACE_VARIABLE: str(workspace)})
    found = [*inspect_machine(places), torch_finding(result, torch.version.cuda)]
    result["machine"] = to_json(found)
    result["failed"] = [each.name for each in found if each.level == "fail"]
    if model is None:
        return result
    filled = run.model_copy(update={"dry_run": True}).filled(model)
    need = plan(
        model,
        filled,
        device=str(device),
        forwards=forwards_per_clip(filled),
        flops_per_second=result["flops_per_second"],
    )
    from analysis import checks

    here = next((each for each in devices if each["name"] == _full_name(device)), devices[0])
    done = [checks.check_memory(need["memory"]["total"], here["memory_free"], here["name"])]
    fits, left_out = done[0].ok, None
    kind = models.resolve(model).kind
    if kind == "preset":
        left_out = "a preset has no weights"
    elif run.dry_run:
        left_out = "--dry-run"
    elif not fits:
        left_out = "the model does not fit"
    elif kind == "hub" and encoder_bytes(model) is None:
        left_out = "its weights are not on this machine"
    else:
        progress(0, 0, "loading the model")
        pipe = (load or models.load_pipeline)(model, **filled.loading)
        clip = affordable_clip(models.model_geometry(model), filled.clip, result["flops_per_second"])
        done += check_model(pipe, models.model_geometry(model), clip, progress)
    return result | {
        "model": model,
        "need": need,
        "memory_free": here["memory_free"],
        "fits": fits,
        "checks": [dataclasses.asdict(each) for each in done],
        "left_out": left_out,
        "failed": result["failed"] + [each.name for each in done if not each.ok],
    }


def torch_finding(result: Mapping[str, Any], cuda: str | None) -> Finding:
    """What torch runs on here, and whether it leaves a GPU unused; `cuda` is the version it was built for.

    >>> given = {"device": "cpu", "dtype": "float32", "attention": "FLASH", "threads": 2, "flops_per_second": 1e11, "devices": []}
    >>> torch_finding(given, None).text
    'cpu in float32, attention FLASH, 2 threads, 100.0 GFLOP/s in a matrix product'
    """
    device = str(result["device"])
    text = f"{device} in {result['dtype']}, attention {result['attention']}, {result['threads']} threads, "
    text += f"{tera(result['flops_per_second'])}/s in a matrix product"
    free = [f"{each['name']} {gibi(each['memory_free'])} free" for each in result["devices"] if each["name"] != "cpu"]
    if device == "cpu" and shutil.which("nvidia-smi"):
        fix = "install a CUDA build of torch" if cuda is None else "check the NVIDIA driver with nvidia-smi"
        return Finding("torch", "warn", f"{text}; an NVIDIA GPU is not used", fix)
    return Finding("torch", "ok", "; ".join([text, *free]))


def check_model(pipe: Any, geometry: Geometry, clip: Clip, progress: Progress = silent) -> list[Any]:
    """Every check of `analysis.checks` on a loaded pipeline; a check that breaks off has failed and says why."""
    from analysis import checks

    transformer, device = pipe.transformer, pipe._execution_device
    frames = latent_frames(geometry, clip.frames)
    height, width = clip.height // geometry.vae_spatial, clip.width // geometry.vae_spatial
    short = min(frames, SHORT_FRAMES * geometry.patch[0])
    whole = checks.random_inputs(transformer, geometry, (frames, height, width), device)
    _, rows, columns = (SHORT_PATCHES * size for size in geometry.patch)
    cropped = checks.random_inputs(transformer, geometry, (short, min(height, rows), min(width, columns)), device)
    steps: dict[str, Callable[[], checks.Check]] = {
        "identity": lambda: checks.check_bits(transformer, whole),
        "hooks": lambda: checks.check_hooks(transformer, cropped),
        "ratio": lambda: checks.check_ratio(transformer, cropped, short // geometry.patch[0]),
        "backend": lambda: checks.check_backend(transformer, cropped),
        "overhead": lambda: checks.check_overhead(transformer, whole),
    }
    done = []
    try:
        for number, (name, check) in enumerate(steps.items()):
            progress(number, len(steps), f"checking {name}")
            try:
                done.append(check())
            except Cancelled:
                raise
            except Exception as error:
                reason = " ".join(str(error).split())[:300]
                done.append(checks.Check(name, False, f"{type(error).__name__}: {reason}"))
        progress(len(steps), len(steps), "checked")
    finally:
        pipe.maybe_free_model_hooks()
    return done


def affordable_clip(geometry: Geometry, clip: Clip, flops_per_second: float, seconds: float = FORWARD_SECONDS) -> Clip:
    """The clip, or a shorter and then a smaller one, whose forward takes `seconds` at most at this speed.

    >>> from pare.geometry import PRESETS
    >>> affordable_clip(PRESETS["wan2.1-t2v-1.3b"].geometry, Clip(480, 832, 81), 1e12)
    Clip(height=112, width=208, frames=17)
    """
    from pare import cost

    while cost.flops(geometry, clip).total > seconds * flops_per_second:
        latent = latent_frames(geometry, clip.frames)
        if latent > SHORT_FRAMES + 1:
            smaller = Clip(clip.height, clip.width, geometry.vae_temporal * max(SHORT_FRAMES, latent // 2) + 1)
        else:
            smaller = Clip(_half(geometry, 1, clip.height), _half(geometry, 2, clip.width), clip.frames)
        try:
            check_clip(geometry, smaller)
        except InputError:
            return clip
        if smaller == clip:
            return clip
        clip = smaller
    return clip


def failed(result: dict[str, Any]) -> bool:
    """Whether a check failed: the command then exits with 1."""
    return bool(result.get("failed"))


def _half(geometry: Geometry, axis: int, pixels: int) -> int:
    # Sizes must be multiples of 16 and of a patch.
    unit = math.lcm(16, geometry.vae_spatial * geometry.patch[axis])
    return max(unit, pixels // 2 // unit * unit)


def render(result: dict[str, Any]) -> str:
    """The result for people: one fact a line."""
    lines = [
        "versions    " + ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
        f"system      {result['system']}, {result['cores']} cores, {result['threads']} torch threads",
        *(
            f"device      {each['name']}: {each['about']}, {gibi(each['memory_free'])} free"
            for each in result["devices"]
        ),
        f"default     {result['device']} in {result['dtype']}, {tera(result['flops_per_second'])}/s in a matrix product",
        f"attention   {result['attention']}",
        as_text(from_json(result["machine"])),
    ]
    if "need" in result:
        clip = result["need"]["clip"]
        lines.append(f"model       {result['model']} at {clip['height']} x {clip['width']} x {clip['frames']}")
        for check in result["checks"]:
            lines.append(f"{check['name']:<11} {'ok' if check['ok'] else 'FAILED':<7} {check['text']}")
        if result["left_out"]:
            lines.append(f"not checked identity, hooks, ratio, backend, overhead: {result['left_out']}")
    return "\n".join(lines)


def _attention_kernel(device: Any, dtype: Any) -> str:
    """The fused kernel that torch picks for a Wan-like self-attention."""
    import torch
    from torch.nn.attention import SDPBackend

    query = torch.zeros(1, 2, 64, 128, device=device, dtype=dtype)
    choice = torch._fused_sdp_choice(query, query, query)
    return next((name for name, backend in SDPBackend.__members__.items() if backend.value == choice), str(choice))


def _full_name(device: Any) -> str:
    return f"{device.type}:{device.index or 0}" if device.type == "cuda" else str(device.type)
