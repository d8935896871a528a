"""Count, mean and spread of a statistic over the samples of a run."""

import numpy as np

from analysis.manifest import MAP_AXES, Statistic


def summarised(statistic: Statistic, samples: int) -> bool:
    """Whether a run of so many samples keeps a summary of this statistic: of frame maps only where it is smaller.

    A summary has 12 bytes for every cell (count, mean, spread), a map 2 in every sample that has one.
    """
    measured = samples if statistic.samples is None else len(statistic.samples)
    return statistic.axes != MAP_AXES or 2 * measured > 12


class Moments:
    """One pass over samples (Welford) in float64, cell by cell; missing samples and NaN cells are not counted.

    >>> moments = Moments((2,))
    >>> for values in ([1.0, 4.0], [3.0, np.nan]):
    ...     moments.add(np.array(values))
    >>> {name: values.tolist() for name, values in moments.result().items()}
    {'n': [2, 1], 'mean': [2.0, 4.0], 'std': [1.4142135381698608, nan]}
    """

    def __init__(self, shape: tuple[int, ...]):
        self.n = np.zeros(shape, np.int32)
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def add(self, values: np.ndarray | None) -> None:
        """Count one sample's values; None is a sample that lacks the statistic."""
        if values is None:
            return
        there = ~np.isnan(values)
        self.n += there
        delta = np.where(there, values - self.mean, 0.0)
        self.mean += delta / np.maximum(self.n, 1)
        self.squares += np.where(there, delta * (values - self.mean), 0.0)

    def result(self) -> dict[str, np.ndarray]:
        """`n` int32, `mean` and `std` float32; the spread has n − 1 in its denominator, NaN below two samples."""
        with np.errstate(invalid="ignore", divide="ignore"):
            std = np.sqrt(np.where(self.n > 1, self.squares / (self.n - 1), np.nan))
        mean = np.where(self.n > 0, self.mean, np.nan)
        return {"n": self.n, "mean": mean.astype(np.float32), "std": std.astype(np.float32)}
