"""Which steps and branches of a run are meant: by index, by name, or by a range of timesteps."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from analysis.manifest import Manifest, Statistic
from pare.errors import InputError


class Where(TypedDict, total=False):
    """Filters when reading a run; what is left out filters nothing. `t_min` <= timestep <= `t_max`."""

    branch: str | None
    steps: Sequence[int] | None
    t_min: float | None
    t_max: float | None


def choose(manifest: Manifest, where: Where) -> tuple[list[int], list[str]]:
    """Step indices and branch names that are meant. Raises InputError for what the run does not have."""
    timesteps = manifest.timesteps
    steps, branch = where.get("steps"), where.get("branch")
    chosen = list(range(len(timesteps))) if steps is None else within("step", steps, len(timesteps))
    low, high = where.get("t_min"), where.get("t_max")
    low, high = -np.inf if low is None else low, np.inf if high is None else high
    inside = [step for step in chosen if low <= timesteps[step] <= high]
    if chosen and not inside:
        raise InputError(
            "timesteps",
            got=f"{low:g} to {high:g}",
            expected=f"a range with some of {', '.join(f'{timesteps[step]:g}' for step in chosen)}",
            fix="widen the range",
        )
    if branch is not None and branch not in manifest.branches:
        raise InputError(
            "--branch", got=branch, expected=" or ".join(manifest.branches), fix="choose a branch of the run"
        )
    return inside, list(manifest.branches) if branch is None else [branch]


def choose_measured(manifest: Manifest, name: str, where: Where) -> tuple[list[int], list[str]]:
    """The same, of a statistic: only where it was measured. Raises InputError where nothing is left."""
    steps, branches = choose(manifest, where)
    own_steps, own_branches = measured_at(manifest, manifest.statistics[name])
    there = [step for step in steps if step in own_steps], [each for each in branches if each in own_branches]
    if (steps and not there[0]) or not there[1]:
        raise InputError(
            name,
            got=f"steps {steps}, branch {' or '.join(branches)}",
            expected=f"some of steps {own_steps}, branch {' or '.join(own_branches)}, where it was measured",
            fix="widen the selection",
        )
    return there


def measured_at(manifest: Manifest, statistic: Statistic) -> tuple[list[int], list[str]]:
    """Step indices and branch names along the first axes of a statistic."""
    steps = range(len(manifest.timesteps)) if statistic.steps is None else statistic.steps
    return list(steps), list(manifest.branches if statistic.branches is None else statistic.branches)


def within(what: str, indices: Sequence[int], count: int) -> list[int]:
    """The indices, all of them inside `count`. Raises InputError that says `what` they are."""
    for index in indices:
        if not 0 <= index < count:
            raise InputError(what, got=index, expected=f"0 to {count - 1}", fix=f"choose a {what} of the run")
    return list(indices)
