"""Which process is meant: a pid together with its start time, because a bare pid is soon somebody else's."""

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Identity:
    """One process for all time: its pid and when it started (clock ticks since boot on Linux, else a timestamp).

    >>> Identity.of(os.getpid()) == Identity.mine() and Identity.mine().alive
    True
    >>> Identity(os.getpid(), started=1.0).alive
    False
    """

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """The process that has this pid now; None when there is none, or only its unreaped remains."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            return cls(pid, _started(process))
        except (psutil.Error, OSError):
            return None

    @classmethod
    def mine(cls) -> "Identity":
        return cls(os.getpid(), _started(psutil.Process()))

    @property
    def alive(self) -> bool:
        return Identity.of(self.pid) == self

    def kill(self, wait_seconds: float = 5.0) -> None:
        """Ends the process and its children at once; does nothing when the pid belongs to somebody else by now."""
        if not self.alive:
            return
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            kill_children(process)
            process.kill()
            process.wait(wait_seconds)


def kill_children(process: psutil.Process) -> None:
    """Ends every descendant of a process (an encoder, a data loader), so that none outlives it."""
    with contextlib.suppress(psutil.Error):
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()


def _started(process: psutil.Process) -> float:
    # psutil's create_time follows the wall clock on Linux: set the clock, and a live worker would look dead.
    if sys.platform == "linux":
        stat = Path(f"/proc/{process.pid}/stat").read_text(errors="replace")
        return float(stat.rpartition(")")[2].split()[19])
    return process.create_time()
