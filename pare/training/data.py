"""Training samples on disk: clean latents and embeddings in safetensors shards, read in an order that only the seed decides.

A folder holds `data.json` (schema `pare-latents/1`: the samples, their captions, the clip, the model that encoded them) and
`shards/00000.safetensors` …, each with the tensors `<sample>/latents`, `<sample>/text` and, for image-to-video, `<sample>/image`
and `<sample>/condition`. A shard appears whole, so that an interrupted encoding goes on where it was.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pare.errors import InputError
from pare.files import replacing, write_bytes
from pare.processes import THE_ONLY_ONE, Process
from pare.progress import Progress, silent

SCHEMA = "pare-latents/1"
INDEX, EMPTY = "data.json", "empty"
SHARD_SAMPLES = 64
# Latents are normalised to a spread of 1, for which half precision is fine enough.
STORED = torch.float16
MISSING_FIX = "make it with pare distill data MODEL --videos FOLDER --out DATA"


@dataclass(frozen=True, eq=False)
class Batch:
    """Clean latents x0 [batch, channels, frames, height, width] with what conditions the model.

    `text` [batch, tokens, dim]; for image-to-video `image` [batch, images, tokens, dim] (a first, perhaps a last one) and
    `condition`, the channels that follow the noised latents.
    """

    clean: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor | None = None
    condition: torch.Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        parts = (self.clean, self.text, self.image, self.condition)
        return Batch(*(None if each is None else each.to(device, non_blocking=True) for each in parts))  # type: ignore[arg-type]

    def inputs(self, noised: torch.Tensor, sigma: torch.Tensor) -> dict[str, Any]:
        """The arguments of a forward at noised latents and σ [batch]; t = 1000·σ."""
        states = noised if self.condition is None else torch.cat([noised, self.condition], dim=1)
        given: dict[str, Any] = {"hidden_states": states, "timestep": 1000 * sigma, "encoder_hidden_states": self.text}
        if self.image is not None:
            given["encoder_hidden_states_image"] = rearrange(
                self.image, "batch image token dim -> (batch image) token dim"
            )
        return given | {"return_dict": False}


def write_samples(
    folder: str | Path,
    captions: Sequence[str],
    encode: Callable[[int], Mapping[str, torch.Tensor]],
    about: Mapping[str, Any],
    *,
    empty: Callable[[], torch.Tensor],
    shard_samples: int = SHARD_SAMPLES,
    process: Process = THE_ONLY_ONE,
    progress: Progress = silent,
) -> None:
    """Encode sample after sample into `folder`; shards that are there are kept, so a second call goes on.

    Args:
        encode: index -> `latents` [channels, frames, height, width], `text` [tokens, dim] and, where the model takes them,
            `image` [images, tokens, dim] and `condition` [channels, frames, height, width].
        about: JSON; the model, the clip and the settings that the samples depend on.
        empty: the embedding [tokens, dim] of the text that guidance is against.
        process: which of several processes this is; each encodes its share of the shards.
    Raises `InputError` where the folder holds samples of another kind.
    """
    folder = Path(folder)
    begin(folder, {"schema": SCHEMA, **about, "captions": list(captions), "shard_samples": shard_samples})
    texts = folder / "shards" / f"{EMPTY}.safetensors"
    if process.leads and not texts.exists():
        _write(texts, {EMPTY: trimmed(empty())})

    def make(sample: int) -> dict[str, torch.Tensor]:
        parts = dict(encode(sample))
        parts["text"] = trimmed(parts["text"])
        return parts | {name: parts[name].to(STORED) for name in ("latents", "condition") if name in parts}

    write_shards(folder, len(captions), make, shard_samples, process=process, progress=progress)


def begin(folder: Path, index: Mapping[str, Any]) -> None:
    """Write what a folder of shards will hold; InputError where it holds something else."""
    _check_same(folder, index)
    write_bytes(folder / INDEX, json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False).encode())


def write_shards(
    folder: Path,
    count: int,
    make: Callable[[int], Mapping[str, torch.Tensor]],
    shard_samples: int,
    *,
    process: Process = THE_ONLY_ONE,
    progress: Progress = silent,
) -> None:
    """Make the tensors of every sample, shard by shard; those that are there are kept, each process makes its share."""
    done = 0
    for number, first in enumerate(range(0, count, shard_samples)):
        members = range(first, min(first + shard_samples, count))
        path = shard_path(folder, number)
        if number % process.count != process.rank or path.exists():
            done += len(members)
            continue
        tensors: dict[str, torch.Tensor] = {}
        for sample in members:
            tensors |= {f"{sample:06d}/{name}": tensor for name, tensor in make(sample).items()}
            done += 1
            progress(done, count, f"{done} of {count} samples")
        _write(path, tensors)


class Shards:
    """A folder that `begin` and `write_shards` made; tensors are read sample by sample.

    Raises `InputError` for a folder that is missing, unfinished or of another kind.
    """

    schema, flag, fix = SCHEMA, "--data", MISSING_FIX

    def __init__(self, folder: str | Path, *, held_out: int = 0):
        self.folder, self.held_out = Path(folder), held_out
        try:
            self.about = json.loads((self.folder / INDEX).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                self.flag, got=f"{folder}, without a readable {INDEX}", expected=self.schema, fix=self.fix
            ) from error
        if not isinstance(self.about, dict) or self.about.get("schema") != self.schema:
            raise InputError(self.flag, got=f"{folder}, not {self.schema}", expected=self.schema, fix=self.fix)
        self.shard_samples = int(self.about["shard_samples"])
        shards = -(-len(self) // self.shard_samples)
        missing = [number for number in range(shards) if not shard_path(self.folder, number).is_file()]
        if missing or not shards:
            raise InputError(
                self.flag,
                got=f"{folder}, with {shards - len(missing)} of {shards} shards",
                expected="all of them",
                fix="the same command again, which goes on",
            )
        if not 0 <= held_out < len(self):
            raise InputError(
                "--held-out", got=held_out, expected=f"fewer than the {len(self)} samples there are", fix="--held-out 0"
            )

    def __len__(self) -> int:
        return int(self.about["count"])

    def tensors(self, index: int) -> dict[str, torch.Tensor]:
        """The tensors of one sample by name, as stored."""
        path = shard_path(self.folder, index // self.shard_samples)
        prefix = f"{index:06d}/"
        try:
            with safe_open(path, framework="pt") as file:
                names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a dict)
                return {name.removeprefix(prefix): file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise InputError(self.flag, got=f"{path}, unreadable", expected="a whole shard", fix=self.fix) from error


class LatentData(Shards):
    """A folder of samples that `write_samples` wrote; no more than a batch is in memory.

    Raises `InputError` for a folder that is missing, unfinished or of another kind.
    """

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def captions(self) -> list[str]:
        """What is said of every sample."""
        return self.about["captions"]

    @cached_property
    def empty(self) -> torch.Tensor:
        """The embedding [tokens, dim] of the text that guidance is against."""
        path = self.folder / "shards" / f"{EMPTY}.safetensors"
        with safe_open(path, framework="pt") as file:
            return padded(file.get_tensor(EMPTY), self.text_tokens)

    @property
    def text_tokens(self) -> int:
        """The length that texts are padded to."""
        return int(self.about["text_tokens"])

    def sample(self, index: int) -> dict[str, torch.Tensor]:
        """The tensors of one sample by name, texts padded, all in float32."""
        parts = {name: tensor.float() for name, tensor in self.tensors(index).items()}
        return parts | {"text": padded(parts["text"], self.text_tokens)}

    def batch(self, indices: Iterable[int]) -> Batch:
        """The samples of these indices together."""
        parts = [self.sample(index) for index in indices]
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        return Batch(stacked["latents"], stacked["text"], stacked.get("image"), stacked.get("condition"))

    def at(self, position: int, size: int, seed: int) -> Batch:
        """The batch at a position of the training: `sample_order` says of which samples; none of the last `held_out`."""
        return self.batch(sample_order(self.trained, position, size, seed))

    @property
    def trained(self) -> int:
        """How many samples are trained on."""
        return len(self) - self.held_out


def sample_order(samples: int, position: int, size: int, seed: int) -> list[int]:
    """Indices of batch `position` of an endless stream: every epoch another permutation, decided by the seed alone.

    A state that knows its position therefore needs nothing else to go on exactly.

    >>> first, second = sample_order(4, 0, 2, seed=1), sample_order(4, 1, 2, seed=1)
    >>> sorted(first + second)
    [0, 1, 2, 3]
    """
    return [sample for _, sample in epochs_and_samples(samples, position, size, seed)]


def epochs_and_samples(samples: int, position: int, size: int, seed: int) -> list[tuple[int, int]]:
    """The same with the epoch that each of them is in."""
    places = [divmod(number, samples) for number in range(position * size, (position + 1) * size)]
    orders = {epoch: _permutation(samples, seed, epoch) for epoch, _ in places}
    return [(epoch, orders[epoch][place]) for epoch, place in places]


def _permutation(samples: int, seed: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch + 2**40) % (2**63))
    return torch.randperm(samples, generator=generator).tolist()


def trimmed(text: torch.Tensor) -> torch.Tensor:
    """An embedding [tokens, dim] without the zeros that follow the text, at least one token.

    >>> trimmed(torch.tensor([[1.0], [2.0], [0.0]])).tolist()
    [[1.0], [2.0]]
    """
    written = (text != 0).any(dim=1).nonzero()
    return text[: int(written[-1]) + 1 if len(written) else 1]


def padded(text: torch.Tensor, tokens: int) -> torch.Tensor:
    """An embedding [some, dim] with zeros after it, [tokens, dim], in float32, as Wan's pipelines pad.

    >>> padded(torch.tensor([[1.0]]), 2).tolist()
    [[1.0], [0.0]]
    """
    return torch.cat([text.float(), torch.zeros(tokens - len(text), text.shape[1])])


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard lies."""
    return folder / "shards" / f"{number:05d}.safetensors"


def _write(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    with replacing(path) as temporary:
        # Samples may share a text, files may not.
        save_file({name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}, str(temporary))


def _check_same(folder: Path, index: Mapping[str, Any]) -> None:
    path = folder / INDEX
    if not path.is_file():
        # Another process may be about to begin the same.
        if folder.exists() and any(each.name != "shards" and each.name[0] != "." for each in folder.iterdir()):
            raise InputError("--out", got=f"{folder}, not empty", expected="a new folder", fix="another folder")
        return
    try:
        there = json.loads(path.read_text("utf-8"))
    except ValueError:
        there = {}
    wanted = json.loads(json.dumps(index))
    wanted = json.loads(json.dumps(index))
    names = (wanted.keys() | there.keys()) - {"versions"}
    if different := sorted(name for name in names if wanted.get(name) != there.get(name)):
        raise InputError(
            "--out",
            got=f"{folder}, samples with another {', '.join(different)}",
            expected="the same samples, to go on",
            fix="another folder, or the words it was begun with",
        )
