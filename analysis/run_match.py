"""What two runs have in common: the same samples, steps and branches; or why one cannot be subtracted from the other."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.runs import Run
from pare.errors import InputError

SHAPE = ("blocks", "heads", "head_dim")
"""What makes head 7 of block 3 the same place in two models."""
SAME_TIMESTEP = 1.0
"""Schedules whose timesteps differ by no more than this at any step are one schedule: some round t, some do not."""
# Settings that say where a run was made, not what was measured.
ELSEWHERE = ("seed", "device", "offload", "dry_run")


@dataclass(frozen=True)
class Match:
    """Which parts of run A and run B belong together.

    `samples` are index pairs of equal prompt, seed and source, `only_a` and `only_b` count the others; step i of A is
    step i of B; `branches` are those that both have; `differs` names what is not alike, as (of A, of B).
    """

    samples: tuple[tuple[int, int], ...]
    only_a: int
    only_b: int
    branches: tuple[str, ...]
    differs: dict[str, tuple[Any, Any]]


def match_runs(a: Run, b: Run) -> Match:
    """Pair the finished samples of two runs of one geometry, clip length and schedule.

    Raises `InputError` with what differs where B − A would have no meaning: other blocks, heads or head size, another
    number of latent frames (the ratio of uniform attention is 1/Fl), other timesteps, or no common branch.
    """
    shapes = tuple(tuple(getattr(run.geometry, name) for name in SHAPE) for run in (a, b))
    if shapes[0] != shapes[1]:
        raise _apart(
            *(f"{blocks} blocks of {heads} heads of size {size}" for blocks, heads, size in shapes),
            expected="runs of one geometry",
            fix="compare runs of one model, or of a student and its teacher",
        )
    if a.num_frames != b.num_frames:
        raise _apart(
            *(f"{run.num_frames} latent frames" for run in (a, b)),
            expected="clips of one length, since uniform attention has r = 1/Fl",
            fix="capture both with the same --frames",
        )
    if a.timesteps.shape != b.timesteps.shape or np.abs(a.timesteps - b.timesteps).max(initial=0) > SAME_TIMESTEP:
        raise _apart(
            *(_schedule(run) for run in (a, b)),
            expected="the same timesteps",
            fix="capture both with the same --mode, --steps and --shift",
        )
    branches = tuple(branch for branch in a.branches if branch in b.branches)
    if not branches:
        raise _apart(
            *(f"branch {' and '.join(run.branches)}" for run in (a, b)),
            expected="a branch that both have",
            fix="capture both with or without guidance",
        )
    places = _places(b)
    pairs = tuple((one, places[key]) for key, one in _places(a).items() if key in places)
    return Match(pairs, len(a.finished) - len(pairs), len(b.finished) - len(pairs), branches, _differs(a, b))


def prompt_of(run: Run, sample: int) -> tuple[str, str | None]:
    """What counts as one prompt: samples of it are not independent, whatever their seeds."""
    found = run.manifest.samples[sample]
    return found.prompt, found.source


def _places(run: Run) -> dict[tuple[Any, ...], int]:
    """Finished samples by what was asked for; the first where a run has one twice."""
    places: dict[tuple[Any, ...], int] = {}
    for index in run.finished:
        places.setdefault((*prompt_of(run, index), run.manifest.samples[index].seed), index)
    return places


def _differs(a: Run, b: Run) -> dict[str, tuple[Any, Any]]:
    """What is not alike in how two runs were made, the model first."""
    left, right = (
        {
            **{name: run.manifest.model.get(name) for name in ("model_id", "config_hash", "weight_hash")},
            "mode": run.manifest.mode,
            "branches": ", ".join(run.branches),
            **run.manifest.clip,
            **run.manifest.settings,
        }
        for run in (a, b)
    )
    names = [name for name in dict.fromkeys([*left, *right]) if name not in ELSEWHERE]
    return {name: (left.get(name), right.get(name)) for name in names if left.get(name) != right.get(name)}


def _schedule(run: Run) -> str:
    steps = run.timesteps
    return f"{len(steps)} timesteps from {steps[0]:.0f} to {steps[-1]:.0f}" if len(steps) else "no timesteps"


def _apart(of_a: str, of_b: str, *, expected: str, fix: str) -> InputError:
    return InputError("B − A", got=f"A with {of_a}, B with {of_b}", expected=expected, fix=fix)
