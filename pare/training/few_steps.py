"""Stage III: a student that needs four steps and no guidance, from the teacher's trajectories and by discrete consistency.

The student's x0 at noise σ is f(x, σ) = x − σ·v(x, σ). First f is regressed on the ends of stored teacher trajectories; then
f(x_σ, σ) follows the stop-gradient f(x_σ', σ') at the next grid point σ' < σ, where x_σ' is one Euler step of the guided teacher
away and f(x, 0) = x. No further networks are needed, and nothing is drawn but what the generator gives.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float

from pare.depth.budget import shifted_timesteps
from pare.errors import InputError
from pare.processes import THE_ONLY_ONE, Process
from pare.progress import Progress, silent
from pare.training.data import STORED, Batch, LatentData, Shards, begin, sample_order, write_shards
from pare.training.losses import velocity_loss
from pare.training.parallel import computing
from pare.training.plan import grid_of
from pare.training.sampling import noised
from pare.training.stages import StageSettings, routing_metrics, teacher_velocity

SCHEMA = "pare-trajectories/1"
# A trajectory of a large model takes minutes, which is what a kill then loses.
TRAJECTORY_SHARD = 1


@dataclass(frozen=True)
class FewStepSettings(StageSettings):
    """Stage III: the student's `steps`, the grid of the teacher's Euler steps, its `guidance`, and how many batches regress.

    `grid` is rounded up to a multiple of `steps`, so that the student's points lie on it.
    """

    steps: int = 4
    grid: int = 50
    guidance: int | float = 5.0
    regression_batches: int = 0

    @property
    def sigmas(self) -> tuple[float, ...]:
        """The grid, noisiest first, 0 at the end.

        >>> [round(each, 3) for each in FewStepSettings(steps=2, grid=3).sigmas]
        [1.0, 0.9, 0.75, 0.5, 0.0]
        """
        return sigma_grid(grid_of(self.grid, self.steps), self.shift)


def sigma_grid(steps: int, shift: int | float) -> tuple[float, ...]:
    """σ of a sampler of so many steps, and 0 at the end.

    >>> sigma_grid(4, 3.0)
    (1.0, 0.9, 0.75, 0.5, 0.0)
    """
    return (*(round(t / 1000, 12) for t in shifted_timesteps(steps, shift)), 0.0)


def clean_estimate(
    states: Float[torch.Tensor, "batch channels frames height width"],
    velocity: Float[torch.Tensor, "batch channels frames height width"],
    sigma: Float[torch.Tensor, "batch"],
) -> Float[torch.Tensor, "batch channels frames height width"]:
    """f = x − σ·v, the clean latents that a velocity points to.

    >>> clean_estimate(torch.ones(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1), torch.tensor([0.25])).item()
    0.75
    """
    return states - sigma[:, None, None, None, None] * velocity


def guided_velocity(
    teacher: Any, batch: Batch, empty: torch.Tensor, states: torch.Tensor, sigma: torch.Tensor, guidance: int | float,
    compute: torch.dtype,
) -> torch.Tensor:  # fmt: skip
    """v_uncond + g·(v_cond − v_uncond) of the frozen teacher; one forward where g is 1."""
    conditional = teacher_velocity(teacher, batch.inputs(states, sigma), compute)
    if guidance == 1:
        return conditional
    without = replace(batch, text=empty.to(batch.text).expand_as(batch.text))
    unconditional = teacher_velocity(teacher, without.inputs(states, sigma), compute)
    return unconditional + guidance * (conditional - unconditional)


@torch.no_grad()
def teacher_trajectory(
    velocity: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, sigmas: Sequence[float]
) -> list[torch.Tensor]:
    """The states x_σ at every point of the grid by Euler's method, from the noise to σ = 0."""
    states = [noise]
    for sigma, following in pairwise(sigmas):
        level = torch.full((len(noise),), sigma, device=noise.device)
        states.append(states[-1] + (following - sigma) * velocity(states[-1], level))
    return states


