"""How far the roles of heads agree over one factor: parts that every sample has, single prompts and seeds, halves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analysis.aggregate import average
from analysis.agreement import Agreement, agreement, krippendorff
from analysis.roles import LETTERS

DRAWS = 500
REFERENCE = "halves of the samples"
"""No factor of the claim: how well roles can agree at all with so many samples."""


def by_levels(
    factor: str,
    names: list[str],
    values: np.ndarray,
    letters: Callable[..., np.ndarray],
    generator: np.random.Generator,
) -> dict[str, Any]:
    """A factor whose levels every sample has: `values` [sample, level, unit]."""
    point = agreement(letters(average(values, (0,))), len(LETTERS))
    samples = len(values)
    drawn = None
    if samples > 1 and len(names) > 1:
        counts = generator.multinomial(samples, np.full(samples, 1 / samples), size=DRAWS).astype(float)
        flat = values.reshape(samples, -1)
        n = counts @ ~np.isnan(flat)
        sums = counts @ np.nan_to_num(flat)
        means = np.divide(sums, n, out=np.full(n.shape, np.nan), where=n > 0).reshape(DRAWS, *values.shape[1:])
        drawn = agreement(letters(means), len(LETTERS))
    return _row(factor, " · ".join(names), len(names), point, drawn, samples, "bootstrap over samples")


def by_prompts(own: np.ndarray, prompts: Sequence[str], letters: Callable[..., np.ndarray]) -> list[dict[str, Any]]:
    """Roles by single prompts, and by single seeds of one prompt, from each sample's own ratios [sample, unit]."""
    names = list(dict.fromkeys(prompts))
    groups = [np.flatnonzero([each == name for each in prompts]) for name in names]
    codes = letters(np.stack([average(own[group], (0,)) for group in groups]))
    repeated = [group for group in groups if len(group) > 1]
    label = "prompts" if repeated else "prompts, each with a seed of its own"
    counts = np.stack([(codes == code) for code in range(len(LETTERS))], axis=-1).astype(int)
    rows = [_jackknifed(label, counts, codes, f"{len(names)} prompts", len(own))]
    if repeated:
        # A unit is a head under one prompt, its raters are that prompt's seeds.
        most = max(map(len, repeated))
        seeds = np.full((len(repeated), most, own.shape[1]), -1, np.int8)
        for row, group in enumerate(repeated):
            seeds[row, : len(group)] = letters(own[group])
        per_prompt = np.stack([(seeds == code).sum(axis=1) for code in range(len(LETTERS))], axis=-1)
        flat = np.moveaxis(seeds, 1, 0).reshape(most, -1)
        rows.append(
            _jackknifed("seeds", per_prompt, flat, f"up to {most} seeds of {len(repeated)} prompts", len(own), True)
        )
    else:
        rows.append(_row("seeds", "one per prompt", 1, agreement(codes[:1], len(LETTERS)), None, len(own), ""))
    return rows


def _jackknifed(
    factor: str, counts: np.ndarray, codes: np.ndarray, levels: str, samples: int, apart: bool = False
) -> dict[str, Any]:
    """`counts` [prompt, unit, class]: prompts are raters of the same heads, or (`apart`) have units of their own."""
    join = (lambda part: part.reshape(-1, part.shape[-1])) if apart else (lambda part: part.sum(axis=0))
    point = agreement(codes, len(LETTERS)) if len(codes) <= 30 else _by_counts(join(counts))
    row = _row(factor, levels, len(codes), point, None, samples, "jackknife over prompts")
    number = len(counts)
    if number > 2:
        without = [join(np.delete(counts, prompt, axis=0)) for prompt in range(number)]
        alphas = np.array([float(krippendorff(each)) for each in without])
        shares = np.array([float(_by_counts(each).share) for each in without])
        for name, left_out, low, high in (("agreement", alphas, -1.0, 1.0), ("share", shares, 0.0, 1.0)):
            margin = 1.96 * np.sqrt((number - 1) / number * np.square(left_out - left_out.mean()).sum())
            stem = "" if name == "agreement" else "share_"
            row[f"{stem}low"] = max(low, row[name] - margin)
            row[f"{stem}high"] = min(high, row[name] + margin)
    return row


def _by_counts(counts: np.ndarray) -> Agreement:
    compared = counts.sum(axis=-1) > 1
    changing = compared & ((counts > 0).sum(axis=-1) > 1)
    units, differing = (np.asarray(each.sum()) for each in (compared, changing))
    return Agreement(units, differing, krippendorff(counts), np.asarray(np.nan))


def by_halves(own: np.ndarray, letters: Callable[..., np.ndarray], generator: np.random.Generator) -> dict[str, Any]:
    """Whether one half of the samples gives the roles that the other gives; no factor of the claim, but its ceiling."""
    samples, half = len(own), len(own) // 2
    if half < 1:
        return _row(REFERENCE, "none", 1, agreement(letters(own), len(LETTERS)), None, samples, "")
    orders = np.argsort(generator.random((DRAWS, samples)), axis=1)
    split = np.stack(
        [average(own[order], (1,)) for order in (orders[:, :half], orders[:, half : 2 * half])],
        axis=1,
    )
    drawn = agreement(letters(split), len(LETTERS))
    means = [np.asarray(_nanmean(each)) for each in (drawn.units, drawn.changing, drawn.alpha, drawn.kappa)]
    point = Agreement(*means)
    return _row(REFERENCE, f"{half} and {half}", 2, point, drawn, samples, "95 % of random splits")


def _row(
    factor: str, levels: str, compared: int, point: Agreement, drawn: Agreement | None, samples: int, how: str
) -> dict[str, Any]:
    row: dict[str, Any] = {"factor": factor, "levels": levels, "compared": compared, "heads": _whole(point.units)}
    for stem, name in (("share_", "share"), ("", "alpha"), ("kappa_", "kappa")):
        low, high = (np.nan, np.nan) if drawn is None else _ends(getattr(drawn, name))
        column = "agreement" if name == "alpha" else name
        row |= {column: float(getattr(point, name)), f"{stem}low": low, f"{stem}high": high}
    return row | {"n": samples, "interval": how}


def _whole(count: np.ndarray) -> int:
    return int(np.nan_to_num(count))


def _ends(values: np.ndarray) -> tuple[float, float]:
    values = values[~np.isnan(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def _nanmean(values: np.ndarray) -> float:
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
