"""Roles of self-attention heads: spatial, mixed or temporal, by the intra-slice ratio and two thresholds."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.aggregate import chosen_axes
from analysis.marks import head_marks
from analysis.redraw import DRAWS, drawn_counts
from analysis.runs import Run
from pare.errors import InputError

ROLES = ("spatial", "mixed", "temporal")
LETTERS = ("S", "M", "T")
TAU_S, TAU_T = 0.7, 0.3


def check_thresholds(tau_s: float, tau_t: float) -> None:
    """Raise InputError unless 0 <= tau_t <= tau_s <= 1.

    >>> check_thresholds(0.7, 0.3)
    """
    if not 0 <= tau_t <= tau_s <= 1:
        raise InputError(
            "--tau-s and --tau-t",
            got=f"tau_s = {tau_s:g}, tau_t = {tau_t:g}",
            expected="0 <= tau_t <= tau_s <= 1",
            fix=f"for example --tau-s {TAU_S} --tau-t {TAU_T}",
        )


def classify(ratio: np.ndarray, tau_s: float = TAU_S, tau_t: float = TAU_T) -> np.ndarray:
    """Letter per ratio (PARE, Eq. 4): S where r > tau_s, T where r < tau_t, M between; empty where r is missing (NaN).

    Any shape in, the same shape of one-letter strings out.

    >>> classify(np.array([0.9, 0.7, 0.3, 0.05, np.nan])).tolist()
    ['S', 'M', 'M', 'T', '']
    """
    check_thresholds(tau_s, tau_t)
    ratio = np.asarray(ratio, float)
    letters = np.where(ratio > tau_s, "S", np.where(ratio < tau_t, "T", "M"))
    return np.where(np.isnan(ratio), "", letters)


def role_counts(letters: np.ndarray) -> dict[str, int]:
    """How many heads have each role.

    >>> role_counts(np.array([["S", "T"], ["M", "T"]]))
    {'spatial': 1, 'mixed': 1, 'temporal': 2}
    """
    return {role: int(np.sum(letters == letter)) for role, letter in zip(ROLES, LETTERS, strict=True)}


def flips(ratio: np.ndarray, tau_s: float = TAU_S, tau_t: float = TAU_T, delta: float = 0.02) -> np.ndarray:
    """True where the role changes when either threshold moves by up to `delta`: |r − τ| <= delta.

    >>> flips(np.array([0.69, 0.5, 0.31])).tolist()
    [True, False, True]
    """
    check_thresholds(tau_s, tau_t)
    if not delta >= 0:
        raise InputError("delta", got=delta, expected="a number of at least 0", fix="for example 0.02")
    ratio = np.asarray(ratio, float)
    return (np.abs(ratio - tau_s) <= delta) | (np.abs(ratio - tau_t) <= delta)


def lift(ratio: np.ndarray, num_frames: int) -> np.ndarray:
    """(r − 1/Fl) / (1 − 1/Fl): 0 for uniform attention, 1 for the own frame only; NaN with a single frame.

    >>> lift(np.array([0.25, 1.0]), num_frames=4).tolist()
    [0.0, 1.0]
    """
    uniform = 1 / num_frames
    if num_frames == 1:
        return np.full(np.shape(ratio), np.nan)
    return (np.asarray(ratio, float) - uniform) / (1 - uniform)


def overall_ratio(ratio: np.ndarray) -> np.ndarray:
    """The mean that a head's role goes by: over samples cell by cell, then over cells; [sample, …, block, head] in.

    So a timestep weighs the same whether or not a sample lacks it; missing values (NaN) are left out. [block, head] out.

    >>> overall_ratio(np.array([[0.9, 0.2], [0.9, np.nan]]).reshape(2, 2, 1, 1)).tolist()
    [[0.55]]
    """
    cells = _mean(np.asarray(ratio, float))
    return _mean(cells.reshape(-1, *cells.shape[-2:]))


def stability(ratio: np.ndarray, tau_s: float = TAU_S, tau_t: float = TAU_T) -> np.ndarray:
    """Share of cells whose own role is the head's, that of `overall_ratio`: [sample, …, block, head] in, [block, head] out.

    All axes before the last two (sample, step, branch) are cells; missing ones (NaN) are left out.

    >>> stability(np.array([0.9, 0.8, 0.5, 0.9]).reshape(4, 1, 1)).tolist()
    [[0.75]]
    """
    ratio = np.asarray(ratio, float)
    overall = classify(overall_ratio(ratio), tau_s, tau_t)
    cells = classify(ratio.reshape(-1, *ratio.shape[-2:]), tau_s, tau_t)
    n = np.sum(cells != "", axis=0)
    return np.where(n > 0, np.sum((cells == overall) & (cells != ""), axis=0) / np.maximum(n, 1), np.nan)


def bootstrap_interval(
    values: np.ndarray, seed: int = 0, level: float = 0.95, draws: int = DRAWS
) -> tuple[np.ndarray, np.ndarray]:
    """Percentile bootstrap of the mean over samples, the first axis of `values`: (low, high), each of the other axes.

    Samples are redrawn whole, so that the steps of one sample stay together. NaN with fewer than two samples.

    >>> low, high = bootstrap_interval(np.array([[0.0], [1.0], [0.0], [1.0]]))
    >>> bool(low[0] < 0.5 < high[0])
    True
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return np.full(values.shape[1:], np.nan), np.full(values.shape[1:], np.nan)
    means = bootstrap_means(values, seed, draws)
    # The one that knows NaN takes several times as long.
    take = np.nanquantile if np.isnan(means).any() else np.quantile
    with warnings.catch_warnings():
        # What no sample has, such as a block that never ran, has no interval either; numpy would say so on every page.
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        low, high = take(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.asarray(low), np.asarray(high)


def bootstrap_means(values: np.ndarray, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Means [draw, …] of `values` [sample, …] with its samples redrawn whole; NaN where a draw has no value.

    >>> bootstrap_means(np.array([[2.0, np.nan], [2.0, np.nan]]), draws=2).tolist()
    [[2.0, nan], [2.0, nan]]
    """
    values = np.asarray(values, float)
    samples = len(values)
    counts = drawn_counts(samples, seed, draws)
    flat = values.reshape(samples, -1)
    there = ~np.isnan(flat)
    if there.all():
        return (counts @ flat / samples).reshape(draws, *values.shape[1:])
    n = counts @ there.astype(float)
    means = np.divide(counts @ np.where(there, flat, 0.0), n, out=np.full(n.shape, np.nan), where=n > 0)
    return means.reshape(draws, *values.shape[1:])


def role_table(
    run: Run,
    tau_s: float = TAU_S,
    tau_t: float = TAU_T,
    branch: str | None = None,
    seed: int = 0,
    *,
    sample: int | None = None,
    steps: Sequence[int] | None = None,
) -> pd.DataFrame:
    """One row per head: ratio over samples, steps and branches with its n and 95 % interval, role and stability.

    `sample`, `branch` and `steps` leave only that part of the run; one sample has no interval. Raises InputError for a part
    that the run does not have.

    Columns: block, head, ratio, ratio_low, ratio_high, n (samples), role, stability, flips, lift, value_norm; where
    captured also entropy (nats), first_frame_share and mark (U uniform, F first-frame sink, UF both).
    """
    check_thresholds(tau_s, tau_t)
    ratio, value_norm = (_select(run, name, branch, sample, steps) for name in ("self/ratio", "self/value_norm"))
    per_sample = _mean(ratio, axis=(1, 2))
    low, high = bootstrap_interval(per_sample, seed)
    mean = overall_ratio(ratio)
    blocks, heads = mean.shape
    columns: dict[str, Any] = {
        "block": np.repeat(np.arange(blocks), heads),
        "head": np.tile(np.arange(heads), blocks),
        "ratio": mean,
        "ratio_low": low,
        "ratio_high": high,
        "n": np.sum(~np.isnan(per_sample), axis=0),
        "role": classify(mean, tau_s, tau_t),
        "stability": stability(ratio, tau_s, tau_t),
        "flips": flips(mean, tau_s, tau_t),
        "lift": lift(mean, run.num_frames),
        "value_norm": _mean(value_norm, axis=(0, 1, 2)),
    }
    marks = head_marks(run, sample=sample, branch=branch, steps=steps)
    if marks.captured:
        known = {"entropy": marks.entropy, "first_frame_share": marks.first_frame_share}
        columns |= {name: values.mean for name, values in known.items() if values is not None}
        columns["mark"] = marks.letters()
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def _select(run: Run, name: str, branch: str | None, sample: int | None, steps: Sequence[int] | None) -> np.ndarray:
    if not run.finished:
        raise InputError(
            str(run.folder), got="no finished sample", expected="at least one", fix="capture with --resume"
        )
    if sample is not None and sample not in run.finished:
        raise InputError(
            "--sample", got=sample, expected="a finished sample", fix="--sample 0, or capture with --resume"
        )
    step_axis, branch_axis = chosen_axes(run, name, branch, steps)
    values = run.array(name, run.finished if sample is None else [sample])
    return values[:, step_axis][:, :, branch_axis]


def _mean(values: np.ndarray, axis: int | tuple[int, ...] = 0) -> np.ndarray:
    """Mean over cells that are there, NaN where none is (numpy's own warns then)."""
    there = ~np.isnan(values)
    n = there.sum(axis=axis)
    total = np.where(there, values, 0.0).sum(axis=axis, dtype=float)
    return np.divide(total, n, out=np.full(np.shape(total), np.nan), where=n > 0)
