"""The job table: SQLite in WAL mode, one short transaction on its own connection per call.

Every change of state is one UPDATE that names the state it expects, so whoever comes second changes nothing.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.jobs.job import ACTIVE, IN_WORK, RESUMABLE, Event, Job, State, Worker
from workbench.jobs.process import Identity
from workbench.jobs.schema import create

STALE = 30.0
"""Seconds without a heartbeat after which a worker counts as gone even if its process is still there."""

SELECT = """
SELECT job.*, worker.heartbeat, CASE WHEN job.state = 'queued' THEN
    (SELECT count(*) FROM job AS ahead
     WHERE ahead.device = job.device AND ahead.state = 'queued' AND ahead.ticket <= job.ticket) END AS position
FROM job LEFT JOIN worker
    ON worker.device = job.device AND worker.pid = job.pid AND worker.pid_started = job.pid_started
"""
ORDER = """
ORDER BY CASE WHEN state IN ('running', 'cancelling') THEN 0 WHEN state = 'queued' THEN 1 ELSE 2 END,
    CASE WHEN state = 'queued' THEN ticket END, coalesce(finished, started, created) DESC, ticket DESC
"""
OWNED = "id = :id AND attempt = :attempt AND pid = :pid AND pid_started = :started"
"""The job is still the one that this worker claimed: not resumed elsewhere, not deleted."""


@dataclass(frozen=True)
class Store:
    """The table at `path`; times are seconds since the epoch."""

    path: Path

    def create(self) -> None:
        """Makes the tables where they are missing. Raises `InputError` for a table of a newer version."""
        create(self._open, self.path)

    def add(self, job_id: str, command: str, arguments: Mapping[str, Any], device: str) -> None:
        with self._change() as db:
            db.execute(
                "INSERT INTO job (id, ticket, command, arguments, device, state, created)"
                " VALUES (?, (SELECT coalesce(max(ticket), 0) + 1 FROM job), ?, ?, ?, 'queued', ?)",
                (job_id, command, json.dumps(arguments), device, time.time()),
            )

    def get(self, job_id: str) -> Job | None:
        with self._open() as db:
            row = db.execute(f"{SELECT} WHERE id = ?", (job_id,)).fetchone()
        return _job(row) if row else None

    def jobs(
        self, states: Sequence[State] | None = None, command: str | None = None, limit: int = 1000
    ) -> tuple[Job, ...]:
        states = tuple(State) if states is None else states
        where = f"WHERE state IN ({_marks(states)}) AND (? IS NULL OR command = ?)"
        with self._open() as db:
            rows = db.execute(f"{SELECT} {where} {ORDER} LIMIT ?", (*states, command, command, limit)).fetchall()
        return tuple(_job(row) for row in rows)

    def count(self, states: Sequence[State]) -> dict[State, int]:
        with self._open() as db:
            found = dict(db.execute("SELECT state, count(*) FROM job GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in states}

    def events(self, after: int, job_id: str | None = None, limit: int = 1000) -> tuple[Event, ...]:
        with self._open() as db:
            rows = db.execute(
                "SELECT * FROM event WHERE seq > ? AND (? IS NULL OR job = ?) ORDER BY seq LIMIT ?",
                (after, job_id, job_id, limit),
            ).fetchall()
        return tuple(Event(**{**dict(row), "state": State(row["state"])}) for row in rows)

    # Asked for by people

    def request_cancel(self, job_id: str) -> None:
        with self._change() as db:
            db.execute(
                "UPDATE job SET state = CASE state WHEN 'running' THEN 'cancelling' ELSE 'cancelled' END,"
                " finished = CASE state WHEN 'running' THEN NULL ELSE ?1 END, cancel_requested = ?1"
                " WHERE id = ?2 AND state IN ('queued', 'running', 'lost')",
                (time.time(), job_id),
            )

    def requeue(self, job_id: str) -> bool:
        """Back to the end of the queue as the next attempt; an attempt that never began is not counted."""
        with self._change() as db:
            return _changed(
                db.execute(
                    "UPDATE job SET state = 'queued', attempt = attempt + (started IS NOT NULL), message = '',"
                    " ticket = (SELECT max(ticket) + 1 FROM job), rate = NULL, started = NULL, finished = NULL,"
                    " reported = NULL, cancel_requested = NULL, pid = NULL, pid_started = NULL, result = NULL"
                    f" WHERE id = ? AND state IN ({_marks(RESUMABLE)})",
                    (job_id, *RESUMABLE),
                )
            )

    def remove(self, job_id: str) -> bool:
        with self._change() as db:
            gone = db.execute(
                f"DELETE FROM job WHERE id = ? AND state NOT IN ({_marks(ACTIVE)})", (job_id, *ACTIVE)
            ).rowcount
            if gone:
                db.execute("DELETE FROM event WHERE job = ?", (job_id,))
            return gone == 1

    # Done by workers

    def claim(self, device: str, me: Identity) -> Job | None:
        """Takes the first queued job of the device for the worker that holds the device; None when there is none."""
        with self._change() as db:
            row = db.execute(
                "UPDATE job SET state = 'running', started = :now, pid = :pid, pid_started = :started"
                " WHERE state = 'queued' AND id ="
                " (SELECT id FROM job WHERE state = 'queued' AND device = :device ORDER BY ticket LIMIT 1)"
                " AND EXISTS (SELECT 1 FROM worker WHERE device = :device AND pid = :pid AND pid_started = :started)"
                " RETURNING id",
                {"now": time.time(), "device": device, "pid": me.pid, "started": me.started},
            ).fetchone()
        return self.get(row["id"]) if row else None

    def report(self, job: Job, done: int, total: int, message: str, rate: float | None) -> State | None:
        """Writes progress and returns the job's state; None when the job is no longer this worker's."""
        with self._change() as db:
            row = db.execute(
                "UPDATE job SET done = :done, total = :total, message = :message, rate = :rate, reported = :now"
                f" WHERE {OWNED} AND state IN ('running', 'cancelling') RETURNING state",
                {**_owner(job), "done": done, "total": total, "message": message, "rate": rate, "now": time.time()},
            ).fetchone()
        return State(row["state"]) if row else None

    def pulse(self, job: Job) -> State | None:
        """The state of the job in work; one that only looked lost is taken back. None: no longer this worker's."""
        with self._open() as db:
            row = db.execute(f"SELECT state FROM job WHERE {OWNED}", _owner(job)).fetchone()
        if row and row["state"] == State.LOST:
            with self._change() as db:
                row = db.execute(
                    "UPDATE job SET state = CASE WHEN cancel_requested IS NULL THEN 'running' ELSE 'cancelling' END,"
                    f" finished = NULL, message = '' WHERE {OWNED} AND state = 'lost' RETURNING state",
                    _owner(job),
                ).fetchone()
        return State(row["state"]) if row and row["state"] in IN_WORK else None

    def finish(
        self,
        job: Job,
        state: State,
        message: str | None = None,
        result: Mapping[str, Any] | None = None,
        seconds_per_unit: float | None = None,
    ) -> bool:
        """Ends the attempt; False when the job is no longer this worker's. No message: the last one stays."""
        with self._change() as db:
            return _changed(
                db.execute(
                    "UPDATE job SET state = :state, message = coalesce(:message, message), result = :result,"
                    " finished = :now, seconds_per_unit = :cost"
                    f" WHERE {OWNED} AND state IN ('running', 'cancelling', 'lost')",
                    {
                        **_owner(job),
                        "state": state,
                        "message": message,
                        "result": None if result is None else json.dumps(result),
                        "cost": seconds_per_unit,
                        "now": time.time(),
                    },
                )
            )

    # Who serves a device

    def take_device(self, device: str, me: Identity) -> bool:
        """Registers the one worker of a device; False while another one's process is there."""
        with self._change() as db:
            row = db.execute("SELECT * FROM worker WHERE device = ?", (device,)).fetchone()
            if row and _identity(row) != me and _identity(row).alive:
                return False
            db.execute(
                "INSERT OR REPLACE INTO worker (device, pid, pid_started, heartbeat) VALUES (?, ?, ?, ?)",
                (device, me.pid, me.started, time.time()),
            )
            return True

    def beat(self, device: str, me: Identity) -> bool:
        """Says that the worker is there; False when the device is no longer its own."""
        with self._change() as db:
            return _changed(
                db.execute(
                    "UPDATE worker SET heartbeat = ? WHERE device = ? AND pid = ? AND pid_started = ?",
                    (time.time(), device, me.pid, me.started),
                )
            )

    def leave_device(self, device: str, me: Identity, *, only_if_idle: bool) -> bool:
        """Unregisters the worker; with `only_if_idle`, not while a job is queued, so none is left behind unserved."""
        queued = "SELECT 1 FROM job WHERE device = worker.device AND state = 'queued'"
        idle = f"AND NOT EXISTS ({queued})" if only_if_idle else ""
        with self._change() as db:
            return _changed(
                db.execute(
                    f"DELETE FROM worker WHERE device = ? AND pid = ? AND pid_started = ? {idle}",
                    (device, me.pid, me.started),
                )
            )

    def workers(self) -> tuple[Worker, ...]:
        with self._open() as db:
            rows = db.execute("SELECT * FROM worker ORDER BY device").fetchall()
        return tuple(
            Worker(row["device"], _identity(row), row["heartbeat"], _identity(row).alive and _fresh(row["heartbeat"]))
            for row in rows
        )

    def sweep(self) -> None:
        """Marks as lost every job in work whose worker is dead, silent or displaced."""
        for job in self.jobs(states=IN_WORK):
            if job.worker and job.worker.alive:
                if _fresh(job.heartbeat):
                    continue
                why = "its worker stopped answering"
            else:
                why = "its worker ended without a word (killed, crashed or out of memory)"
            with self._change() as db:
                db.execute(
                    "UPDATE job SET state = 'lost', finished = :now, message = :why"
                    f" WHERE {OWNED} AND state IN ('running', 'cancelling')",
                    {**_owner(job), "now": time.time(), "why": f"{why}; resume it to go on"},
                )

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=5, isolation_level=None)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA synchronous = NORMAL")
            yield db
        finally:
            db.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")


def _fresh(heartbeat: float | None) -> bool:
    return heartbeat is not None and time.time() - heartbeat < STALE


def _identity(row: sqlite3.Row) -> Identity:
    return Identity(row["pid"], row["pid_started"])


def _owner(job: Job) -> dict[str, Any]:
    worker = job.worker or Identity(-1, -1.0)
    return {"id": job.id, "attempt": job.attempt, "pid": worker.pid, "started": worker.started}


def _changed(cursor: sqlite3.Cursor) -> bool:
    return cursor.rowcount == 1


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _job(row: sqlite3.Row) -> Job:
    values = dict(row)
    del values["ticket"]
    pid, started = values.pop("pid"), values.pop("pid_started")
    values["worker"] = None if pid is None else Identity(pid, started)
    values["state"] = State(values["state"])
    arguments = _object(values["arguments"])
    values["result"] = None if values["result"] is None else _object(values["result"])
    if arguments is None:
        # One row that somebody spoiled must not hide the others.
        values["message"] = values["message"] or "its arguments in the job table cannot be read: cancel and remove it"
    return Job(**{**values, "arguments": arguments or {}})


def _object(text: str) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
