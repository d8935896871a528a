"""Lines about the table as it is made: which job of how many, and how long all that is left will take."""

import time
from collections.abc import Callable, Sequence
from typing import TextIO

from pare.progress import Progress
from workbench.demo.report import StageReport


class TableReport:
    """Progress of jobs with estimates in seconds; the estimates of what is left are scaled by how the done ones went.

    >>> import io
    >>> lines, now = io.StringIO(), iter([0.0, 20.0, 20.0])
    >>> report = TableReport(["a", "b"], [10.0, 30.0], lines, clock=lambda: next(now))
    >>> report.begin(0)(1, 1, "written"); report.end(0); _ = report.begin(1)
    >>> report.left(1), lines.getvalue()
    (60.0, '[1/2] a 1/1: written; 0.0 h left in all\\n')
    """

    def __init__(
        self, titles: Sequence[str], seconds: Sequence[float], stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
    ):  # fmt: skip
        self.titles, self.seconds, self.stream, self.clock = titles, seconds, stream, clock
        self.expected = self.passed = self.started = 0.0
        self.skipped: set[int] = set()

    def begin(self, index: int) -> Progress:
        """The progress of a job that begins now."""
        self.started = self.clock()
        lines = StageReport(f"[{index + 1}/{len(self.titles)}] {self.titles[index]}", self.stream)

        def report(done: int, total: int, message: str = "") -> None:
            left = self.left(index, done / total if total else 0.0) / 3600
            lines(done, total, f"{message}; {left:.1f} h left in all".removeprefix("; "))

        return report

    def end(self, index: int) -> None:
        """A job is done."""
        self.expected += self.seconds[index]
        self.passed += self.clock() - self.started

    def left(self, index: int, share: float = 0.0) -> float:
        """Seconds that are left while job `index` is done to this share."""
        pace = self.passed / self.expected if self.expected else 1.0
        after = sum(self.seconds[each] for each in range(index + 1, len(self.seconds)))
        return pace * (self.seconds[index] * (1 - share) + after)
