"""How far scorers agree about which heads matter: rank correlations with intervals."""

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri
from scipy.stats import rankdata

from analysis.scores import Scores
from pare.errors import InputError

SCOPES = ("model", "block")


def rank_correlations(
    scores: Mapping[str, Scores], seed: int = 0, *, draws: int = 500, level: float = 0.95
) -> pd.DataFrame:
    """Spearman correlation of every two scorers over heads, with a bootstrap interval: one row per pair, kind and scope.

    Scope `model` ranks all heads together; `block` ranks them inside every block, as pruning a fixed count per block
    does, and averages the blocks. The interval (bias-corrected percentiles) redraws samples and heads together:
    scorers with the same number of samples are taken to have measured the same ones; heads are redrawn inside their
    block for `block`. Heads that some scorer has no score for (NaN) are left out. Columns: kind, scope, a, b, spearman,
    low, high, heads, samples_a, samples_b (0: the score involves no sample). NaN where a scorer gives all heads the
    same score. Raises InputError for scores of different models, or fewer than two of the same kind of head.

    >>> values = np.arange(8.0).reshape(1, 2, 4)
    >>> table = rank_correlations({"a": Scores("a", {"self": values}), "b": Scores("b", {"self": -values})})
    >>> table[["kind", "scope", "spearman"]].round(6).to_dict("list")
    {'kind': ['self', 'self'], 'scope': ['model', 'block'], 'spearman': [-1.0, -1.0]}
    """
    rows = []
    for kind in ("self", "cross"):
        names = [name for name, each in scores.items() if kind in each.values]
        if len(names) < 2:
            continue
        chosen = [scores[name] for name in names]
        _check_same_heads(names, chosen, kind)
        found = np.stack([each.score(kind) for each in chosen])
        there = np.asarray(~np.isnan(found).any(axis=0))
        redrawn = list(_resampled(chosen, kind, seed, draws))
        for scope in SCOPES:
            groups = list(_groups(there, scope))
            point = _spearman(found, groups)
            generator = np.random.default_rng(seed)
            spread = np.stack([_spearman(values, _redraw(groups, generator)) for values in redrawn])
            low, high = _interval(point, spread, level)
            for a, b in combinations(range(len(names)), 2):
                rows.append(
                    {
                        "kind": kind,
                        "scope": scope,
                        "a": names[a],
                        "b": names[b],
                        "spearman": float(point[a, b]),
                        "low": low[a, b],
                        "high": high[a, b],
                        "heads": int(there.sum()),
                        "samples_a": chosen[a].n,
                        "samples_b": chosen[b].n,
                    }
                )
    if not rows:
        raise InputError("scores", got=list(scores), expected="two scorers of the same kind of head", fix="score more")
    return pd.DataFrame(rows)


def _check_same_heads(names: list[str], chosen: list[Scores], kind: str) -> None:
    shapes = {name: each.score(kind).shape for name, each in zip(names, chosen, strict=True)}
    if len(set(shapes.values())) > 1:
        raise InputError("scores", got=shapes, expected="scores of one model", fix="score the same model")


def _resampled(chosen: list[Scores], kind: str, seed: int, draws: int) -> Iterator[np.ndarray]:
    """Scores [scorer, block, head] of `draws` resamplings of the samples, the same for scorers with equally many."""
    generator = np.random.default_rng(seed)
    sizes = sorted({each.n for each in chosen if each.n})
    for _ in range(draws):
        counts = {n: generator.multinomial(n, np.full(n, 1 / n)) for n in sizes}
        yield np.stack([each.score(kind, counts.get(each.n)) for each in chosen])


def _groups(there: np.ndarray, scope: str) -> Iterator[np.ndarray]:
    """Flat indices of the heads that are ranked together."""
    flat = np.arange(there.size).reshape(there.shape)
    if scope == "model":
        yield flat[there]
        return
    for block in range(len(there)):
        yield flat[block][there[block]]


def _redraw(groups: list[np.ndarray], generator: np.random.Generator) -> list[np.ndarray]:
    return [generator.choice(group, len(group)) if len(group) else group for group in groups]


def _spearman(values: np.ndarray, groups: list[np.ndarray]) -> np.ndarray:
    """Spearman's ρ [scorer, scorer], averaged over groups; a group where it is not defined is left out."""
    flat = values.reshape(len(values), -1)
    total = np.zeros((len(values), len(values)))
    number = np.zeros_like(total)
    for group in groups:
        if len(group) < 2:
            continue
        ranks = rankdata(flat[:, group], axis=1)
        ranks -= ranks.mean(axis=1, keepdims=True)
        size = np.sqrt((ranks**2).sum(axis=1))
        scale = np.outer(size, size)
        defined = (scale > 0) & np.isfinite(scale)
        total += np.divide(ranks @ ranks.T, scale, out=np.zeros_like(scale), where=defined)
        number += defined
    return np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0).clip(-1, 1)


def _interval(point: np.ndarray, spread: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Bias-corrected percentile interval (Efron 1981): redrawn scores are noisier, so redrawn correlations are weaker."""
    low, high = (np.full(point.shape, np.nan) for _ in range(2))
    for at in np.argwhere(~np.isnan(point)):
        drawn = spread[(slice(None), *at)]
        drawn = drawn[~np.isnan(drawn)]
        if len(drawn) == 0:
            continue
        below = np.mean(drawn < point[tuple(at)]) + np.mean(drawn == point[tuple(at)]) / 2
        shift = 2 * ndtri(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn)))
        ends = ndtr(shift + ndtri(np.array([(1 - level) / 2, (1 + level) / 2])))
        low[tuple(at)], high[tuple(at)] = np.quantile(drawn, ends)
    return low, high
