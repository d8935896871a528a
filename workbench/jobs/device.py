"""Which device a job queues for, and how much of its memory is free, told without torch."""

import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pare.errors import InputError

DEVICE = re.compile(r"[a-z]{1,16}(:[0-9]{1,3})?")


def check_device(device: str) -> str:
    """The device by its full name, a queue each: cpu, mps, cuda:0, …; auto is this machine's fastest.

    >>> check_device("cuda")
    'cuda:0'
    """
    if not DEVICE.fullmatch(device):
        raise InputError("--device", got=repr(device), expected="auto, cpu, mps or cuda:0", fix="--device auto")
    if device == "auto":
        return fastest_device()
    return "cuda:0" if device == "cuda" else device


def fastest_device() -> str:
    """cuda:0 where there is an NVIDIA GPU and a torch that can use it, mps on Apple silicon, else cpu."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    # Reading what is installed takes longest, so it is asked last.
    if not hidden and (Path("/dev/nvidia0").exists() or shutil.which("nvidia-smi")) and not _torch_for_cpu():
        return "cuda:0"
    return "mps" if sys.platform == "darwin" and platform.machine() == "arm64" else "cpu"


def _torch_for_cpu() -> bool:
    try:
        return version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return True


def memory_free(device: str) -> int | None:
    """Bytes that are free on a device now; None where nobody can say.

    >>> memory_free("cpu") > 0
    True
    """
    kind, _, number = device.partition(":")
    if kind in ("cpu", "mps"):
        import psutil

        return int(psutil.virtual_memory().available)
    ask = ["nvidia-smi", f"--id={number or 0}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(ask, capture_output=True, text=True, timeout=5, check=True).stdout
        return int(said.splitlines()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
