"""Names and reading of a run's files, for those who read runs and those who write them."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from pare.errors import InputError


def run_identity(manifest: bytes) -> str:
    """What every file of a run carries: SHA-256 of its `run.json` (16 hex digits)."""
    return hashlib.sha256(manifest).hexdigest()[:16]


def sample_path(folder: Path, index: int) -> Path:
    """Where the arrays of a finished sample are."""
    return folder / "samples" / sample_name(index)


def sample_name(index: int) -> str:
    """The name of a sample's file.

    >>> sample_name(7)
    '00007.safetensors'
    """
    return f"{index:05d}.safetensors"


def samples_on_disk(folder: Path, count: int) -> tuple[int, ...]:
    """Which of the first `count` samples have their file."""
    try:
        # One look at the folder: asking for every file takes long where there are hundreds.
        with os.scandir(sample_path(folder, 0).parent) as entries:
            there = {entry.name for entry in entries if entry.is_file()}
    except FileNotFoundError:
        return ()
    return tuple(index for index in range(count) if sample_name(index) in there)


def moments_path(folder: Path, index: int) -> Path:
    """Where the moments of one sample wait until those of all samples before it are there."""
    return folder / "moments" / f"{index:05d}.safetensors"


def read_arrays(
    path: Path, names: Sequence[str] | None, run: str, part: tuple[slice, ...] | None = None
) -> dict[str, np.ndarray]:
    """The arrays of these names that the file has (all of them for None); `run` is the identity it must carry.

    With `part`, a slice for each of the first axes, no more than that part is read.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("run") != run:
                raise InputError(
                    str(path), got="a file of another run", expected="files of one run", fix="capture again"
                )
            there = set(file.keys())
            wanted = sorted(there if names is None else there & set(names))
            if part is None:
                return {name: file.get_tensor(name) for name in wanted}
            return {name: file.get_slice(name)[part] for name in wanted}
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), got=error, expected="a safetensors file", fix="capture the run again") from error
