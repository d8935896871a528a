"""The process that runs the jobs of one device, one after the other: `python -m workbench.jobs.worker --workspace DIR`.

It registers as the device's only worker, claims queued jobs, keeps the model warm between them, and exits when idle,
which is the one sure way to give a GPU's memory back. Only this process writes what it does: its row, its jobs' states.
"""

import argparse
import faulthandler
import importlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psutil

from pare.errors import Cancelled, InputError
from workbench.jobs import launch
from workbench.jobs.api import Jobs, open_workspace
from workbench.jobs.device import check_device
from workbench.jobs.folder import JobFolder
from workbench.jobs.job import Job, State
from workbench.jobs.logs import RedactedStream, redact, redirected
from workbench.jobs.process import Identity, kill_children
from workbench.jobs.report import Report
from workbench.jobs.spec import COMMANDS, prepare, signature
from workbench.jobs.warm import WarmPipeline

T = TypeVar("T")

GRACE = 30.0
"""Seconds that a cancelled command has to reach its next step until it is interrupted, and again until it is ended."""
TICK = 0.25
BEAT = 1.0


@dataclass
class _Run:
    """One job in work, and how far stopping it has come."""

    job: Job
    cancelled: threading.Event = field(default_factory=threading.Event)
    asked: float | None = None  # monotonic time at which the supervisor saw the cancel
    interruptible: bool = False  # the main thread is inside the command
    interrupted: bool = False


class Worker:
    """One device's worker; `run` returns when it is idle, told to stop, or not the first."""

    def __init__(self, jobs: Jobs, device: str, *, idle_seconds: float, grace: float = GRACE):
        self._jobs, self._store, self._device = jobs, jobs.store, device
        self._idle_seconds, self._grace = idle_seconds, grace
        self._me = Identity.mine()
        self._warm = WarmPipeline()
        self._run: _Run | None = None
        self._stopping = threading.Event()
        self._left = threading.Event()

    def run(self) -> None:
        if not self._store.take_device(self._device, self._me):
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        supervisor = threading.Thread(target=self._supervise, name="heartbeat", daemon=True)
        supervisor.start()
        try:
            self._drain()
        finally:
            self._left.set()
            supervisor.join(timeout=5)
            self._store.leave_device(self._device, self._me, only_if_idle=False)

    def _drain(self) -> None:
        idle_since = time.monotonic()
        while not self._stopping.is_set():
            if job := _patiently(lambda: self._store.claim(self._device, self._me)):
                self._execute(_Run(job))
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since < self._idle_seconds:
                self._stopping.wait(TICK)
            else:
                self._warm.clear()
                # A job that was queued just now found this worker still registered: then it stays for it.
                if self._store.leave_device(self._device, self._me, only_if_idle=True):
                    return

    def _execute(self, run: _Run) -> None:
        job = run.job
        folder = JobFolder(self._jobs.root / "jobs" / job.id)
        folder.create()
        report = Report(self._store, job, run.cancelled)
        self._run = run
        if self._stopping.is_set():
            run.cancelled.set()
        with redirected(folder.log):
            state, message, result = self._outcome(run, folder, report)
        self._run = None
        message = message and redact(message)[:500]
        _patiently(report.flush)
        _patiently(lambda: self._store.finish(job, state, message, result, report.seconds_per_unit))
        if state is State.FAILED or run.interrupted:
            self._warm.clear()  # nobody knows what state the model was left in

    def _outcome(self, run: _Run, folder: JobFolder, report: Report) -> tuple[State, str | None, dict[str, Any] | None]:
        try:
            result = self._call(run, folder, report)
            folder.complete(run.job, result)
            return State.DONE, None, result
        except Cancelled as stop:
            print(stop, file=sys.stderr)
            reason = "its worker was told to stop" if self._stopping.is_set() else str(stop)
            return State.CANCELLED, reason, None
        except InputError as error:
            traceback.print_exc()
            return State.FAILED, str(error), None
        except BaseException as error:
            traceback.print_exc()
            return State.FAILED, traceback.format_exception_only(error)[-1].splitlines()[0], None

    def _call(self, run: _Run, folder: JobFolder, report: Report) -> dict[str, Any]:
        job, package, root = run.job, self._jobs.commands, self._jobs.root
        settled = prepare(
            job.command, job.arguments, job.device, package=package, root=root, artefacts=folder.artefacts, here=root
        )
        print(f"attempt {job.attempt}: {job.command} {json.dumps(settled, ensure_ascii=False)}", file=sys.stderr)
        expected = signature(job.command, package).parameters
        arguments: dict[str, Any] = {
            name: Path(value) if isinstance(value, str) and _wants_path(expected.get(name)) else value
            for name, value in settled.items()
        }
        if job.attempt > 1 and "resume" in expected:
            arguments["resume"] = True
        if "load" in expected:
            arguments["load"] = partial(self._load, run)
        run.interruptible = True
        try:
            _check(run)
            command = getattr(importlib.import_module(f"{package}.{job.command}"), job.command)
            result = command(**arguments, progress=report)
        finally:
            run.interruptible = False
        return json.loads(json.dumps(result or {}, default=_plain))

    def _load(self, run: _Run, model: Any, **options: Any) -> Any:
        _check(run)
        pipeline = self._warm(model, **options)
        _check(run)
        return pipeline

    def _on_signal(self, number: int, frame: object) -> None:
        run = self._run
        if run is None or not run.interrupted:
            self._stopping.set()  # it came from outside
        if run is None:
            return
        if run.cancelled.is_set() and run.interruptible:
            run.interruptible, run.interrupted = False, True
            raise Cancelled("cancelled between steps")
        run.cancelled.set()

    def _supervise(self) -> None:
        """Beats, notices a cancel while the command is between steps, and sees to it that the command does stop."""
        beat = 0.0
        while not self._left.wait(TICK):
            now, run = time.monotonic(), self._run
            try:
                if now - beat >= BEAT:
                    beat = now
                    if not self._store.beat(self._device, self._me):
                        self._stopping.set()  # displaced: another worker serves the device
                        if run:
                            run.cancelled.set()
                if run:
                    self._see_to(run, now)
            except sqlite3.OperationalError:
                continue  # busy: the next tick comes soon

    def _see_to(self, run: _Run, now: float) -> None:
        if self._store.pulse(run.job) is not State.RUNNING:
            run.cancelled.set()
        if not run.cancelled.is_set():
            return
        run.asked = run.asked or now
        if self._run is not run:
            return
        if now - run.asked > 2 * self._grace:
            self._end(run.job)
        elif now - run.asked > self._grace and not run.interrupted:
            run.interrupted = True
            _signal_main_thread()

    def _end(self, job: Job) -> None:
        """Ends this process, whose command does not stop, and leaves the queue to a fresh one."""
        self._store.leave_device(self._device, self._me, only_if_idle=False)  # from here on it claims nothing
        if not self._store.finish(job, State.CANCELLED, f"ended: it did not stop within {2 * self._grace:g} s"):
            self._store.take_device(self._device, self._me)  # it stopped just now
            return
        kill_children(psutil.Process())
        queued = any(waiting.device == self._device for waiting in self._store.jobs(states=(State.QUEUED,)))
        if queued and not self._stopping.is_set():
            launch.start(self._jobs.root, self._device, self._jobs.commands, idle_seconds=self._idle_seconds)
        os._exit(1)  # as final as SIGKILL: the main thread may be inside a library that never returns


