"""What ships in data/: sizes, agreement of the runs with the model, and how fast the bundled run opens."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from diffusers import WanPipeline

import pare.transformer  # noqa: F401 (a student's class)
from analysis.runs import Run
from pare.geometry import DEMO, read_json
from pare.reference import model_identity
from workbench.demo.sweep.cells import Plan
from workbench.demo.sweep.table import sweep_text
from workbench.demo.sweep.values import read_values
from workbench.pages.data import captured_heads
from workbench.video_sets import open_videos

STUDENTS = sorted(path.parent for path in (DEMO.parent / "students").glob("*/model_index.json"))
EVALUATIONS = sorted(path.parent for path in (DEMO.parent / "evaluations").glob("*/evaluation.json"))
RESULTS = Path(__file__).parents[1] / "docs" / "results.md"
RUNS = sorted(path for path in (DEMO.parent / "runs").iterdir() if path.is_dir())


def megabytes(folder) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def test_sizes_stay_within_their_shares():
    assert megabytes(DEMO) <= 12
    assert megabytes(DEMO.parent / "runs") <= 6
    assert megabytes(DEMO.parent / "results") <= 3
    assert megabytes(DEMO.parent / "students") <= 8
    assert megabytes(DEMO.parent) <= 24


@pytest.mark.parametrize("folder", RUNS, ids=lambda path: path.name)
def test_a_bundled_run_was_made_from_the_bundled_model_or_a_shipped_student(folder):
    run = Run.open(folder)
    assert run.complete
    students = {f"demo-{student.name}": str(student) for student in STUDENTS}
    assert dict(run.manifest.model) == model_identity(students.get(folder.name, "demo"))


def test_the_runs_page_says_how_many_heads_of_a_student_were_captured():
    # 3 of 10 heads of every block are cut; a router may leave a block out in all of a run.
    found = {
        name: captured_heads(Run.open(DEMO.parent / "runs" / name)) for name in ("demo", "demo-width", "demo-joint")
    }
    ran = Run.open(DEMO.parent / "runs" / "demo-joint").routes().groupby("block")["ran"].any().sum()
    assert found == {"demo": 80, "demo-width": 56, "demo-joint": 7 * ran}


@pytest.mark.parametrize("student", STUDENTS, ids=lambda path: path.name)
def test_a_shipped_student_shows_what_the_bundled_model_shows(student):
    own, dense = (Run.open(DEMO.parent / "runs" / name) for name in (f"demo-{student.name}", "demo-videos"))
    assert [(each.prompt, each.seed) for each in own.manifest.samples] == [
        (each.prompt, each.seed) for each in dense.manifest.samples
    ]
    assert set(own.videos) == set(dense.videos)


def test_the_bundled_model_and_every_student_are_evaluated_on_the_same_prompts_and_seeds():
    assert [folder.name for folder in EVALUATIONS] == sorted(["demo", *(student.name for student in STUDENTS)])
    shown = set()
    for folder in EVALUATIONS:
        found = open_videos(folder)
        student = DEMO.parent / "students" / folder.name
        assert dict(found.model) == model_identity("demo" if folder.name == "demo" else str(student))
        assert found.scored and all(Path(path).is_file() for path in found.table["path"])
        shown.add(tuple(zip(found.table["prompt"], found.table["seed"], strict=True)))
    assert len(shown) == 1 and len(next(iter(shown))) == 20


def test_the_page_says_of_them_what_their_files_say():
    lines = [line for line in RESULTS.read_text("utf-8").splitlines() if line.startswith("|")]
    for folder in EVALUATIONS:
        title = "teacher" if folder.name == "demo" else f"{folder.name}:"
        (line,) = [line for line in lines if re.match(rf"\| {title}", line) and line.count("[") == 6]
        oracle = read_json(folder / "evaluation.json")["oracle"]
        told = [
            f"{100 * each['share']:.0f} [{100 * each['low']:.0f}, {100 * each['high']:.0f}]"
            for each in (oracle[name] for name in ("digit", "colour", "direction", "speed", "consistent"))
        ]
        assert [cell.strip() for cell in line.split("|")[3:8]] == told


@pytest.mark.parametrize("folder", STUDENTS, ids=lambda path: path.name)
def test_a_shipped_student_of_the_bundled_model_loads_as_a_plain_pipeline(folder):
    pipe = WanPipeline.from_pretrained(folder)
    stages = [stage["stage"] for stage in pipe.transformer.config.pruning["training"]]
    assert stages[-1] == {"width": "width", "joint": "joint", "few-steps": "steps"}[folder.name]
    assert pipe.transformer.config.pruning["training"][-1]["model"] == model_identity("demo")
    assert pipe.transformer.is_routing_enabled == (folder.name != "width")


def test_the_bundled_run_is_whole_and_opens_in_under_a_second():
    # A second is a hundred times what it takes, so that a busy machine does not fail it.
    start = time.process_time()
    run = Run.open(DEMO.parent / "runs" / "demo")
    ratio = run.summary("self/ratio")
    assert time.process_time() - start < 1
    assert ratio["mean"].shape == (10, 1, 8, 10)
    assert np.all(ratio["n"] == 200)
    assert np.all((ratio["mean"] >= 0) & (ratio["mean"] <= 1))


def test_the_page_has_the_sweep_of_the_numbers_that_are_kept():
    text = sweep_text(read_values(DEMO.parent / "results", Plan()), Plan())
    assert f"<!-- sweep -->\n{text}\n<!-- /sweep -->" in RESULTS.read_text("utf-8")
