"""The numbers behind figures as tidy frames, one row per mark: what a chart's CSV holds."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.aggregate import Cells
from analysis.alpha_study import AlphaStudy
from analysis.marks import HeadMarks
from analysis.roles import LETTERS, ROLES, classify
from analysis.route_variation import RouteVariation


def head_table(
    cells: Cells, *, tau_s: float, tau_t: float, marks: HeadMarks | None = None, removed: np.ndarray | None = None
) -> pd.DataFrame:
    """One row per head of a view of ratios: `block`, `head`, `ratio`, its `standard_error` over `n` samples, `role`.

    With `marks` also `mark` (U uniform, F first-frame sink), with `removed` [block, head] that.

    >>> one = np.full((1, 1, 1, 2), 0.9)
    >>> table = head_table(Cells(np.array([500.0]), one.astype(int) + 4, one, one / 9), tau_s=0.7, tau_t=0.3)
    >>> table.round(3).to_dict("records")[1]
    {'block': 0, 'head': 1, 'ratio': 0.9, 'standard_error': 0.05, 'n': 4, 'role': 'S'}
    """
    ratio = cells.by_head()
    there = cells.n > 0
    # A head's ratio is as sure as its cell with the fewest samples.
    n = np.where(there, cells.n, np.iinfo(np.int32).max).min(axis=(0, 1))
    block, head = np.indices(ratio.shape)
    columns = {
        "block": block,
        "head": head,
        "ratio": ratio,
        "standard_error": cells.error_by_head(),
        "n": np.where(there.any(axis=(0, 1)), n, 0),
        "role": classify(ratio, tau_s, tau_t),
    }
    if marks is not None:
        columns["mark"] = marks.letters()
    if removed is not None:
        columns["removed"] = removed
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})


def role_count_table(letters: np.ndarray) -> pd.DataFrame:
    """One row per block: how many heads are spatial, mixed and temporal; `letters` [block, head].

    >>> role_count_table(np.array([["S", "T", "T"]])).to_dict("records")
    [{'block': 0, 'spatial': 1, 'mixed': 0, 'temporal': 2}]
    """
    letters = np.asarray(letters)
    counts = {role: (letters == letter).sum(axis=1) for role, letter in zip(ROLES, LETTERS, strict=True)}
    return pd.DataFrame({"block": np.arange(len(letters)), **counts})


def histogram_table(ratio: np.ndarray, *, tau_s: float, tau_t: float, bins: int = 50) -> pd.DataFrame:
    """One row per bin of ratios: `low`, `high`, and how many heads in it are spatial, mixed and temporal.

    >>> histogram_table(np.array([0.1, 0.95, np.nan]), tau_s=0.7, tau_t=0.3, bins=2).to_dict("records")[1]
    {'low': 0.5, 'high': 1.0, 'spatial': 1, 'mixed': 0, 'temporal': 0}
    """
    values = np.asarray(ratio, float).ravel()
    values = np.clip(values[~np.isnan(values)], 0, 1)
    letters = classify(values, tau_s, tau_t)
    edges = np.linspace(0, 1, bins + 1)
    counts = {
        role: np.histogram(values[letters == letter], edges)[0] for role, letter in zip(ROLES, LETTERS, strict=True)
    }
    return pd.DataFrame({"low": edges[:-1], "high": edges[1:], **counts})


def frame_map_table(values: np.ndarray, samples: int) -> pd.DataFrame:
    """One row per pair of latent frames: `frame_q`, `frame_k`, the `share` of attention, mean over `n` samples.

    >>> frame_map_table(np.array([[0.5, 0.5], [0.25, 0.75]]), 4).to_dict("records")[2]
    {'frame_q': 1, 'frame_k': 0, 'share': 0.25, 'n': 4}
    """
    query, key = np.indices(np.shape(values))
    return pd.DataFrame(
        {"frame_q": query.ravel(), "frame_k": key.ravel(), "share": np.asarray(values, float).ravel(), "n": samples}
    )


def part_table(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Frames of several parts below each other, told apart by a first column `part`.

    >>> part_table({"Whole block": pd.DataFrame({"mean": [0.5]})}).to_dict("records")
    [{'part': 'Whole block', 'mean': 0.5}]
    """
    named = [frame.assign(part=name)[["part", *frame.columns]] for name, frame in frames.items()]
    return pd.concat(named, ignore_index=True)


def kept_table(counts: Mapping[str, Sequence[int]], sizes: Mapping[str, int]) -> pd.DataFrame:
    """One row per block and part of a mask: `block`, `part`, how many are `kept` `of` how many.

    >>> kept_table({"self_heads": [7]}, {"self_heads": 10}).to_dict("records")
    [{'block': 0, 'part': 'self_heads', 'kept': 7, 'of': 10}]
    """
    rows = [
        {"block": block, "part": part, "kept": int(number), "of": sizes[part]}
        for part, kept in counts.items()
        for block, number in enumerate(kept)
    ]
    return pd.DataFrame(rows)


def kept_head_table(keep: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """One row per head [block, head]: its `score`, and whether it is `kept`.

    >>> kept_head_table(np.array([[True, False]]), np.array([[2.0, 1.0]])).to_dict("records")[1]
    {'block': 0, 'head': 1, 'score': 1.0, 'kept': False}
    """
    keep, scores = np.asarray(keep, bool), np.asarray(scores, float)
    block, head = np.indices(keep.shape)
    return pd.DataFrame({"block": block.ravel(), "head": head.ravel(), "score": scores.ravel(), "kept": keep.ravel()})


def flip_table(study: AlphaStudy) -> pd.DataFrame:
    """One row per α: how many picks are others than without protection, of all blocks together.

    >>> from pare.width.heads import select_heads
    >>> from analysis.alpha_study import alpha_study
    >>> study = alpha_study(np.array([[3.0, 2.0]]), np.array([["S", "T"]]), lambda s: select_heads(s, 1), (1.0, 2.0))
    >>> flip_table(study).to_dict("records")
    [{'alpha': 1.0, 'flips': 0}, {'alpha': 2.0, 'flips': 2}]
    """
    return pd.DataFrame({"alpha": study.alphas, "flips": study.per_block.sum(axis=1)})


def error_table(errors: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """One row per cut block: its relative error against the `dense` block and against `masking`.

    >>> error_table([{"dense": 0.2, "masking": 1e-3}]).to_dict("records")
    [{'block': 0, 'dense': 0.2, 'masking': 0.001}]
    """
    columns = {part: [error.get(part, np.nan) for error in errors] for part in ("dense", "masking")}
    return pd.DataFrame({"block": np.arange(len(errors)), **columns})


def disagreement_table(found: RouteVariation) -> pd.DataFrame:
    """One row per step: chance that two of the `n` samples decide differently, and that of blocks drawn at random."""
    columns = {"timestep": found.timesteps, "disagreement": found.by_step}
    return pd.DataFrame({**columns, "at_random": found.ceiling, "n": found.samples})


def decision_table(ran: np.ndarray, scores: np.ndarray, timesteps: np.ndarray) -> pd.DataFrame:
    """One row per step and block of decisions [step, block]: `timestep`, `block`, whether it `ran`, its `score`.

    >>> decision_table(np.array([[True, False]]), np.array([[1.0, 0.5]]), np.array([900.0])).to_dict("records")[1]
    {'step': 0, 'timestep': 900.0, 'block': 1, 'ran': False, 'score': 0.5}
    """
    step, block = np.indices(np.shape(ran))
    columns = {
        "step": step,
        "timestep": np.asarray(timesteps, float)[step],
        "block": block,
        "ran": ran,
        "score": scores,
    }
    return pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})
