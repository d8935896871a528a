"""The Jobs page: cost before against cost after, live results, removal, and two tabs that do not fall over each other."""

from pathlib import Path

import pytest

from tests.runs_fixture import make_run
from tests.training_files import make_training
from tests.workbench.test_prune_page import alive, link_of, words, work_off
from workbench.jobs.api import Cost, State, open_workspace

PAGE = "workbench/pages/jobs.py"
VIDEO = {"model": "demo", "prompt": "a red 7", "out": "v.mp4"}


@pytest.fixture
def jobs(tmp_path):
    return open_workspace(tmp_path / "workspace")


def test_expected_and_taken_stand_side_by_side(open_page, jobs):
    jobs.submit("generate", VIDEO, start=False, cost=Cost(seconds=95.0, disk=2**30, source="from a probe"))
    before = words(alive(open_page(PAGE, None)))
    assert "Expected 1 min 35 s, 1.0 GiB of disk (from a probe)." in before
    work_off(jobs, lambda *_: {})
    after = words(alive(open_page(PAGE, None)))
    assert "1.0 GiB of disk (from a probe); took 0 s." in after
    # The next one like it is expected to take what this one took.
    jobs.submit("generate", VIDEO | {"seed": 3}, start=False)
    assert "(as 1 job like it took)." in words(alive(open_page(PAGE, None)))


def test_a_title_says_which_name_is_a_run_a_mask_or_a_router(open_page, jobs):
    jobs.submit("generate", VIDEO | {"run": "/captures/demo", "router": "importance"}, start=False)
    jobs.submit("generate", VIDEO | {"mask": "/masks/without-1a.safetensors"}, start=False)
    jobs.submit("mask", {"run": "/captures/demo", "out": "m.safetensors"}, start=False)
    text = words(alive(open_page(PAGE, None)))
    assert "**generate** demo · run demo · router importance · a red 7" in text
    assert "**generate** demo · mask without-1a · a red 7" in text and "**mask** demo" in text


def test_a_finished_job_is_removed_with_its_files_and_a_running_one_is_not(open_page, jobs):
    first, second = (jobs.submit("generate", VIDEO, start=False) for _ in range(2))
    jobs.cancel(first)
    test = alive(open_page(PAGE, None))
    assert not [button for button in test.button if button.key == f"remove-{second}"]
    (jobs.folder(first)).mkdir(parents=True)
    alive(test.button(key=f"remove-{first}").click().run())
    assert [job.id for job in jobs.list()] == [second] and not (jobs.root / "jobs" / first).exists()


def test_two_tabs_do_not_fall_over_each_other(open_page, jobs):
    job = jobs.submit("generate", VIDEO, start=False)
    jobs.cancel(job)
    one, other = alive(open_page(PAGE, None)), alive(open_page(PAGE, None))
    alive(one.button(key=f"resume-{job}").click().run())
    assert jobs.status(job).state is State.QUEUED
    # The other tab still shows Resume and Remove of a job that waits by now.
    alive(other.button(key=f"resume-{job}").click().run())
    assert (jobs.status(job).state, jobs.status(job).attempt) == (State.QUEUED, 1)
    jobs.cancel(job)
    alive(other.run())
    jobs.resume(job, start=False)
    late = alive(other.button(key=f"remove-{job}").click().run())
    assert "meanwhile" in late.toast[0].value and jobs.status(job).state is State.QUEUED


def test_live_results_lead_to_their_pages(open_page, jobs):
    trained = jobs.submit("distill", {"stage": "width", "model": "demo", "out": "student"}, start=False)
    make_training(jobs.folder(trained) / "artefacts" / "student", done=8)
    captured = jobs.submit("capture", {"model": "demo", "out": "run"}, start=False)
    make_run(jobs.folder(captured) / "artefacts" / "run", 3, 4, steps=2, samples=2)
    test = alive(open_page(PAGE, None))
    text = words(test)
    assert "step 8: loss 1.15, feature 0.0574" in text and "2 samples written" in text
    test.button(key=f"open-{trained}").click().run()
    assert link_of(alive(test))["training"] == f"workspace/jobs/{trained}/artefacts/student/training"
    test = alive(open_page(PAGE, None))
    test.button(key=f"open-{captured}").click().run()
    assert link_of(test)["run"] == f"workspace/jobs/{captured}/artefacts/run"


def test_the_list_can_be_cut_to_what_runs(open_page, jobs):
    waiting = jobs.submit("generate", VIDEO | {"prompt": "waiting"}, start=False)
    over = jobs.submit("generate", VIDEO | {"prompt": "over"}, start=False)
    jobs.cancel(over)
    test = alive(open_page(PAGE, None))
    assert "waiting" in words(test) and "over" in words(test)
    active = words(alive(test.radio(key="job_filter").set_value("active").run()))
    assert "demo · waiting" in active and "demo · over" not in active
    finished = words(alive(test.radio(key="job_filter").set_value("over").run()))
    assert "demo · over" in finished and "demo · waiting" not in finished
    jobs.cancel(waiting)
    assert "None at the moment" in words(alive(test.radio(key="job_filter").set_value("active").run()))


def test_a_job_of_a_damaged_training_leaves_the_list_alive(open_page, jobs):
    job = jobs.submit("distill", {"stage": "width", "model": "demo", "out": "student"}, start=False)
    training = make_training(jobs.folder(job) / "artefacts" / "student", done=8)
    (training / "training.json").write_text("{")
    test = alive(open_page(PAGE, None))
    assert test.button(key=f"open-{job}") and Path(jobs.folder(job)).is_dir()
