"""The part of a run that is looked at, averaged when it is read: over samples, steps and guidance branches."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.runs import Run
from pare.errors import InputError


@dataclass(frozen=True)
class Cells:
    """One statistic of the chosen steps and branches over samples: count, mean and spread [step, branch, block, head].

    `samples` counts the samples behind the view, `timesteps` [step] are in 0..1000.
    """

    timesteps: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    std: np.ndarray

    @property
    def samples(self) -> int:
        """The smallest count of any captured cell."""
        counted = self.n[self.n > 0]
        return int(counted.min()) if counted.size else 0

    def by_head(self) -> np.ndarray:
        """Mean over steps and branches [block, head]; NaN where nothing was captured."""
        return self._by_head.copy()

    def by_step(self) -> np.ndarray:
        """Mean over branches [step, block, head]; NaN where nothing was captured."""
        return self._by_step.copy()

    def error_by_head(self) -> np.ndarray:
        """Standard error over samples of `by_head` [block, head]; NaN below two samples, never too small (see below)."""
        return self._error_by_head.copy()

    def error_by_step(self) -> np.ndarray:
        """Standard error over samples of `by_step` [step, block, head]; NaN below two samples.

        The branches of one sample move together, so their errors are averaged, not divided: never too small.
        """
        return self._error_by_step.copy()

    # A page asks for them again and again.
    @cached_property
    def _by_head(self) -> np.ndarray:
        return average(self.mean, (0, 1))

    @cached_property
    def _by_step(self) -> np.ndarray:
        return average(self.mean, (1,))

    @cached_property
    def _error_by_head(self) -> np.ndarray:
        return average(self._error, (0, 1))

    @cached_property
    def _error_by_step(self) -> np.ndarray:
        return average(self._error, (1,))

    @property
    def _error(self) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(self.std / np.sqrt(self.n))


def read_cells(
    run: Run,
    name: str = "self/ratio",
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    cell: tuple[int, int] | None = None,
) -> Cells:
    """The statistic `name` over [step, branch, block, head] of one sample, or of all from the run's summary.

    With `cell`, a (block, head), no more than that head is read, and its axes are 1 long. Raises `InputError` for a
    statistic, sample, branch or step that the run does not have.
    """
    step_axis, branch_axis = chosen_axes(run, name, branch, steps)
    if sample is None:
        summary = run.summary(name, cell)
        n, mean, std = summary["n"], summary["mean"], summary["std"]
    else:
        shape = run.manifest.statistics[name].shape
        own = shape if cell is None else (*shape[:2], 1, 1, *shape[4:])
        mean = run.sample(sample, [name], cell).get(name, np.full(own, np.nan, np.float32))
        n, std = (~np.isnan(mean)).astype(np.int32), np.full_like(mean, np.nan)
    chosen = np.ix_(step_axis, branch_axis)
    return Cells(timesteps_of(run, name, branch, steps), n[chosen], mean[chosen], std[chosen])


def head_by_sample(
    run: Run,
    block: int,
    head: int,
    name: str = "self/ratio",
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    values: np.ndarray | None = None,
) -> np.ndarray:
    """One head's values [sample, step], averaged over branches; only samples that are on disk.

    `values` is `run.array(name, run.finished)` where the caller holds it already; else the samples are read.
    """
    step_axis, branch_axis = chosen_axes(run, name, branch, steps)
    if values is not None and (sample is None or sample in run.finished):
        values = values if sample is None else values[[run.finished.index(sample)]]
    else:
        values = run.array(name, run.finished if sample is None else [sample])
    values = values[:, :, :, block, head]
    return average(values[:, step_axis][:, :, branch_axis], (2,))


def mean_frame_map(
    run: Run, *, sample: int | None = None, branch: str | None = None, steps: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """Frame maps of all heads [block, head, frame_q, frame_k], the timesteps they are from, and the samples behind them.

    The mean over samples, steps and branches; each row of a map sums to 1. None where this part of the run has no map:
    maps are kept at some steps, on one branch and for some samples.
    """
    return _frame_maps(run, sample, branch, steps, None)


def head_frame_map(
    run: Run,
    block: int,
    head: int,
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray, int] | None:
    """The same of one head [frame_q, frame_k]; no other head is read, which for a large model takes long."""
    found = _frame_maps(run, sample, branch, steps, (block, head))
    return None if found is None else (found[0][0, 0], *found[1:])


def _frame_maps(
    run: Run, sample: int | None, branch: str | None, steps: Sequence[int] | None, cell: tuple[int, int] | None
) -> tuple[np.ndarray, np.ndarray, int] | None:
    if "self/frame_map" not in run.statistics:
        return None
    try:
        cells = read_cells(run, "self/frame_map", sample=sample, branch=branch, steps=steps, cell=cell)
    except InputError:
        return None
    if not cells.samples:
        return None
    return average(cells.mean, (0, 1)), cells.timesteps, cells.samples


def chosen_axes(run: Run, name: str, branch: str | None, steps: Sequence[int] | None) -> tuple[list[int], list[int]]:
    """Positions on the statistic's own step and branch axes, which may hold a part of the run's."""
    if name not in run.statistics:
        raise InputError("statistic", got=name, expected=f"one of {', '.join(run.statistics)}", fix="capture it first")
    statistic = run.manifest.statistics[name]
    own_steps = list(range(len(run.timesteps)) if statistic.steps is None else statistic.steps)
    own_branches = list(run.branches if statistic.branches is None else statistic.branches)
    step_axis = [i for i, step in enumerate(own_steps) if steps is None or step in steps]
    branch_axis = [i for i, one in enumerate(own_branches) if branch is None or one == branch]
    if not step_axis or not branch_axis:
        raise InputError(
            "steps and branch",
            got=f"steps {list(steps or own_steps)}, branch {branch or 'all'}",
            expected=f"steps of {own_steps[0]} to {own_steps[-1]}, branch {' or '.join(own_branches)}",
            fix="widen the selection",
        )
    return step_axis, branch_axis


def timesteps_of(run: Run, name: str, branch: str | None = None, steps: Sequence[int] | None = None) -> np.ndarray:
    """The timesteps [step] of a statistic in a part of a run. Raises `InputError` as `chosen_axes` does."""
    step_axis, _ = chosen_axes(run, name, branch, steps)
    own_steps = run.manifest.statistics[name].steps
    timesteps = run.timesteps if own_steps is None else run.timesteps[list(own_steps)]
    return np.asarray(timesteps[step_axis])


def average(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Mean over these axes of the cells that are there, NaN where none is.

    >>> average(np.array([[1.0, np.nan], [3.0, np.nan]]), (0,)).tolist()
    [2.0, nan]
    """
    there = ~np.isnan(values)
    # Nearly always nothing is missing, and then there is nothing to count, which takes most of the time.
    if there.all() and values.size:
        return np.asarray(values.mean(axis=axes, dtype=np.float64))
    count = there.sum(axis=axes)
    total = np.where(there, values, 0.0).sum(axis=axes, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