def write_trajectories(
    folder: str | Path,
    teacher: Any,
    data: LatentData,
    settings: FewStepSettings,
    count: int,
    about: Mapping[str, Any],
    *,
    device: torch.device,
    compute: torch.dtype = torch.float32,
    process: Process = THE_ONLY_ONE,
    progress: Progress = silent,
) -> None:
    """Sample the guided teacher `count` times and keep the states at the student's grid points; a second call goes on.

    Trajectory i has the conditions of sample i of the data (from the start again where there are fewer) and noise of its own
    seed.
    """
    folder, sigmas = Path(folder), settings.sigmas
    stride = (len(sigmas) - 1) // settings.steps
    index = {"schema": SCHEMA, "count": count, "shard_samples": TRAJECTORY_SHARD, "sigmas": list(sigmas[::stride])}
    begin(folder, {**index, "guidance": settings.guidance, "grid": len(sigmas) - 1, "seed": settings.seed, **about})
    empty = data.empty.to(device)

    def make(number: int) -> dict[str, torch.Tensor]:
        batch = data.batch([number % data.trained]).to(device)
        generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + number + 2**41) % (2**63))
        noise = torch.randn(batch.clean.shape, generator=generator).to(device)

        def velocity(states: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return guided_velocity(teacher, batch, empty, states, sigma, settings.guidance, compute)

        states = teacher_trajectory(velocity, noise, sigmas)[::stride]
        return {"states": torch.cat(states).to(STORED)}

    write_shards(folder, count, make, TRAJECTORY_SHARD, process=process, progress=progress)


class Trajectories(Shards):
    """The teacher's trajectories that `write_trajectories` stored; sample i is `states` [points, channels, …]."""

    schema, flag, fix = SCHEMA, "trajectories", "the same pare distill steps again"


class FewStepDistillation:
    """The loss of stage III, for `pare.training.loop.train`: regression for the first batches, consistency after them."""

    def __init__(
        self,
        teacher: Any,
        student: Any,
        data: LatentData,
        trajectories: Trajectories | None,
        settings: FewStepSettings,
        *,
        device: torch.device,
        compute: torch.dtype = torch.float32,
    ):
        if settings.regression_batches and trajectories is None:
            raise InputError("trajectories", got="none", expected="some, to regress on", fix="--regression-steps 0")
        self.teacher, self.student, self.data, self.trajectories = teacher, student, data, trajectories
        self.settings, self.device, self.compute = settings, device, compute

    def __call__(
        self, model: Any, number: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss of batch `number`, and its name."""
        regress = number < self.settings.regression_batches
        value = self.regression(model, number, generator) if regress else self.consistency(model, number, generator)
        name = "regression" if regress else "consistency"
        return value, {name: value} | routing_metrics(self.student, self.device)

    def regression(self, model: Any, number: int, generator: torch.Generator) -> torch.Tensor:
        """Mean of (v − (x_σ − x_end)/σ)² at a random stored point of the teacher's trajectories."""
        assert self.trajectories is not None
        settings, trajectories = self.settings, self.trajectories
        order = sample_order(len(trajectories), number, settings.batch, settings.seed)
        states = torch.stack([trajectories.tensors(index)["states"].float() for index in order])
        points = torch.randint(settings.steps, (len(order),), generator=generator)
        sigma = torch.tensor(trajectories.about["sigmas"])[points].to(self.device)
        here = states[torch.arange(len(order)), points].to(self.device)
        end = states[:, -1].to(self.device)
        batch = self.data.batch([index % self.data.trained for index in order]).to(self.device)
        with computing(self.device, self.compute):
            velocity = model(**batch.inputs(here, sigma))[0]
        return velocity_loss(velocity, (here - end) / sigma[:, None, None, None, None])

    def consistency(self, model: Any, number: int, generator: torch.Generator) -> torch.Tensor:
        """Mean of (f(x_σ, σ) − sg f(x_σ', σ'))² with x_σ' one guided Euler step of the teacher from x_σ."""
        settings = self.settings
        grid = torch.tensor(settings.sigmas)
        batch = self.data.at(number, settings.batch, settings.seed).to(self.device)
        points = torch.randint(len(grid) - 1, (len(batch.clean),), generator=generator)
        sigma, following = grid[points].to(self.device), grid[points + 1].to(self.device)
        noise = torch.randn(batch.clean.shape, generator=generator).to(self.device)
        states = noised(batch.clean, noise, sigma)
        velocity = guided_velocity(
            self.teacher, batch, self.data.empty.to(self.device), states, sigma, settings.guidance, self.compute
        )
        moved = clean_estimate(states, velocity, sigma - following)
        # Each in an autocast of its own: it may keep the weights that it casts, and those of the first have no gradient.
        with torch.no_grad(), computing(self.device, self.compute):
            # At σ' = 0 this is the state itself, whatever the student says.
            target = clean_estimate(moved, model(**batch.inputs(moved, following))[0].float(), following)
        with computing(self.device, self.compute):
            found = clean_estimate(states, model(**batch.inputs(states, sigma))[0].float(), sigma)
        return (found - target.detach()).square().mean()


@torch.no_grad()
def sample_few_steps(
    student: Any, batch: Batch, noise: torch.Tensor, sigmas: Sequence[float], compute: torch.dtype = torch.float32
) -> torch.Tensor:
    """Clean latents from noise by Euler steps along the student's velocity, without guidance."""

    def velocity(states: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        with computing(states.device, compute):
            return student(**batch.inputs(states, sigma))[0].float()

    return teacher_trajectory(velocity, noise, sigmas)[-1]
