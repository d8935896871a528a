"""Training state on disk: safetensors by parameter name and one JSON file; never a pickle.

A state folder holds `model`, `average` (the exponential moving average) and the optimiser's moments as safetensors parts of at most
15 MB, and `state.json` with the step and the settings. A new state is written beside the old one and takes its place by renaming,
so a kill at any moment leaves a whole state.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

PART_BYTES = 15 * 1000 * 1000


def split_parts(tensors: dict[str, torch.Tensor], part_bytes: int = PART_BYTES) -> list[dict[str, torch.Tensor]]:
    """Tensors in name order, cut into parts of at most `part_bytes` each (a larger single tensor gets its own part).

    >>> [list(part) for part in split_parts({"b": torch.zeros(2), "a": torch.zeros(2)}, part_bytes=8)]
    [['a'], ['b']]
    """
    return list(_parts(tensors, part_bytes))


def _parts(
    tensors: dict[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]], part_bytes: int = PART_BYTES
) -> Iterator[dict[str, torch.Tensor]]:
    part: dict[str, torch.Tensor] = {}
    size = 0
    for name, tensor in sorted(tensors.items()) if isinstance(tensors, dict) else tensors:
        nbytes = tensor.numel() * tensor.element_size()
        if part and size + nbytes > part_bytes:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += nbytes
    yield part


def save_state(
    folder: Path, tensors: dict[str, torch.Tensor] | Iterable[tuple[str, torch.Tensor]], record: dict[str, Any]
) -> None:
    """Writes a state folder whole, or not at all.

    Args: `folder` to replace; `tensors` by name, or (name, tensor) in name order, of which only a part is held at a time;
    `record`, JSON-able, with at least the step.
    """
    fresh = folder.with_name(folder.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for number, part in enumerate(_parts(tensors)):
        detached = {name: tensor.detach().cpu().contiguous() for name, tensor in part.items()}
        save_file(detached, str(fresh / f"tensors-{number:03d}.safetensors"))
    (fresh / "state.json").write_text(json.dumps(record, indent=1, sort_keys=True))
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(fresh, folder)
    shutil.rmtree(old, ignore_errors=True)


def load_state(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """The last whole state and its record, or None when there is none yet."""
    found = _last_whole(folder)
    if found is None:
        return None
    tensors: dict[str, torch.Tensor] = {}
    for part in sorted(found.glob("tensors-*.safetensors")):
        tensors.update(load_file(str(part)))
    return tensors, json.loads((found / "state.json").read_text())


def steps_done(folder: Path) -> int:
    """The step of the last whole state, without reading its tensors; 0 when there is none yet."""
    found = _last_whole(folder)
    return 0 if found is None else int(json.loads((found / "state.json").read_text())["step"])


def _last_whole(folder: Path) -> Path | None:
    candidates = (folder, folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old"))
    return next((candidate for candidate in candidates if (candidate / "state.json").is_file()), None)
