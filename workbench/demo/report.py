"""One line a second about a long stage: units done, rate, time left."""

import time
from typing import TextIO


class StageReport:
    """A `pare.progress.Progress` that writes lines such as `transformer 120/5000, 1.2 s each, 98 min left: loss 0.31`."""

    def __init__(self, stage: str, stream: TextIO, every_seconds: float = 10.0):
        self.stage, self.stream, self.every = stage, stream, every_seconds
        self.started = self.last = time.monotonic()
        self.first: int | None = None

    def __call__(self, done: int, total: int, message: str = "") -> None:
        now = time.monotonic()
        if self.first is None:
            # The rate is this attempt's: what an earlier one did comes in one piece with the first call.
            self.first, self.started = done, now
        if now - self.last < self.every and done < total:
            return
        self.last = now
        line = f"{self.stage} {done}/{total}"
        if done > self.first:
            each = (now - self.started) / (done - self.first)
            line += f", {each:.2f} s each, {each * (total - done) / 60:.0f} min left"
        self.stream.write(line + (f": {message}" if message else "") + "\n")
        self.stream.flush()
