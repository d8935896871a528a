"""The tables of a workspace: jobs, workers, and the events that the database itself notes on every change of state."""

import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from pare.errors import InputError

VERSION = 1
SCHEMA = """
CREATE TABLE IF NOT EXISTS job (
    id TEXT PRIMARY KEY, ticket INTEGER NOT NULL, command TEXT NOT NULL, arguments TEXT NOT NULL, device TEXT NOT NULL,
    state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 1, done INTEGER NOT NULL DEFAULT 0,
    total INTEGER NOT NULL DEFAULT 0, message TEXT NOT NULL DEFAULT '', rate REAL, created REAL NOT NULL, started REAL,
    finished REAL, reported REAL, cancel_requested REAL, pid INTEGER, pid_started REAL, seconds_per_unit REAL,
    result TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS job_queue ON job (state, device, ticket);
CREATE TABLE IF NOT EXISTS worker (
    device TEXT PRIMARY KEY, pid INTEGER NOT NULL, pid_started REAL NOT NULL, heartbeat REAL NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, job TEXT NOT NULL, time REAL NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, message TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS event_job ON event (job, seq);
CREATE TRIGGER IF NOT EXISTS job_added AFTER INSERT ON job BEGIN
    INSERT INTO event (job, time, state, attempt, message)
    VALUES (new.id, (julianday('now') - 2440587.5) * 86400.0, new.state, new.attempt, new.message);
END;
CREATE TRIGGER IF NOT EXISTS job_changed AFTER UPDATE OF state ON job WHEN new.state != old.state BEGIN
    INSERT INTO event (job, time, state, attempt, message)
    VALUES (new.id, (julianday('now') - 2440587.5) * 86400.0, new.state, new.attempt, new.message);
END;
"""


def create(connect: Callable[[], AbstractContextManager[sqlite3.Connection]], path: Path) -> None:
    """Makes the tables where they are missing. Raises `InputError` for a newer version or another file."""
    deadline = time.monotonic() + 5
    while True:
        try:
            with connect() as db:
                found = db.execute("PRAGMA user_version").fetchone()[0]
                if found > VERSION:
                    expected = f"version {VERSION} or older"
                    raise InputError(str(path), got=f"version {found}", expected=expected, fix="update this project")
                if found < VERSION:
                    db.execute("PRAGMA journal_mode = WAL")
                    db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
            return
        except sqlite3.OperationalError as error:
            # Switching to WAL does not wait for other openers as every other statement does.
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        except sqlite3.DatabaseError as error:
            raise InputError(str(path), got=error, expected="a job table", fix="move the file away") from None
