"""One head in a part of a run: its ratio with n and interval, its role and how steady that is, its ratio over timesteps."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.aggregate import Cells, average, head_by_sample, read_cells, timesteps_of
from analysis.roles import bootstrap_interval, classify, lift, stability
from analysis.runs import Run


@dataclass(frozen=True)
class HeadView:
    """One head's ratio over `n` samples with its 95 % interval (NaN below two), its role, lift and stability."""

    ratio: float
    low: float
    high: float
    n: int
    role: str
    lift: float
    stability: float


def head_view(
    run: Run,
    block: int,
    head: int,
    *,
    tau_s: float,
    tau_t: float,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    held: np.ndarray | None = None,
    cells: Cells | None = None,
) -> HeadView:
    """What a run says of one head in a part of it; the role is a letter of `analysis.roles.LETTERS`, "" where unknown.

    `held` is `run.array("self/ratio", run.finished)` and `cells` is `read_cells` of this part where the caller has them
    already; else they are read. Raises `InputError` for a sample, branch or step that the run does not have.
    """
    values = head_by_sample(run, block, head, sample=sample, branch=branch, steps=steps, values=held)
    cells = read_cells(run, sample=sample, branch=branch, steps=steps) if cells is None else cells
    ratio = cells.by_head()[block, head]
    there = ~np.isnan(values).all(axis=1)
    low, high = (ends[0] for ends in bootstrap_interval(average(values[there], (1,))[:, None]))
    return HeadView(
        ratio=float(ratio),
        low=float(low),
        high=float(high),
        n=int(there.sum()),
        role=str(classify(np.array([ratio]), tau_s, tau_t)[0]),
        lift=float(lift(np.array([ratio]), run.num_frames)[0]),
        stability=float(stability(values[:, :, None, None], tau_s, tau_t)[0, 0]),
    )


def over_timesteps(
    run: Run,
    block: int,
    head: int,
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    held: np.ndarray | None = None,
) -> pd.DataFrame:
    """One head's ratio per step with its 95 % interval and n samples, one row per branch and step.

    Columns: `branch`, `timestep`, `mean`, `low`, `high`, `n`; `held` as for `head_view`. Raises `InputError` as `head_view` does.
    """
    frames = []
    for one in run.branches if branch is None else [branch]:
        values = head_by_sample(run, block, head, sample=sample, branch=one, steps=steps, values=held)
        low, high = bootstrap_interval(values[~np.isnan(values).all(axis=1)])
        timesteps = timesteps_of(run, "self/ratio", one, steps)
        columns = {"branch": one, "timestep": timesteps, "mean": average(values, (0,)), "low": low, "high": high}
        frames.append(pd.DataFrame({**columns, "n": (~np.isnan(values)).sum(axis=0)}))
    return pd.concat(frames, ignore_index=True)


def default_head(
    ratio: np.ndarray, scores: np.ndarray | None, tau_t: float, block: int | None = None
) -> tuple[int, int] | None:
    """The head to show before one is pinned: the most important temporal one, else the most important; None if none.

    With `block`, the one of that block.

    >>> default_head(np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[9.0, 1.0], [2.0, 3.0]]), tau_t=0.3)
    (1, 0)
    """
    score = -ratio if scores is None else scores
    here = np.ones(len(ratio), bool) if block is None else np.arange(len(ratio)) == block
    for among in (here[:, None] & (ratio < tau_t), here[:, None] & ~np.isnan(ratio)):
        if (among & ~np.isnan(score)).any():
            best = np.where(among & ~np.isnan(score), score, -np.inf).argmax()
            row, column = np.unravel_index(best, ratio.shape)
            return int(row), int(column)
    return None
