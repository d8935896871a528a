"""Progress, logs and the warm pipeline, each on its own."""

import io
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pare.errors import Cancelled
from workbench.jobs.folder import JobFolder
from workbench.jobs.job import Job, State
from workbench.jobs.logs import RedactedStream, redact
from workbench.jobs.process import Identity
from workbench.jobs.report import PERIOD, Report
from workbench.jobs.store import Store
from workbench.jobs.warm import WarmPipeline


class Clock:
    """A clock that moves when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class CountingStore(Store):
    """A store that keeps what was reported."""

    written: list[int] = field(default_factory=list)

    def report(self, job: Job, done: int, total: int, message: str, rate: float | None) -> State | None:
        self.written.append(done)
        return super().report(job, done, total, message, rate)


@pytest.fixture
def work(tmp_path: Path) -> tuple[CountingStore, Job]:
    store = CountingStore(tmp_path / "jobs.sqlite3")
    store.create()
    store.add("a", "count", {}, "cpu")
    store.take_device("cpu", Identity.mine())
    job = store.claim("cpu", Identity.mine())
    assert job is not None
    return store, job


def test_fast_steps_are_written_about_five_times_a_second_and_the_last_always(work: tuple[CountingStore, Job]) -> None:
    store, job = work
    clock, total = Clock(), 1000
    report = Report(store, job, threading.Event(), clock)
    for step in range(total):
        clock.now += 0.01
        report(step + 1, total)
    seconds = total * 0.01
    assert seconds / PERIOD * 0.8 <= len(store.written) <= seconds / PERIOD + 2
    assert store.written[-1] == total
    held_back = Report(store, job, threading.Event(), clock)
    held_back(1, 10)
    held_back(2, 10)
    assert store.written[-1] == 1
    held_back.flush()
    assert store.written[-1] == 2
    count = len(store.written)
    held_back.flush()
    assert len(store.written) == count


def test_the_rate_is_this_attempt_s_own(work: tuple[CountingStore, Job]) -> None:
    store, job = work
    clock = Clock()
    report = Report(store, job, threading.Event(), clock)
    report(901, 1000)
    assert report.rate is None, "900 units of an earlier attempt say nothing"
    for done in range(902, 911):
        clock.now += 2.0
        report(done, 1000)
    assert report.rate == pytest.approx(0.5)
    assert report.seconds_per_unit == pytest.approx(2.0)
    stored = store.get("a")
    assert stored is not None and stored.reported is not None
    assert stored.eta(stored.reported) == pytest.approx(90 * 2.0)
    assert stored.eta(stored.reported + 10) == pytest.approx(90 * 2.0 - 10)
    report(1, 50, "next phase")
    assert report.rate is None


def test_preparation_before_the_first_unit_does_not_count(work: tuple[CountingStore, Job]) -> None:
    store, job = work
    clock = Clock()
    report = Report(store, job, threading.Event(), clock)
    report(0, 10, "loading the model")
    clock.now += 300.0
    report(0, 10, "generating")
    for done in (1, 2, 3):
        clock.now += 1.5
        report(done, 10)
    assert report.rate == pytest.approx(1 / 1.5) and report.seconds_per_unit == pytest.approx(1.5)


def test_a_cancel_arrives_at_the_next_step(work: tuple[CountingStore, Job]) -> None:
    store, job = work
    clock = Clock()
    report = Report(store, job, threading.Event(), clock)
    report(1, 10)
    store.request_cancel("a")
    clock.now += PERIOD
    with pytest.raises(Cancelled, match="2 of 10"):
        report(2, 10)


def test_a_job_that_was_taken_away_stops_at_its_next_step(work: tuple[CountingStore, Job]) -> None:
    store, job = work
    store.finish(job, State.LOST)
    store.requeue("a")
    with pytest.raises(Cancelled):
        Report(store, job, threading.Event(), Clock())(1, 10)


def test_tokens_are_blanked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert redact("to hf_abcdefgh12345678, twice hf_abcdefgh12345678.") == "to hf_***, twice hf_***."
    assert redact("half_width hf_ok") == "half_width hf_ok"
    monkeypatch.setenv("HF_TOKEN", "an-oauth-token-of-another-kind")
    assert redact("Bearer an-oauth-token-of-another-kind") == "Bearer hf_***"


def test_a_token_written_in_pieces_is_blanked() -> None:
    sink = io.StringIO()
    stream = RedactedStream(sink)
    for piece in ("one hf_abcd", "efgh1234", "5678 two\nhalf a li"):
        stream.write(piece)
    assert sink.getvalue() == "one hf_*** two\n"
    stream.flush()
    assert sink.getvalue().endswith("half a li")


def test_the_log_s_tail_shows_the_last_state_of_a_redrawn_line(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    assert folder.tail(10) == ""
    folder.log.write_bytes(b"first\n 10%|#\r 50%|#####\r100%|##########\nhf_abcdefgh12345678 \xff\n")
    assert folder.tail(2) == "100%|##########\nhf_*** \ufffd"
    assert folder.tail(1) == "hf_*** \ufffd"
    assert folder.tail(0) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [{}]}', '{"files": [{"path": "../../secret"}]}'])
def test_a_broken_or_foreign_manifest_lists_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret").write_text("x")
    folder = JobFolder(tmp_path / "jobs" / "a")
    folder.create()
    folder.manifest.write_text(text)
    assert folder.listed() == ()


def test_the_warm_pipeline_is_loaded_once_per_key_and_evicted_when_the_key_changes() -> None:
    loads: list[tuple[str, dict[str, Any]]] = []
    weights = {"demo": "1", "other": "1"}

    def load(model: str, **options: Any) -> object:
        loads.append((model, options))
        return object()

    warm = WarmPipeline(load, lambda model: {"weight_hash": weights[model]})
    first = warm("demo", dtype="float32", device="cpu")
    assert warm("demo", device="cpu", dtype="float32") is first and len(loads) == 1
    assert warm("demo", dtype="bfloat16", device="cpu") is not first and len(loads) == 2
    weights["demo"] = "2"
    second = warm("demo", dtype="bfloat16", device="cpu")
    assert len(loads) == 3, "the weights changed on disk"
    assert warm("demo", dtype="bfloat16", device="cpu") is second
    warm("other")
    warm.clear()
    warm("other")
    assert [model for model, _ in loads] == ["demo", "demo", "demo", "other", "other"]


def test_a_failed_load_leaves_nothing_warm() -> None:
    def load(model: str) -> object:
        if model == "broken":
            raise OSError("no weights")
        return object()

    warm = WarmPipeline(load, lambda model: {})
    first = warm("demo")
    with pytest.raises(OSError, match="no weights"):
        warm("broken")
    with pytest.raises(OSError, match="no weights"):
        warm("broken")
    assert warm("demo") is not first


def test_the_worker_s_help_needs_no_model() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "workbench.jobs.worker", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "--threads" in done.stdout
    assert "torch" not in done.stderr
