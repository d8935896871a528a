"""Several processes write one run: the samples are dealt out, and files in the run's folder are all that they share.

Every process keeps a small file in `RUN/.processes` up to date. A process whose file stands still is dead, and the
others stop instead of waiting for it; nothing depends on clocks that agree or on a network between the processes.
"""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from analysis.manifest import Manifest
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.errors import InputError
from pare.files import write_bytes
from pare.processes import Process
from pare.progress import Progress

FOLDER = ".processes"
BEAT, LOOK = 0.5, 0.1
# Seconds without a sign of life: while a model loads, and afterwards (network file systems show files late).
START_PATIENCE, PATIENCE = 1800.0, 120.0


class Share:
    """One process's part of a run: the `writer`, the samples to measure, and how far all processes are together."""

    def __init__(self, writer: RunWriter, mine: list[int], finished: int, units: int, others: "Others | None"):
        self.writer, self.mine, self.others = writer, mine, others
        self._before, self._own, self._units = finished * units, 0, units

    def samples(self) -> Iterator[int]:
        """Indices to measure; before each one the other processes are looked at."""
        for index in self.mine:
            if self.others is not None:
                self.others.check()
            yield index

    def advance(self) -> int:
        """Count one unit of work; returns how many are done in the run, by all processes."""
        self._own += 1
        if self.others is None:
            return self._before + self._own
        self.others.say(units=self._own)
        return self._before + self._own + self.others.units()

    def finish(self, progress: Progress) -> Run:
        """Leading: wait for the samples of all and write the summary. Otherwise nothing is left to do."""
        if not self.writer.lead:
            return Run.open(self.writer.folder)
        total = self._units * len(self.writer.manifest.samples)
        while self.others is not None and (missing := self.writer.pending()):
            self.others.check()
            self.others.check_files(missing)
            done = min(self._before + self._own + self.others.units(), total - 1)
            progress(done, total, f"waiting for {len(missing)} samples of other processes")
            time.sleep(LOOK)
        return self.writer.finish()


@contextmanager
def share_run(
    folder: str | Path,
    manifest: Manifest,
    weights: Callable[[], Mapping[str, np.ndarray]],
    process: Process,
    *,
    units: int,
    resume: bool = False,
    start_patience: float = START_PATIENCE,
    patience: float = PATIENCE,
) -> Iterator[Share]:
    """This process's share of writing a run; `units` are the progress calls of one sample.

    The leading process begins the run and deals out what is missing, so that any number of processes can go on with a
    run that any number began. Raises RuntimeError when another process fails, or gives no sign of life for `patience`
    seconds; finished samples stay on disk.
    """
    others = Others(Path(folder) / FOLDER, process, start_patience, patience) if process.count > 1 else None
    if process.leads:
        writer = RunWriter(folder, manifest, weights(), resume=resume)
        shutil.rmtree(Path(folder) / FOLDER, ignore_errors=True)
        pending = writer.pending()
        if others is not None:
            others.say(pending=pending)
    else:
        assert others is not None
        pending = others.wait_for_lead()
        if (Path(folder) / "run.json").read_bytes() != manifest.to_bytes():
            raise InputError(
                f"{folder}/run.json",
                got=f"another run than process {process.rank} would write",
                expected="the same model, settings and versions in every process",
                fix="give every process the same command and the same installation",
            )
        writer = RunWriter(folder, manifest, {}, lead=False)
    share = Share(writer, pending[process.rank :: process.count], len(manifest.samples) - len(pending), units, others)
    if others is None:
        yield share
        return
    with others.present():
        yield share


class Others:
    """The signs of life of all processes, as files: written for this one, read for the others."""

    def __init__(self, folder: Path, process: Process, start_patience: float, patience: float):
        self.folder, self.process = folder, process
        self._start_patience, self._patience = start_patience, patience
        self._own: dict[str, Any] = {"beat": 0, "state": "working", "units": 0}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._seen: dict[int, tuple[int, float]] = {}
        self._began = time.monotonic()
        self._all_done: float | None = None

    def say(self, **fields: Any) -> None:
        """What the next sign of life of this process says."""
        with self._lock:
            self._own |= fields

    def units(self) -> int:
        """Units of work that the other processes have done."""
        return sum(self._read(rank).get("units", 0) for rank in self._ranks())

    def wait_for_lead(self) -> list[int]:
        """Wait until the leading process of this start (not of one that was killed) has begun the run."""
        first = self._read(0).get("beat")
        while True:
            now = self._read(0)
            # A file that an earlier start left does not move.
            if "pending" in now and now["beat"] != first:
                return list(now["pending"])
            if time.monotonic() - self._began > self._start_patience:
                raise RuntimeError("process 0 did not begin the run; see what it said")
            time.sleep(LOOK)

    def check(self) -> None:
        """Raise RuntimeError where a process that this one depends on has failed or is silent."""
        for rank in self._ranks() if self.process.leads else [0]:
            found, now = self._read(rank), time.monotonic()
            beat, since = self._seen.get(rank, (-1, self._began))
            if found and found["beat"] != beat:
                beat, since = self._seen[rank] = found["beat"], now
            allowed = self._start_patience if beat == -1 else self._patience
            # A process that is done has written its samples, and the leading one is done when all are there.
            silent = now - since > allowed and found.get("state") != "done"
            if silent or found.get("state") == "failed":
                how = "gives no sign of life" if silent else "has stopped"
                raise RuntimeError(
                    f"process {rank} of {self.process.count} {how}; finished samples are kept, go on with --resume"
                )

    def check_files(self, missing: list[int]) -> None:
        """Raise RuntimeError where all others have been done for long and their samples are still not to be seen."""
        if not all(self._read(rank).get("state") == "done" for rank in self._ranks()):
            return
        now = time.monotonic()
        self._all_done = now if self._all_done is None else self._all_done
        if now - self._all_done > self._patience:
            raise RuntimeError(f"samples {missing} are not here; do all processes write to the same folder?")

    @contextmanager
    def present(self) -> Iterator[None]:
        """Give signs of life from a thread of its own, and say at the end how it ended."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        state = "failed"
        try:
            yield
            state = "done"
        finally:
            self._ended.set()
            thread.join()
            self.say(state=state)
            self._write()
            if self.process.leads and state == "done":
                self._remove()

    def _remove(self) -> None:
        # Those who are about to say that they are done would make the folder again.
        deadline = time.monotonic() + self._patience
        while any(self._read(rank).get("state") == "working" for rank in self._ranks()):
            if time.monotonic() > deadline:
                break
            time.sleep(LOOK)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _beat(self) -> None:
        while not self._ended.is_set():
            self._write()
            self._ended.wait(BEAT)

    def _write(self) -> None:
        with self._lock:
            self._own["beat"] += 1
            content = json.dumps(self._own).encode()
        try:
            write_bytes(self.folder / f"{self.process.rank}.json", content)
        except OSError:
            # The leading process may be removing what an earlier start left; the next sign of life will stand.
            return

    def _read(self, rank: int) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / f"{rank}.json").read_bytes()))
        except (OSError, ValueError):
            return {}

    def _ranks(self) -> list[int]:
        return [rank for rank in range(self.process.count) if rank != self.process.rank]
