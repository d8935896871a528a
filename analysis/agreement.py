"""How far raters agree on labels beyond chance: Krippendorff's alpha, Cohen's kappa, and the share of units they differ on."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

MISSING = -1


@dataclass(frozen=True, eq=False)
class Agreement:
    """Of raters on units: `changing` units of `units` have more than one label; alpha and kappa are 1 for full agreement.

    All are numbers, or arrays over the leading axes. NaN where there is nothing to compare, alpha and kappa also where
    every label is the same one, so that chance agrees as well.
    """

    units: np.ndarray
    changing: np.ndarray
    alpha: np.ndarray
    kappa: np.ndarray

    @property
    def share(self) -> np.ndarray:
        """Share of units with more than one label."""
        return _over(self.changing, self.units)


def encode(letters: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Letters as numbers from 0, `MISSING` for any other.

    >>> encode(np.array(["S", "T", ""]), ("S", "M", "T")).tolist()
    [0, 2, -1]
    """
    codes = np.full(np.shape(letters), MISSING, np.int8)
    for code, name in enumerate(classes):
        codes[np.asarray(letters) == name] = code
    return codes


def agreement(codes: np.ndarray, classes: int) -> Agreement:
    """Agreement of labels 0..classes − 1 in `codes` [..., rater, unit], `MISSING` where a rater has none.

    Alpha is Krippendorff's for nominal data, 1 − D_o/D_e; kappa Cohen's, for more than two raters the mean over pairs
    (Light 1971). A unit with fewer than two labels compares nothing. Krippendorff, Content Analysis (2004), chapter 11.

    >>> found = agreement(np.array([[0, 0, 1, 1], [0, 0, 1, 0]]), classes=2)
    >>> int(found.changing), int(found.units), round(float(found.alpha), 3), round(float(found.kappa), 3)
    (1, 4, 0.533, 0.5)
    """
    codes = np.asarray(codes)
    counts = np.stack([(codes == code).sum(axis=-2) for code in range(classes)], axis=-1)
    raters = counts.sum(axis=-1)
    compared = raters >= 2
    pairs = [
        _cohen(codes[..., first, :], codes[..., second, :], classes)
        for first, second in combinations(range(codes.shape[-2]), 2)
    ]
    return Agreement(
        units=np.asarray(compared.sum(axis=-1)),
        changing=np.asarray((compared & ((counts > 0).sum(axis=-1) > 1)).sum(axis=-1)),
        alpha=krippendorff(counts),
        kappa=_mean(np.stack(pairs)) if pairs else np.full(codes.shape[:-2], np.nan),
    )


def krippendorff(counts: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha from how many raters gave each label, `counts` [..., unit, class].

    >>> round(float(krippendorff(np.array([[2, 0], [2, 0], [0, 2], [1, 1]]))), 3)
    0.533
    """
    counts = np.asarray(counts, float)
    raters = counts.sum(axis=-1, keepdims=True)
    counts = np.where(raters >= 2, counts, 0.0)
    labels = counts.sum(axis=(-1, -2))
    same = np.divide(counts * (counts - 1), raters - 1, out=np.zeros_like(counts), where=raters >= 2)
    observed = 1 - _over(same.sum(axis=(-1, -2)), labels)
    totals = counts.sum(axis=-2)
    expected = 1 - _over((totals * (totals - 1)).sum(axis=-1), labels * (labels - 1))
    return np.asarray(1 - _over(observed, expected))


def _cohen(a: np.ndarray, b: np.ndarray, classes: int) -> np.ndarray:
    both = (a != MISSING) & (b != MISSING)
    n = both.sum(axis=-1)
    observed = _over((both & (a == b)).sum(axis=-1), n)
    by_chance = sum(
        _over((both & (a == code)).sum(axis=-1), n) * _over((both & (b == code)).sum(axis=-1), n)
        for code in range(classes)
    )
    return np.asarray(1 - _over(1 - observed, 1 - np.asarray(by_chance)))


def _over(part: Any, whole: Any) -> np.ndarray:
    """part / whole, NaN where the whole is 0 (to rounding)."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=np.abs(whole) > 1e-12)


def _mean(values: np.ndarray) -> np.ndarray:
    there = ~np.isnan(values)
    n = there.sum(axis=0)
    return np.divide(np.where(there, values, 0).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)
