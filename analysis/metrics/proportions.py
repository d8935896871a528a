"""A share with its n and its interval."""

from scipy.stats import binomtest


def wilson_interval(right: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of the share right / n; (0, 1) when nothing was counted.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.

    >>> low, high = wilson_interval(97, 100)
    >>> round(low, 3), round(high, 3)
    (0.915, 0.99)
    """
    if n == 0:
        return 0.0, 1.0
    interval = binomtest(right, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)
