"""Several processes write one run: the same bytes as one process, and nobody waits for the dead."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis import sharing
from analysis.capture import capture
from analysis.run_writer import RunWriter
from analysis.runs import Run
from analysis.sharing import FOLDER, share_run
from pare.errors import Cancelled, InputError
from pare.processes import Process, this_process
from tests.ports import find_free_port
from tests.sharing_member import MANIFEST, take_part
from tests.tiny import tiny_transformer

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["a red 7 moving up", "a blue 3 standing still", "a green 1"]


def start(folder, rank, count=2, seconds=0.0, patience=300.0) -> subprocess.Popen:
    words = [str(each) for each in (folder, rank, count, seconds, patience)]
    command = [sys.executable, "-m", "tests.sharing_member", *words]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("log.jsonl", None)
    return files


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    return take_part(tmp_path_factory.mktemp("alone") / "run", Process()).folder


@pytest.mark.parametrize("mode", ["calibration", "trajectory"])
def test_two_processes_of_accelerate_write_the_bytes_of_one(tiny_folder, tmp_path, mode):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    given = ["-m", "workbench", "capture", str(tiny_folder), "--mode", mode, "--prompts", str(tmp_path / "prompts.txt")]
    given += ["--device", "cpu", "--steps", "2", "--json"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", str(find_free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    said = {}
    for name, program in (("two", launch), ("one", [sys.executable])):
        command = [*program, *given, "--out", str(tmp_path / name)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        said[name] = json.loads(done.stdout)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert said["two"]["samples"] == 3 and said["two"]["roles"] == said["one"]["roles"]
    log = [json.loads(line) for line in (tmp_path / "two/log.jsonl").read_text().splitlines()]
    assert {each["process"]: each["pending"] for each in log if each["event"] == "start"} == {0: 2, 1: 1}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_any_number_of_processes_ends_with_the_same_bytes(alone, tmp_path, count):
    """Also more processes than samples, and the leading one reports the progress of all."""
    others = [start(tmp_path / "run", rank, count, seconds=2.0) for rank in range(1, count)]
    calls = []
    run = take_part(tmp_path / "run", Process(0, count), progress=lambda *call: calls.append(call[:2]))
    for each in others:
        assert each.wait(300) == 0, each.stderr.read()
    assert run.complete and contents(run.folder) == contents(alone)
    done = [each for each, _ in calls]
    assert done == sorted(done) and done[-1] <= 10 and {total for _, total in calls} == {10}
    # Two units a sample of its own; the rest of the progress is that of the others.
    assert done[-1] > 2 * len(range(0, 5, count))


def test_a_killed_process_stops_the_leading_one_and_any_number_resumes(alone, tmp_path):
    other = start(tmp_path / "run", 1, seconds=1.0)

    def kill(done, total, message=""):
        if other.poll() is None and (tmp_path / "run/samples/00001.safetensors").exists():
            os.kill(other.pid, signal.SIGKILL)
            other.wait()

    began = time.monotonic()
    with pytest.raises(RuntimeError, match=r"process 1 of 2 gives no sign of life.*--resume"):
        take_part(tmp_path / "run", Process(0, 2), patience=5.0, progress=kill)
    assert time.monotonic() - began < 300
    assert Run.open(tmp_path / "run").finished == (0, 1, 2, 4)
    run = take_part(tmp_path / "run", Process(), resume=True)
    assert contents(run.folder) == contents(alone)


def test_the_others_stop_when_the_leading_one_is_killed_or_cancelled(tmp_path):
    def stop(done, total, message=""):
        if (tmp_path / "run/.processes/1.json").exists():
            raise Cancelled

    other = start(tmp_path / "run", 1, seconds=2.0)
    with pytest.raises(Cancelled):
        take_part(tmp_path / "run", Process(0, 2), seconds=0.2, progress=stop)
    assert other.wait(300) == 1 and "process 0 of 2 has stopped" in other.stderr.read()

    lead, other = (start(tmp_path / "second", rank, seconds=2.0, patience=2.0) for rank in (0, 1))
    while not (tmp_path / "second/.processes/1.json").exists():
        time.sleep(0.01)
    lead.kill()
    assert other.wait(300) == 1 and "process 0 of 2 gives no sign of life" in other.stderr.read()
    assert lead.wait() < 0


def test_what_a_killed_start_left_is_not_taken_for_a_living_leader(tmp_path):
    RunWriter(tmp_path, MANIFEST, {})
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "0.json").write_text(json.dumps({"beat": 7, "state": "working", "pending": [0, 1]}))
    began = time.monotonic()
    with (
        pytest.raises(RuntimeError, match="process 0 did not begin"),
        share_run(tmp_path, MANIFEST, dict, Process(1, 2), units=1, start_patience=1.0),
    ):
        pass
    assert time.monotonic() - began >= 1.0


def test_samples_that_are_said_to_be_done_and_are_not_there_end_the_wait(tmp_path):
    def lie(done, total, message=""):
        (tmp_path / "run" / FOLDER / "1.json").write_text(json.dumps({"beat": done, "state": "done", "units": 4}))

    with pytest.raises(RuntimeError, match=r"samples \[1, 3\] are not here.*same folder"):
        take_part(tmp_path / "run", Process(0, 2), patience=1.0, progress=lie)


def test_processes_that_would_write_different_runs_are_refused(tmp_path):
    other = start(tmp_path, 0, seconds=1.0)
    with pytest.raises(InputError, match="another run than process 1"):
        take_part(tmp_path, Process(1, 2), manifest=MANIFEST.model_copy(update={"mode": "trajectory"}))
    other.kill()
    other.wait()


def test_the_environment_that_launchers_set():
    assert this_process({}) == Process(0, 1, 0)
    assert not this_process({"RANK": "3", "WORLD_SIZE": "4"}).leads
    for bad in ({"RANK": "4", "WORLD_SIZE": "4"}, {"RANK": "x"}, {"RANK": "1"}, {"LOCAL_RANK": "-1"}):
        with pytest.raises(InputError, match="RANK"):
            this_process(bad)


def test_one_process_leaves_no_trace_of_sharing(alone):
    assert not (alone / FOLDER).exists() and sharing.FOLDER == ".processes"


def test_statistics_depend_on_the_number_of_threads_no_more_than_the_model_does():
    """A launcher gives every process one thread; statistics are summed in the same order all the same."""
    transformer = tiny_transformer(num_attention_heads=10, attention_head_dim=16, num_layers=2)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(1, 4, 9, 24, 24, generator=generator), torch.randn(1, 512, 16, generator=generator)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            with torch.no_grad(), capture(transformer) as recorder:
                output = transformer(latents, torch.tensor([500.0]), text).sample
            (measured,) = recorder.take()
            found.append((output, {**measured.arrays, **recorder.take_moments()}))
    finally:
        torch.set_num_threads(before)
    (plain, one), *others = found
    same = [arrays for output, arrays in others if torch.equal(output, plain)]
    if not same:
        pytest.skip("matrix products of this machine differ with the number of threads")
    for name, values in one.items():
        for other in same:
            np.testing.assert_array_equal(values, other[name], err_msg=name)
