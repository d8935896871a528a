"""What blocks do, by timestep: how much each one, or a part of it, changes its input; averaged when read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.aggregate import average, chosen_axes, timesteps_of
from analysis.roles import bootstrap_interval
from analysis.runs import Run


@dataclass(frozen=True)
class Lens:
    """One way to look at a block: a statistic, shown over the norm of the block's input where `relative`.

    `noun` is the part that it is of, None for the whole block.
    """

    statistic: str
    relative: bool
    title: str
    symbol: str
    noun: str | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """The statistics that a run must have for this lens."""
        return (self.statistic, "block/input_norm") if self.relative else (self.statistic,)


LENSES: Mapping[str, Lens] = {
    "residual": Lens("block/residual_norm", True, "Whole block", "‖B(x) − x‖ / ‖x‖"),
    "self": Lens("block/self_norm", True, "Self-attention", "‖self‖ / ‖x‖", "Self-attention"),
    "cross": Lens("block/cross_norm", True, "Cross-attention", "‖cross‖ / ‖x‖", "Cross-attention"),
    "ffn": Lens("block/ffn_norm", True, "Feed-forward", "‖ffn‖ / ‖x‖", "The feed-forward network"),
    "cosine": Lens("block/cosine", False, "Cosine", "cos(x, B(x))"),
}
"""The parts are what self-attention, cross-attention and the feed-forward add to the residual stream, gates included;
their norms need not sum to the whole block's, since parts can cancel."""
PARTS = ("residual", "self", "cross", "ffn")


@dataclass(frozen=True)
class BlockValues:
    """One lens on a part of a run: `values` [sample, step, block], averaged over branches; NaN where not captured."""

    values: np.ndarray
    timesteps: np.ndarray

    @property
    def samples(self) -> int:
        """How many samples have anything here."""
        return int((~np.isnan(self.values)).any(axis=(1, 2)).sum())

    def cells(self) -> np.ndarray:
        """Mean over samples [step, block]."""
        return average(self.values, (0,))

    def by_block(self) -> pd.DataFrame:
        """One row per block: `block`, `mean` over samples and steps, its 95 % interval `low`, `high`, `n` samples."""
        return self._by_block.copy()

    def by_step(self) -> pd.DataFrame:
        """One row per step: `timestep`, `mean` over samples and blocks, `low`, `high`, `n`."""
        return self._by_step.copy()

    # Their intervals are most of what a page computes, and it asks for them again and again.
    @cached_property
    def _by_block(self) -> pd.DataFrame:
        return _table(average(self.values, (1,)), block=np.arange(self.values.shape[2]))

    @cached_property
    def _by_step(self) -> pd.DataFrame:
        return _table(average(self.values, (2,)), timestep=self.timesteps)

    def of_block(self, block: int) -> pd.DataFrame:
        """One row per step of one block: `timestep`, `mean` over samples, `low`, `high`, `n`."""
        return _table(self.values[:, :, block], timestep=self.timesteps)

    def table(self) -> pd.DataFrame:
        """One row per step and block: `timestep`, `block`, `mean` over samples, `low`, `high`, `n`."""
        steps, blocks = self.values.shape[1:]
        return _table(
            self.values.reshape(len(self.values), -1),
            timestep=np.repeat(self.timesteps, blocks),
            block=np.tile(np.arange(blocks), steps),
        )

    def limits(self, *, turns: bool = False) -> tuple[float, float]:
        """Ends of a colour scale: from 0 to the largest mean; with `turns` (cosines, most near 1) from below the lowest to 1."""
        cells = self.cells()
        known = bool(np.isfinite(cells).any())
        if turns:
            return (float(np.floor(np.nanmin(cells) * 10) / 10) if known else -1.0), 1.0
        return 0.0, float(np.nanmax(cells)) if known else 1.0