def _check(run: _Run) -> None:
    if run.cancelled.is_set():
        raise Cancelled("cancelled before its first step")


def _patiently(call: Callable[[], T], seconds: float = 60.0) -> T:
    """What `call` returns, tried again while the table is busy: a finished job's result must not be lost to that."""
    end = time.monotonic() + seconds
    while True:
        try:
            return call()
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(TICK)


def _signal_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    else:
        signal.raise_signal(signal.SIGINT)


def _wants_path(parameter: Any) -> bool:
    return parameter is not None and "Path" in parameter.annotation and "str" not in parameter.annotation


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m workbench.jobs.worker", description="Run the jobs of one device.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--idle-seconds", type=float, default=600.0, help="exit after this long without a job")
    parser.add_argument("--grace-seconds", type=float, default=GRACE, help="for a cancelled command to reach a step")
    parser.add_argument("--threads", type=int, help="CPU threads for each operation (default: the library's choice)")
    parser.add_argument("--commands", default=COMMANDS, help="package whose modules are the commands")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = str(options.threads)  # read when torch is imported, which only a command does
    faulthandler.enable(file=2)
    sys.stdout, sys.stderr = RedactedStream(sys.stdout), RedactedStream(sys.stderr)
    jobs = open_workspace(options.workspace, commands=options.commands)
    Worker(jobs, check_device(options.device), idle_seconds=options.idle_seconds, grace=options.grace_seconds).run()


if __name__ == "__main__":
    main()
