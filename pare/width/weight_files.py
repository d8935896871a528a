"""The safetensors files of one diffusers model folder: read by name, written shard by shard."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pare.errors import InputError
from pare.geometry import read_json

STEM = "diffusion_pytorch_model"
INDEX = f"{STEM}.safetensors.index.json"


@dataclass(frozen=True)
class WeightFiles:
    """Where every tensor of a model lies: its name → its file. Nothing is read until it is asked for."""

    files: Mapping[str, Path]

    @classmethod
    def of(cls, folder: str | Path) -> "WeightFiles":
        """The weights of a folder that diffusers saved, one file or several; raises `InputError` where there are none."""
        folder = Path(folder)
        single, index = folder / f"{STEM}.safetensors", folder / INDEX
        if index.is_file():
            placed = read_json(index).get("weight_map", {})
            paths = {name: folder / file for name, file in placed.items()}
        elif single.is_file():
            with _opened(single) as file:
                paths = dict.fromkeys(file.keys(), single)
        else:
            raise InputError(
                str(folder),
                got=f"neither {single.name} nor {INDEX}",
                expected="a transformer saved by diffusers as safetensors",
                fix="save it again with safe_serialization=True and without a variant",
            )
        for path in set(paths.values()):
            if path.parent != folder or not path.is_file():
                raise InputError(str(index), got=path.name, expected="a file in the same folder", fix="fetch it again")
        return cls(paths)

    def read(self, names: Iterable[str]) -> dict[str, torch.Tensor]:
        """These tensors, each read from its file into memory of its own, so that nothing of the files stays mapped."""
        wanted: dict[Path, list[str]] = {}
        for name in names:
            if name not in self.files:
                raise InputError("weights", got=f"no {name}", expected="the weights of the config", fix="save it again")
            wanted.setdefault(self.files[name], []).append(name)
        tensors: dict[str, torch.Tensor] = {}
        for path, own in wanted.items():
            with _opened(path) as file:
                tensors |= {name: file.get_tensor(name) for name in own}
        return tensors


class ShardWriter:
    """Writes a model's weights as files of at most `max_bytes` (a larger tensor gets its own), holding one at a time.

    `finish` gives the files their final names and writes the index. The folder must exist.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> writer = ShardWriter(folder, max_bytes=16)
    >>> writer.add({"a": torch.zeros(4), "b": torch.ones(2)})
    >>> writer.finish()
    24
    >>> sorted(path.name for path in folder.glob("*.safetensors"))[0]
    'diffusion_pytorch_model-00001-of-00002.safetensors'
    >>> WeightFiles.of(folder).read(["b"])["b"].tolist()
    [1.0, 1.0]
    """

    def __init__(self, folder: Path, max_bytes: int):
        self.folder, self.max_bytes = folder, max_bytes
        self._waiting: dict[str, torch.Tensor] = {}
        self._shards: list[list[str]] = []
        self._bytes = self._total = 0

    def add(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take these tensors; what is full goes to disk."""
        for name, tensor in tensors.items():
            if self._waiting and self._bytes + tensor.nbytes > self.max_bytes:
                self.flush()
            self._waiting[name] = tensor.detach().contiguous()
            self._bytes += tensor.nbytes

    def flush(self) -> None:
        """Write what waits as one file."""
        if not self._waiting:
            return
        save_file(self._waiting, self.folder / f"shard-{len(self._shards)}.safetensors", metadata={"format": "pt"})
        self._shards.append(list(self._waiting))
        self._total += self._bytes
        self._waiting, self._bytes = {}, 0

    def finish(self) -> int:
        """Name the files, write the index where there are several, and return how many bytes of weights they hold."""
        self.flush()
        count = len(self._shards)
        placed: dict[str, str] = {}
        for index, names in enumerate(self._shards):
            number = f"-{index + 1:05d}-of-{count:05d}" if count > 1 else ""
            path = self.folder / f"{STEM}{number}.safetensors"
            (self.folder / f"shard-{index}.safetensors").rename(path)
            placed |= dict.fromkeys(names, path.name)
        if count > 1:
            content = {"metadata": {"total_size": self._total}, "weight_map": placed}
            (self.folder / INDEX).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
        return self._total


def _opened(path: Path) -> safe_open:
    try:
        # Read and not mapped: a mapping counts as memory of the process for as long as a tensor of it lives.
        return safe_open(path, framework="pt", backend="pread")
    except (SafetensorError, OSError) as error:
        raise InputError(str(path), got=error, expected="a safetensors file", fix="fetch it again") from error
