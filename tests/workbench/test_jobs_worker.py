"""Workers as they are: detached processes, killed, raced, resumed."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pare.errors import InputError
from workbench.jobs.api import Job, Jobs, State, open_workspace
from workbench.jobs.store import STALE

COMMANDS = "tests.workbench.job_commands"
PROJECT = Path(__file__).resolve().parents[2]
# Longer than any busy machine needs; only a failure waits so long.
PATIENCE = 120
# Steps of a job that is still at work whenever the test looks at it.
FOREVER = 100_000


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    jobs = open_workspace(tmp_path / "workspace", commands=COMMANDS)
    yield jobs
    for process in psutil.process_iter(["cmdline"]):
        if str(jobs.root) in (process.info["cmdline"] or ()):
            process.kill()


def until(check: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def stepping(jobs: Jobs, job_id: str) -> Job:
    """The job once it has taken a step."""
    until(lambda: jobs.status(job_id).done > 0 or not jobs.status(job_id).active)
    return jobs.status(job_id)


def workers_of(jobs: Jobs) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if str(jobs.root) in (process.info["cmdline"] or ()) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def start_worker(jobs: Jobs, *options: str, device: str = "cpu") -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "workbench.jobs.worker", "--workspace", str(jobs.root), "--device", device]
    return subprocess.Popen([*command, "--commands", COMMANDS, *options], cwd=PROJECT)


def test_a_job_runs_from_any_folder_and_leaves_a_whole_folder(
    jobs: Jobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (jobs.root / "json.py").write_text("raise SystemExit('a file in the workspace was imported')")
    job = jobs.wait(jobs.submit("count", {"out": "run", "steps": 5}), PATIENCE)
    assert (job.state, job.done, job.total) == (State.DONE, 5, 5), jobs.log(job.id)
    out = jobs.root / "jobs" / job.id / "artefacts" / "run"
    assert job.result is not None and (job.result["taken"], job.result["out"]) == (5, str(out))
    assert job.result["pid"] not in (os.getpid(), None) and job.worker and job.result["pid"] == job.worker.pid
    assert [path.name for path in jobs.artefacts(job.id)] == [f"{step:03d}.txt" for step in range(5)]
    assert jobs.log(job.id).splitlines()[-1] == "step 4"
    assert (
        job.seconds_per_unit and job.seconds_per_unit > 0.019 and jobs.history("count", "cpu") == job.seconds_per_unit
    )
    assert jobs.history("count", "cpu", {"steps": 5}) and jobs.history("count", "cpu", {"steps": 6}) is None
    assert not list(jobs.root.rglob("*.tmp"))
    assert [event.state for event in jobs.events(job.id)] == [State.QUEUED, State.RUNNING, State.DONE]
    jobs.delete(job.id)
    assert not out.exists() and job.id not in [other.id for other in jobs.list()]


def test_many_callers_get_one_worker_per_device_and_each_job_runs_once(jobs: Jobs) -> None:
    ids = [jobs.submit("count", {"out": "x", "steps": 2}, start=False) for _ in range(4)]
    code = f"from workbench.jobs.api import open_workspace as o; o({str(jobs.root)!r}, commands={COMMANDS!r}).ensure_worker()"
    callers = [subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT) for _ in range(3)]
    assert [caller.wait(PATIENCE) for caller in callers] == [0, 0, 0]
    finished = [jobs.wait(job_id, PATIENCE) for job_id in ids]
    assert {job.state for job in finished} == {State.DONE} and len({job.worker for job in finished}) == 1
    assert {job.result["taken"] for job in finished if job.result} == {2}
    until(lambda: len(workers_of(jobs)) == 1)


def test_devices_are_independent_and_one_device_queues(jobs: Jobs) -> None:
    slow = jobs.submit("count", {"out": "x", "steps": FOREVER})
    behind = [jobs.submit("count", {"out": "x"}) for _ in range(2)]
    other = jobs.submit("count", {"out": "x"}, device="cuda:0")
    stepping(jobs, slow)
    assert [jobs.status(job_id).position for job_id in behind] == [1, 2]
    assert jobs.wait(other, PATIENCE).state is State.DONE
    assert jobs.summary() == {State.QUEUED: 2, State.RUNNING: 1, State.CANCELLING: 0}
    assert jobs.cancel(behind[0]).state is State.CANCELLED, "a queued job is cancelled at once"
    assert jobs.status(behind[1]).position == 1
    with pytest.raises(InputError, match="cancel"):
        jobs.delete(slow)
    jobs.cancel(slow)
    assert jobs.wait(behind[1], PATIENCE).state is State.DONE


def test_a_running_job_is_cancelled_within_a_step_and_resumed(jobs: Jobs) -> None:
    # Slower steps than the worker's reports are apart, so that each of them looks for a cancel.
    job_id = jobs.submit("count", {"out": "x", "steps": 100, "seconds": 0.3})
    assert stepping(jobs, job_id).state is State.RUNNING
    cancelled = jobs.cancel(job_id)
    assert cancelled.state is State.CANCELLING
    job = jobs.wait(job_id, PATIENCE)
    assert job.state is State.CANCELLED and job.done <= cancelled.done + 1 and "of 100" in job.message
    stopped_at = job.done
    assert jobs.artefacts(job_id) == (), "without a manifest nothing counts as made"
    again = jobs.resume(job_id)
    assert (again.id, again.attempt, again.active) == (job_id, 2, True)
    job = jobs.wait(job_id, PATIENCE)
    assert job.state is State.DONE and job.result is not None
    assert (job.result["taken"], job.result["resumed"]) == (100 - stopped_at, True)
    assert len(jobs.artefacts(job_id)) == 100
    assert "attempt 1" in jobs.log(job_id) and "attempt 2" in jobs.log(job_id)
    with pytest.raises(InputError, match="done"):
        jobs.resume(job_id)


def test_a_killed_worker_shows_as_lost_and_the_queue_goes_on(jobs: Jobs) -> None:
    job_id = jobs.submit("count", {"out": "x", "steps": 400, "seconds": 0.1})
    waiting = jobs.submit("count", {"out": "x"})
    job = stepping(jobs, job_id)
    assert job.worker is not None
    os.kill(job.worker.pid, signal.SIGKILL)
    until(lambda: jobs.status(job_id).state is State.LOST)
    assert jobs.summary()[State.RUNNING] == 0 and not jobs.workers()[0].alive
    assert jobs.status(waiting).state is State.QUEUED
    jobs.wake()
    assert jobs.wait(waiting, PATIENCE).state is State.DONE
    assert jobs.resume(job_id).attempt == 2
    job = jobs.wait(job_id, PATIENCE)
    assert job.state is State.DONE and job.result is not None and 0 < job.result["taken"] < 400


def test_a_frozen_worker_is_lost_and_replaced(jobs: Jobs) -> None:
    job_id = jobs.submit("count", {"out": "x", "steps": FOREVER})
    job = stepping(jobs, job_id)
    assert job.worker is not None
    os.kill(job.worker.pid, signal.SIGSTOP)
    with sqlite3.connect(jobs.store.path) as db:
        db.execute("UPDATE worker SET heartbeat = heartbeat - ?", (STALE + 1,))
    assert jobs.status(job_id).state is State.LOST
    other = jobs.submit("count", {"out": "x"})
    finished = jobs.wait(other, PATIENCE)
    assert finished.state is State.DONE and finished.worker != job.worker
    assert not job.worker.alive, "two workers of one device never live side by side"
    assert jobs.status(job_id).state is State.LOST


def test_a_job_outlives_the_process_that_submitted_it(jobs: Jobs) -> None:
    code = (
        "import os; from workbench.jobs.api import open_workspace as o;"
        f"print(o({str(jobs.root)!r}, commands={COMMANDS!r}).submit('count', {{'out': 'x', 'steps': {FOREVER}}}),"
        "flush=True); import time; time.sleep(600)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    job_id = server.stdout.readline().strip()
    assert stepping(jobs, job_id).state is State.RUNNING
    server.kill()
    server.wait()
    before = jobs.status(job_id).done
    until(lambda: jobs.status(job_id).done > before)
    assert jobs.cancel(job_id).state is State.CANCELLING
    assert jobs.wait(job_id, PATIENCE).state is State.CANCELLED


def test_terminating_a_worker_cancels_its_job_and_keeps_the_queue(jobs: Jobs) -> None:
    worker = start_worker(jobs)
    job_id = jobs.submit("count", {"out": "x", "steps": FOREVER}, start=False)
    waiting = jobs.submit("count", {"out": "x"}, start=False)
    stepping(jobs, job_id)
    worker.terminate()
    assert worker.wait(PATIENCE) == 0
    job = jobs.status(job_id)
    assert (job.state, job.message) == (State.CANCELLED, "its worker was told to stop")
    assert jobs.status(waiting).state is State.QUEUED and not jobs.workers()


def test_a_command_that_reaches_no_step_is_interrupted(jobs: Jobs) -> None:
    worker = start_worker(jobs, "--grace-seconds", "0.5")
    job_id = jobs.submit("stubborn", {}, start=False)
    until(lambda: "sleeping" in jobs.log(job_id))
    jobs.cancel(job_id)
    job = jobs.wait(job_id, PATIENCE)
    assert (job.state, job.message) == (State.CANCELLED, "cancelled between steps")
    after = jobs.submit("count", {"out": "x"}, start=False)
    assert jobs.wait(after, PATIENCE).state is State.DONE
    assert worker.poll() is None, "the worker went on"


def test_a_command_that_swallows_the_interruption_is_ended_and_the_queue_goes_on(jobs: Jobs) -> None:
    worker = start_worker(jobs, "--grace-seconds", "0.5")
    job_id = jobs.submit("stubborn", {"swallow": True}, start=False)
    after = jobs.submit("count", {"out": "x"}, start=False)
    until(lambda: "sleeping" in jobs.log(job_id))
    jobs.cancel(job_id)
    job = jobs.wait(job_id, PATIENCE)
    assert job.state is State.CANCELLED and "did not stop" in job.message
    assert worker.wait(PATIENCE) != 0
    assert jobs.wait(after, PATIENCE).state is State.DONE


def test_an_idle_worker_leaves_and_the_next_job_finds_another(jobs: Jobs) -> None:
    first = start_worker(jobs, "--idle-seconds", "0.2")
    assert first.wait(PATIENCE) == 0 and not jobs.workers()
    assert jobs.wait(jobs.submit("count", {"out": "x"}), PATIENCE).state is State.DONE


def test_a_second_worker_of_a_device_ends_at_once(jobs: Jobs) -> None:
    first = start_worker(jobs)
    until(lambda: jobs.workers())
    second = start_worker(jobs)
    assert second.wait(PATIENCE) == 0 and first.poll() is None


def test_failures_say_one_line_and_log_the_rest(jobs: Jobs) -> None:
    bad = jobs.submit("count", {"out": "x", "steps": 0})
    secret = "hf_abcdefghijklmnop1234"
    loud = jobs.submit("speak", {"secret": secret})
    job = jobs.wait(bad, PATIENCE)
    assert job.state is State.FAILED
    assert job.message == "--steps: got 0; expected 1 or more; fix: for example --steps 4"
    job = jobs.wait(loud, PATIENCE)
    assert (job.state, job.message) == (State.FAILED, "RuntimeError: denied for hf_***")
    log = jobs.log(loud)
    for line in ("printed hf_***", "logged hf_***", "written past Python", "from a child", "Traceback", "second line"):
        assert line in log
    assert secret not in (jobs.folder(loud) / "log.txt").read_text()


def test_two_generations_share_a_warm_model(tmp_path: Path, tiny_folder: Path) -> None:
    jobs = open_workspace(tmp_path / "workspace")
    worker = subprocess.Popen(
        [sys.executable, "-m", "workbench.jobs.worker", "--workspace", str(jobs.root), "--threads", "1"], cwd=PROJECT
    )
    size = {"height": 32, "width": 32, "frames": 5, "fps": 8, "steps": 2, "guidance": 1.0, "shift": 3.0}
    arguments = {"model": str(tiny_folder), "prompt": "a red 7", "out": "video.mp4", **size}
    ids = [jobs.submit("generate", arguments, device="cpu", start=False) for _ in range(2)]
    try:
        finished = [jobs.wait(job_id, PATIENCE) for job_id in ids]
    finally:
        worker.kill()
        worker.wait()
    assert [job.state for job in finished] == [State.DONE, State.DONE], jobs.log(ids[0])
    assert "model: loading" in jobs.log(ids[0]) and "model: still loaded" in jobs.log(ids[1])
    videos = [jobs.artefacts(job_id)[0].read_bytes() for job_id in ids]
    assert videos[0] == videos[1], "a warm model answers like a fresh one"


def test_threads_are_set_before_the_command_is_imported(jobs: Jobs) -> None:
    start_worker(jobs, "--threads", "1")
    job = jobs.wait(jobs.submit("surroundings", {}, start=False), PATIENCE)
    assert job.result is not None and job.result["threads"] == "1" and job.result["torch"] is False


def test_a_job_whose_path_was_moved_out_of_the_workspace_does_not_run(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.submit("count", {"out": "x"}, start=False)
    with sqlite3.connect(jobs.store.path) as db:
        db.execute("UPDATE job SET arguments = json_replace(arguments, '$.out', ?)", (str(tmp_path / "elsewhere"),))
    jobs.ensure_worker()
    job = jobs.wait(job_id, PATIENCE)
    assert job.state is State.FAILED and "inside" in job.message and not (tmp_path / "elsewhere").exists()
