"""The table of results, its sweep and the shipped students from end to end on a tiny model, killed on the way."""

import dataclasses
import importlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from pare.errors import InputError
from pare.reference import model_identity
from pare.training.data import LatentData
from pare.training.loop import Diverged
from pare.transformer import PareWanTransformer3DModel
from pare.video import write_video
from tests.children import die, in_children
from tests.tiny import save, tiny_pipeline
from workbench.commands.capture import capture
from workbench.commands.distill import distill
from workbench.demo import students
from workbench.demo.results import __main__ as command
from workbench.demo.results.__main__ import blocks_of, make, rows_of
from workbench.demo.results.effort import Effort
from workbench.demo.results.measured import Results
from workbench.demo.results.page import PAGE, write_page
from workbench.demo.results.rows import TEACHER, Budget, jobs_of
from workbench.demo.results.store import keep, take
from workbench.demo.results.work import Bench
from workbench.demo.sweep import __main__ as sweep
from workbench.demo.sweep import work as sweep_work
from workbench.demo.sweep.cells import Plan, cells
from workbench.demo.sweep.table import sweep_text
from workbench.demo.sweep.values import keep_values, read_values
from workbench.distill_train import stored_dtype
from workbench.places import Places

BUDGET = Budget(
    width_steps=2,
    joint_steps=2,
    few_steps_steps=2,
    longer=1,
    batch=1,
    few_steps_batch=1,
    trajectories=1,
    seeds=1,
    prompts=2,
)
PROMPTS = ["a red 7 moving up and left, fast", "a blue 3 standing still"]
KEYS = ["width", "pare", "four-steps", "pare-longer", "four-steps-longer", "static"]
SAMPLING = {"steps": 2, "guidance": 2.0}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a tiny teacher, a run of it and encoded samples."""
    # Seconds of import, which forked children need not repeat.
    importlib.import_module("torch.utils.tensorboard")
    folder = tmp_path_factory.mktemp("results")
    model = str(save(tiny_pipeline(num_layers=4), folder / "teacher", height=48, width=48, steps=3))
    capture(model, out=folder / "run", prompts=PROMPTS, samples=2, device="cpu", steps=2)
    (folder / "videos").mkdir()
    draw = np.random.default_rng(0)
    for number, prompt in enumerate(PROMPTS):
        frames = draw.integers(0, 256, (9, 48, 48, 3), dtype=np.uint8)
        write_video(frames, folder / "videos" / f"{number}.mp4", 8, {})
        (folder / "videos" / f"{number}.txt").write_text(prompt)
    distill("data", model, out=folder / "data", videos=folder / "videos", device="cpu")
    return folder


class Doomed(Bench):
    """A bench that dies after the first step of the first joint training."""

    def do(self, job, progress):
        def step(done, total, message=""):
            if job.stage is not None and job.stage.name == "joint" and (done, total) == (1, 2):
                die()

        super().do(job, step)


def bench_of(place: Path, kind=Bench) -> Bench:
    return kind(place / "table", str(place / "teacher"), place / "run", PROMPTS, BUDGET, place / "data", SAMPLING)


@pytest.fixture(scope="module")
def table(place) -> Iterator[tuple[Bench, Effort, tuple, set]]:
    """The finished table, killed in the middle and gone on with; and the files that were there when it was killed."""
    effort = Effort.of(str(place / "teacher"), BUDGET, **SAMPLING)
    rows = rows_of(effort, KEYS)
    doomed = bench_of(place, Doomed)
    assert in_children(lambda: make(doomed, rows, effort, io.StringIO(), rounds=1)) == [-9]
    bench = bench_of(place)
    there = {path: path.stat().st_mtime_ns for job in jobs_of(rows) if bench.done(job)
             for path in [bench.place(job)] if path.is_file()}  # fmt: skip
    make(bench, rows, effort, io.StringIO(), rounds=1)
    return bench, effort, rows, there


def test_the_table_is_whole_after_a_kill_and_nothing_was_made_twice(table):
    bench, effort, rows, there = table
    assert there and all(path.stat().st_mtime_ns == time for path, time in there.items())
    jobs = jobs_of(rows)
    assert all(bench.done(job) for job in jobs)
    stages = [job.stage.name for job in jobs if job.stage is not None]
    assert {name: stages.count(name) for name in ("width", "joint", "steps")} == {"width": 2, "joint": 2, "steps": 1}
    # A finished table has nothing to do: no model is loaded.
    lines = io.StringIO()
    make(bench, rows, effort, lines)
    assert lines.getvalue() == f"{len(jobs)} of {len(jobs)} jobs are done\n"


def test_on_another_machine_scores_are_taken_and_only_what_is_missing_is_made(table, tmp_path):
    bench, effort, rows, _ = table
    store = tmp_path / "store"
    keep(bench.folder, store)
    assert {path.name for path in store.iterdir()} == {"results.json", "scores", "seconds.json"}
    new = dataclasses.replace(bench, folder=tmp_path / "new")
    lines = io.StringIO()
    make(new, rows, effort, lines, rounds=1, store=store)
    count = len(jobs_of(rows))
    assert (
        lines.getvalue().endswith(f"{count} of {count} jobs are done\n")
        and "5 evaluations are scored" in lines.getvalue()
    )
    assert not (new.folder / "students").exists() and not (new.folder / "evaluations").exists()
    assert blocks_of(new.folder, rows, effort) == blocks_of(bench.folder, rows, effort)
    # One score is lost: its own student and the teacher's videos are made again, and the number is the same.
    width = next(row for row in rows if row.key == "width").evaluation(0)
    before = (store / "scores" / f"{width}.json").read_bytes()
    (store / "scores" / f"{width}.json").unlink()
    again = dataclasses.replace(bench, folder=tmp_path / "again")
    make(again, rows, effort, io.StringIO(), rounds=1, store=store)
    assert sorted(path.name for path in (again.folder / "evaluations").iterdir()) == sorted([width, TEACHER])
    assert (again.folder / "scores" / f"{width}.json").read_bytes() == before
    # A store of another table is left alone by what takes, and emptied by what keeps.
    other = dataclasses.replace(bench, folder=tmp_path / "other", budget=dataclasses.replace(BUDGET, ratio=0.5))
    other.check()
    assert take(other.folder, store) == 0 and not (other.folder / "scores").exists()
    (store / "sweep-values.json").touch()
    keep(other.folder, store)
    # Not what another command keeps there.
    assert {path.name for path in store.rglob("*") if path.is_file()} == {"results.json", "sweep-values.json"}


def test_rows_are_what_they_say(table):
    bench, effort, rows, _ = table
    results = Results.read(bench.folder)
    by_key = {row.key: row for row in rows}
    static = PareWanTransformer3DModel.from_pretrained(bench.student(by_key["static"].name(0)) / "transformer")
    assert static.config.routing["k_min"] == static.config.routing["k_max"] == effort.static_blocks(by_key["pare"])
    four = results.scores[by_key["four-steps"].evaluation(0)]
    assert four["settings"]["steps"] == 4 and four["settings"]["guidance"] == 1.0
    assert results.scores[TEACHER]["settings"]["guidance"] == 2.0
    assert results.scores[by_key["pare"].evaluation(0)]["parameters"] < results.scores[TEACHER]["parameters"]
    assert np.isfinite(results.of(by_key["pare"], "flow_error")).all()
    assert results.to_teacher(by_key["width"], "digit").n == 2


def test_the_page_is_written_from_the_folder(table, tmp_path):
    bench, effort, rows, _ = table
    path = tmp_path / "results.md"
    shutil.copyfile(PAGE, path)
    blocks = blocks_of(bench.folder, rows, effort)
    write_page(blocks, path)
    text = path.read_text()
    for row in rows:
        assert text.count(f"| {row.title} |") >= 2
    assert str(bench.folder) not in text and "threads" in blocks["cost"]
    assert "Does temporal protection help motion, all else equal?** Not measured" in text


def test_a_folder_of_another_table_is_refused(table):
    bench = table[0]
    with pytest.raises(InputError, match="results of another prompts"):
        dataclasses.replace(bench, prompts=PROMPTS[:1]).check()
    with pytest.raises(InputError, match="another budget"):
        dataclasses.replace(bench, budget=dataclasses.replace(BUDGET, ratio=0.5)).check()
    # Other steps are other jobs of the same folder, and what it says of itself follows.
    for steps in (3, BUDGET.width_steps):
        dataclasses.replace(bench, budget=dataclasses.replace(BUDGET, width_steps=steps)).check()
        assert json.loads((bench.folder / "results.json").read_text())["named"]["width_steps"] == steps


def test_a_row_that_diverges_is_left_out_and_the_others_go_on(table, tmp_path, monkeypatch):
    bench, effort, rows, _ = table
    place = tmp_path / "table"
    shutil.copytree(bench.folder, place, symlinks=True)
    one = dataclasses.replace(bench, folder=place)
    width, pare = (row for row in rows if row.key in ("width", "pare"))
    for row in (width, pare):
        shutil.rmtree(one.student(row.name(0)))
        shutil.rmtree(place / "evaluations" / row.name(0))
        (place / "scores" / f"{row.name(0)}.json").unlink()
    shutil.rmtree(one.student(next(row for row in rows if row.key == "four-steps").name(0)))
    tried = []

    def train(self, job, progress):
        tried.append(job.name)
        raise Diverged("training: got a loss that is none")

    monkeypatch.setattr(Bench, "_train", train)
    monkeypatch.setattr(command, "has_seconds", lambda bench, rows: True)
    for _ in range(2):
        make(one, rows, effort, io.StringIO())
    # Nothing that begins with a failed student was tried, and nothing twice.
    assert tried == [width.name(0), pare.name(0)]
    text = blocks_of(place, rows, effort)["scores"]
    # Here three times the steps are one time, and so the same students.
    failed = "width only, seed 0; PARE, 1 × the steps, seed 0; PARE + four steps, 1 × the steps, seed 0"
    assert f"Diverged in training, and left out: {failed}." in text
    assert "| static blocks by importance |" in text and "| width only |" not in text


def test_students_are_shipped_and_load_as_plain_pipelines(table, place, tmp_path):
    bench, _, rows, _ = table
    data = tmp_path / "data"
    shutil.copytree(place / "teacher", data / "demo")
    with pytest.raises(InputError, match="MB together"):
        students.ship(bench.folder, rows, data / "students", base=data / "demo", limit=1000)
    assert sorted(path.name for path in data.iterdir()) == ["demo"]
    told = students.ship(bench.folder, rows, data / "students", base=data / "demo")
    assert told["bytes"] == students.size_of(data / "students")
    assert all(0 < each["effect"]["mean"] < 0.2 for each in told["students"].values())
    for name, steps in (("width", 3), ("joint", 3), ("few-steps", 4)):
        folder = data / "students" / name
        pipe = WanPipeline.from_pretrained(folder)
        assert isinstance(pipe.transformer, PareWanTransformer3DModel) and pipe.transformer.dtype == torch.float32
        assert pipe.transformer.is_routing_enabled == (name != "width")
        assert json.loads((folder / "defaults.json").read_text())["steps"] == steps
        assert stored_dtype(folder / "transformer") == torch.float16
        assert "## As shipped" in (folder / "README.md").read_text()
    # They are models for the app as well, and have an identity of their own.
    places = Places(tmp_path / "workspace", data=data)
    assert places.pipelines() == ["data/demo", "data/students/few-steps", "data/students/joint", "data/students/width"]
    hashes = {model_identity(str(data / "students" / name))["weight_hash"] for name in students.SHIPPED}
    assert len(hashes) == 3
    students.evaluate_shipped(bench, data / "students")
    text = students.students_text(told, rows, Results.read(bench.folder))
    assert "| `data/students/few-steps` | PARE + four steps, 1 × the steps |" in text
    assert "| `data/students/width` | PARE, 1 × the steps, after stage I |" in text and text.count("– |") == 2
    with pytest.raises(InputError, match="width is not trained yet"):
        students.ship(tmp_path, rows, data / "students")


def test_the_sweep_looks_at_every_step_and_goes_on_after_a_kill(place, tmp_path):
    plan = Plan(ratios=(0.5,), steps=(0, 2), held_out=2, videos=2, samples=2, batch=1)
    effort = Effort.of(str(place / "teacher"), Budget())

    def bench() -> sweep_work.Bench:
        return sweep_work.Bench(tmp_path / "sweep", str(place / "teacher"), place / "run", plan, place / "data", place / "data",
                                SAMPLING)  # fmt: skip

    def doomed() -> None:
        one = bench()
        one.observer.write = lambda student, path, known=one.observer.write: (
            die() if "2.json" in path.name else known(student, path)
        )
        sweep.make(one, effort, io.StringIO())

    assert in_children(doomed) == [-9]
    first = cells(plan)[0].observation(tmp_path / "sweep", 0)
    made = first.stat().st_mtime_ns
    sweep.make(bench(), effort, io.StringIO())
    assert first.stat().st_mtime_ns == made
    assert all(bench().done(cell) for cell in cells(plan))
    dense = json.loads((tmp_path / "sweep" / "teacher.json").read_text())
    # Against itself the teacher errs nowhere.
    assert all(value == 0 for each in dense["flow_loss"].values() for value in each["teacher"])
    assert all(each["values"]["flow_error"] == 0 for each in dense["videos"])
    seen = json.loads(first.read_text())
    assert len(seen["videos"]) == 2 and len(next(iter(seen["flow_loss"].values()))["data"]) == len(
        LatentData(place / "data")
    )
    looks = read_values(tmp_path / "sweep", plan)
    np.testing.assert_allclose(
        looks[cells(plan)[0].name, 0]["flow_loss"],
        np.mean([each["data"] for each in seen["flow_loss"].values()], axis=0),
        rtol=1e-4,
    )
    text = sweep_text(looks, plan)
    assert "not measured yet" not in text and text.count("| 50% |") == 6
    keep_values(looks, plan, tmp_path)
    assert sweep_text(read_values(tmp_path, plan), plan) == text
    with pytest.raises(InputError, match="a sweep of"):
        read_values(tmp_path, Plan())
    first.unlink()
    assert "1 of 6 cells are not measured yet" in sweep_text(read_values(tmp_path / "sweep", plan), plan)
