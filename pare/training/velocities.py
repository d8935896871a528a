"""The teacher's velocities computed once, so that a training without features needs no teacher beside the student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from pare.processes import THE_ONLY_ONE, Process
from pare.progress import Progress, silent
from pare.training.data import SHARD_SAMPLES, STORED, LatentData, Shards, begin, write_shards
from pare.training.sampling import noised, shifted_sigma
from pare.training.stages import Draw, teacher_velocity

SCHEMA = "pare-velocities/1"


class Velocities(Shards):
    """What `write_velocities` stored: of sample i `velocity` [draws, channels, frames, height, width]."""

    schema, flag, fix = SCHEMA, "velocities", "the same pare distill again"

    @property
    def draws(self) -> int:
        """How many noise levels of every sample there are; an epoch takes one of them, in turn."""
        return int(self.about["draws"])

    def draw(self, data: LatentData, places: Sequence[tuple[int, int]]) -> tuple[Draw, torch.Tensor]:
        """The batch of these (epoch, sample) and the teacher's velocities [batch, …] there."""
        batch = data.batch([sample for _, sample in places])
        shift, seed = float(self.about["shift"]), int(self.about["seed"])
        drawn = [fixed_draw(batch.clean[:1], sample, epoch % self.draws, shift, seed) for epoch, sample in places]
        sigma, noise = (torch.cat(each) for each in zip(*drawn, strict=True))
        stored = [self.tensors(sample)["velocity"][epoch % self.draws].float() for epoch, sample in places]
        return Draw(batch, noise, sigma), torch.stack(stored)


def fixed_draw(
    like: torch.Tensor, sample: int, draw: int, shift: int | float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """σ [1] and ε (of the shape of `like`) of a draw of a sample, decided by the seed alone; σ as in training.

    >>> sigma, noise = fixed_draw(torch.zeros(1, 1, 1, 2, 2), sample=3, draw=0, shift=3.0, seed=0)
    >>> sigma.shape, noise.shape
    (torch.Size([1]), torch.Size([1, 1, 1, 2, 2]))
    """
    number = (seed * 1_000_003 + sample) * 1_009 + draw
    generator = torch.Generator().manual_seed((number + 2**42) % 2**63)
    sigma = shifted_sigma(torch.rand(1, generator=generator), shift)
    return sigma, torch.randn(like.shape, generator=generator)


def write_velocities(
    folder: str | Path,
    teacher: Any,
    data: LatentData,
    draws: int,
    about: Mapping[str, Any],
    *,
    shift: int | float,
    seed: int,
    device: torch.device,
    compute: torch.dtype = torch.float32,
    process: Process = THE_ONLY_ONE,
    progress: Progress = silent,
) -> None:
    """Run the frozen teacher at `draws` noise levels of every sample and store its velocities; a second call goes on."""
    folder = Path(folder)
    index = {"schema": SCHEMA, "count": len(data), "shard_samples": SHARD_SAMPLES, "draws": draws}
    begin(folder, {**index, "shift": float(shift), "seed": seed, **about})

    def make(sample: int) -> dict[str, torch.Tensor]:
        batch, found = data.batch([sample]).to(device), []
        for draw in range(draws):
            sigma, noise = (each.to(device) for each in fixed_draw(batch.clean, sample, draw, shift, seed))
            found.append(teacher_velocity(teacher, batch.inputs(noised(batch.clean, noise, sigma), sigma), compute))
        return {"velocity": torch.cat(found).to(STORED)}

    write_shards(folder, len(data), make, SHARD_SAMPLES, process=process, progress=progress)
