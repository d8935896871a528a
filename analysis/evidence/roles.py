"""Question: do the roles of heads hold over timesteps, prompts, seeds and branches?"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import average
from analysis.agreement import Agreement, agreement, encode, krippendorff
from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.words import counted, listed, mean_interval, spread
from analysis.findings import changing_heads
from analysis.roles import LETTERS, TAU_S, TAU_T, classify, overall_ratio, stability
from analysis.runs import Run

HOLDS, FAILS = 0.8, 2 / 3
"""Krippendorff (2004): reliable from .800 on; not even tentative conclusions below .667."""
DRAWS = 500
THIRDS = {"early (t > 667)": (2000 / 3, np.inf), "middle": (1000 / 3, 2000 / 3), "late (t < 333)": (-np.inf, 1000 / 3)}
REFERENCE = "halves of the samples"
"""No factor of the claim: how well roles can agree at all with so many samples."""

CLAIM = "A head has the same role at every timestep, for every prompt and seed, and in both branches of guidance."
RULE = (
    "Agreement is Krippendorff's alpha for roles as labels: 1 when every head keeps its role, 0 when roles agree as by "
    "chance. Roles hold over a factor where its 95 % interval lies above 0.8, and do not where it lies below 0.667. The "
    "claim is true when they hold over every factor that the run varies, and falsified when they fail over one."
)
MEASURED = (
    "The role of every self-attention head from its mean intra-slice ratio, taken apart by timestep, by prompt, by branch "
    "and by half of the samples."
)


def ask(run: Run, *, tau_s: float = TAU_S, tau_t: float = TAU_T, seed: int = 0) -> Answer:
    """The answer from a run's ratios; see `answer`."""
    samples = run.finished
    return answer(
        run.array("self/ratio", samples),
        timesteps=run.coordinates("self/ratio")["timestep"],
        branches=tuple(map(str, run.coordinates("self/ratio")["branch"])),
        prompts=[run.manifest.samples[index].prompt for index in samples],
        tau_s=tau_s,
        tau_t=tau_t,
        seed=seed,
    )


def answer(
    ratio: np.ndarray,
    *,
    timesteps: np.ndarray,
    branches: Sequence[str],
    prompts: Sequence[str],
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    seed: int = 0,
) -> Answer:
    """Agreement of roles over each factor, from ratios [sample, step, branch, block, head] at `timesteps` [step].

    Thirds are those of the span of timesteps. Intervals: over thirds and branches a bootstrap that redraws samples
    whole; over prompts and seeds the jackknife over prompts, since a prompt drawn twice would agree with itself; over
    halves the middle 95 % of random splits.
    """
    ratio = np.asarray(ratio, float)
    samples = len(ratio)
    generator = np.random.default_rng(seed)
    letters = lambda means: encode(classify(means, tau_s, tau_t), LETTERS)  # noqa: E731
    units = ratio.reshape(*ratio.shape[:3], -1)
    own = average(units, (1, 2))
    thirds = {
        name: average(units[:, inside], (1, 2))
        for name, (low, high) in THIRDS.items()
        if (inside := (timesteps >= low) & (timesteps < high)).any()
    }
    by_branch = {name: average(units[:, :, index], (1,)) for index, name in enumerate(branches)}
    rows = [
        _levels("timesteps", list(thirds), np.stack(list(thirds.values()), axis=1), letters, generator),
        _levels("branches", list(by_branch), np.stack(list(by_branch.values()), axis=1), letters, generator),
        *_prompts(own, prompts, letters),
        _halves(own, letters, generator),
    ]
    factors = pd.DataFrame([{**row, "holds": _holds(row)} for row in rows])
    heads = _heads(ratio, thirds, by_branch, tau_s, tau_t)
    tested = factors[~factors["holds"].isin(["not varied", "reference"])]
    verdict = _verdict(list(tested["holds"]))
    certain = int(heads["changes"].sum())
    return Answer(
        question="roles",
        claim=CLAIM,
        verdict=verdict,
        sentence=_sentence(verdict, factors, certain, len(heads)),
        rule=RULE,
        measured=MEASURED,
        n={"samples": samples, "prompts": len(set(prompts)), "steps": len(timesteps), "heads": len(heads)},
        tables={"factors": factors, "heads": heads},
        notes=_notes(factors, samples, len(heads)),
        settings={"tau_s": tau_s, "tau_t": tau_t, "seed": seed, "draws": DRAWS},
    )


