"""Heads whose ratio says less than it seems: uniform attention and first-frame sinks, marked beside their role.

A low ratio means that attention leaves the query's frame, not that it follows motion. Attention spread evenly over all
tokens has r = 1/Fl, and a head that looks at the first frame only has the same; with four frames or more both fall
below τt = 0.3. So both carry a mark wherever their role is shown.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.aggregate import read_cells
from analysis.runs import Run

UNIFORM_TOLERANCE = 0.1
"""Nats below log(tokens): the head spreads over at least exp(−0.1) = 90 % of the tokens."""
FIRST_FRAME_EXCESS = 0.3
"""Share of attention to the first frame beyond its uniform share 1/Fl, over what is left beyond it."""
MARK_NAMES = {"U": "uniform", "F": "first-frame sink"}


def uniform_heads(entropy: np.ndarray, tokens: int, tolerance: float = UNIFORM_TOLERANCE) -> np.ndarray:
    """True where entropy in nats is within `tolerance` of log(tokens), the entropy of uniform attention; NaN is False.

    log(tokens) − H is the Kullback–Leibler divergence from uniform attention.

    >>> uniform_heads(np.array([np.log(324), np.log(324) - 0.2, np.nan]), tokens=324).tolist()
    [True, False, False]
    """
    return np.asarray(entropy, float) >= np.log(tokens) - tolerance


def first_frame_sinks(share: np.ndarray, num_frames: int, excess: float = FIRST_FRAME_EXCESS) -> np.ndarray:
    """True where (share − 1/Fl) / (1 − 1/Fl) >= `excess`, `share` being the attention that goes to the first frame.

    Uniform attention and attention inside each query's own frame both give it 1/Fl. One frame alone is no sink.

    >>> first_frame_sinks(np.array([1 / 9, 0.36, 0.4, np.nan]), num_frames=9).tolist()
    [False, False, True, False]
    """
    share = np.asarray(share, float)
    if num_frames == 1:
        return np.zeros(share.shape, bool)
    return (share - 1 / num_frames) / (1 - 1 / num_frames) >= excess


@dataclass(frozen=True)
class HeadMeans:
    """A statistic of every head, averaged over a part of a run, and its standard error over `samples` [block, head]."""

    mean: np.ndarray
    error: np.ndarray
    samples: int


@dataclass(frozen=True)
class HeadMarks:
    """Entropy (nats) and first-frame share of every head, None where not captured, and their marks [block, head]."""

    entropy: HeadMeans | None
    first_frame_share: HeadMeans | None
    uniform: np.ndarray
    first_frame_sink: np.ndarray

    @property
    def captured(self) -> bool:
        """Whether the run has anything that could give a mark."""
        return self.entropy is not None or self.first_frame_share is not None

    @property
    def any(self) -> np.ndarray:
        """True for heads with a mark."""
        return self.uniform | self.first_frame_sink

    def letters(self) -> np.ndarray:
        """ "U" uniform, "F" first-frame sink, "UF" both, "" neither."""
        return np.char.add(np.where(self.uniform, "U", ""), np.where(self.first_frame_sink, "F", ""))


def head_marks(
    run: Run, *, sample: int | None = None, branch: str | None = None, steps: Sequence[int] | None = None
) -> HeadMarks:
    """Marks of all heads in a part of the run, from means over its samples, steps and branches.

    Exact entropy is taken where the run has it, else the one of sampled query rows. What was not captured marks nothing.
    """

    def means(*names: str) -> HeadMeans | None:
        name = next((name for name in names if name in run.statistics), None)
        if name is None:
            return None
        cells = read_cells(run, name, sample=sample, branch=branch, steps=steps)
        return HeadMeans(cells.by_head(), cells.error_by_head(), cells.samples)

    entropy, share = means("self/entropy_exact", "self/entropy"), means("self/first_frame_share")
    none = np.zeros((run.geometry.blocks, run.geometry.heads), bool)
    tokens = run.num_frames * run.manifest.tokens_per_frame
    return HeadMarks(
        entropy,
        share,
        none if entropy is None else uniform_heads(entropy.mean, tokens),
        none if share is None else first_frame_sinks(share.mean, run.num_frames),
    )
