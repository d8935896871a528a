"""Moments: means over the forwards of a sample, then over the samples of a run; each as a running sum, none kept apart."""

from collections.abc import Mapping

import numpy as np

from analysis.manifest import Statistic


class MeanOfPasses:
    """Running float64 sums over one sample's forwards; a block that is all NaN in a forward did not run there.

    What it holds is one array per moment, however many forwards are added. The order of the additions is that of the
    forwards, so that the same forwards give the same bits.

    >>> means = MeanOfPasses()
    >>> for values in ([1.0, 4.0], [3.0, np.nan]):
    ...     means.add({"self/query_square": np.array(values, np.float32)})
    >>> means.arrays()["self/query_square"]
    array([2., 4.], dtype=float32)
    """

    def __init__(self) -> None:
        self._n: dict[str, np.ndarray] = {}
        self._sum: dict[str, np.ndarray] = {}

    def add(self, moments: Mapping[str, np.ndarray]) -> None:
        """Count the next forward: its means over tokens, first axis block."""
        for name, values in moments.items():
            if name not in self._sum:
                self._n[name] = np.zeros(len(values), np.int32)
                self._sum[name] = np.zeros(values.shape)
            there = _there(values)
            self._n[name] += there
            self._sum[name][there] += values[there]

    def arrays(self) -> dict[str, np.ndarray]:
        """The means in float32; NaN where a block never ran."""
        found = {}
        for name, total in self._sum.items():
            n = _along(self._n[name], total)
            found[name] = np.where(n > 0, total / np.maximum(n, 1), np.nan).astype(np.float32)
        return found


class MeanOfSamples:
    """Running means in float64 of arrays whose first axis is the block; a block that is all NaN in a sample is not counted.

    `samples` is how many samples, from index 0 on without a gap, are inside. The order of the additions is that of the
    samples, so that the same samples give the same bits, whoever measured them.

    >>> means = MeanOfSamples({"self/query_square": Statistic(axes=("block",), shape=(2,), unit="", description="")})
    >>> for values in ([1.0, 4.0], [3.0, np.nan]):
    ...     means.add({"self/query_square": np.array(values)})
    >>> {name: values.tolist() for name, values in means.arrays().items()}
    {'self/query_square/n': [2, 1], 'self/query_square/mean': [2.0, 4.0], 'samples': [2]}
    """

    def __init__(self, described: Mapping[str, Statistic], stored: Mapping[str, np.ndarray] | None = None):
        stored = stored or {}
        self.samples = int(stored["samples"][0]) if stored else 0
        self._n, self._mean = {}, {}
        for name, statistic in described.items():
            self._n[name] = np.array(stored.get(f"{name}/n", np.zeros(statistic.shape[0], np.int32)))
            # A block that was not measured is NaN in the file; here the count says so.
            mean = np.array(stored.get(f"{name}/mean", np.zeros(statistic.shape)))
            self._mean[name] = np.where(_along(self._n[name], mean) > 0, mean, 0.0)

    def add(self, sample: Mapping[str, np.ndarray]) -> None:
        """Count the next sample."""
        for name, values in sample.items():
            self._join(name, _there(values).astype(np.int32), values.astype(np.float64))
        self.samples += 1

    def merge(self, other: "MeanOfSamples") -> None:
        """Take in the means of other samples, each weighted by its count."""
        for name, n in other._n.items():
            self._join(name, n, other._mean[name])
        self.samples += other.samples

    def arrays(self) -> dict[str, np.ndarray]:
        """What `moments.safetensors` holds: `n` int32 [block], `mean` float64 (NaN where n is 0), `samples` [1]."""
        arrays = {}
        for name, mean in self._mean.items():
            arrays[f"{name}/n"] = self._n[name]
            arrays[f"{name}/mean"] = np.where(_along(self._n[name], mean) > 0, mean, np.nan)
        return arrays | {"samples": np.array([self.samples], np.int64)}

    def _join(self, name: str, n: np.ndarray, mean: np.ndarray) -> None:
        there = self._n[name] + n
        share = _along(n / np.maximum(there, 1), mean)
        self._mean[name] = np.where(share > 0, self._mean[name] + (mean - self._mean[name]) * share, self._mean[name])
        self._n[name] = there.astype(np.int32)


def _there(values: np.ndarray) -> np.ndarray:
    """Which blocks ran: those that are not wholly NaN. In one that ran a head or neuron may have been cut."""
    return ~np.isnan(values.reshape(len(values), -1)).all(axis=1)


def _along(per_block: np.ndarray, values: np.ndarray) -> np.ndarray:
    return per_block.reshape(-1, *[1] * (values.ndim - 1))
