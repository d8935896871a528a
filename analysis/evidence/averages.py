"""Question: what do averages hide?"""

from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import average
from analysis.block_values import block_values
from analysis.evidence.answer import Answer, Verdict
from analysis.evidence.words import counted, listed, mean_interval
from analysis.roles import LETTERS, TAU_S, TAU_T, classify, overall_ratio
from analysis.runs import Run

CLAIM = "Averages hide something: heads without the role of their mean, or blocks whose order turns with the timestep."
RULE = (
    "A head hides behind its mean when fewer than half of its cells (one sample, step and branch each) have the role of "
    "its mean, with the whole 95 % interval below half. Two blocks hide behind their means when one changes its input more "
    "on average but surely less at some timestep, both beyond their intervals. The intervals hold together over all heads, "
    "and over all pairs and timesteps. The claim is true when there is one such head or pair, and falsified when not even "
    "the means themselves show any."
)
MEASURED = (
    "The role of every head in every single cell against the role of its mean ratio; the relative change of every block at "
    "every timestep against its mean over timesteps; and heads whose interval over samples crosses a threshold."
)


def ask(run: Run, *, tau_s: float = TAU_S, tau_t: float = TAU_T) -> Answer:
    """The answer from a run's ratios and, where it has them, block norms; see `answer`."""
    blocks, timesteps = None, None
    if {"block/residual_norm", "block/input_norm"} <= set(run.statistics):
        found = block_values(run)
        blocks, timesteps = found.values, found.timesteps
    return answer(run.array("self/ratio", run.finished), blocks=blocks, timesteps=timesteps, tau_s=tau_s, tau_t=tau_t)


def answer(
    ratio: np.ndarray,
    *,
    blocks: np.ndarray | None = None,
    timesteps: np.ndarray | None = None,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
) -> Answer:
    """What means hide in ratios [sample, step, branch, block, head] and block changes [sample, step, block].

    Intervals are Student's over samples, corrected for the number of comparisons (Bonferroni).
    """
    ratio = np.asarray(ratio, float)
    heads = _heads(ratio, tau_s, tau_t)
    tables = {"heads": heads}
    pairs = pd.DataFrame({"turns": [], "surely": []})
    if blocks is not None and timesteps is not None:
        tables["blocks"], tables["block_steps"] = _blocks(blocks, timesteps)
        pairs = tables["pairs"] = _pairs(blocks, timesteps)
    hidden, seeming = int(heads["hidden"].sum()), int((heads["own"] < 0.5).sum())
    turning, seen = int(pairs["surely"].sum()), int(pairs["turns"].sum())
    verdict: Verdict = "yes" if hidden or turning else "undecided" if seeming or seen else "no"
    open_roles = int((~heads["decided"]).sum())
    body = [
        f"{hidden} of {len(heads)} heads have the role of their mean in fewer than half of their cells",
        f"{turning} of {len(pairs)} pairs of blocks change order with the timestep" if len(pairs) else "",
        f"the interval of {counted(open_roles, 'head')} crosses a threshold at {counted(len(ratio), 'sample')}",
    ]
    start = {"yes": "Yes: ", "no": "No: ", "undecided": "Undecided: "}[verdict]
    return Answer(
        question="averages",
        claim=CLAIM,
        verdict=verdict,
        sentence=start + listed([part for part in body if part]) + ".",
        rule=RULE,
        measured=MEASURED,
        n={"samples": len(ratio), "steps": ratio.shape[1], "heads": len(heads), "pairs": len(pairs)},
        tables=tables,
        notes=_notes(len(ratio), blocks is None, seeming - hidden, seen - turning),
        settings={"tau_s": tau_s, "tau_t": tau_t},
    )


