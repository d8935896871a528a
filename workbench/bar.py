"""Progress on standard error: a bar in a terminal, a line now and then elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any, Self

QUIET_SECONDS = 5.0


class Bar:
    """A `pare.progress.Progress` to use as a context; nothing is drawn before the first report."""

    def __init__(self) -> None:
        self._progress: Any = None
        self._task: Any = None
        self._last = -QUIET_SECONDS
        self._line = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, done: int, total: int, message: str = "") -> None:
        """Shows `done` of `total` units."""
        if sys.stderr.isatty():
            self._draw(done, total, message)
        else:
            self._write(done, total, message)

    def _draw(self, done: int, total: int, message: str) -> None:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._progress.add_task(message, total=total or None)
            self._progress.start()
        # A total that is not known yet is reported as 0.
        self._progress.update(self._task, completed=done, total=total or None, description=message)

    def _write(self, done: int, total: int, message: str) -> None:
        now, line = time.monotonic(), f"{done}/{total} {message}".rstrip() if total else message
        if line != self._line and (now - self._last >= QUIET_SECONDS or 0 < total == done):
            print(line, file=sys.stderr, flush=True)
            self._last, self._line = now, line
