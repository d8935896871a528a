"""How much a router's decisions vary with the content at a fixed timestep: nothing = a timestep-only router in disguise."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.routes import route_array
from pare.errors import InputError

# 97.5 % of the normal distribution.
Z = 1.959963984540054


@dataclass(frozen=True, eq=False)
class RouteVariation:
    """Disagreement of decisions between samples at the same step, with a 95 % interval over the n samples.

    `disagreement` is the chance that two different samples decide differently on a block that is not always on, mean
    over steps and blocks; `by_step` [step] and `by_block` [block] (NaN for the always-on ones) are the same apart.
    `ceiling` is what blocks drawn at random, K as recorded, would have. Below two samples everything is NaN, below
    three the interval.
    """

    samples: int
    disagreement: float
    low: float
    high: float
    ceiling: float
    by_step: np.ndarray
    by_block: np.ndarray
    timesteps: np.ndarray

    @property
    def varies(self) -> bool:
        """Whether the interval leaves zero out: the content has a say."""
        return bool(self.low > 0)


def route_variation(routes: pd.DataFrame) -> RouteVariation:
    """From the decisions of a run (`Run.routes()`), every sample at the same steps.

    With p the share of the n samples that run a block at a step, two different samples disagree with probability
    2·p·(1 − p)·n/(n − 1). The interval is that of the jackknife over samples, cut at 0; a router that decides the same
    for all samples has [0, 0]. Raises InputError where there are no decisions.

    >>> rows = [(s, 0, 500.0, b, b != 1 + s % 2) for s in range(4) for b in range(4)]
    >>> found = route_variation(pd.DataFrame(rows, columns=["sample", "step", "timestep", "block", "ran"]))
    >>> round(found.disagreement, 4), round(found.ceiling, 4)
    (0.6667, 0.5)
    """
    if routes.empty:
        raise InputError("routes", got="no decisions", expected="those of a run", fix="pare route MODEL --out RUN")
    ran = route_array(routes, "ran").astype(bool)
    timesteps = route_array(routes, "timestep")[0, :, 0]
    samples, _, blocks = ran.shape
    middle = slice(1, blocks - 1) if blocks > 2 else slice(0, 0)
    cells = _disagreement(ran[:, :, middle].sum(axis=0), samples)
    by_block = np.full(blocks, np.nan)
    if cells.size:
        by_block[middle] = cells.mean(axis=0)
    value = float(cells.mean()) if cells.size else np.nan
    low, high = _jackknife(ran[:, :, middle], value)
    share = ran[:, :, middle].mean(axis=2) if cells.size else np.full((1, 1), np.nan)
    return RouteVariation(
        samples=samples,
        disagreement=value,
        low=low,
        high=high,
        ceiling=float((2 * share * (1 - share)).mean()),
        by_step=cells.mean(axis=1) if cells.size else np.full(len(timesteps), np.nan),
        by_block=by_block,
        timesteps=timesteps,
    )


def _disagreement(on: np.ndarray, samples: int) -> np.ndarray:
    """Chance that two different samples of `samples` disagree, `on` of which run the block."""
    if samples < 2:
        return np.full(on.shape, np.nan)
    return 2 * on * (samples - on) / (samples * (samples - 1))


def _jackknife(ran: np.ndarray, value: float) -> tuple[float, float]:
    samples = len(ran)
    if samples < 3 or not ran.size:
        return np.nan, np.nan
    on = ran.sum(axis=0)
    without = np.array([_disagreement(on - each, samples - 1).mean() for each in ran])
    error = np.sqrt((samples - 1) / samples * ((without - without.mean()) ** 2).sum())
    return float(max(0.0, value - Z * error)), float(min(1.0, value + Z * error))
