"""A sweep on disk: a JSON-lines file, its first line the settings, then one line per row as it is found."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import torch

from analysis.probes import Probe
from pare.errors import InputError
from pare.files import write_bytes
from pare.versions import versions

SCHEMA = "pare-sweep/1"


class SweepFile:
    """Appends rows to a file that a killed process may leave at any byte; `rows` are those already there.

    Without a path nothing is written. Raises InputError where the path holds a file and `resume` is not set, and where
    that file was made by another model, other settings or other versions.
    """

    def __init__(self, path: str | Path | None, header: Mapping[str, Any], *, resume: bool = False):
        self.path = None if path is None else Path(path)
        self.header = {"schema": SCHEMA, **header, "versions": versions()}
        self.rows: list[dict[str, Any]] = []
        self._file: IO[bytes] | None = None
        if self.path is not None and self.path.exists():
            if not resume:
                raise InputError("out", got=f"{path}, a file", expected="a new file", fix="another name or resume=True")
            self.rows = self._read(self.path)

    def __enter__(self) -> "SweepFile":
        if self.path is not None:
            if not self.path.exists():
                write_bytes(self.path, _line(self.header))
            self._file = self.path.open("ab")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write one row; a kill after this does not lose it."""
        if self._file is not None:
            self._file.write(_line(row))
            self._file.flush()

    def _read(self, path: Path) -> list[dict[str, Any]]:
        content = path.read_bytes()
        # A line that was cut short by a kill is taken back.
        whole = content[: content.rfind(b"\n") + 1]
        try:
            header, *rows = [json.loads(line) for line in whole.splitlines()]
            schema = header["schema"]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(str(path), got=error, expected=f"a file of {SCHEMA}", fix="another name") from error
        ours = json.loads(_line(self.header))
        differ = [name for name in ours if header.get(name) != ours[name]]
        if differ:
            raise InputError(
                str(path),
                got=f"a {schema} file with other {', '.join(differ)}",
                expected="the file that this sweep would write",
                fix="resume with what it was started with, or give another name",
            )
        if len(whole) < len(content):
            os.truncate(path, len(whole))
        return rows


def describe_sweep(
    transformer: Any,
    sets: Mapping[str, Sequence[tuple[str, int, int]]],
    probes: Sequence[Probe],
    timesteps: Sequence[float],
    mode: str,
    means: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What decides the numbers of a sweep, inputs and means by their hash, with one hash over all of it."""
    settings = {
        "head_sets": {name: [list(head) for head in heads] for name, heads in sets.items()},
        "timesteps": [float(t) for t in timesteps],
        "mode": mode,
        "means": {name: _hash(torch.as_tensor(values)) for name, values in (means or {}).items()},
        "samples": [
            {"seed": probe.seed, "inputs": _hash(probe.clean, probe.condition, *probe.embeddings.values())}
            for probe in probes
        ],
        "weights": _fingerprint(transformer),
        "dtype": str(transformer.dtype).removeprefix("torch."),
    }
    return {**settings, "hash": hashlib.sha256(_line(settings)).hexdigest()[:16]}


def _fingerprint(transformer: Any) -> str:
    """Hash of every weight's name, shape and first values: tells models and LoRAs apart without reading them whole."""
    digest = hashlib.sha256()
    for name, tensor in transformer.named_parameters():
        digest.update(f"{name} {list(tensor.shape)}".encode())
        if not tensor.is_meta:
            digest.update(_hash(tensor.flatten()[:16]).encode())
    return digest.hexdigest()[:16]


def _hash(*tensors: torch.Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype} {list(plain.shape)}".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b"")
    return digest.hexdigest()[:16]


def _line(content: Any) -> bytes:
    return (json.dumps(content, sort_keys=True, ensure_ascii=False) + "\n").encode()
