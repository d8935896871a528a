"""Reports of trainings, answers and comparisons: what the page shows is inside, and their own command makes them again."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.evidence.answer import read_answer
from pare import mask as masks
from pare.errors import InputError
from pare.geometry import DEMO
from pare.mask import PARTS
from tests.runs_fixture import make_run
from tests.training_files import make_training
from tests.workbench.test_compare_page import identity, kept, write_evaluation, write_model
from tests.workbench.test_report import HOSTILE, Reader
from workbench import cli, mask_words
from workbench.commands.report import report
from workbench.places import PROJECT
from workbench.report import origin, sources
from workbench.report.compare_runs import runs_report
from workbench.report.evidence import chart_parts, evidence_report
from workbench.report.page import render_report
from workbench.report.training import how_far, training_report
from workbench.state import Selection
from workbench.training_record import Training

ANSWERS = sorted((PROJECT / "data" / "evidence").glob("*.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with two of everything that can be compared, a training and an answer, some texts hostile."""
    folder = tmp_path_factory.mktemp("kinds")
    for seed, name in enumerate(("a", "b")):
        make_run(folder / "runs" / name, samples=3, steps=3, seed=seed)
        masks.save(kept(7 - seed), folder / f"{name}.safetensors")
        write_evaluation(folder / "e" / name, float(seed), identity(HOSTILE), seed=seed)
        write_model(folder / "models" / name)
    training = make_training(folder / "t", stage="joint", validated=(4, 8), student=True)
    record = json.loads((training / "training.json").read_text())
    (training / "training.json").write_text(json.dumps(record | {"student": HOSTILE}))
    return folder


CASES: dict[str, tuple[list[str], list[str]]] = {
    "runs": (["runs/a", "runs/b"], ["--steps", "0-1", "--tau-s", "0.6"]),
    "masks": (["a.safetensors", "b.safetensors"], ["--run", "runs/a"]),
    "students": (["models/a", "models/b"], ["--scores", "e/a", "--scores", "e/b"]),
    "videos": (["e/a", "e/b"], ["--pair", "2"]),
    "training": (["t"], ["--at", "4"]),
    "answers": ([str(ANSWERS[0]), str(ANSWERS[1])], []),
}