def variance_shares(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a head's spread over cells splits: between steps, between samples, and the rest; [sample, step, …] in.

    Sums of squares of a two-way table over their total; NaN where a head never varies.

    >>> steps, samples, rest = variance_shares(np.array([[[0.0], [1.0]], [[0.0], [1.0]]]))
    >>> float(steps[0]), float(samples[0]), float(rest[0])
    (1.0, 0.0, 0.0)
    """
    mean = values.mean(axis=(0, 1))
    by_step, by_sample = values.mean(axis=0) - mean, values.mean(axis=1) - mean
    total = ((values - mean) ** 2).sum(axis=(0, 1))
    parts = len(values) * (by_step**2).sum(axis=0), values.shape[1] * (by_sample**2).sum(axis=0)
    steps, samples = (np.divide(p, total, out=np.full(total.shape, np.nan), where=total > 1e-18) for p in parts)
    return steps, samples, 1 - steps - samples


def _heads(ratio: np.ndarray, tau_s: float, tau_t: float) -> pd.DataFrame:
    samples, blocks, heads = len(ratio), *ratio.shape[-2:]
    mean = overall_ratio(ratio)
    role = classify(mean, tau_s, tau_t)
    cells = classify(ratio, tau_s, tau_t).reshape(samples, -1, blocks, heads)
    there = (cells != "").sum(axis=1)
    own = np.divide((cells == role).sum(axis=1), there, out=np.full(there.shape, np.nan), where=there > 0)
    number = int((role != "").sum()) or 1
    share, low, high, n = mean_interval(own, number)
    _, ratio_low, ratio_high, _ = mean_interval(average(ratio, (1, 2)))
    crossed = [(ratio_low <= tau) & (tau <= ratio_high) for tau in (tau_s, tau_t)]
    steps, between, rest = variance_shares(average(ratio, (2,)))
    columns: dict[str, Any] = {
        "block": np.repeat(np.arange(blocks), heads),
        "head": np.tile(np.arange(heads), blocks),
        "ratio": mean,
        "low": ratio_low,
        "high": ratio_high,
        "role": role,
        "decided": ~(crossed[0] | crossed[1]),
        "own": share,
        "own_low": np.clip(low, 0, 1),
        "own_high": np.clip(high, 0, 1),
        **{
            name: average(np.where(there > 0, (cells == letter).sum(axis=1) / np.maximum(there, 1), np.nan), (0,))
            for name, letter in zip(("spatial", "mixed", "temporal"), LETTERS, strict=True)
        },
        "by_step": steps,
        "by_sample": between,
        "rest": rest,
        "n": n,
        "hidden": high < 0.5,
    }
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def _blocks(values: np.ndarray, timesteps: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every block's mean change and rank, with its best and worst rank at any timestep; and the ranks step by step."""
    mean, low, high, n = mean_interval(average(values, (1,)))
    by_step = average(values, (0,))
    ranks = 1 + np.argsort(np.argsort(-by_step, axis=1, kind="stable"), axis=1, kind="stable")
    overall = 1 + np.argsort(np.argsort(-mean, kind="stable"), kind="stable")
    blocks = pd.DataFrame(
        {
            "block": np.arange(len(mean)),
            "mean": mean,
            "low": low,
            "high": high,
            "n": n,
            "rank": overall,
            "best_rank": ranks.min(axis=0),
            "worst_rank": ranks.max(axis=0),
        }
    )
    step, block = np.indices(by_step.shape)
    steps = pd.DataFrame(
        {
            "timestep": timesteps[step.ravel()],
            "block": block.ravel(),
            "mean": by_step.ravel(),
            "rank": ranks.ravel(),
            "n": (~np.isnan(values)).sum(axis=0).ravel(),
        }
    )
    return blocks, steps


def _pairs(values: np.ndarray, timesteps: np.ndarray) -> pd.DataFrame:
    """One row per pair of blocks, the one that changes its input more on average first: `turns` where the order of their
    means is another at some timestep, `surely` where both orders are beyond their intervals.
    """
    blocks = values.shape[2]
    first, second = np.triu_indices(blocks, 1)
    if not len(first):
        return pd.DataFrame({"first": [], "second": [], "turns": [], "surely": []})
    swap = average(values, (0, 1))[first] < average(values, (0, 1))[second]
    first, second = np.where(swap, second, first), np.where(swap, first, second)
    difference = values[:, :, first] - values[:, :, second]
    comparisons = len(first) * (len(timesteps) + 1)
    mean, low, high, n = mean_interval(average(difference, (1,)), comparisons)
    at, _, at_high, _ = mean_interval(difference, comparisons)
    lowest = np.argmin(np.where(np.isnan(at), np.inf, at), axis=0)
    each = np.arange(len(first))
    return pd.DataFrame(
        {
            "first": first,
            "second": second,
            "difference": mean,
            "low": low,
            "high": high,
            "n": n,
            "at_timestep": timesteps[lowest],
            "difference_there": at[lowest, each],
            "turns": (at < 0).any(axis=0),
            "surely": (low > 0) & (at_high < 0).any(axis=0),
        }
    )


def _notes(samples: int, without_blocks: bool, heads: int, pairs: int) -> tuple[str, ...]:
    notes = []
    if heads or pairs:
        notes.append(f"{counted(heads, 'head')} and {counted(pairs, 'pair')} more look so, within their intervals.")
    if without_blocks:
        notes.append("The run has no block norms, so nothing is said of blocks.")
    if samples < 10:
        notes.append(f"{counted(samples, 'sample')}: intervals over so few are wide, and those of shares rough.")
    notes.append("Samples differ in prompt and seed; what single frames or tokens do is averaged before it is stored.")
    return tuple(notes)
