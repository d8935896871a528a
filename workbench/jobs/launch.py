"""Starting a worker process: detached, with this Python, independent of the folder that the caller is in."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from workbench.jobs.store import Store

SECOND_CHANCE = 3.0
"""Seconds that a silent worker gets to beat again (a laptop that just woke up) before it is ended."""


def make_way(store: Store, device: str) -> bool:
    """True when the device has a worker that answers; one that stays silent is ended, so that another can serve."""
    deadline = time.monotonic() + SECOND_CHANCE
    while True:
        worker = next((worker for worker in store.workers() if worker.device == device), None)
        if worker is None or not worker.identity.alive:
            return False
        if worker.alive:
            return True
        if time.monotonic() > deadline:
            worker.identity.kill()
            store.sweep()
            return False
        time.sleep(0.2)


def start(
    root: Path, device: str, commands: str, *, idle_seconds: float = 600.0, threads: int | None = None
) -> subprocess.Popen[bytes]:
    """Starts the worker of a device; should another one be first, the process ends at once."""
    project = Path(__file__).resolve().parents[2]
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(project), environment.get("PYTHONPATH")]))
    environment["PYTHONIOENCODING"] = "utf-8:backslashreplace"
    # -P: the folder a worker runs in holds job files, which must never be imported.
    command = [sys.executable, "-P", "-m", "workbench.jobs.worker", "--workspace", str(root), "--device", device]
    command += ["--idle-seconds", str(idle_seconds), "--commands", commands]
    command += [] if threads is None else ["--threads", str(threads)]
    with (root / "jobs" / f"worker-{device.replace(':', '-')}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    # Somebody has to collect the exit status, or the dead worker stays a zombie for as long as the caller lives.
    threading.Thread(target=process.wait, name=f"worker {device}", daemon=True).start()
    return process
