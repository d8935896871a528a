"""`pare doctor`: what this machine has, and whether it is enough for a model."""

import os
import platform
from typing import Any

from pare.versions import versions
from workbench.plan import forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings


def doctor(model: str | None = None, **settings: Any) -> dict[str, Any]:
    """Versions, devices and their free memory, the attention kernel in use, and a model's memory against it.

    `settings` are the fields of `RunSettings`, as for the command that is planned. Raises `InputError` for an unknown
    model or device.
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
    here = next((each for each in devices if each["name"] == _full_name(device)), devices[0])
    fits = need["memory"]["total"] <= here["memory_free"]
    return result | {"model": model, "need": need, "memory_free": here["memory_free"], "fits": fits}


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
    ]
    if "need" in result:
        need, clip = result["need"]["memory"], result["need"]["clip"]
        verdict = "fits" if result["fits"] else "does not fit; try --offload model, fewer frames or a smaller size"
        lines.append(
            f"{result['model']}  needs {gibi(need['total'])} at {clip['height']} x {clip['width']} x {clip['frames']}, "
            f"{gibi(result['memory_free'])} free: {verdict}"
        )
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
