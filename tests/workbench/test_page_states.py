"""Every page in every state: nothing there, the bundled data, and each kind of file or row that is broken. None dies."""

import json
import re
import sqlite3
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from analysis.evidence.answer import read_answer
from pare import mask as masks
from tests.runs_fixture import make_run
from tests.training_files import make_samples, make_student, make_training
from tests.workbench.test_compare_page import identity, kept, write_evaluation
from workbench.jobs.api import open_workspace
from workbench.places import PROJECT

TESTED_ELSEWHERE = ("heads", "blocks", "prune", "route", "runs", "jobs")
"""Pages whose damaged runs tests/workbench/test_pages.py opens."""
PAGES = re.findall(r"workbench/pages/(\w+)\.py", (PROJECT / "app.py").read_text())


def alive(test: AppTest) -> AppTest:
    """No traceback; every error is one line of what, got, expected, fix, or a job's own reason."""
    assert not test.exception, [each.value for each in test.exception]
    assert test.title, "a page has its sentence on top, whatever is broken"
    for error in test.error:
        line = error.value.replace("\\", "")
        assert "\n" not in line and "Traceback" not in line
        whole = all(part in line for part in ("got ", "; expected ", "; fix: "))
        assert whole or line.startswith(("Failed: ", "Lost: ")), line
    return test


def unexpected(test: AppTest) -> list[str]:
    """Errors that no code foresaw: `guard` says of them that nothing was to fail."""
    return [each.value for each in test.error if "expected no failure" in each.value.replace("\\", "")]


@pytest.fixture(autouse=True)
def _fresh():
    # Pages keep what they found for some seconds.
    st.cache_data.clear()
    st.cache_resource.clear()


@pytest.mark.parametrize("page", PAGES)
def test_with_nothing_there_a_page_says_what_to_do(open_page, page, tmp_path):
    test = alive(open_page(f"workbench/pages/{page}.py", None))
    assert not test.error
    if page != "doctor":
        assert [code for code in test.code if code.value.startswith("pare ")], "a command that fills it"
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("page", PAGES)
def test_on_the_bundled_data_a_page_shows_something_without_an_error(page, tmp_path, monkeypatch):
    for name in ("PARE_DATA", "PARE_FOLDERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=120)
    test.switch_page(f"workbench/pages/{page}.py")
    test.run()
    alive(test)
    assert not test.error and not test.warning and len(test.main) > 0
    assert not re.search(r"cannot|failed|error", test.title[0].value.lower())


def _run(folder: Path) -> Path:
    return make_run(folder / "bad", 3, 4, steps=2, samples=2).folder


def broken_summary(folder: Path, workspace: Path) -> None:
    (_run(folder) / "summary.safetensors").write_bytes(b"\x10" + bytes(7) + b'{"a":1}         ')


def broken_sample(folder: Path, workspace: Path) -> None:
    path = _run(folder) / "samples" / "00001.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def foreign_run(folder: Path, workspace: Path) -> None:
    (_run(folder) / "run.json").write_text('{"schema": "pare-run/9", "samples": 3}')


def run_of_numbers(folder: Path, workspace: Path) -> None:
    path = _run(folder) / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {"geometry": {"blocks": -1}, "clip": {}, "timesteps": []}))


def broken_job(folder: Path, workspace: Path) -> None:
    jobs = open_workspace(workspace)
    for column, value in (
        ("arguments", "{not json"),
        ("arguments", "[1, 2]"),
        ("result", "{not json"),
        ("state", "asleep"),
        ("device", ""),
    ):
        job = jobs.submit("generate", {"model": "demo", "prompt": "x", "out": "v.mp4"}, device="cpu", start=False)
        with sqlite3.connect(jobs.root / "jobs.sqlite3") as db:
            db.execute(f"UPDATE job SET {column} = ? WHERE id = ?", (value, job))
    jobs.submit("generate", {"model": "demo", "prompt": "a good one", "out": "v.mp4"}, device="cpu", start=False)


def broken_job_table(folder: Path, workspace: Path) -> None:
    open_workspace(workspace)
    (workspace / "jobs.sqlite3").write_bytes(b"no table at all" * 300)


