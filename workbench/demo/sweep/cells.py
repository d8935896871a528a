"""The cells of the sweep: a training per way to choose heads and per share that is cut, looked at after so many steps."""

from dataclasses import asdict, dataclass
from functools import reduce
from math import gcd
from pathlib import Path
from typing import Any

from pare import cost
from pare.training.plan import Setup, step_flops
from pare.width.budget import Ratios
from workbench.demo.results.effort import (
    AROUND_SECONDS,
    REFERENCE_FORWARDS,
    SCORE_SECONDS,
    START_SECONDS,
    VIDEO_SECONDS,
    Effort,
)

METHODS = {"PARE": "pare", "α = 1": "alpha-1", "random": "random"}
SIGMAS_AND_FORWARDS = 6


@dataclass(frozen=True)
class Plan:
    """How much the sweep does. `steps` are when a student is looked at, 0 before any training; the last ends the training."""

    ratios: tuple[float, ...] = (0.3, 0.5, 0.7)
    steps: tuple[int, ...] = (0, 50, 200, 1000)
    held_out: int = 64
    videos: int = 24
    samples: int = 2048
    batch: int = 2
    learning_rate: float = 5e-4

    @property
    def train_steps(self) -> int:
        """Steps of a training."""
        return max(self.steps)

    @property
    def every(self) -> int:
        """Training steps after which it is asked whether to look.

        >>> Plan().every
        50
        """
        return reduce(gcd, [step for step in self.steps if step])


@dataclass(frozen=True)
class Cell:
    """One training: `method` as people call it, and the share of heads and neurons that is cut."""

    method: str
    ratio: float

    @property
    def mask(self) -> str:
        """The key of its mask in `workbench.demo.results.rows.MASKS`."""
        return METHODS[self.method]

    @property
    def name(self) -> str:
        """Its folders' name.

        >>> Cell("α = 1", 0.3).name
        'alpha-1-30'
        """
        return f"{self.mask}-{round(100 * self.ratio)}"

    def observation(self, folder: Path, step: int) -> Path:
        """Where what was seen at a step lies."""
        return folder / "observations" / self.name / f"{step:06d}.json"


def cells(plan: Plan) -> list[Cell]:
    """All of them, small cuts first."""
    return [Cell(method, ratio) for ratio in plan.ratios for method in METHODS]


def seconds(cell: Cell, plan: Plan, effort: Effort) -> float:
    """How long a cell takes on two idle cores, about."""
    geometry, clip = effort.geometry, effort.run.clip
    counts: dict[str, Any] = asdict(Ratios(ratio=cell.ratio).counts(geometry))
    training = plan.train_steps * step_flops(geometry, clip, counts, Setup("width", batch=plan.batch)) / effort.speed
    forward = (VIDEO_SECONDS - AROUND_SECONDS) / REFERENCE_FORWARDS
    share = cost.flops(geometry, clip, **counts).total / cost.flops(geometry, clip).total
    look = plan.held_out * SIGMAS_AND_FORWARDS * forward + plan.videos * (VIDEO_SECONDS * share + SCORE_SECONDS)
    return START_SECONDS + training + len(plan.steps) * look


def plan_lines(plan: Plan, effort: Effort) -> list[str]:
    """The plan for people."""
    lines = [f"{'cut':>5}  {'heads by':<10}{'steps':>7}{'hours':>8}"]
    total = 0.0
    for cell in cells(plan):
        own = seconds(cell, plan, effort)
        total += own
        lines.append(f"{cell.ratio:>5.0%}  {cell.method:<10}{plan.train_steps:>7}{own / 3600:>8.2f}")
    looks = ", ".join(map(str, plan.steps))
    lines.append(
        f"{len(cells(plan))} trainings, looked at after {looks} steps: {plan.held_out} held-out samples, {plan.videos} "
        f"videos each time; about {total / 3600:.1f} h on two idle cores"
    )
    return lines
