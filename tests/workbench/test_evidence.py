"""`pare evidence`: answers from runs and models, the same after a stop, and what is refused."""

import doctest
import json
import shlex

import pandas as pd
import pytest

from analysis.evidence.answer import QUESTIONS, read_answer
from analysis.importance import mean_ratio
from analysis.runs import Run
from pare import mask as masks
from pare.errors import Cancelled, InputError
from pare.models import load_pipeline
from pare.video import read_metadata
from tests.runs_fixture import make_run
from tests.tiny import save, tiny_pipeline
from workbench import cli, evidence_effects, evidence_inputs, stored_evidence
from workbench.commands.capture import capture
from workbench.commands.evidence import evidence, render
from workbench.demo.evidence import store_answers

PROMPTS = ["a red 7 moving up and left, fast", "a blue 3 standing still"]
FEW = {"steps": 1, "guidance": 1.0}
PREMISE = {"prompts": PROMPTS, "remove": [1], "draws": 1, "seed": 3, **FEW}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save(tiny_pipeline(), tmp_path_factory.mktemp("models") / "tiny", frames=3))


@pytest.fixture(scope="module")
def load(model):
    """The pipeline loaded once, as a worker keeps it."""
    pipe = load_pipeline(model)
    return lambda _, **__: pipe


@pytest.fixture(scope="module")
def run(model, load, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    statistics = "basic,self/projected_energy,cross/projected_energy"
    capture(model, out=out, prompts=PROMPTS, statistics=statistics, load=load, **FEW)
    return out


@pytest.fixture(scope="module")
def premise(model, run, load, tmp_path_factory):
    out = tmp_path_factory.mktemp("premise") / "evidence"
    return out, evidence("premise", model, run=run, out=out, load=load, **PREMISE)


@pytest.mark.parametrize("module", [evidence_inputs, evidence_effects, stored_evidence])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_the_premise_is_asked_of_videos_that_differ_in_their_heads_alone(premise, run):
    out, result = premise
    answer = read_answer(out / "evidence.json")
    assert result["answers"]["premise"]["sentence"] == answer.sentence and answer.n["prompts"] == 2
    sets = answer.tables["sets"]
    assert list(sets["set"]) == ["temporal-1", "spatial-1", "random-1-0", "unimportant-1", "magnitude-1"]
    for name in ("dense", *sets["set"]):
        for number, prompt in enumerate(PROMPTS):
            told = read_metadata(out / "videos" / name / f"{number:05d}.mp4")
            assert (told["prompt"], told["settings"]["seed"]) == (prompt, 3 + number)
            assert ("mask" in told) == (name != "dense")
    removed = ~masks.load(out / "masks" / "temporal-1.safetensors").self_heads
    assert removed.sum() == 2 and masks.load(out / "masks" / "temporal-1.safetensors").cross_heads.all()
    lowest = mean_ratio(Run.open(run)).argmin(axis=1)
    assert (removed.argmax(axis=1) == lowest).all() and answer.source["model"]["model_id"] == "tiny"
    scores = json.loads((out / "scores" / "spatial-1" / "00000.json").read_text())
    contrast = answer.tables["outcomes"]
    row = contrast[(contrast["outcome"] == "ssim") & (contrast["kind"] == "spatial")].iloc[0]
    other = json.loads((out / "scores" / "spatial-1" / "00001.json").read_text())
    assert row["damage"] == pytest.approx(1 - (scores["ssim"] + other["ssim"]) / 2, rel=1e-5)
    assert pd.read_csv(out / "tables" / "outcomes.csv").shape == contrast.shape
    # The command that it names can be typed.
    cli.check_words("evidence", shlex.split(answer.command)[2:])
    assert "--remove 1" in answer.command and answer.command.startswith("pare evidence premise ")
    assert answer.sentence in render(result)


def test_a_stopped_premise_goes_on_and_ends_with_the_same_bytes(premise, model, run, load, tmp_path):
    def stop(done, total, message=""):
        if done == 4:
            raise Cancelled

    out = tmp_path / "again"
    given = {"run": run, "out": out, "load": load, "keep_videos": False, **PREMISE}
    with pytest.raises(Cancelled):
        evidence("premise", model, progress=stop, **given)
    with pytest.raises(InputError, match="add --resume"):
        evidence("premise", model, **given)
    with pytest.raises(InputError, match="something else"):
        evidence("premise", model, resume=True, **(given | {"seed": 4}))
    evidence("premise", model, resume=True, **given)
    for path in sorted((premise[0]).rglob("*.*")):
        relative = path.relative_to(premise[0])
        if relative.parts[0] != "videos":
            assert (out / relative).read_bytes() == path.read_bytes(), relative
    assert not list((out / "videos").rglob("*.mp4"))

    def never(*_, **__):
        raise AssertionError("loaded")

    assert evidence("premise", model, resume=True, **(given | {"load": never}))["answers"]["premise"]


def test_scores_are_held_against_every_head_off_in_turn_and_resume(model, run, load, tmp_path, monkeypatch):
    # Integrated gradients take longer than all others together.
    scorers = tuple(name for name in evidence_inputs.SCORERS if name != "integrated_gradients")
    monkeypatch.setattr("workbench.evidence_work.SCORERS", scorers)
    seen = []

    def stop(done, total, message=""):
        seen.append((done, total))
        if message.startswith("one head off") and done > 20:
            raise Cancelled

    given = {"run": run, "prompts": PROMPTS[:1], "load": load, **FEW}
    with pytest.raises(Cancelled):
        evidence("scores", model, out=tmp_path / "a", progress=stop, **given)
    assert (tmp_path / "a" / "sweep.jsonl").stat().st_size > 500
    result = evidence("scores", model, out=tmp_path / "a", resume=True, **given)
    whole = evidence("scores", model, out=tmp_path / "b", **given)
    assert result["answers"]["scores"]["sentence"] == whole["answers"]["scores"]["sentence"]
    for name in ("evidence.json", "sweep.jsonl", "tables/heads.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    answer = read_answer(tmp_path / "a" / "evidence.json")
    table = answer.tables["correlations"]
    assert set(table["scorer"]) == set(scorers) and answer.n["heads"] == 16
    assert all(0 <= done <= total for done, total in seen)


def test_all_of_a_run_without_its_model_leaves_out_what_needs_it(tmp_path):
    made = make_run(tmp_path / "run", samples=6)
    result = evidence("all", made.folder, out=tmp_path / "out")
    assert set(result["answers"]) == {"roles", "alpha", "routes", "averages"}
    assert set(result["left_out"]) == {"premise", "scores"} and "which is not here" in result["left_out"]["premise"]
    for question in result["answers"]:
        answer = read_answer(tmp_path / "out" / question / "evidence.json")
        assert answer.source["run"]["hash"] == made.hash and answer.versions["numpy"]
    text = render(result)
    assert "premise: left out" in text and "written" in text
    with pytest.raises(InputError, match="holds this very question"):
        evidence("all", made.folder, out=tmp_path / "out")
    assert evidence("all", made.folder, out=tmp_path / "out", resume=True)["answers"] == result["answers"]


@pytest.mark.parametrize(
    ("question", "given", "words"),
    [
        ("motion", {}, "QUESTION: got motion"),
        ("roles", {"run": None}, "--run: got no run"),
        ("premise", {"remove": "many"}, "--remove"),
        ("premise", {"remove": "7"}, "--remove"),
        ("premise", {"samples": 9}, "--samples"),
        ("scores", {"prompts": "none.txt"}, "--prompts"),
        ("premise", {"prompts": []}, "--prompts"),
    ],
)
def test_bad_input_is_one_line_before_anything_is_written(model, run, tmp_path, question, given, words):
    arguments = {"run": run, "prompts": PROMPTS} | given
    with pytest.raises(InputError, match=words):
        evidence(question, model, out=tmp_path / "out", **arguments)
    assert not list(tmp_path.iterdir())


def test_a_run_of_other_weights_is_refused(model, run, tmp_path):
    other = save(tiny_pipeline(seed=1), tmp_path / "tiny", frames=3)
    with pytest.raises(InputError, match="weight_hash"):
        evidence("roles", str(other), run=run, out=tmp_path / "out")
    with pytest.raises(InputError, match="weight_hash"):
        evidence("premise", run, model=str(other), out=tmp_path / "out", **PREMISE)


def test_the_command_line_says_what_it_will_cost_and_answers_as_json(model, run, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    asked = ["--run", str(run), "--out", str(tmp_path / "out"), "--prompts", str(tmp_path / "prompts.txt")]
    assert cli.main(["evidence", "premise", model, *asked, "--samples", "2", "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)["plans"]["premise"]
    assert planned["clips"] == 2 * (1 + 1 * (2 + 2 + 2)) and not (tmp_path / "out").exists()
    assert cli.main(["evidence", "roles", str(run), "--out", str(tmp_path / "out"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["answers"]["roles"]["verdict"] in ("yes", "no", "undecided")
    assert cli.main(["evidence", "roles", str(run), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_demos_answers_are_stored_one_file_a_question(model, run, tmp_path):
    found = store_answers(tmp_path / "data", tmp_path / "work", model=model, only=("roles", "alpha"), run=run)
    assert set(found) == {"roles", "alpha"} <= set(QUESTIONS)
    for question, sentence in found.items():
        assert read_answer(tmp_path / "data" / f"{question}.json").sentence == sentence
    again = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    store_answers(tmp_path / "data", tmp_path / "work", model=model, only=("roles",), run=run)
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == again