def block_values(
    run: Run,
    lens: str = "residual",
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    held: Mapping[str, np.ndarray] | None = None,
) -> BlockValues:
    """Read one of `LENSES` from a part of the run; quotients are taken cell by cell, before any average.

    `held` is `run.array(name, run.finished)` of what the lens needs, where the caller has it already; else samples are
    read. Raises `InputError` for a statistic, sample, branch or step that the run does not have.
    """
    chosen = LENSES[lens]
    step_axis, branch_axis = chosen_axes(run, chosen.statistic, branch, steps)
    finished = run.finished

    def read(name: str) -> np.ndarray:
        if held is not None and (sample is None or sample in finished):
            return held[name] if sample is None else held[name][[finished.index(sample)]]
        return run.array(name, finished if sample is None else [sample])

    values = read(chosen.statistic).astype(float)
    if chosen.relative:
        with np.errstate(invalid="ignore", divide="ignore"):
            values = values / read("block/input_norm")
    timesteps = timesteps_of(run, chosen.statistic, branch, steps)
    return BlockValues(average(values[:, step_axis][:, :, branch_axis], (2,)), timesteps)


def block_importance(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """Timesteps [steps] and the relative change of every block at them [steps, blocks]: what an importance router uses.

    Steps without any value are left out. Raises `InputError` for a run without block norms.
    """
    values = block_values(run)
    cells = values.cells()
    there = ~np.isnan(cells).all(axis=1)
    return values.timesteps[there], cells[there]


def block_ratio(
    run: Run, *, sample: int | None = None, branch: str | None = None, steps: Sequence[int] | None = None
) -> pd.DataFrame:
    """Mean intra-slice ratio of every block's heads in a part of the run: the table of `ratio_by_block`.

    Raises `InputError` for a sample, branch or step that the run does not have.
    """
    step_axis, branch_axis = chosen_axes(run, "self/ratio", branch, steps)
    values = run.array("self/ratio", run.finished if sample is None else [sample])
    return ratio_by_block(block_sums(values[:, step_axis][:, :, branch_axis]))


@dataclass(frozen=True)
class BlockSums:
    """Sums of a statistic over every block's heads, and how many heads have it: both [sample, step, branch, block]."""

    total: np.ndarray
    n: np.ndarray

    def part(self, samples: Sequence[int], steps: Sequence[int], branches: Sequence[int]) -> "BlockSums":
        """Those at these places on the first three axes."""
        where = np.ix_(samples, steps, branches)
        return BlockSums(self.total[where], self.n[where])


def block_sums(values: np.ndarray) -> BlockSums:
    """Sums over heads of `values` [sample, step, branch, block, head], leaving out what is missing (NaN).

    >>> sums = block_sums(np.array([0.5, np.nan, 0.25]).reshape(1, 1, 1, 1, 3))
    >>> sums.total.item(), sums.n.item()
    (0.75, 2)
    """
    there = ~np.isnan(values)
    return BlockSums(np.where(there, values, 0).sum(axis=-1, dtype=float), there.sum(axis=-1))


def ratio_by_block(ratios: BlockSums) -> pd.DataFrame:
    """Mean intra-slice ratio of every block's heads over steps and branches.

    Columns `block`, `mean`, its 95 % interval over samples `low`, `high`, and `n` samples.
    """
    total, n = ratios.total.sum(axis=(1, 2)), ratios.n.sum(axis=(1, 2))
    mean = np.divide(total, n, out=np.full(n.shape, np.nan), where=n > 0)
    return _table(mean, block=np.arange(n.shape[1]))


def _table(per_sample: np.ndarray, **index: np.ndarray) -> pd.DataFrame:
    """Mean and bootstrap interval over the samples of `per_sample` [sample, row]."""
    there = (~np.isnan(per_sample)).any(axis=1)
    low, high = bootstrap_interval(per_sample[there])
    n = (~np.isnan(per_sample)).sum(axis=0)
    return pd.DataFrame({**index, "mean": average(per_sample, (0,)), "low": low, "high": high, "n": n})
