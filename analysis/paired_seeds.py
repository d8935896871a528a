"""Means and differences of students that were trained several times: intervals over prompts and training seeds."""

import numpy as np

from analysis.paired import DRAWS, Difference, Mean
from pare.errors import InputError


def mean_over_seeds(values: np.ndarray, *, seed: int = 0) -> Mean:
    """Mean of values [seeds, prompts], with a percentile bootstrap that redraws prompts and seeds apart.

    A draw takes prompts with replacement, the same ones for every training, and trainings with replacement; both are
    random here, and neither is nested in the other (Owen, The pigeonhole bootstrap, 2007). With one training it is the
    bootstrap over prompts. Missing values (NaN) are left out; below two prompts there is no interval. `n` counts values.

    >>> found = mean_over_seeds(np.array([[1.0, 3.0], [2.0, 4.0]]))
    >>> found.n, found.prompts, found.mean
    (4, 2, 2.5)
    """
    values = np.asarray(values, float)
    if values.ndim != 2:
        raise InputError("values", got=list(values.shape), expected="[seeds, prompts]", fix="one row per training")
    there = ~np.isnan(values)
    prompts = int(there.any(axis=0).sum())
    if not there.any():
        return Mean(0, 0, float("nan"), float("nan"), float("nan"))
    low, high = _interval(np.where(there, values, 0.0), there, seed) if prompts > 1 else (float("nan"),) * 2
    return Mean(int(there.sum()), prompts, float(values[there].mean()), low, high)


def difference_over_seeds(a: np.ndarray, b: np.ndarray, *, seed: int = 0) -> Difference:
    """B − A of values [seeds, prompts] of the same prompts and training seeds, with the interval of `mean_over_seeds`.

    `a` may have one row for all of `b`, as a teacher has, which is not trained here. Cells that miss a value (NaN) on
    either side are left out of everything. Raises `InputError` for other shapes.

    >>> found = difference_over_seeds(np.array([[1.0, 5.0]]), np.array([[2.0, 6.0], [2.0, 6.0]]))
    >>> found.difference, found.low, found.high, found.mean_a
    (1.0, 1.0, 1.0, 3.0)
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or len(first) not in (1, len(second)):
        raise InputError(
            "pairs",
            got=f"{list(first.shape)} and {list(second.shape)}",
            expected="the same prompts, and one or as many trainings",
            fix="pair them",
        )
    first = np.broadcast_to(first, second.shape)
    change = second - first
    there = ~np.isnan(change)
    found = mean_over_seeds(change, seed=seed)
    means = [float(each[there].mean()) if there.any() else float("nan") for each in (first, second)]
    return Difference(found.n, found.prompts, means[0], means[1], found.mean, found.low, found.high)


def _interval(values: np.ndarray, there: np.ndarray, seed: int) -> tuple[float, float]:
    seeds, prompts = values.shape
    draw = np.random.default_rng(seed)
    by_prompt = draw.multinomial(prompts, np.full(prompts, 1 / prompts), size=DRAWS).astype(float)
    by_seed = draw.multinomial(seeds, np.full(seeds, 1 / seeds), size=DRAWS).astype(float)
    total = ((by_seed @ values) * by_prompt).sum(axis=1)
    count = ((by_seed @ there.astype(float)) * by_prompt).sum(axis=1)
    means = total[count > 0] / count[count > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
