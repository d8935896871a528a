"""The job table: who claims what, what a dead worker's jobs become, which changes of state there are."""

import itertools
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pare.errors import InputError
from workbench.jobs.job import Job, State
from workbench.jobs.process import Identity
from workbench.jobs.store import STALE, Store

ME = Identity.mine()
PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "jobs.sqlite3")
    store.create()
    return store


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def queued(store: Store, job_id: str = "a", device: str = "cpu") -> str:
    store.add(job_id, "count", {"out": "x"}, device)
    return job_id


def running(store: Store, job_id: str = "a", worker: Identity = ME) -> Job:
    queued(store, job_id)
    assert store.take_device("cpu", worker)
    job = store.claim("cpu", worker)
    assert job is not None and job.id == job_id
    return job


def state(store: Store, job_id: str = "a") -> State:
    store.sweep()
    job = store.get(job_id)
    assert job is not None
    return job.state


def age_heartbeat(store: Store, seconds: float) -> None:
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE worker SET heartbeat = heartbeat - ?", (seconds,))


CLAIM = """
import sys
from pathlib import Path
from workbench.jobs.process import Identity
from workbench.jobs.store import Store
store, me = Store(Path(sys.argv[1])), Identity(int(sys.argv[2]), float(sys.argv[3]))
store.create()
while job := store.claim("cpu", me):
    print(job.id)
"""


def test_several_processes_claim_each_job_exactly_once(store: Store) -> None:
    names = [f"job-{number}" for number in range(60)]
    for name in names:
        queued(store, name)
    store.take_device("cpu", ME)
    command = [sys.executable, "-c", CLAIM, str(store.path), str(ME.pid), str(ME.started)]
    claimers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) for _ in range(4)]
    claimed = [claimer.communicate(timeout=60)[0].split() for claimer in claimers]
    assert sorted(itertools.chain(*claimed)) == sorted(names)
    assert all(claimer.returncode == 0 for claimer in claimers)


