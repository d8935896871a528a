"""Scores of attention heads: values per sample or per head, and the scorers that need no model but a run or a seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from analysis.aggregate import average
from analysis.importance import norm_over_timesteps
from analysis.redraw import drawn_counts
from analysis.runs import Run
from pare.errors import InputError

Finish: TypeAlias = Literal["mean", "root", "absolute"]


@dataclass(frozen=True, eq=False)
class Scores:
    """What one scorer says of every head: `values` {"self": …, "cross": …}, higher = to be kept.

    Each array is [sample, block, head], or [block, head] where no sample is involved (weights, a seed). A head's score
    is the mean over samples, then `finish`: as it is, its root (values are squares) or its absolute value. `notes` are
    numbers about the scoring itself.

    >>> scores = Scores("demo", {"self": np.array([[[1.0, -4.0]], [[3.0, -2.0]]])}, finish="absolute")
    >>> scores.n, scores.score("self").tolist()
    (2, [[2.0, 3.0]])
    """

    name: str
    values: Mapping[str, np.ndarray]
    finish: Finish = "mean"
    notes: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {kind: values.shape for kind, values in self.values.items()}
        if not shapes or len(set(shapes.values())) > 1 or any(len(shape) not in (2, 3) for shape in shapes.values()):
            raise InputError(f"scores, {self.name}", got=shapes, expected="[sample, block, head]", fix="one shape")

    @property
    def n(self) -> int:
        """Samples behind a score; 0 where none is involved."""
        some = next(iter(self.values.values()))
        return len(some) if some.ndim == 3 else 0

    @property
    def scored(self) -> int:
        """Those of the `n` samples that have a score of any head: a statistic may be captured in fewer than others."""
        some = next(iter(self.values.values()))
        return int((~np.isnan(some)).any(axis=(1, 2)).sum()) if some.ndim == 3 else 0

    def score(self, kind: str = "self", counts: np.ndarray | None = None) -> np.ndarray:
        """Score of every head [block, head]; NaN where it has none. `counts` [sample] weighs the samples (bootstrap)."""
        if kind not in self.values:
            raise InputError(
                f"scores, {self.name}", got=f"none for {kind}", expected="/".join(self.values), fix="a kind"
            )
        values = np.asarray(self.values[kind], float)
        if values.ndim == 2:
            return values
        if counts is None:
            return self._scores[kind].copy()
        weights = (~np.isnan(values)) * np.asarray(counts, float)[:, None, None]
        total = weights.sum(axis=0)
        summed = (np.nan_to_num(values) * weights).sum(axis=0)
        mean = np.divide(summed, total, out=np.full(summed.shape, np.nan), where=total > 0)
        return finished(mean, self.finish)

    # A page asks for the ranks of one head after another.
    @cached_property
    def _scores(self) -> dict[str, np.ndarray]:
        return {
            kind: finished(average(np.asarray(each, float), (0,)), self.finish) for kind, each in self.values.items()
        }

    def interval(self, kind: str = "self", seed: int = 0, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Percentile bootstrap of `score` over samples: (low, high) [block, head]; NaN below two samples."""
        if self.n < 2:
            empty = np.full(self.score(kind).shape, np.nan)
            return empty, empty.copy()
        draws = drawn_counts(self.n, seed)
        values = np.asarray(self.values[kind], float)
        flat = values.reshape(self.n, -1)
        there = ~np.isnan(flat)
        # All draws at once: `score` of each, as two products.
        total, summed = draws @ there.astype(float), draws @ np.where(there, flat, 0.0)
        mean = np.divide(summed, total, out=np.full(summed.shape, np.nan), where=total > 0)
        redrawn = finished(mean, self.finish).reshape(len(draws), *values.shape[1:])
        # The one that knows NaN takes several times as long.
        take = np.nanquantile if np.isnan(redrawn).any() else np.quantile
        low, high = take(redrawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


def finished(mean: np.ndarray, finish: Finish) -> np.ndarray:
    """The last step from a mean over samples to a score.

    >>> finished(np.array([4.0]), "root").tolist(), finished(np.array([-4.0]), "absolute").tolist()
    ([2.0], [4.0])
    """
    if finish == "root":
        return np.sqrt(mean)
    return np.abs(mean) if finish == "absolute" else mean


def pare_scores(run: Run, branch: str | None = None) -> Scores:
    """Eq. 3 per sample of a run (PARE), before protection; for image-to-video text and image parts are summed."""
    return run_scores(run, "pare", branch)


def projected_energy_scores(run: Run, branch: str | None = None) -> Scores:
    """sqrt(E‖W_O^h ṽ_h‖²_F): what a head adds to the residual stream, from the run's norms `self/projected_energy`.

    The mean is over samples, steps and branches, the root last. `cross` is there where the run has it.
    """
    return run_scores(run, "projected_energy", branch)


@dataclass(frozen=True)
class RunScorer:
    """A scorer that reads a run alone: `statistics` by kind of attention, of which the run must have those of `needs`.

    Each value goes through `of_cell`; a sample's score of a head is their mean over steps and branches or, where
    `weighed`, their sum by Eq. 3. The statistics of one kind are summed.
    """

    statistics: Mapping[str, tuple[str, ...]]
    needs: tuple[str, ...]
    of_cell: Callable[[np.ndarray], np.ndarray]
    finish: Finish = "mean"
    weighed: bool = False


RUN_SCORERS: Mapping[str, RunScorer] = {
    "pare": RunScorer(
        {"self": ("self/value_norm",), "cross": ("cross/value_norm", "cross/image_value_norm")},
        needs=("self/value_norm", "cross/value_norm"),
        of_cell=lambda norm: norm,
        weighed=True,
    ),
    "projected_energy": RunScorer(
        {"self": ("self/projected_energy",), "cross": ("cross/projected_energy",)},
        needs=("self/projected_energy",),
        of_cell=lambda norm: norm**2,
        finish="root",
    ),
    # 1 − r, the share of attention that leaves the frame of the query: what F3-Pruning (Su et al. 2024) ranks the temporal
    # attention of a factorised model by, for attention over all frames at once. There is none for cross-attention.
    "temporal_attention": RunScorer(
        {"self": ("self/ratio",)}, needs=("self/ratio",), of_cell=lambda ratio: 1 - ratio
    ),
}  # fmt: skip


def run_scores(run: Run, scorer: str, branch: str | None = None) -> Scores:
    """The scores of one of `RUN_SCORERS` on one branch, or on all together; raises as `scores_by_branch` does."""
    return scores_by_branch(run, scorer, [branch])[branch]


def scores_by_branch(run: Run, scorer: str, branches: Sequence[str | None] | None = None) -> dict[str | None, Scores]:
    """One of `RUN_SCORERS` on each of the branches (None: on all together), from one reading of the samples.

    `branches` are None and all of the run unless given. Raises `InputError` for a run that lacks what the scorer needs.
    """
    rule, samples = RUN_SCORERS[scorer], _samples(run)
    for name in rule.needs:
        _need(run, name)
    places = {branch: _place(run, branch) for branch in ((None, *run.branches) if branches is None else branches)}
    there = {kind: [name for name in names if name in run.statistics] for kind, names in rule.statistics.items()}
    kinds = {kind: names for kind, names in there.items() if names}
    weights = {kind: run.output_weight_norm(kind).astype(float) for kind in kinds} if rule.weighed else {}
    shape = (len(samples), run.geometry.blocks, run.geometry.heads)
    values = {branch: {kind: np.full(shape, np.nan) for kind in kinds} for branch in places}
    for row, index in enumerate(samples):
        read = run.sample(index, [name for names in kinds.values() for name in names])
        for kind, names in kinds.items():
            if not set(names) <= set(read):
                continue
            cells = [rule.of_cell(read[name].astype(float)) for name in names]
            for branch, place in places.items():
                if rule.weighed:
                    parts = [norm_over_timesteps(each[None, :, place], run.timesteps) * weights[kind] for each in cells]
                else:
                    parts = [average(each[:, place], (0, 1)) for each in cells]
                values[branch][kind][row] = np.sum(parts, axis=0)
    return {branch: Scores(scorer, found, finish=rule.finish) for branch, found in values.items()}


def _place(run: Run, branch: str | None) -> slice:
    if branch is None:
        return slice(None)
    index = run.branch_index(branch)
    return slice(index, index + 1)


def random_scores(blocks: int, heads: int, seed: int) -> Scores:
    """Uniform in 0..1 from a seed: the control that every comparison shows.

    >>> random_scores(2, 4, seed=0).score("self").shape
    (2, 4)
    """
    generator = np.random.default_rng(seed)
    return Scores("random", {kind: generator.random((blocks, heads)) for kind in ("self", "cross")})


def _samples(run: Run) -> list[int]:
    if not run.finished:
        raise InputError(str(run.folder), got="no finished sample", expected="at least one", fix="capture --resume")
    return list(run.finished)


def _need(run: Run, name: str) -> None:
    if name not in run.statistics:
        got, fix = f"no {name}, but {', '.join(run.statistics)}", "capture a run that has it"
        raise InputError(str(run.folder), got=got, expected=name, fix=fix)