@pytest.mark.parametrize("kind", CASES)
def test_a_report_of_every_kind_opens_offline_and_its_command_makes_it_again(made, kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made)
    paths, flags = CASES[kind]
    out = tmp_path / "one" / "r.html"
    assert cli.main(["report", *paths, *flags, "--out", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == kind and told["parts"] and told["bytes"] == out.stat().st_size
    page = Reader(out.read_text())
    assert not page.open and not page.all("img") and not page.all("b")
    kinds = [attributes.get("type") for attributes in page.all("script")]
    assert kinds.count(None) == (2 if "application/json" in kinds else 0)
    sources_of = [each.get("src", "") or "" for each in [*page.all("video"), *page.all("link")] if each.get("src")]
    assert all(each.startswith("data:") for each in sources_of)
    text = page.text()
    assert told["finding"] in text and all(title in text for title in told["parts"])
    assert "this report by pare-workbench" in text
    command = next(each for each in text.splitlines() if each.startswith("pare report "))
    again = shlex.split(command)
    assert cli.main([*again[1 : again.index("--out")], "--out", str(tmp_path / "two" / "r.html"), *_rest(again)]) == 0
    assert (tmp_path / "two" / "r.html").read_bytes() == out.read_bytes()


def test_the_bundled_model_is_compared_by_its_name(tmp_path, capsys):
    student = DEMO.parent / "students" / "width"
    assert cli.main(["report", "demo", str(student), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "students" and told["parts"]
    assert cli.main(["report", "dmo", str(student), "--out", str(tmp_path / "no.html")]) == 2
    assert not (tmp_path / "no.html").exists()


def _rest(words: list[str]) -> list[str]:
    """What follows `--out FILE`."""
    return words[words.index("--out") + 2 :]


def test_a_training_has_its_curves_clips_and_settings(made):
    training = Training.open(made / "t" / "training")
    whole = training_report(training)
    assert [part.title for part in whole.parts] == [
        "Losses", "Learning rate", "Gradient norm", "Blocks that run", "Held-out error against the data",
        "Held-out error against the teacher", "What the oracle reads", "Head roles at step 8", "Router at step 8",
    ]  # fmt: skip
    captions = [clip.caption for clip in whole.clips]
    assert captions == [
        "Teacher, clip 0", "Student at step 8, clip 0", "Teacher, clip 1", "Student at step 8, clip 1"
    ]  # fmt: skip
    assert ("batch", "4") in whole.about["Settings"] and HOSTILE in whole.finding
    earlier = training_report(training, at=3, tau_s=0.99)
    assert earlier.parts[-1].title == "Router at step 4" and "--at 3 --tau-s 0.99" in earlier.command
    assert earlier.clips[0].path.name == "teacher-0.mp4"


def test_the_loss_is_told_as_means_of_the_first_and_last_tenth(made):
    training = Training.open(made / "t" / "training")
    losses = [4.0, 2.0, *[1.5] * 21, 0.5, 0.3]
    records = tuple({"step": step, "loss": loss} for step, loss in enumerate(losses, 1))
    whole, two, one = (how_far(replace(training, records=records[:n]), "s") for n in (25, 2, 1))
    assert whole.endswith("the loss went from 3 to 0.4 (means of the first and last tenth, n = 2 logged steps each)")
    assert "from 4 to 2 (means" in two and "n = 1 logged step each" in two and "loss" not in one


def test_every_python_of_a_training_and_of_an_answer_makes_its_figure_and_table(made, monkeypatch):
    monkeypatch.setattr(go.Figure, "show", lambda self: None)
    training = Training.open(made / "t" / "training")
    parts = [*training_report(training).parts]
    for path in ANSWERS:
        parts += chart_parts(read_answer(path), path)
    assert len(parts) > 20
    for part in parts:
        found: dict[str, Any] = {}
        exec(part.python or "", found)
        assert part.figure is not None and part.table is not None
        assert found["figure"].to_json() == part.figure.to_json(), part.title
        pd.testing.assert_frame_equal(found["table"].reset_index(drop=True), part.table.reset_index(drop=True))


def test_an_answer_says_its_verdict_rule_and_command(made):
    answer = read_answer(PROJECT / "data" / "evidence" / "premise.json")
    told = evidence_report([(answer, Path("premise.json"))])
    text = Reader(render_report(told)).text()
    for words in (answer.verdict, answer.rule, answer.claim, answer.measured, answer.command, *answer.notes):
        assert words in text
    assert told.finding == answer.sentence and told.parts[0].title == answer.title
    tables = [part.table for part in told.parts if part.table is not None]
    for name, table in answer.tables.items():
        assert any(each is table for each in tables), name


def test_answers_of_two_models_do_not_mix(made, tmp_path):
    answer = read_answer(ANSWERS[0])
    other = answer.made_by(source={"model": {"model_id": "other"}}, settings={}, command="", versions={})
    path = tmp_path / "evidence.json"
    path.write_bytes(other.to_bytes())
    with pytest.raises(InputError, match="an answer of other"):
        report([ANSWERS[0], path], out=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_runs_that_do_not_fit_are_refused(made, tmp_path):
    other = make_run(tmp_path / "other", samples=2, steps=2)
    with pytest.raises(InputError, match="2 timesteps"):
        report([made / "runs" / "a", other.folder], out=tmp_path / "r.html")


def test_videos_that_were_not_scored_are_measured_when_it_is_asked(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made)
    folders = [made / "e" / name / "videos" for name in ("a", "b")]
    without = report(folders, out=tmp_path / "r.html")
    assert without["parts"] == [] and without["videos"] == 6 and "not scored yet" in without["finding"]
    measured = report(folders, out=tmp_path / "r.html", measure=True)
    assert measured["parts"] == ["Metrics, largest effect first"]
    assert "--measure" in Reader((tmp_path / "r.html").read_text()).text()


@pytest.mark.parametrize(
    "words",
    [
        ["missing"],
        ["runs/a", "a.safetensors"],
        ["a.safetensors"],
        ["runs/a", "runs/b", "runs/a"],
        ["t", "--block", "1"],
        ["runs/a", "--at", "3"],
        ["runs/a", "runs/b", "--lens", "ffn"],
        ["models/a", "models/b", "--scores", "e/a"],
        ["models/a", "models/b", "--measure"],
        ["runs/a", "--kind", "runs"],
        ["runs/a", "runs/b", "--kind", "heads"],
        ["runs/a", "runs/b", "--kind", "masks"],
        ["a.safetensors", "b.safetensors", "--run", "t"],
        ["runs/a", "runs/b", "--steps", "2-1"],
    ],
)
def test_what_is_no_report_is_one_line(made, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(made)
    assert cli.main(["report", *words, "--out", str(tmp_path / "r.html")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert all(part in said.err for part in ("got ", "; expected ", "; fix: "))
    assert not (tmp_path / "r.html").exists()


def test_the_link_of_a_comparison_is_its_view(made):
    from analysis.runs import Run

    a, b = (Run.open(made / "runs" / name) for name in ("a", "b"))
    selection = Selection(kind="runs", sample=1, branch="cond")
    told = runs_report(a, b, selection, link="http://127.0.0.1:8501/compare?kind=runs&sample=1")
    assert told.query == "branch=cond&sample=1&kind=runs" or set(told.query.split("&")) == {
        "branch=cond", "sample=1", "kind=runs"
    }  # fmt: skip
    assert "--sample 1 --branch cond" in told.command and set(PARTS) == set(mask_words.PARTS)


@pytest.mark.parametrize("module", [origin, sources])
def test_examples(module):
    import doctest

    assert not doctest.testmod(module).failed
