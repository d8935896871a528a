"""Question: do the roles of heads hold over timesteps, prompts, seeds and branches?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import average
from analysis.agreement import encode
from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.role_factors import DRAWS, REFERENCE, by_halves, by_levels, by_prompts
from analysis.evidence.words import counted, listed, mean_interval, spread
from analysis.findings import changing_heads
from analysis.roles import LETTERS, TAU_S, TAU_T, classify, overall_ratio, stability
from analysis.runs import Run

HOLDS, FAILS = 0.8, 2 / 3
"""Krippendorff (2004): reliable from .800 on; not even tentative conclusions below .667."""
THIRDS = {"early (t > 667)": (2000 / 3, np.inf), "middle": (1000 / 3, 2000 / 3), "late (t < 333)": (-np.inf, 1000 / 3)}

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
        by_levels("timesteps", list(thirds), np.stack(list(thirds.values()), axis=1), letters, generator),
        by_levels("branches", list(by_branch), np.stack(list(by_branch.values()), axis=1), letters, generator),
        *by_prompts(own, prompts, letters),
        by_halves(own, letters, generator),
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
    return (
        f"{start}{body}. {certain} of {heads} heads change role between thirds of the timesteps beyond their intervals."
    )


def _notes(factors: pd.DataFrame, samples: int, heads: int) -> tuple[str, ...]:
    missing = [row.factor for row in factors.itertuples() if row.holds == "not varied"]
    notes = [f"Not varied in this run, so nothing is said of {listed(missing)}."] if missing else []
    if factors["agreement"][factors["compared"] > 1].isna().any():
        notes.append("Agreement is not defined where all heads have one role, since chance agrees as well.")
    if samples < 10:
        notes.append(f"{counted(samples, 'sample')}: intervals over so few are rough.")
    notes.append(
        f"Heads listed as changing: 5 % per head over its timesteps together, so up to {round(0.05 * heads)} of {heads} by "
        "chance. A third is the mean of its timesteps: between single ones, as the Heads page counts, more may change."
    )
    return tuple(notes)
