"""From scores and a budget to which blocks run: the hard top-K of Eq. 10, how close it was, and decisions made anew."""

from dataclasses import dataclass

import numpy as np

from pare.depth.budget import BudgetSchedule, Numbers, fewest
from pare.depth.costs import CostTable
from pare.errors import InputError


def choose_blocks(scores: np.ndarray, counts: np.ndarray | int) -> np.ndarray:
    """True where a block runs: the first, the last and the best-scored others, K in all; scores [..., blocks].

    `counts` K is [...], or one for all. A tie goes to the lower index. Raises InputError for a score that is NaN and for
    a K below the always-on blocks or above all (PARE, Eq. 10).

    >>> choose_blocks(np.array([0.0, 3.0, 1.0, 3.0, 2.0, 0.0]), 4).tolist()
    [True, True, False, True, False, True]
    """
    scores = np.asarray(scores, float)
    blocks = scores.shape[-1]
    counts = np.broadcast_to(np.asarray(counts), scores.shape[:-1])
    if np.isnan(scores).any():
        where = tuple(int(index) for index in np.argwhere(np.isnan(scores))[0])
        raise InputError("scores", got=f"not a number for block {where[-1]}", expected="a score per block", fix="check")
    if counts.size and not (counts.min() >= fewest(blocks) and counts.max() <= blocks):
        wrong = counts.min() if counts.min() < fewest(blocks) else counts.max()
        raise InputError(
            "budget", got=int(wrong), expected=f"{fewest(blocks)} to {blocks} blocks", fix="--k-min and --k-max"
        )
    ordered = scores.copy()
    # Above any score, and equal to each other.
    ordered[..., [0, -1]] = np.inf
    infinite = np.isinf(scores[..., 1:-1]) & (scores[..., 1:-1] > 0)
    if infinite.any():
        ordered[..., 1:-1][infinite] = np.finfo(float).max
    order = np.argsort(-ordered, axis=-1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(blocks), order.shape), axis=-1)
    return rank < counts[..., None]


def scores_at(timesteps: Numbers, measured: Numbers, importance: np.ndarray) -> np.ndarray:
    """Scores [timesteps, blocks] from importance [steps, blocks] at the timesteps `measured` [steps], rising.

    Linear in between, outside of the measured timesteps the nearest one's: what `--router importance` scores by.

    >>> scores_at([500.0], [100.0, 900.0], np.array([[3.0, 6.0], [1.0, 2.0]])).tolist()
    [[2.0, 4.0]]
    """
    return np.stack([np.interp(np.asarray(timesteps, float), measured, column) for column in importance.T], axis=1)


def distance_to_flip(scores: np.ndarray, ran: np.ndarray) -> np.ndarray:
    """How far a block's score is from changing its decision, all others and the budget unchanged; [..., blocks].

    For a block that ran: its score less the best of the skipped ones; for a skipped one: the worst score that ran less
    its own. Not a number for the always-on blocks, and where there is nobody to change places with.

    >>> distance_to_flip(np.array([0.0, 3.0, 1.0, 2.5, 0.0]), np.array([True, True, False, True, True])).tolist()
    [nan, 2.0, 1.5, 1.5, nan]
    """
    scores, ran = np.asarray(scores, float), np.asarray(ran, bool)
    middle = np.ones(scores.shape[-1], bool)
    middle[[0, -1]] = False
    best_skipped = np.where(middle & ~ran, scores, -np.inf).max(axis=-1, keepdims=True)
    worst_ran = np.where(middle & ran, scores, np.inf).min(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore"):
        distance = np.where(ran, scores - best_skipped, worst_ran - scores)
    return np.where(middle & np.isfinite(distance), distance, np.nan)


@dataclass(frozen=True, eq=False)
class Redecision:
    """Decisions made from stored scores: `ran` and `distance` [..., step, block], `counts` [step], and predicted cost.

    `share` is that of the block FLOPs of the dense model; `flops` and `seconds` of one video are None unless the dense
    FLOPs or a cost table were given.
    """

    ran: np.ndarray
    distance: np.ndarray
    counts: np.ndarray
    asked: np.ndarray
    share: float
    flops: float | None = None
    seconds: float | None = None


def redecide(
    scores: np.ndarray,
    budget: BudgetSchedule,
    *,
    timesteps: Numbers,
    block_flops: Numbers | None = None,
    costs: CostTable | None = None,
    forwards: int = 2,
) -> Redecision:
    """Decide again at another budget from the scores of a run, [..., step, block], without running the model.

    `block_flops` [block] are those of one forward (`pare.cost.flops` per block; equal ones unless given), `forwards` per
    step 2 with guidance. At another budget the latents, and with them a content-aware router's scores, would differ a
    little: this predicts, a run decides.

    >>> again = redecide(np.array([[0.0, 2.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0]]), BudgetSchedule.linear(2, 4),
    ...     timesteps=[1000.0, 500.0])
    >>> again.ran.tolist(), again.share
    ([[True, True, True, True], [True, False, True, True]], 0.875)
    """
    scores = np.asarray(scores, float)
    steps, blocks = scores.shape[-2:]
    if len(timesteps) != steps:
        raise InputError(
            "timesteps", got=f"{len(timesteps)}", expected=f"one per step ({steps})", fix="those of the run"
        )
    asked = np.array([budget.asked(t, step) for step, t in enumerate(timesteps)])
    counts = np.array([budget.count(t, step, blocks) for step, t in enumerate(timesteps)])
    ran = choose_blocks(scores, counts)
    weights = np.ones(blocks) if block_flops is None else np.asarray(block_flops, float)
    if weights.shape != (blocks,):
        raise InputError("block_flops", got=f"{weights.shape}", expected=f"one per block ({blocks})", fix="give all")
    per_video = (ran * weights).sum(axis=(-1, -2))
    mean = float(np.mean(per_video))
    return Redecision(
        ran=ran,
        distance=distance_to_flip(scores, ran),
        counts=counts,
        asked=asked,
        share=mean / float(weights.sum() * steps),
        flops=None if block_flops is None else mean * forwards,
        seconds=None if costs is None else costs.seconds(blocks_run=int(counts.sum()), steps=steps, forwards=forwards),
    )
