"""B − A of two runs: what every head or block does otherwise, with an interval over prompts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtr

from analysis.aggregate import average
from analysis.block_values import LENSES
from analysis.manifest import BLOCK_AXES, HEAD_AXES
from analysis.roles import TAU_S, TAU_T, bootstrap_means, classify
from analysis.run_match import Match, match_runs, prompt_of
from analysis.runs import Run
from analysis.selection import measured_at
from pare.errors import InputError

LEVEL = 0.95
NORMAL = 1.959964
"""Where 2.5 % of a normal distribution lie beyond."""
ROUNDING = 1e-6
"""Differences up to this share of the largest value come from single precision alone, and count as 0."""


@dataclass(frozen=True)
class RunDifference:
    """One statistic of run A and run B and B − A, each [block, head] or [block]; NaN where either run has nothing.

    `low` and `high` are the 95 % bootstrap interval of the difference over prompts, NaN below two. Where `paired`, all
    means are over the same `n` samples of equal prompt and seed, and what a sample adds to both cancels; else over all
    samples of each run, `n` being the smaller count. `absent_a` and `absent_b` are True where a run has no value at
    all, for example for the heads that a student lost: absent, never zero; the other run's own mean is there.
    """

    statistic: str
    paired: bool
    prompts: int
    n: np.ndarray
    mean_a: np.ndarray
    mean_b: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    absent_a: np.ndarray
    absent_b: np.ndarray
    match: Match

    @property
    def clear(self) -> np.ndarray:
        """True where the interval leaves zero out."""
        return (self.low > 0) | (self.high < 0)

    @property
    def expected_by_chance(self) -> float:
        """How many intervals would leave zero out if nothing had changed: with few prompts far more than 5 % of them."""
        return float(np.isfinite(self.low).sum()) * false_alarms(self.prompts, self.paired)

    def table(self) -> pd.DataFrame:
        """One row per head or block that both runs have, the largest |B − A| first.

        Columns block (and head), a, b, difference, low, high, n, clear.
        """
        there = ~np.isnan(self.difference)
        index = dict(zip(("block", "head"), np.nonzero(there), strict=False))
        values = {
            "a": self.mean_a, "b": self.mean_b, "difference": self.difference, "low": self.low, "high": self.high,
            "n": self.n, "clear": self.clear,
        }  # fmt: skip
        frame = pd.DataFrame(index | {name: each[there] for name, each in values.items()})
        order = np.argsort(-frame["difference"].abs().to_numpy(), kind="stable")
        return frame.iloc[order].reset_index(drop=True)

    def role_changes(self, tau_s: float = TAU_S, tau_t: float = TAU_T) -> pd.DataFrame:
        """The rows of `table` whose role by the mean ratio is another in B, with `role_a` and `role_b`."""
        frame = self.table()
        roles = {f"role_{side}": classify(frame[side].to_numpy(), tau_s, tau_t) for side in ("a", "b")}
        frame = frame.assign(**roles)
        return frame[frame["role_a"] != frame["role_b"]].reset_index(drop=True)


def run_difference(
    a: Run,
    b: Run,
    statistic: str = "self/ratio",
    *,
    branch: str | None = None,
    steps: Sequence[int] | None = None,
    sample: int | None = None,
    seed: int = 0,
    read: Callable[[Run, str, Sequence[int]], np.ndarray] = Run.array,
) -> RunDifference:
    """B − A of a statistic of heads or blocks, or of a lens of `analysis.block_values`, averaged over steps and branches.

    For every pair i of samples with equal prompt, seed and source, d_i = mean over steps and branches of b_i − a_i, from
    the cells that both have; samples of one prompt are averaged, and B − A is the mean over prompts. The interval is a
    percentile bootstrap that redraws prompts with all their pairs (Efron, Tibshirani 1993, section 13.3). Runs without
    a common sample are compared by their means, each redrawn by itself. `branch`, `steps` and `sample` (indices of A)
    choose a part. Differences within `ROUNDING` are 0. `read` gives the values of a run's samples [sample, …], for a caller
    that holds them. Raises `InputError` for runs that do not belong together (`match_runs`), and for a statistic, branch or
    step that one of them lacks.

    >>> from pare.geometry import DEMO
    >>> run = Run.open(DEMO.parent / "runs" / "demo-videos")
    >>> found = run_difference(run, run)
    >>> found.paired, found.prompts, float(abs(found.difference).max()), int(found.clear.sum())
    (True, 2, 0.0, 0)
    """
    match = match_runs(a, b)
    for side, run in (("A", a), ("B", b)):
        _check(run, side, statistic)
    if branch is not None and branch not in match.branches:
        raise InputError("branch", got=branch, expected=" or ".join(match.branches), fix="one that both runs have")
    branches = match.branches if branch is None else (branch,)
    pairs = [pair for pair in match.samples if sample is None or pair[0] == sample]
    if sample is not None and not pairs:
        raise InputError(
            f"sample {sample}", got="no partner in B", expected="one of equal prompt and seed", fix="all samples"
        )
    rows_a, rows_b = zip(*pairs, strict=True) if pairs else (a.finished, b.finished)
    shared = _shared_steps(a, b, statistic, steps)
    of_a, of_b = (_cells(run, statistic, rows, shared, branches, read) for run, rows in ((a, rows_a), (b, rows_b)))
    if pairs:
        # A sample at a time: all cells of two large runs at once are hundreds of megabytes, several times over.
        both = [_pair(of_a(row), of_b(row)) for row in range(len(pairs))]
        own_a, own_b, change, *missing = (np.stack(each) for each in zip(*both, strict=True))
        absent = tuple(np.asarray(each.all(axis=0)) for each in missing)
        # A head that one run has nowhere still has the mean of the other; one that it has elsewhere has that of the pairs.
        own_a = np.where(missing[1] & ~absent[1], np.nan, own_a)
        own_b = np.where(missing[0] & ~absent[0], np.nan, own_b)
        prompts = [prompt_of(a, row) for row in rows_a]
        means_a, means_b, changes = (_by_prompt(each, prompts) for each in (own_a, own_b, change))
        low, high = _interval(bootstrap_means(changes, seed=seed), changes)
        n, difference, count = (~np.isnan(change)).sum(axis=0), average(changes, (0,)), len(changes)
    else:
        own_a, own_b = (
            np.stack([average(of(row), (0, 1)) for row in range(len(rows))])
            for of, rows in ((of_a, rows_a), (of_b, rows_b))
        )
        absent = tuple(np.isnan(own).all(axis=0) for own in (own_a, own_b))
        sides = ((own_a, a, rows_a), (own_b, b, rows_b))
        means_a, means_b = (_by_prompt(own, [prompt_of(run, row) for row in rows]) for own, run, rows in sides)
        draws = bootstrap_means(means_b, seed=seed + 1) - bootstrap_means(means_a, seed=seed)
        low, high = _interval(draws, means_a, means_b)
        n = np.minimum(*((~np.isnan(own)).sum(axis=0) for own in (own_a, own_b)))
        difference, count = average(means_b, (0,)) - average(means_a, (0,)), min(len(means_a), len(means_b))
    mean_a, mean_b = average(means_a, (0,)), average(means_b, (0,))
    largest = np.nanmax(np.abs([mean_a, mean_b]), initial=0.0)
    same = np.abs(difference) <= ROUNDING * largest
    difference, low, high = (np.where(same & ~np.isnan(each), 0.0, each) for each in (difference, low, high))
    return RunDifference(
        statistic=statistic,
        paired=bool(pairs),
        prompts=count,
        n=n,
        mean_a=mean_a,
        mean_b=mean_b,
        difference=difference,
        low=low,
        high=high,
        absent_a=absent[0],
        absent_b=absent[1],
        match=match,
    )


def false_alarms(prompts: int, paired: bool = True) -> float:
    """How often a percentile interval over so few prompts leaves zero out though nothing differs.

    Such an interval is near mean ± 1.96·s/√n with s² the mean square, not n/(n − 1) times it, so zero is left out where
    |t| > 1.96·√((n − 1)/n), t of Student's distribution with n − 1 degrees of freedom (2n − 2 unpaired); with two
    prompts where both lie on one side. Close to what normal differences give (tests draw them).

    >>> [round(false_alarms(n), 2) for n in (2, 3, 10, 200)]
    [0.5, 0.25, 0.1, 0.05]
    """
    if prompts < 2:
        return 0.0
    if paired and prompts == 2:
        return 0.5
    edge = NORMAL * np.sqrt((prompts - 1) / prompts)
    return float(2 * stdtr((prompts - 1) * (1 if paired else 2), -edge))


def comparable_statistics(a: Run, b: Run) -> list[str]:
    """What `run_difference` can subtract: statistics of heads that both runs have, then lenses on blocks.

    Standard errors of estimates are left out, since they measure the method.
    """
    both = [name for name in a.statistics if name in b.statistics]
    heads = [name for name in both if a.manifest.statistics[name].axes == HEAD_AXES and not name.endswith("_error")]
    return [*heads, *(name for name, lens in LENSES.items() if set(lens.needs) <= set(both))]


def _needs(statistic: str) -> tuple[str, ...]:
    return LENSES[statistic].needs if statistic in LENSES else (statistic,)


def _check(run: Run, side: str, statistic: str) -> None:
    if missing := [name for name in _needs(statistic) if name not in run.statistics]:
        raise InputError(
            f"{side}, {run.folder.name}",
            got=f"no {' and no '.join(missing)}",
            expected="a statistic that both runs have",
            fix="capture it in both, or choose another",
        )
    if run.manifest.statistics[_needs(statistic)[0]].axes not in (HEAD_AXES, BLOCK_AXES):
        raise InputError("statistic", got=statistic, expected="one of heads or of blocks", fix="self/ratio or residual")
    if not run.finished:
        raise InputError(f"{side}, {run.folder.name}", got="no finished sample", expected="one", fix="let it go on")


def _shared_steps(a: Run, b: Run, statistic: str, steps: Sequence[int] | None) -> list[int]:
    """Steps that were measured in both and asked for."""
    own = [measured_at(run.manifest, run.manifest.statistics[_needs(statistic)[0]])[0] for run in (a, b)]
    shared = [step for step in own[0] if step in own[1]]
    chosen = [step for step in shared if steps is None or step in steps]
    if not chosen:
        raise InputError(
            "steps",
            got=list(steps or ()),
            expected=f"some of {shared}, where {statistic} was measured in both",
            fix="widen the selection",
        )
    return chosen


def _cells(
    run: Run,
    statistic: str,
    samples: Sequence[int],
    steps: Sequence[int],
    branches: Sequence[str],
    read: Callable[[Run, str, Sequence[int]], np.ndarray],
) -> Callable[[int], np.ndarray]:
    """Gives float64 [step, branch, block, …] of a statistic or lens in one of the `samples`, by its place among them."""

    def part(name: str) -> Callable[[int], np.ndarray]:
        own_steps, own_branches = measured_at(run.manifest, run.manifest.statistics[name])
        where = np.ix_([own_steps.index(step) for step in steps], [own_branches.index(one) for one in branches])
        values = read(run, name, list(samples))
        return lambda row: values[row][where].astype(float)

    of = part(_needs(statistic)[0])
    if statistic not in LENSES or not LENSES[statistic].relative:
        return of
    size = part("block/input_norm")

    def quotient(row: int) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(of(row) / size(row))

    return quotient


def _pair(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
    """Of one pair's cells [step, branch, …]: means of A, of B and of B − A over what both have; where A and B have nothing.

    Where one of them has nothing, the other's mean is over all that it has.
    """
    change = b - a
    if not np.isnan(change).any():
        none = np.zeros(a.shape[2:], bool)
        return a.mean(axis=(0, 1)), b.mean(axis=(0, 1)), change.mean(axis=(0, 1)), none, none
    there_a, there_b = ~np.isnan(a), ~np.isnan(b)
    none_a, none_b = (~there.any(axis=(0, 1)) for there in (there_a, there_b))
    a, b = np.where(there_b | none_b, a, np.nan), np.where(there_a | none_a, b, np.nan)
    return average(a, (0, 1)), average(b, (0, 1)), average(change, (0, 1)), none_a, none_b


def _by_prompt(values: np.ndarray, prompts: Sequence[tuple[str, str | None]]) -> np.ndarray:
    """The mean of every prompt's samples, in order of appearance: [prompt, …] from [sample, …]."""
    groups: dict[tuple[str, str | None], list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(prompt, []).append(row)
    if len(groups) == len(values):
        return values
    return np.stack([average(values[rows], (0,)) for rows in groups.values()])


def _interval(draws: np.ndarray, *per_prompt: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over `draws` [draw, …]; NaN where any of `per_prompt` has fewer than two prompts."""
    known = np.all([(~np.isnan(each)).sum(axis=0) > 1 for each in per_prompt], axis=0)
    # A draw may miss every prompt that has a value, but not where all have one, and quantile is far faster than nanquantile.
    take = np.nanquantile if np.isnan(draws[:, known]).any() else np.quantile
    bounds = np.full((2, *known.shape), np.nan)
    if known.any():
        bounds[:, known] = take(draws[:, known], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return bounds[0], bounds[1]
