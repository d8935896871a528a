"""Several ways to do one thing, timed in turn: what disturbs the machine disturbs all of them."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Seconds:
    """Of one call: seconds that passed, and seconds that this process spent on processors (all its threads)."""

    passed: float
    processor: float


@dataclass(frozen=True)
class Quartiles:
    """Median and the quartiles around it."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Quartiles":
        """Of one value or more; the quartiles lie on or between the values themselves.

        >>> Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Quartiles(median=3.0, lower=2.0, upper=4.0)
        """
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper)


def timed(call: Callable[[], object]) -> Seconds:
    """How long one call takes; the call itself must wait for its device."""
    passed, processor = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - passed, time.process_time() - processor)


def in_turn(ways: Mapping[str, Callable[[], Seconds]], repeats: Mapping[str, int]) -> dict[str, list[Seconds]]:
    """A B C A B C …: every way measured `repeats` times; the round before the first warms up and is not counted.

    The first way comes in every round. Other ways drop out when they have had their repeats.
    """
    times: dict[str, list[Seconds]] = {name: [] for name in ways}
    for measure in ways.values():
        measure()
    for number in range(max(repeats.values())):
        for name, measure in ways.items():
            if number < repeats[name]:
                times[name].append(measure())
    return times


def over(mine: Sequence[Seconds], base: Sequence[Seconds], clock: str) -> Quartiles:
    """Quartiles of the ratio of two ways within each round; `clock` is passed or processor."""
    pairs = zip(mine, base, strict=False)
    return Quartiles.of([getattr(each, clock) / getattr(other, clock) for each, other in pairs])
