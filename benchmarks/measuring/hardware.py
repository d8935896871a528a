"""What a measurement ran on, in one line."""

import os
import platform
from pathlib import Path
from typing import Any


def describe(device: Any, threads: int) -> dict[str, Any]:
    """Processor, accelerator, cores, threads, load average over the last minute and torch's version, at this moment."""
    import torch

    accelerator = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "processor": _processor(),
        "accelerator": accelerator,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": _load(),
        "torch": torch.__version__,
    }


def line(hardware: dict[str, Any]) -> str:
    """The same for people.

    >>> line({"processor": "A", "accelerator": None, "cores": 2, "threads": 1, "load": 0.5, "torch": "2.13.0"})
    'A, 2 cores, 1 torch thread, load average 0.5 at the start, torch 2.13.0'
    """
    threads = f"{hardware['threads']} torch thread{'' if hardware['threads'] == 1 else 's'}"
    load = "unknown" if hardware["load"] is None else hardware["load"]
    parts = [hardware["accelerator"], hardware["processor"], f"{hardware['cores']} cores", threads]
    parts += [f"load average {load} at the start", f"torch {hardware['torch']}"]
    return ", ".join(part for part in parts if part)


def describe_app(**versions: str) -> dict[str, Any]:
    """Processor, cores, load average over the last minute and the versions of what else was measured with."""
    return {"processor": _processor(), "cores": os.cpu_count(), "load": _load(), "versions": versions}


def app_line(hardware: dict[str, Any]) -> str:
    """The same for people.

    >>> app_line({"processor": "A", "cores": 2, "load": 0.5, "versions": {"streamlit": "1.67.0"}})
    'A, 2 cores, load average 0.5 at the start, streamlit 1.67.0'
    """
    load = "unknown" if hardware["load"] is None else hardware["load"]
    parts = [hardware["processor"], f"{hardware['cores']} cores", f"load average {load} at the start"]
    return ", ".join([*parts, *(f"{name} {version}" for name, version in hardware["versions"].items())])


def _load() -> float | None:
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = (each.partition(":")[2].strip() for each in lines if each.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()