def broken_training(folder: Path, workspace: Path) -> None:
    training = make_training(folder / "t", stage="joint", validated=(4, 8), student=True)
    with (training / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 21, "lo\n\xff\xfe\n[]\n{"step": "x", "loss": 1}\n{"step": 22, "validation": 3}\n')
    for name in ("roles/000008.safetensors", "roles/teacher.safetensors", "clips/000008-0.mp4"):
        (training / name).write_bytes(b"\x00nothing")
    for name, text in (("u", "{"), ("v", '{"schema": "pare-training/1", "settings": {}, "model": {}, "data": {}}')):
        (folder / name / "training").mkdir(parents=True)
        (folder / name / "training" / "training.json").write_text(text)


def broken_evidence(folder: Path, workspace: Path) -> None:
    stored = read_answer(PROJECT / "data" / "evidence" / "roles.json").to_bytes()
    for name, content in (
        ("half", stored[: len(stored) // 2]),
        ("foreign", b'{"schema": "pare-evidence/7"}'),
        ("list", b"[]"),
        ("tables", stored.replace(b'"factors"', b'"fractors"')),
    ):
        (folder / "evidence" / name).mkdir(parents=True)
        (folder / "evidence" / name / "evidence.json").write_bytes(content)


def broken_mask(folder: Path, workspace: Path) -> None:
    (folder / "m").mkdir(parents=True)
    for name in ("a", "b"):
        masks.save(kept(2, (3, 4)), folder / "m" / f"{name}.safetensors")
    path = folder / "m" / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def broken_evaluation(folder: Path, workspace: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1.0), ("c", 0.5)):
        write_evaluation(folder / "e" / name, shift, identity(name))
    (folder / "e" / "a" / "scores.csv").write_text("prompt,seed\nx,notanumber\n")
    (folder / "e" / "b" / "evaluation.json").write_text("[")
    (folder / "e" / "c" / "videos" / "00000.mp4").write_bytes(b"no video")


def broken_model(folder: Path, workspace: Path) -> None:
    make_student(folder / "student")
    make_samples(folder / "samples")
    (folder / "student" / "transformer" / "config.json").write_text('{"_class_name": "PareWanTransformer3DModel"}')
    (folder / "samples" / "data.json").write_text('{"schema": "pare-latents/1", "model": 3}')
    (folder / "other").mkdir()
    (folder / "other" / "model_index.json").write_text("[]")


FILES = (broken_training, broken_evidence, broken_mask, broken_evaluation, broken_model)
ROWS = (broken_job, broken_job_table)
RUNS = (broken_summary, broken_sample, foreign_run, run_of_numbers)


@pytest.mark.parametrize("page", PAGES)
def test_broken_files_are_one_line_each_and_the_rest_of_the_page_goes_on(open_page, page, tmp_path):
    folder = tmp_path / "captures"
    make_run(folder / "good", 3, 4, steps=2, samples=2)
    for broken in FILES:
        broken(folder, tmp_path / "workspace")
    links: list[dict[str, str]] = [{}]
    if page == "compare":
        links = [{"kind": kind} for kind in ("runs", "masks", "students", "videos")]
        links.append({"kind": "videos", "a": "captures/e/a", "b": "captures/e/c"})
    if page == "evidence":
        links = [{"ask": "roles"}, {"ask": "premise"}]
    if page == "train":
        links = [{"training": f"captures/{name}/training"} for name in ("t", "u", "v")]
    for link in links:
        assert not unexpected(alive(open_page(f"workbench/pages/{page}.py", folder, **link))), link


@pytest.mark.parametrize("broken", ROWS)
@pytest.mark.parametrize("page", PAGES)
def test_broken_jobs_are_one_line_and_hide_no_others(open_page, page, broken, tmp_path):
    folder = tmp_path / "captures"
    make_run(folder / "good", 3, 4, steps=2, samples=2)
    broken(folder, tmp_path / "workspace")
    test = alive(open_page(f"workbench/pages/{page}.py", folder))
    assert not unexpected(test)
    if page == "jobs" and broken is broken_job:
        assert any("a good one" in each.value for each in test.markdown)
        assert any("cannot be read" in str(each.proto) for each in [*test.get("progress"), *test.caption, *test.error])
    assert (broken is broken_job) or test.error


@pytest.mark.parametrize(
    ("page", "broken"),
    [(page, each) for page in PAGES for each in RUNS if each is run_of_numbers or page not in TESTED_ELSEWHERE],
)
def test_a_broken_run_disturbs_no_other(open_page, page, broken, tmp_path):
    folder = tmp_path / "captures"
    make_run(folder / "good", 3, 4, steps=2, samples=2)
    broken(folder, tmp_path / "workspace")
    assert not unexpected(alive(open_page(f"workbench/pages/{page}.py", folder, run="captures/bad")))
    again = open_page(f"workbench/pages/{page}.py", folder, run="captures/good")
    # Runs lists it, and Compare may take it as B.
    assert not unexpected(alive(again)) and (page in ("runs", "compare") or not again.error)


def test_every_page_is_there():
    assert len(PAGES) >= 10 and set(PAGES) <= {path.stem for path in (PROJECT / "workbench" / "pages").glob("*.py")}
