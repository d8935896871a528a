"""The jobs of one workspace: submit, look, cancel, resume; the app and the command line both go through here.

Everything is read from and written to WORKSPACE/jobs.sqlite3 and WORKSPACE/jobs/ID/, so any process may ask at any time
and nothing is lost with a browser tab or a server. No torch here.
"""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pare.errors import InputError
from workbench.jobs import launch
from workbench.jobs.device import check_device
from workbench.jobs.folder import JobFolder
from workbench.jobs.history import expected_cost
from workbench.jobs.job import ACTIVE, RESUMABLE, Cost, Event, Job, State, Worker, check_id
from workbench.jobs.spec import COMMANDS, new_id, prepare
from workbench.jobs.store import Store

__all__ = ["Cost", "Event", "Job", "Jobs", "State", "Worker", "open_workspace"]

HISTORY = 20
"""How many finished jobs tell what a unit costs."""


def open_workspace(path: str | Path, *, create: bool = True, commands: str = COMMANDS) -> "Jobs":
    """The jobs of the workspace at `path`; makes the folder and its job table unless `create` is off.

    `commands` is the package whose modules are the commands that may run as jobs.
    Raises `InputError` when `path` is a file or cannot be written, when its job table is broken or of a newer version,
    and when nothing is there and `create` is off.
    """
    root = Path(path).expanduser().resolve()
    store = Store(root / "jobs.sqlite3")
    if root.exists() and not root.is_dir():
        raise InputError("--workspace", got=path, expected="a folder", fix="name another folder")
    if not create and not store.path.is_file():
        raise InputError(
            "--workspace", got=path, expected="a folder with jobs", fix="submit one, or name its workspace"
        )
    try:
        (root / "jobs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        expected = "a folder that can be written"
        raise InputError(
            "--workspace", got=f"{path}: {error.strerror}", expected=expected, fix="name another"
        ) from None
    store.create()
    return Jobs(root, store, commands)


@dataclass(frozen=True)
class Jobs:
    """A workspace's job table; cheap to make, holds no connection, safe to use from several threads and processes."""

    root: Path
    store: Store
    commands: str = COMMANDS

    def submit(
        self,
        command: str,
        arguments: Mapping[str, Any],
        device: str = "auto",
        *,
        start: bool = True,
        name: str = "",
        cost: Cost | None = None,
    ) -> str:
        """Queues one command with its keyword arguments and returns the job's id; starts the device's worker.

        `device` is where it queues and runs (cpu, mps, cuda:0, …; auto: this machine's fastest).
        A relative `out` (or `csv`, `parquet`) lands in the job's own artefacts folder, an absolute one must lie in the
        workspace. Raises `InputError` for an unknown command, arguments that do not fit its signature or are not JSON,
        a path outside the workspace, a malformed device. `name` starts the id (default: the command).
        `cost` is what it is expected to take (default: what finished jobs like it took). `start=False` only queues.
        """
        device = check_device(device)
        job_id = new_id(name or command)
        artefacts = self._folder(job_id).artefacts
        ready = prepare(command, arguments, device, package=self.commands, root=self.root, artefacts=artefacts)
        # Without a history nothing is expected, and nothing is kept.
        if cost := cost or self.forecast(command, ready, device):
            self._folder(job_id).expect(cost)
        self.store.add(job_id, command, ready, device)
        if start:
            self.ensure_worker(device)
        return job_id

    def status(self, job_id: str) -> Job:
        """The job as it is now; a job whose worker is gone shows as lost. Raises `InputError` for an unknown id."""
        self.store.sweep()
        return self._get(job_id)

    def list(self, *, active: bool = False, command: str | None = None, limit: int = 200) -> Sequence[Job]:
        """Jobs in work first, then the queues in their order, then the finished ones, newest first."""
        self.store.sweep()
        return self.store.jobs(states=ACTIVE if active else None, command=command, limit=limit)

    def summary(self) -> dict[State, int]:
        """How many jobs are queued, running and cancelling (every active state is present, zero included)."""
        self.store.sweep()
        return self.store.count(ACTIVE)

    def cancel(self, job_id: str) -> Job:
        """Cancels a queued job at once and a running one at its next step; a finished one stays as it is.

        A command that reports no step within `worker.GRACE` seconds is interrupted, and ended after as long again.
        """
        self.store.sweep()
        self._get(job_id)
        self.store.request_cancel(job_id)
        return self._get(job_id)

    def resume(self, job_id: str, *, start: bool = True) -> Job:
        """Queues a cancelled, failed or lost job again: same id and folder, next attempt.

        The command gets `resume=True` if its signature has it, and else starts from the beginning.
        Raises `InputError` for a job that is active or done.
        """
        job = self.status(job_id)
        if not self.store.requeue(job_id):
            expected = "a job that is " + ", ".join(RESUMABLE)
            raise InputError(f"job {job_id}", got=job.state, expected=expected, fix="submit it anew, or wait")
        self._folder(job_id).manifest.unlink(missing_ok=True)
        if start:
            self.ensure_worker(job.device)
        return self._get(job_id)

    def delete(self, job_id: str) -> None:
        """Removes a finished job with its log and artefacts. Raises `InputError` for an active one."""
        job = self.status(job_id)
        if not self.store.remove(job_id):
            raise InputError(f"job {job_id}", got=job.state, expected="a finished job", fix=f"cancel {job_id} first")
        shutil.rmtree(self._folder(job_id).path, ignore_errors=True)

    def log(self, job_id: str, lines: int = 200) -> str:
        """The last lines of what the command wrote (standard output and error, tracebacks), tokens blanked."""
        self._get(job_id)
        return self._folder(job_id).tail(lines)

    def events(self, job_id: str | None = None, *, after: int = 0) -> Sequence[Event]:
        """State changes with `seq > after`, oldest first, of one job or of all: poll with the last seq seen."""
        if job_id is not None:
            self._get(job_id)
        return self.store.events(after, job_id)

    def artefacts(self, job_id: str) -> Sequence[Path]:
        """The files of a finished job's artefacts folder, as its manifest lists them; none before it is done."""
        self._get(job_id)
        return self._folder(job_id).listed()

    def folder(self, job_id: str) -> Path:
        """WORKSPACE/jobs/ID, with log.txt, artefacts/ and, when done, result.json and manifest.json."""
        self._get(job_id)
        return self._folder(job_id).path

    def history(self, command: str, device: str = "auto", matching: Mapping[str, Any] | None = None) -> float | None:
        """Mean seconds per unit (sample, step) of the last finished jobs of this command on this device.

        `matching` keeps those with these arguments (for example `{"model": "demo", "height": 48}`). None: no such job.
        """
        device = check_device(device)
        done = self._finished(command)
        wanted = dict(matching or {}).items()
        costs = [
            job.seconds_per_unit
            for job in done
            if job.device == device
            and job.seconds_per_unit is not None
            and all(job.arguments.get(name) == value for name, value in wanted)
        ][:HISTORY]
        return sum(costs) / len(costs) if costs else None

    def forecast(self, command: str, arguments: Mapping[str, Any], device: str = "auto") -> Cost | None:
        """What finished jobs like this one took on this device; None where there is none."""
        device = check_device(device)
        return expected_cost(self._finished(command), arguments, device)

    def expected(self, job_id: str) -> Cost | None:
        """What the job was expected to cost when it was submitted; None where nothing was known."""
        self._get(job_id)
        return self._folder(job_id).expected()

    def ensure_worker(self, device: str = "auto", *, idle_seconds: float = 600.0, threads: int | None = None) -> None:
        """Starts the device's worker unless it is there; ends one that no longer beats, so that its queue goes on.

        Any number of processes may call this at once: one worker stays. It outlives the caller, and exits when idle.
        """
        device = check_device(device)
        self.store.sweep()
        if not launch.make_way(self.store, device):
            launch.start(self.root, device, self.commands, idle_seconds=idle_seconds, threads=threads)

    def wake(self) -> None:
        """`ensure_worker` for every device with queued jobs: for the app's start, after a crash or a reboot."""
        for device in {job.device for job in self.store.jobs(states=(State.QUEUED,))}:
            self.ensure_worker(device)

    def workers(self) -> Sequence[Worker]:
        """The workers that registered, one per device at most, and whether each is alive."""
        return self.store.workers()

    def wait(self, job_id: str, seconds: float | None = None, watch: Callable[[Job], None] | None = None) -> Job:
        """The job once it is no longer active, or as it is after `seconds`; `watch` sees it five times a second."""
        end = None if seconds is None else time.monotonic() + seconds
        while (job := self.status(job_id)).active and (end is None or time.monotonic() < end):
            if watch:
                watch(job)
            time.sleep(0.2)
        return job

    def _finished(self, command: str) -> Sequence[Job]:
        return self.store.jobs(states=(State.DONE,), command=command, limit=50 * HISTORY)

    def _get(self, job_id: str) -> Job:
        job = self.store.get(check_id(job_id))
        if job is None:
            raise InputError("job", got=job_id, expected="the id of a job here", fix="take one from `pare jobs list`")
        return job

    def _folder(self, job_id: str) -> JobFolder:
        return JobFolder(self.root / "jobs" / check_id(job_id))
