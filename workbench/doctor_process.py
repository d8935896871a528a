"""`pare doctor` in a process of its own, asked by the app, which never imports torch."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Any

from workbench.places import PROJECT

PATIENCE = 180.0
"""Seconds after which one that does not answer is ended; importing torch on a busy machine takes some."""


@dataclass
class Asked:
    """A doctor on its way; several may look at its answer."""

    process: subprocess.Popen[bytes]
    said: IO[bytes]
    complained: IO[bytes]
    started: float

    def answer(self) -> dict[str, Any] | None:
        """What it said; None while it is at work. `{"error": reason}` where it said nothing that can be read."""
        if self.process.poll() is None:
            if time.monotonic() - self.started < PATIENCE:
                return None
            self.process.kill()
            self.process.wait()
        try:
            found = json.loads(_whole(self.said))
            return found if isinstance(found, dict) else {"error": "its answer is no object"}
        except ValueError:
            lines = [line for line in _whole(self.complained).split("\n") if line.strip()]
            return {"error": lines[-1] if lines else "it ended without a word"}


def ask(workspace: str) -> Asked:
    """Start `pare doctor --json` on a workspace."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), environment.get("PYTHONPATH")]))
    # Nameless files, which are gone with their last reader.
    said, complained = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
    command = [sys.executable, "-P", "-m", "workbench", "doctor", "--json", "--workspace", workspace]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=complained)
    return Asked(process, said, complained, time.monotonic())


def _whole(file: IO[bytes]) -> str:
    # Read without moving the place at which another reader, or the writer, is.
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", errors="replace")