def test_only_the_worker_that_holds_the_device_can_claim(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    other = Identity.of(sleeper.pid)
    assert other is not None
    queued(store)
    assert store.claim("cpu", ME) is None
    assert store.take_device("cpu", other)
    assert not store.take_device("cpu", ME), "the other process lives"
    assert store.claim("cpu", ME) is None
    sleeper.kill()
    sleeper.wait()
    assert store.take_device("cpu", ME)
    assert store.claim("cpu", other) is None
    assert store.claim("cpu", ME) is not None


def test_many_threads_take_a_device_and_one_gets_it(store: Store, sleeper: subprocess.Popen[bytes]) -> None:
    other = Identity.of(sleeper.pid)
    assert other is not None
    wins: list[Identity] = []
    threads = [
        threading.Thread(target=lambda who=who: wins.append(who) if store.take_device("cpu", who) else None)
        for who in (ME, other) * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(wins)) == 1


def test_a_queue_per_device_in_order_of_submission(store: Store) -> None:
    for job_id, device in [("a", "cpu"), ("b", "cuda:0"), ("c", "cpu"), ("d", "cuda:0")]:
        queued(store, job_id, device)
    assert {job.id: job.position for job in store.jobs()} == {"a": 1, "b": 1, "c": 2, "d": 2}
    store.take_device("cuda:0", ME)
    claimed = [store.claim("cuda:0", ME), store.claim("cuda:0", ME), store.claim("cuda:0", ME)]
    assert [job and job.id for job in claimed] == ["b", "d", None]
    assert [(job.id, job.position) for job in store.jobs(states=(State.QUEUED,))] == [("a", 1), ("c", 2)]


def test_a_dead_worker_s_job_is_lost_even_before_its_parent_collected_it(
    store: Store, sleeper: subprocess.Popen[bytes]
) -> None:
    worker = Identity.of(sleeper.pid)
    assert worker is not None
    running(store, worker=worker)
    assert state(store) is State.RUNNING
    sleeper.kill()
    while Path(f"/proc/{sleeper.pid}").exists() and Identity.of(sleeper.pid):
        time.sleep(0.01)  # killed, not yet a zombie
    assert state(store) is State.LOST
    assert "resume" in (store.get("a") or pytest.fail()).message


def test_a_pid_that_belongs_to_somebody_else_by_now_does_not_keep_a_job_running(store: Store) -> None:
    running(store, worker=Identity(ME.pid, ME.started - 1))
    assert state(store) is State.LOST


def test_a_silent_worker_s_job_is_lost_and_comes_back_with_the_heartbeat(store: Store) -> None:
    job = running(store)
    age_heartbeat(store, STALE / 2)
    assert state(store) is State.RUNNING
    age_heartbeat(store, STALE)
    assert state(store) is State.LOST
    assert not store.workers()[0].alive
    assert store.beat("cpu", ME) and store.pulse(job) is State.RUNNING
    assert state(store) is State.RUNNING


def test_a_lost_job_that_was_resumed_is_no_longer_its_first_worker_s(store: Store) -> None:
    job = running(store)
    age_heartbeat(store, STALE + 1)
    assert state(store) is State.LOST
    assert store.requeue("a")
    store.beat("cpu", ME)
    assert store.pulse(job) is None
    assert store.report(job, 1, 2, "late", None) is None
    assert not store.finish(job, State.DONE, result={"late": True})
    after = store.get("a")
    assert after is not None and (after.state, after.attempt, after.result) == (State.QUEUED, 2, None)


def finish(end: State) -> Callable[[Store], object]:
    return lambda store: store.finish(running(store), end, "why")


@pytest.mark.parametrize(
    ("prepare", "cancelled", "resumed"),
    [
        (queued, State.CANCELLED, None),
        (running, State.CANCELLING, None),
        (finish(State.DONE), State.DONE, None),
        (finish(State.FAILED), State.FAILED, State.QUEUED),
        (finish(State.CANCELLED), State.CANCELLED, State.QUEUED),
        (finish(State.LOST), State.CANCELLED, State.QUEUED),
    ],
)
def test_cancel_and_resume_from_every_state(
    tmp_path: Path, prepare: Callable[[Store], object], cancelled: State, resumed: State | None
) -> None:
    for number, (act, expected) in enumerate([(Store.request_cancel, cancelled), (Store.requeue, resumed)]):
        store = Store(tmp_path / f"{number}.sqlite3")
        store.create()
        prepare(store)
        before = state(store)
        act(store, "a")
        assert state(store) is (expected or before)


def test_an_attempt_that_never_began_is_not_counted(store: Store) -> None:
    queued(store)
    store.request_cancel("a")
    assert store.requeue("a")
    assert (store.get("a") or pytest.fail()).attempt == 1


def test_only_finished_jobs_are_removed(store: Store) -> None:
    job = running(store)
    queued(store, "b")
    assert not store.remove("a") and not store.remove("b")
    store.finish(job, State.DONE)
    assert store.remove("a") and store.get("a") is None and not store.events(0, "a")


def test_a_worker_does_not_leave_while_a_job_is_queued(store: Store) -> None:
    store.take_device("cpu", ME)
    queued(store)
    assert not store.leave_device("cpu", ME, only_if_idle=True)
    store.claim("cpu", ME)
    assert store.leave_device("cpu", ME, only_if_idle=True) and not store.workers()


def test_events_grow_and_are_read_from_where_one_stopped(store: Store) -> None:
    job = running(store)
    seen = store.events(0)
    assert [event.state for event in seen] == [State.QUEUED, State.RUNNING]
    assert store.report(job, 1, 2, "step", 1.0) is State.RUNNING
    store.finish(job, State.FAILED, "broke")
    new = store.events(seen[-1].seq)
    assert [(event.job, event.state, event.message) for event in new] == [("a", State.FAILED, "broke")]
    assert new[0].seq > seen[-1].seq and abs(new[0].time - time.time()) < 60
    store.remove("a")
    queued(store, "b")
    assert store.events(0)[0].seq > new[0].seq, "a number is never given twice"


def test_several_processes_make_the_table_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from workbench.jobs.store import Store; Store(Path(sys.argv[1])).create()"
    command = [sys.executable, "-c", code, str(tmp_path / "jobs.sqlite3")]
    makers = [subprocess.Popen(command, cwd=PROJECT) for _ in range(4)]
    assert [maker.wait(60) for maker in makers] == [0, 0, 0, 0]
    with sqlite3.connect(tmp_path / "jobs.sqlite3") as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_table_of_a_newer_version_is_refused(store: Store) -> None:
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(InputError, match="version 99"):
        store.create()


def test_an_identity_kills_only_the_process_it_means(sleeper: subprocess.Popen[bytes]) -> None:
    meant = Identity.of(sleeper.pid)
    assert meant is not None and meant.alive
    Identity(meant.pid, meant.started - 1).kill()
    assert sleeper.poll() is None and meant.alive
    meant.kill()
    sleeper.wait(5)
    assert not meant.alive
    assert Identity.of(os.getpid()) == ME
