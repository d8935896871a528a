"""Numbers as the sentences of answers say them, and intervals that hold together over many comparisons."""

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.05


def spread(value: float, low: float, high: float, digits: int = 2) -> str:
    """A number with its interval.

    >>> spread(0.5, 0.25, 0.75), spread(0.5, float("nan"), float("nan"))
    ('0.50 [0.25, 0.75]', '0.50, no interval')
    """
    if np.isnan(value):
        return "not defined"
    if np.isnan(low) or np.isnan(high):
        return f"{value:.{digits}f}, no interval"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def listed(names: list[str]) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> counted(1, "head"), counted(0, "head"), counted(2, "branch", "branches")
    ('1 head', '0 heads', '2 branches')
    """
    return f"{count} {one if count == 1 else many or one + 's'}"


def mean_interval(values: np.ndarray, comparisons: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the first axis, its interval (Student's t) and n; missing values (NaN) are left out.

    With `comparisons` the intervals hold together at 95 % over so many of them (Bonferroni). NaN below two values.

    >>> mean, low, high, n = mean_interval(np.array([[1.0], [2.0], [3.0]]))
    >>> float(mean[0]), round(float(low[0]), 3), round(float(high[0]), 3), int(n[0])
    (2.0, -0.484, 4.484, 3)
    """
    values = np.asarray(values, float)
    there = ~np.isnan(values)
    n = there.sum(axis=0)
    mean = np.divide(np.where(there, values, 0).sum(axis=0), n, out=np.full(n.shape, np.nan), where=n > 0)
    squares = (np.where(there, values - mean, 0) ** 2).sum(axis=0)
    variance = np.divide(squares, n - 1, out=np.full(n.shape, np.nan), where=n > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        margin = stdtrit(np.maximum(n - 1, 1), 1 - LEVEL / 2 / comparisons) * np.sqrt(variance / n)
    return mean, mean - margin, mean + margin, n
