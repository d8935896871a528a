"""What a job is: one long command with its arguments, its state and its progress."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pare.errors import InputError
from workbench.jobs.process import Identity

JOB_ID = re.compile(r"[a-z0-9-]{1,64}")


class State(StrEnum):
    """queued → running → done | failed; cancelling → cancelled on request; lost when its worker is gone."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"


IN_WORK = (State.RUNNING, State.CANCELLING)
ACTIVE = (State.QUEUED, *IN_WORK)
RESUMABLE = (State.CANCELLED, State.FAILED, State.LOST)


@dataclass(frozen=True)
class Job:
    """One row of the job table. Times are seconds since the epoch; `done` and `total` count the command's own units.

    >>> job = Job("a-1", "generate", {}, "cpu", State.RUNNING, done=3, total=8, rate=0.5, reported=100.0)
    >>> job.fraction, job.eta(now=102.0)
    (0.375, 8.0)
    """

    id: str
    command: str
    arguments: Mapping[str, Any]
    device: str
    state: State
    attempt: int = 1
    position: int | None = None  # 1 = next on its device; only while queued
    done: int = 0
    total: int = 0
    message: str = ""  # the last progress message; the reason in one line when failed, cancelled or lost
    rate: float | None = None  # units per second over the last reports of this attempt
    created: float = 0.0
    started: float | None = None  # of this attempt
    finished: float | None = None
    reported: float | None = None  # time of the last progress report
    cancel_requested: float | None = None
    worker: Identity | None = None
    heartbeat: float | None = None  # of its worker
    seconds_per_unit: float | None = None  # measured over the finished attempt
    result: Mapping[str, Any] | None = field(default=None, repr=False)  # what the command returned

    @property
    def active(self) -> bool:
        """Queued or in work: worth polling."""
        return self.state in ACTIVE

    @property
    def resumable(self) -> bool:
        return self.state in RESUMABLE

    @property
    def fraction(self) -> float:
        """Share of the units done, 0 to 1; 0 while the total is unknown."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    def eta(self, now: float | None = None) -> float | None:
        """Seconds left at this attempt's own rate; None until two units of this attempt are measured."""
        if self.state not in IN_WORK or not self.rate or self.reported is None:
            return None
        now = time.time() if now is None else now
        return max(0.0, (self.total - self.done) / self.rate - (now - self.reported))

    def seconds(self, now: float | None = None) -> float | None:
        """Seconds that this attempt has run, or ran; None before it starts."""
        if self.started is None:
            return None
        return max(0.0, (self.finished or (time.time() if now is None else now)) - self.started)


@dataclass(frozen=True)
class Cost:
    """What a job was expected to cost before it started; None where that was not known. `source`: from what."""

    seconds: float | None = None
    memory: int | None = None  # bytes
    disk: int | None = None  # bytes
    source: str = ""


@dataclass(frozen=True)
class Event:
    """Something that happened to a job; `seq` only grows, so a reader asks for what came after the last it saw."""

    seq: int
    job: str
    time: float
    state: State
    attempt: int
    message: str


@dataclass(frozen=True)
class Worker:
    """The one process that serves a device, and whether it is there now."""

    device: str
    identity: Identity
    heartbeat: float
    alive: bool


def check_id(job_id: str) -> str:
    """The id itself when it is well formed, so that no id can become another path."""
    if not JOB_ID.fullmatch(job_id):
        raise InputError(
            "job id", got=repr(job_id), expected="1 to 64 of a-z, 0-9 and -", fix="take one from `pare jobs list`"
        )
    return job_id
