"""What can be said of every self-attention head in one number, by name: what a grid, a scatter or a table of heads shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import average, read_cells
from analysis.importance import protected, run_importance, run_roles
from analysis.roles import TAU_S, TAU_T, classify
from analysis.runs import Run
from pare.errors import InputError


@dataclass(frozen=True)
class Metric:
    """A number per head: its `title`, short `symbol` and the statistics of a run that it `needs`.

    `whole` metrics are over all samples and steps, whatever part of the run is looked at.
    """

    title: str
    symbol: str
    needs: tuple[str, ...]
    whole: bool = False


METRICS: Mapping[str, Metric] = {
    "ratio": Metric("intra-slice ratio", "r", ("self/ratio",)),
    "spread": Metric("spread of the ratio over timesteps", "sd of r over t", ("self/ratio",)),
    "sample_spread": Metric("spread of the ratio over samples", "sd of r over samples", ("self/ratio",)),
    "entropy": Metric("attention entropy", "entropy, nats", ("self/entropy",)),
    "temporal_distance": Metric("mean temporal distance", "distance, frames", ("self/temporal_distance",)),
    "first_frame_share": Metric("attention to the first frame", "share of frame 0", ("self/first_frame_share",)),
    "value_norm": Metric("value norm", "‖ṽ‖", ("self/value_norm",)),
    "output_norm": Metric("output norm", "‖ṽ·W_Oᵀ‖", ("self/projected_energy",)),
    "cross_value_norm": Metric("cross-attention value norm", "cross ‖ṽ‖", ("cross/value_norm",)),
    "importance": Metric("importance (Eq. 3)", "s", ("self/value_norm", "cross/value_norm"), whole=True),
    "protected": Metric(
        "protected score (Eq. 5)", "s̃", ("self/value_norm", "cross/value_norm", "self/ratio"), whole=True
    ),
    "block": Metric("block", "block", ()),
}


def known_metrics(run: Run) -> list[str]:
    """The metrics that this run has the statistics for."""
    return [name for name, metric in METRICS.items() if set(metric.needs) <= set(run.statistics)]


def head_metric(
    run: Run,
    name: str,
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    alpha: float = 1.5,
) -> tuple[np.ndarray, int]:
    """A metric of every head [block, head] in a part of the run, NaN where it is not captured there, and its n samples.

    Averages are over samples, steps and branches; a spread is the standard deviation of the mean over branches at each
    step (over timesteps), or the mean of those over samples. Raises `InputError` for an unknown metric and for one
    whose statistics the run lacks.

    >>> from pare.geometry import DEMO
    >>> ratio, samples = head_metric(Run.open(DEMO.parent / "runs" / "demo"), "ratio")
    >>> ratio.shape, samples > 1
    ((8, 10), True)
    """
    if name not in METRICS:
        raise InputError("metric", got=name, expected=" or ".join(METRICS), fix="choose one of them")
    if missing := [each for each in METRICS[name].needs if each not in run.statistics]:
        raise InputError(f"metric {name}", got=f"no {missing[0]}", expected="it in the run", fix="capture it")
    shape = (run.geometry.blocks, run.geometry.heads)
    if name == "block":
        return np.broadcast_to(np.arange(shape[0], dtype=float)[:, None], shape).copy(), 0
    if METRICS[name].whole:
        scores = run_importance(run, branch)["self"]
        if name == "protected":
            scores = protected(scores, run_roles(run, tau_s, tau_t, branch), alpha)
        return scores, len(run.finished)
    cells = read_cells(run, METRICS[name].needs[0], sample=sample, branch=branch, steps=steps)
    if name == "spread":
        return _deviation(cells.by_step()), cells.samples
    if name == "sample_spread":
        return average(cells.std, (0, 1)), cells.samples
    return cells.by_head(), cells.samples


def metric_table(
    run: Run,
    names: list[str],
    *,
    sample: int | None = None,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    alpha: float = 1.5,
) -> pd.DataFrame:
    """One row per head: block, head, its role's letter and the metrics of these names, each with `NAME_n` samples.

    Arguments as for `head_metric`; the role is that of the ratio in the same part of the run.

    >>> from pare.geometry import DEMO
    >>> table = metric_table(Run.open(DEMO.parent / "runs" / "demo"), ["ratio", "importance"])
    >>> list(table), len(table)
    (['block', 'head', 'role', 'ratio', 'ratio_n', 'importance', 'importance_n'], 80)
    """
    part: dict[str, Any] = {"sample": sample, "branch": branch, "steps": steps}
    block, head = np.indices((run.geometry.blocks, run.geometry.heads))
    letters = np.full(block.shape, "")
    if "self/ratio" in run.statistics:
        letters = classify(head_metric(run, "ratio", **part)[0], tau_s, tau_t)
    columns = {"block": block.ravel(), "head": head.ravel(), "role": letters.ravel()}
    for name in dict.fromkeys(each for each in names if each != "block"):
        values, samples = head_metric(run, name, **part, tau_s=tau_s, tau_t=tau_t, alpha=alpha)
        columns |= {name: values.ravel(), f"{name}_n": np.full(values.size, samples)}
    return pd.DataFrame(columns)


def _deviation(by_step: np.ndarray) -> np.ndarray:
    """Standard deviation over steps [block, head] of what is there; NaN where fewer than two steps are."""
    n = (~np.isnan(by_step)).sum(axis=0)
    centred = by_step - average(by_step, (0,))
    squares = np.nansum(centred**2, axis=0)
    return np.sqrt(np.divide(squares, n - 1, out=np.full(n.shape, np.nan), where=n > 1))
