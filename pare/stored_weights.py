"""Weights of a transformer as they lie on disk: single tensors from safetensors, one after the other, no model built."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from pare.errors import InputError


class StoredWeights:
    """Tensors by name from the safetensors files of a folder; what is asked for is read, nothing else."""

    def __init__(self, files: dict[str, "safe_open"], folder: Path):
        self._files, self._folder = files, folder

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._files

    def tensor(self, name: str, shape: tuple[int, ...] | None = None) -> torch.Tensor:
        """One tensor in its stored precision. Raises InputError where it is missing or has another shape."""
        if name not in self._files:
            raise InputError(
                str(self._folder),
                got=f"no {name}",
                expected="a Wan transformer in diffusers' names",
                fix="fetch it again",
            )
        found = self._files[name].get_tensor(name)
        if shape is not None and tuple(found.shape) != shape:
            raise InputError(
                f"{self._folder}, {name}", got=list(found.shape), expected=str(list(shape)), fix="use the dense model"
            )
        return found


@contextmanager
def open_weights(folder: str | Path) -> Iterator[StoredWeights]:
    """Open the `*.safetensors` of a transformer's folder, one file or shards.

    Raises InputError where there are none, or they cannot be read.
    """
    folder = Path(folder)
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise InputError(str(folder), got="no safetensors", expected="the transformer's weights", fix="fetch the model")
    with ExitStack() as stack:
        files: dict[str, safe_open] = {}
        for path in paths:
            try:
                file = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError) as error:
                raise InputError(str(path), got=error, expected="a safetensors file", fix="fetch it again") from error
            files |= dict.fromkeys(file.keys(), file)
        yield StoredWeights(files, folder)
