"""A training as a job: a worker of its own, cancelled in the middle, resumed, and the weights of one that nobody stopped."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pare.errors import InputError
from pare.mask import Mask, save
from pare.training.log import read_log
from pare.video import write_video
from tests.tiny import BLOCKS, FFN, HEADS
from workbench.commands.distill import distill
from workbench.commands.prune import prune
from workbench.jobs.api import Jobs, State, open_workspace
from workbench.jobs.spec import prepare
from workbench.jobs.words import parse
from workbench.places import PROJECT, Places

PATIENCE = 120
SETTINGS = {
    "train_steps": 120,
    "log_every": 1,
    "warmup": 1,
    "checkpoint_every": 1000,
    "learning_rate": 1e-3,
    "batch": 2,
}


@pytest.fixture(scope="module")
def inputs(tiny_folder, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    draw = np.random.default_rng(0)
    for number in range(3):
        write_video(draw.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), folder / "videos" / f"{number}.mp4", 8, {})
        (folder / "videos" / f"{number}.txt").write_text(f"a red {number}")
    keep = np.ones((BLOCKS, HEADS), bool)
    keep[:, 1] = False
    save(Mask(keep, keep, np.ones((BLOCKS, FFN), bool)), folder / "mask.safetensors")
    prune(str(tiny_folder), mask=folder / "mask.safetensors", out=folder / "pruned", qk_norm="none", measure=False)
    return {"model": str(tiny_folder), "student": str(folder / "pruned"), "videos": str(folder / "videos")}


def until(jobs: Jobs, job_id: str, done) -> None:
    end = time.monotonic() + PATIENCE
    while not done(jobs.status(job_id)):
        assert time.monotonic() < end, jobs.log(job_id)
        time.sleep(0.02)


def test_a_cancelled_training_resumes_in_its_worker_to_the_same_weights(inputs, tmp_path):
    jobs = open_workspace(tmp_path / "workspace")
    given = {"model": inputs["model"], "videos": inputs["videos"], "out": "samples"}
    data = jobs.submit("distill", {"stage": "data", **given}, device="cpu", start=False)
    # Jobs of one device run in their order, so what the first one writes may be named already.
    samples = jobs.folder(data) / "artefacts" / "samples"
    wanted = {
        "stage": "width",
        "model": inputs["model"],
        "student": inputs["student"],
        "data": str(samples),
        **SETTINGS,
    }
    job_id = jobs.submit("distill", {**wanted, "out": "student"}, device="cpu", start=False, name="distill-width")
    worker = subprocess.Popen(
        [sys.executable, "-m", "workbench.jobs.worker", "--workspace", str(jobs.root), "--threads", "1"], cwd=PROJECT
    )
    try:
        until(jobs, job_id, lambda job: (job.done > 1 and job.total == SETTINGS["train_steps"]) or not job.active)
        jobs.cancel(job_id)
        job = jobs.wait(job_id, PATIENCE)
        assert job.state is State.CANCELLED, jobs.log(job_id)
        assert 1 < job.done < SETTINGS["train_steps"] and jobs.artefacts(job_id) == ()
        assert jobs.status(data).state is State.DONE
        # Nothing is lost, though no state was due.
        name = f"workspace/jobs/{job_id}/artefacts/student/training"
        assert Places(jobs.root).trainings() == [name]
        stopped = max(record["step"] for record in read_log(Places(jobs.root).find(name)))
        assert stopped == job.done
        jobs.resume(job_id, start=False)
        job = jobs.wait(job_id, PATIENCE)
    finally:
        worker.kill()
        worker.wait()
    assert (job.state, job.attempt) == (State.DONE, 2), jobs.log(job_id)
    assert job.result is not None and job.result["flops_per_step"] > 0 and job.result["last"]["step"] == 120
    steps = [record["step"] for record in read_log(Places(jobs.root).find(name))]
    assert steps == list(range(1, 121))
    distill(wanted.pop("stage"), wanted.pop("model"), out=tmp_path / "whole", device="cpu", **wanted)
    out = jobs.folder(job_id) / "artefacts" / "student"
    files = [sorted((folder / "transformer").glob("*.safetensors")) for folder in (tmp_path / "whole", out)]
    assert files[0] and [a.read_bytes() for a in files[0]] == [b.read_bytes() for b in files[1]]


@pytest.mark.parametrize("stage", ["data", "width", "joint", "steps"])
def test_every_stage_is_a_job(stage, tmp_path):
    from workbench.jobs.spec import signature

    words = [
        stage,
        "demo",
        "--out",
        "x",
        "--data",
        "d",
        "--student",
        "s",
        "--batch",
        "4",
        "--learning-rate",
        "1e-4",
        "--probe",
    ]
    given = parse("distill", words, signature("distill"))
    ready = prepare("distill", given, "cpu", root=tmp_path, artefacts=tmp_path / "jobs" / "a" / "artefacts")
    assert ready["out"] == str(tmp_path / "jobs" / "a" / "artefacts" / "x")
    assert (ready["stage"], ready["batch"], ready["learning_rate"], ready["probe"]) == (stage, 4, 1e-4, True)
    assert (ready["device"], ready["data"], ready["student"]) == ("cpu", "d", "s")


def test_a_job_carries_no_callback(tmp_path):
    given = {"stage": "width", "model": "demo", "out": "x", "validate": "print"}
    with pytest.raises(InputError, match="validate"):
        prepare("distill", given, "cpu", root=tmp_path, artefacts=Path(tmp_path / "a"))
