"""Thresholds that the ratios themselves suggest: the gaps of their histogram."""

import numpy as np

WINDOW = 0.1
"""Width of the stretch of ratios in which heads are counted."""
STEP = 0.01
SIGNIFICANCE = 3.5
"""How many standard deviations of a count a gap must lie below the heads on both its sides."""
MIDDLE = 0.5
"""Above it most of a head's attention stays in its frame: a gap there parts spatial heads, one below parts temporal."""


def suggest_thresholds(ratio: np.ndarray) -> tuple[float | None, float | None]:
    """(τs, τt) at the clearest gap above and below 0.5 in the histogram of `ratio` (any shape), None where there is none.

    The heads in a stretch of ratios WINDOW wide are counted, the stretch moving by STEP. Its centre is a gap when it
    holds c heads and some stretch wholly to its left as well as one wholly to its right holds p with
    p − c > SIGNIFICANCE·sqrt(p + c): more than chance parts two counts of one smooth histogram, whose difference has
    the variance p + c (80 to 1600 random heads show a gap in at most 2 % of trials). The clearest gap has the largest
    (p − c)/sqrt(p + c), p from its lower side; of several alike the middle one is taken. NaN ratios are left out.

    >>> rng = np.random.default_rng(0)
    >>> suggest_thresholds(np.concatenate([rng.normal(0.15, 0.04, 60), rng.normal(0.85, 0.04, 60)]))[1]
    0.385
    >>> suggest_thresholds(rng.random(80))
    (None, None)
    """
    values = np.asarray(ratio, float).ravel()
    values = np.sort(values[~np.isnan(values)])
    centres = np.round(np.arange(WINDOW / 2, 1 - WINDOW / 2 + STEP / 2, STEP), 6)
    # Half-open stretches: a head on a border is counted once by neighbours.
    count = np.searchsorted(values, centres + WINDOW / 2) - np.searchsorted(values, centres - WINDOW / 2)
    apart = round(WINDOW / STEP)
    left, right = np.zeros(len(count)), np.zeros(len(count))
    left[apart:] = np.maximum.accumulate(count)[:-apart]
    right[:-apart] = np.maximum.accumulate(count[::-1])[::-1][apart:]
    lower = np.minimum(left, right)
    clarity = (lower - count) / np.sqrt(np.maximum(lower + count, 1))
    return _clearest(centres, clarity, centres >= MIDDLE), _clearest(centres, clarity, centres < MIDDLE)


def _clearest(centres: np.ndarray, clarity: np.ndarray, among: np.ndarray) -> float | None:
    best = clarity[among].max()
    if best <= SIGNIFICANCE:
        return None
    alike = centres[among & (clarity >= best - 1e-9)]
    return round(float(np.median(alike)), 3)
