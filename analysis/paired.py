"""Two ways side by side on the same prompts: mean difference with an interval over prompts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.roles import bootstrap_interval
from pare.errors import InputError

DRAWS = 10_000


@dataclass(frozen=True)
class Mean:
    """A mean over prompts and its 95 % interval; NaN where fewer than two prompts make none. `n` values, `prompts` apart."""

    n: int
    prompts: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Means of A and B over the same prompts, and B − A with its 95 % interval."""

    n: int
    prompts: int
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


def mean_over_prompts(
    values: Sequence[int | float] | np.ndarray, prompts: Sequence[Hashable] | None = None, *, seed: int = 0
) -> Mean:
    """Mean of one value per video over prompts, with a percentile bootstrap that redraws whole prompts.

    `prompts` says which prompt each value belongs to (default: each its own); videos of one prompt are averaged first,
    since they are not independent. Missing values (NaN) are left out. `seed` is that of the 10,000 draws.

    >>> mean_over_prompts([1.0, 3.0, 8.0], ["a", "a", "b"]).mean
    5.0
    """
    values = np.asarray(values, float)
    own, n = _by_prompt(values, _names(values, prompts))
    low, high = bootstrap_interval(own, seed=seed, draws=DRAWS)
    return Mean(n, len(own), _mean(own), float(low), float(high))


def paired_difference(
    a: Sequence[int | float] | np.ndarray,
    b: Sequence[int | float] | np.ndarray,
    prompts: Sequence[Hashable] | None = None,
    *,
    seed: int = 0,
) -> Difference:
    """B − A over pairs of the same prompt and seed, with a paired percentile bootstrap over prompts.

    `a[i]` and `b[i]` belong together, `prompts[i]` is their prompt (default: each pair its own). A pair with a missing
    value (NaN) is left out of everything, so that both means are of the same videos. The bootstrap redraws prompts with
    all their pairs; what a prompt adds to both sides cancels. Efron, Tibshirani, An Introduction to the Bootstrap
    (1993), section 13.3. Raises `InputError` for sequences of different lengths.

    >>> found = paired_difference([1.0, 5.0, 9.0], [1.5, 5.5, 9.5])
    >>> found.difference, found.low, found.high
    (0.5, 0.5, 0.5)
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    if first.shape != second.shape or first.ndim != 1:
        raise InputError(
            "pairs",
            got=f"{list(first.shape)} and {list(second.shape)}",
            expected="one value each per pair",
            fix="pair them",
        )
    names = _names(first, prompts)
    there = ~np.isnan(first) & ~np.isnan(second)
    first, second = np.where(there, first, np.nan), np.where(there, second, np.nan)
    change, n = _by_prompt(second - first, names)
    (mean_a, _), (mean_b, _) = _by_prompt(first, names), _by_prompt(second, names)
    low, high = bootstrap_interval(change, seed=seed, draws=DRAWS)
    return Difference(n, len(change), _mean(mean_a), _mean(mean_b), _mean(change), float(low), float(high))


def spread_over_prompts(
    a: Sequence[int | float] | np.ndarray,
    b: Sequence[int | float] | np.ndarray,
    prompts: Sequence[Hashable] | None = None,
) -> float:
    """How much prompts differ among themselves: sqrt((s_A² + s_B²) / 2) of the prompts' means; NaN below two prompts.

    (B − A) over it is Cohen's d (Statistical Power Analysis, 1988, section 2.3), which has no unit: metrics of different
    units can be sorted by it. The pairs are those of `paired_difference`.

    >>> spread_over_prompts([0.0, 2.0, 4.0], [1.0, 3.0, 5.0])
    2.0
    """
    first, second = np.asarray(a, float), np.asarray(b, float)
    names = _names(first, prompts)
    there = ~np.isnan(first) & ~np.isnan(second)
    means = [_by_prompt(np.where(there, each, np.nan), names)[0] for each in (first, second)]
    if len(means[0]) < 2:
        return float("nan")
    return float(np.sqrt(sum(each.var(ddof=1) for each in means) / 2))


def _names(values: np.ndarray, prompts: Sequence[Hashable] | None) -> Sequence[Hashable]:
    if prompts is None:
        return range(len(values))
    if len(prompts) != len(values):
        raise InputError(
            "prompts", got=f"{len(prompts)} of {len(values)}", expected="one per value", fix="name every prompt"
        )
    return prompts


def _by_prompt(values: np.ndarray, prompts: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """The mean of every prompt that has a value, in order of appearance, and how many values there are."""
    groups: dict[Hashable, list[float]] = {}
    for value, prompt in zip(values, prompts, strict=True):
        if not np.isnan(value):
            groups.setdefault(prompt, []).append(float(value))
    return np.array([np.mean(each) for each in groups.values()], float), sum(map(len, groups.values()))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
