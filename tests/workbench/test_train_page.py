"""The Train page in every state: what it starts is what it says, and what it shows is what lies on disk."""

import doctest
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from pare import mask as masks
from pare.geometry import DEMO, read_geometry
from pare.reference import model_identity
from tests.training_files import make_samples, make_student, make_training
from tests.workbench.test_prune_page import alive, components, link_of, words, work_off
from workbench import cli
from workbench.commands.distill import distill
from workbench.jobs.api import Cost, Jobs, State, open_workspace
from workbench.jobs.process import Identity
from workbench.pages import train_validation, train_watch, train_work
from workbench.pages.text import duration
from workbench.pages.train_work import entries, start
from workbench.places import Places
from workbench.training_choices import Wanted, suggested

PAGE = "workbench/pages/train.py"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Named at start: samples and a student of the demo, without weights."""
    make_samples(tmp_path / "mine" / "samples")
    make_student(tmp_path / "mine" / "pruned")
    return tmp_path / "mine"


@pytest.fixture
def workspace(tmp_path) -> Path:
    return tmp_path / "workspace"


def submit(jobs: Jobs, **changes) -> str:
    """A training in the queue."""
    arguments = {
        "stage": "width",
        "model": "demo",
        "data": "d",
        "student": "s",
        "out": "student",
        "train_steps": 20,
        **changes,
    }
    return jobs.submit("distill", arguments, device="cpu", start=False)


def begun(jobs: Jobs, **made):
    """A training that a worker, this process, has claimed, with its files."""
    job_id = submit(jobs)
    assert jobs.store.take_device("cpu", Identity.mine())
    job = jobs.store.claim("cpu", Identity.mine())
    assert job is not None and job.id == job_id
    jobs.store.report(job, 8, 20, "loss 1.0", 2.0)
    make_training(jobs.folder(job_id) / "artefacts" / "student", **made)
    return job


@pytest.mark.parametrize("module", [train_work, train_watch, train_validation])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_an_empty_workspace_says_which_commands_fill_it(open_page, tmp_path, workspace):
    test = alive(open_page(PAGE, None))
    text = words(test)
    assert test.title[0].value == "No training yet"
    assert "pare distill data demo --samples" in text and "pare prune demo --mask" in text
    assert not [button for button in test.button if button.key == "train_start"]
    assert not workspace.exists()


def test_what_the_page_plans_is_what_the_command_plans(open_page, folder, capsys):
    test = alive(open_page(PAGE, folder))
    text = words(test)
    typed = next(code.value for code in test.code if code.value.startswith("pare distill width"))
    assert cli.main([*shlex.split(typed)[1:], "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert f"{plan['student_parameters']:,} of the teacher's {plan['teacher_parameters']:,}" in text
    assert f"{plan['train_steps']:,} steps of {plan['samples_per_step']} samples" in text
    assert plan["train_steps"] == suggested("width", True)["train_steps"]
    assert "measure one step" in text and "at most" in text
    # Changing a setting changes the plan beside it.
    test.number_input(key="train_batch_width").set_value(2)
    again = words(alive(test.number_input(key="train_steps_width").set_value(30).run()))
    assert "30 steps of 2 samples" in again


def test_every_stage_starts_as_the_form_says(open_page, folder, workspace):
    test = alive(open_page(PAGE, folder))
    alive(test.radio(key="train_stage").set_value("joint").run())
    test.slider(key="train_budget").set_value((3, 5))
    test.number_input(key="train_weight_temporal").set_value(0.0)
    test.number_input(key="train_seed").set_value(3)
    alive(test.run())
    alive(test.button(key="train_start").click().run())
    (job,) = open_workspace(workspace).list()
    given = dict(job.arguments)
    assert given["stage"] == "joint" and given["data"] == str(folder / "samples")
    assert given["student"] == str(folder / "pruned")
    assert (given["k_min"], given["k_max"], given["temporal_weight"], given["seed"]) == (3.0, 5.0, 0.0, 3)
    assert "feature_weight" not in given and (given["router_rate"], given["router_share"]) == (2.5e-3, 0.25)
    # It is watched at once, and expected to cost what was said.
    assert link_of(test)["training"] == f"workspace/jobs/{job.id}/artefacts/student/training"
    assert "waits for its turn" in test.title[0].value
    cost = open_workspace(workspace).expected(job.id)
    assert cost.seconds is None and cost.memory > 0 and cost.disk > 0
    test.radio(key="train_view").set_value("Start").run()
    alive(test.radio(key="train_stage").set_value("steps").run())
    typed = next(code.value for code in test.code if code.value.startswith("pare distill steps"))
    assert "--validate-every" in typed and "--student" in typed


@pytest.mark.parametrize(("stage", "first"), [("width", "pruned"), ("joint", "c"), ("steps", "b")])
def test_a_stage_begins_with_a_student_of_the_one_before(open_page, folder, stage, first):
    for name, trained in (("a", ["width", "joint", "steps"]), ("b", ["width", "joint"]), ("c", ["width"])):
        make_student(folder / name, pruning={"training": [{"stage": each} for each in trained]})
    test = alive(open_page(PAGE, folder))
    test = alive(test.radio(key="train_stage").set_value(stage).run())
    chosen = test.selectbox(key=f"train_student_{stage}")
    assert len(chosen.options) >= 4 and chosen.value == f"mine/{first}"


def test_what_cannot_fit_is_refused_with_its_knob(open_page, folder, monkeypatch):
    monkeypatch.setattr("workbench.pages.train_work.memory_free", lambda device: 2**20)
    test = open_page(PAGE, folder)
    assert not test.exception
    (error,) = test.error
    assert "a training that fits; fix: --checkpointing" in error.value.replace("\\", "")
    assert test.button(key="train_start").disabled and test.button(key="train_probe").disabled


def test_a_probe_gives_the_time_and_is_no_training(open_page, folder, workspace):
    test = alive(open_page(PAGE, folder))
    alive(test.button(key="train_probe").click().run())
    jobs = open_workspace(workspace)
    (job,) = jobs.list()
    assert job.arguments["probe"] is True and entries(Places(workspace)) == []
    typed = next(code.value for code in test.code if code.value.startswith("pare distill width"))
    given = {"data": folder / "samples", "student": folder / "pruned", "batch": 2, "train_steps": 1200}
    plan = distill("width", "demo", out="x", dry_run=True, **given)
    assert "--batch 2" in typed
    probed = {"stage": "width", "probe": True, "step_seconds": 0.5, "flops_per_step": plan["flops_per_step"]}
    work_off(jobs, lambda *_: probed)
    # 1,200 steps of half a second, and what validations are more.
    alive(test.number_input(key="train_every_1200").set_value(0).run())
    assert f"about {duration(600)} (from a probe of stage width here" in words(test) and "500 ms each" in words(test)
    alive(test.number_input(key="train_every_1200").set_value(1200).run())
    checked = distill(
        "width", "demo", out="x", dry_run=True, validate_every=1200, held_out=2, clips=2, roles=2, **given
    )
    seconds = 0.5 * (1200 + checked["validation_flops"] / checked["flops_per_step"])
    assert f"about {duration(seconds)} (from" in words(test) and "500 ms each" in words(test)


def test_a_mask_is_cut_before_its_training(folder, tmp_path, workspace):
    geometry = read_geometry(DEMO)
    keep = np.ones((geometry.blocks, geometry.heads), bool)
    keep[:, 0] = False
    mask = masks.Mask(keep, keep, np.ones((geometry.blocks, geometry.ffn), bool), {"model": model_identity("demo")})
    path = masks.save(mask, tmp_path / "mask.safetensors")
    wanted = Wanted("width", "demo", str(folder / "samples"), mask=str(path), settings={"train_steps": 5})
    jobs = open_workspace(workspace)
    jobs_started = start_without_worker(jobs, wanted, workspace)
    second, first = jobs_started
    assert (first.command, first.arguments["mask"]) == ("prune", str(path))
    assert second.arguments["student"] == first.arguments["out"] == str(jobs.folder(first.id) / "artefacts" / "student")
    # The same mask is not cut again.
    assert len(start_without_worker(jobs, wanted, workspace)) == 3


def start_without_worker(jobs: Jobs, wanted: Wanted, workspace: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.jobs.api.Jobs.ensure_worker", lambda *_, **__: None)
        start(Places(workspace), wanted, Cost(seconds=3.0))
    return sorted(jobs.list(), key=lambda job: (-job.created, job.command))


def test_a_running_training_is_followed_cancelled_and_resumed(open_page, workspace):
    jobs = open_workspace(workspace)
    job = begun(jobs, stage="joint", done=8, validated=(4, 8))
    test = alive(open_page(PAGE, None))
    title = test.title[0].value.replace("\\", "")
    assert title.startswith("Stage joint of s is at step 8 of 20: the loss went from 1.87 to 1.15 (means of")
    text = words(test)
    assert "n = 8 samples of one step" in text and "running" in text
    charts = {chart.proto.id.split("-")[-1].removeprefix("train_") for chart in test.get("plotly_chart")}
    assert {"losses", "learning_rate", "gradient_norm", "blocks_run", "roles", "gates"} <= charts
    assert {"errors_data", "errors_teacher", "oracle"} <= charts
    assert "player" in components(test)
    geometry = read_geometry(DEMO)
    assert f"{geometry.blocks} heads that were kept changed role" in text and "n = 2 samples at σ = 0.2, 0.8" in text
    assert "1 of" in text and "gates differ between the samples" in text
    # Thresholds of the selection decide what a role is.
    assert "No head that was kept changed its role" in words(alive(open_page(PAGE, None, ts="0.99")))
    # An earlier validation is in the link.
    test.select_slider(key="train_step").set_value(4).run()
    assert link_of(alive(test))["at"] == "4" and "Head roles at step 4" in words(test)
    test.button(key=f"cancel-{job.id}").click().run()
    alive(test)
    assert jobs.status(job.id).state is State.CANCELLING
    assert jobs.store.finish(job, State.CANCELLED, "cancelled at 8 of 20")
    test.run()
    assert "Cancelled after 8 of 20" in words(alive(test))
    test.button(key=f"resume-{job.id}").click().run()
    again = jobs.status(job.id)
    assert (again.state, again.attempt) == (State.QUEUED, 2)
    jobs.store.leave_device("cpu", Identity.mine(), only_if_idle=False)


def test_a_failed_training_says_why_and_keeps_its_curves(open_page, workspace):
    jobs = open_workspace(workspace)
    job = begun(jobs, done=8)
    jobs.store.finish(job, State.FAILED, "Diverged: training: got loss nan at step 8; fix: resume with a lower rate")
    jobs.store.leave_device("cpu", Identity.mine(), only_if_idle=False)
    test = open_page(PAGE, None)
    assert not test.exception
    (error,) = test.error
    assert "Diverged" in error.value and "stands at step 8 of 20" in test.title[0].value
    assert test.button(key=f"resume-{job.id}") and len(test.get("plotly_chart")) == 3


def test_a_finished_training_of_another_place_is_listed_and_shown(open_page, folder):
    make_training(folder / "trained", validated=(20,), student=True)
    make_training(folder / "stopped", done=7)
    test = alive(open_page(PAGE, folder, training="mine/trained/training"))
    assert "ended at step 20 of 20" in test.title[0].value and "One validation so far" in words(test)
    assert sorted(test.selectbox(key="training_picker").options, key=len)
    other = alive(test.selectbox(key="training_picker").set_value("mine/stopped/training").run())
    assert "stands at step 7 of 20" in other.title[0].value and "--resume" in words(other)
    assert link_of(other)["training"] == "mine/stopped/training"
    # A link to one that is gone shows the newest.
    alive(open_page(PAGE, folder, training="mine/gone/training"))


def test_damaged_files_leave_the_page_alive(open_page, folder):
    training = make_training(folder / "torn", validated=(20,))
    with (training / "log.jsonl").open("a") as file:
        file.write('{"step": 21, "lo')
    test = alive(open_page(PAGE, folder))
    assert "1 line of the log cannot be read" in test.warning[0].value
    (training / "roles" / "000020.safetensors").write_bytes(b"nothing")
    (training / "clips" / "000020-0.mp4").write_bytes(b"no video")
    test = open_page(PAGE, folder)
    assert not test.exception and len(test.error) == 2 and len(test.get("plotly_chart")) >= 3
    (training / "training.json").write_text("{")
    test = open_page(PAGE, folder)
    assert not test.exception and "training.json" in test.error[0].value.replace("\\", "")


def test_samples_are_encoded_as_a_job(open_page, workspace):
    test = alive(open_page(PAGE, None))
    test.number_input(key="train_samples").set_value(6)
    alive(test.button(key="train_encode").click().run())
    (job,) = open_workspace(workspace).list()
    assert {name: job.arguments[name] for name in ("stage", "model", "samples")} == {
        "stage": "data",
        "model": "demo",
        "samples": 6,
    }
    assert "in the queue of cpu" in "".join(each.proto.text for each in test.get("progress"))
    assert not [name for name in job.arguments if name == "videos"]
    bad = test.text_input(key="train_videos").set_value("../elsewhere").run()
    assert not bad.exception and "inside the workspace" in bad.error[0].value.replace("\\", "")
