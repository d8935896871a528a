"""A job's progress: measured on every step, written about five times a second, and the place where a cancel arrives."""

import contextlib
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable

from pare.errors import Cancelled
from workbench.jobs.job import Job, State
from workbench.jobs.store import Store

PERIOD = 0.2
"""Seconds between two writes."""
WINDOW = 20
"""Steps over which the rate is smoothed."""


class Report:
    """The `progress` callback that a worker hands to a command.

    Raises `Cancelled` at the first step after the job was cancelled, or at most `PERIOD` seconds of steps later.
    """

    def __init__(self, store: Store, job: Job, cancelled: threading.Event, clock: Callable[[], float] = time.monotonic):
        self._store, self._job, self._cancelled, self._clock = store, job, cancelled, clock
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW + 1)
        self._first: tuple[float, int] | None = None
        self._last: tuple[int, int, str] | None = None
        self._written: tuple[int, int, str] | None = None
        self._due = 0.0

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now = self._clock()
        new_phase = self._last is None or total != self._last[1] or done < self._last[0]
        if new_phase or self._first is None or done == self._first[1]:
            # The clock starts where the first unit of this attempt starts: neither units of an earlier attempt nor
            # preparation, such as loading the model, may count for the rate.
            self._recent.clear()
            self._first = (now, done)
        self._recent.append((now, done))
        self._last = (done, total, message)
        if now >= self._due or 0 < total <= done:
            self._due = now + PERIOD
            with contextlib.suppress(sqlite3.OperationalError):  # busy: the next step writes
                self._write()
        if self._cancelled.is_set():
            raise Cancelled(f"cancelled at {done} of {total}")

    @property
    def rate(self) -> float | None:
        """Units per second over the last steps of this attempt."""
        if len(self._recent) < 2:
            return None
        (start, first), (end, last) = self._recent[0], self._recent[-1]
        return (last - first) / (end - start) if last > first and end > start else None

    @property
    def seconds_per_unit(self) -> float | None:
        """Mean over this attempt, from its first report to its last: model loading is not in it."""
        if self._first is None or not self._recent or self._recent[-1][1] <= self._first[1]:
            return None
        return (self._recent[-1][0] - self._first[0]) / (self._recent[-1][1] - self._first[1])

    def flush(self) -> None:
        """Writes the last value if the throttle held it back."""
        if self._last is not None and self._last != self._written:
            self._write()

    def _write(self) -> None:
        assert self._last is not None
        state = self._store.report(self._job, *self._last, self.rate)
        self._written = self._last
        if state is not State.RUNNING:
            self._cancelled.set()