def _levels(
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


def _prompts(own: np.ndarray, prompts: Sequence[str], letters: Callable[..., np.ndarray]) -> list[dict[str, Any]]:
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


def _halves(own: np.ndarray, letters: Callable[..., np.ndarray], generator: np.random.Generator) -> dict[str, Any]:
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


def _holds(row: Mapping[str, Any]) -> str:
    if row["factor"] == REFERENCE:
        return "reference"
    if row["compared"] < 2:
        return "not varied"
    if row["low"] > HOLDS:
        return "yes"
    return "no" if row["high"] < FAILS else "undecided"


def _verdict(holds: list[str]) -> Verdict:
    if "no" in holds:
        return "no"
    return "yes" if holds and all(each == "yes" for each in holds) else "undecided"


def _heads(
    ratio: np.ndarray, thirds: Mapping[str, np.ndarray], by_branch: Mapping[str, np.ndarray], tau_s: float, tau_t: float
) -> pd.DataFrame:
    """One row per head: its ratio with interval, its role, its role in every part, and whether that surely changes."""
    samples, blocks, heads = len(ratio), *ratio.shape[-2:]
    _, low, high, n = mean_interval(average(ratio, (1, 2)))
    mean = overall_ratio(ratio)
    parts = {name.split(" ")[0]: values for name, values in thirds.items()}
    parts |= by_branch if len(by_branch) > 1 else {}
    by_third = np.stack(list(thirds.values())).reshape(len(thirds), samples, blocks, heads)
    error = np.stack([_error(each) for each in by_third])
    changes = changing_heads(average(by_third, (1,)), error, tau_s, tau_t, samples)
    columns: dict[str, Any] = {
        "block": np.repeat(np.arange(blocks), heads),
        "head": np.tile(np.arange(heads), blocks),
        "ratio": mean,
        "low": low,
        "high": high,
        "n": n,
        "role": classify(mean, tau_s, tau_t),
        **{name: classify(average(values, (0,)), tau_s, tau_t) for name, values in parts.items()},
        "own_cells": stability(ratio, tau_s, tau_t),
        "changes": changes,
    }
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def _error(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over samples, the first axis; NaN below two."""
    n = (~np.isnan(values)).sum(axis=0)
    squares = np.nansum((values - average(values, (0,))) ** 2, axis=0)
    return np.sqrt(np.divide(squares, n * (n - 1), out=np.full(n.shape, np.nan), where=n > 1))


def _sentence(verdict: Verdict, factors: pd.DataFrame, certain: int, heads: int) -> str:
    said = {
        state: [
            f"{row.factor} ({row.share:.0%} of heads change, agreement {spread(row.agreement, row.low, row.high)})"
            for row in factors.itertuples()
            if row.holds == state
        ]
        for state in ("yes", "no", "undecided")
    }
    parts = []
    if said["no"]:
        parts.append(f"roles do not hold over {listed(said['no'])}")
    if said["yes"]:
        parts.append(f"they hold over {listed(said['yes'])}" if parts else f"roles hold over {listed(said['yes'])}")
    if said["undecided"]:
        parts.append(f"open over {listed(said['undecided'])}")
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    body = "; ".join(parts) or "this run varies nothing"
    return f"{start}{body}. {certain} of {heads} heads change role with the timestep beyond their intervals."


def _notes(factors: pd.DataFrame, samples: int, heads: int) -> tuple[str, ...]:
    missing = [row.factor for row in factors.itertuples() if row.holds == "not varied"]
    notes = [f"Not varied in this run, so nothing is said of {listed(missing)}."] if missing else []
    if factors["agreement"][factors["compared"] > 1].isna().any():
        notes.append("Agreement is not defined where all heads have one role, since chance agrees as well.")
    if samples < 10:
        notes.append(f"{counted(samples, 'sample')}: intervals over so few are rough.")
    notes.append(
        f"Heads listed as changing: 5 % per head over its timesteps together, so up to {round(0.05 * heads)} of {heads} by "
        "chance."
    )
    return tuple(notes)
