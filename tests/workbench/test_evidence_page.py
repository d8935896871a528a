"""The Evidence page without answers, with the demo's, with stale and damaged ones, and after measuring."""

import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from analysis.evidence import alpha, averages, premise, roles, routes, scores
from analysis.evidence.answer import QUESTIONS, read_answer, write_answer
from analysis.runs import Run
from tests.analysis.test_evidence_models import CLAIMED, SETS, scored, videos
from tests.runs_fixture import make_run
from tests.workbench.test_prune_page import alive, link_of, work_off
from workbench import cli
from workbench.commands.evidence import evidence
from workbench.jobs.api import open_workspace
from workbench.pages.evidence_jobs import Effort, cost_line, effort_of, job_arguments
from workbench.pages.evidence_view import CHARTS
from workbench.places import PROJECT, Places
from workbench.state import Selection
from workbench.stored_evidence import find_answers

PAGE = "workbench/pages/evidence.py"


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evidence") / "captures"
    make_run(folder / "full")
    return folder


@pytest.fixture(scope="module")
def answers(captures):
    """An answer to every question, as made of this run's model."""
    run = Run.open(captures / "full")
    found = [module.ask(run) for module in (roles, alpha, routes, averages)]
    found += [premise.answer(videos(CLAIMED), SETS), scores.answer(scored(0.9), timesteps=[500.0], draws=50)]
    source = {"model": dict(run.manifest.model), "run": {"name": "full", "hash": run.hash, "samples": 6}}
    versions = {"pare-workbench": "0.1.0", "torch": "2"}
    return {
        each.question: each.made_by(
            source=source, settings={}, command=f"pare evidence {each.question} demo --out e", versions=versions
        )
        for each in found
    }


@pytest.fixture
def at(open_page, captures):
    return lambda **link: open_page(PAGE, captures, **link)


def words(test) -> str:
    shown = [*test.title, *test.header, *test.markdown, *test.caption, *test.warning, *test.error, *test.code]
    return "\n".join(str(one.value) for one in shown).replace("\\", "")


def store(folder: Path, answer, **source) -> Path:
    """The answer as data/evidence has it, with another source where it is given."""
    (folder / "data" / "evidence").mkdir(exist_ok=True)
    changed = answer.made_by(
        source={**answer.source, **source}, settings={}, command=answer.command, versions=answer.versions
    )
    path = folder / "data" / "evidence" / f"{answer.question}.json"
    path.write_bytes(changed.to_bytes())
    return path


def test_without_answers_every_question_has_its_command_and_its_button(at):
    test = alive(at())
    text = words(test)
    assert text.startswith("0 of 6 questions are answered for random") and text.count("Not measured") == 6
    assert [test.button(key=f"open_{name}").label for name in QUESTIONS] == list(QUESTIONS.values())
    command = next(code.value for code in test.code if code.value.startswith("pare evidence"))
    cli.check_words("evidence", shlex.split(command)[2:])
    assert "Reads the run alone" in text and test.button(key="measure_roles").label == "Measure on this run"
    # The model of this run is nowhere, so what needs it says so and has no button.
    test = alive(test.button(key="open_premise").click().run())
    assert link_of(test)["ask"] == "premise" and "cannot be measured here" in words(test)
    assert "measure_premise" not in [button.key for button in test.button]


def test_without_a_run_the_page_says_which_command_makes_one(open_page):
    assert "pare capture demo" in words(alive(open_page(PAGE, None)))


def test_stored_answers_are_labelled_and_every_question_shows_its_charts(at, answers, tmp_path):
    at()
    for answer in answers.values():
        store(tmp_path, answer)
    for question, answer in answers.items():
        test = alive(at(ask=question))
        text = words(test)
        assert text.startswith("6 of 6 questions are answered for random")
        assert f"**{answer.sentence}**" in text and answer.rule in text and answer.claim in text
        assert "stored with the demo · model random (000000000000) · run full, 6 samples" in text
        assert "torch 2" in text and answer.command in text
        assert len(test.get("plotly_chart")) >= 1 and len(test.dataframe) == 1
    assert set(CHARTS) == set(answers) == set(QUESTIONS)


def test_answers_of_other_weights_are_stale_and_never_shown(at, answers, captures, tmp_path):
    at()
    model = dict(Run.open(captures / "full").manifest.model)
    store(tmp_path, answers["roles"], model=model | {"weight_hash": "f" * 16})
    store(tmp_path, answers["averages"], model=model | {"model_id": "another"})
    test = alive(at())
    text = words(test)
    assert "Stale" in text and "it is stale, and not shown" in text and answers["roles"].sentence not in text
    assert text.startswith("0 of 6") and "Not measured" in text
    assert answers["averages"].sentence not in words(alive(at(ask="averages")))


def test_an_answer_of_another_run_of_the_model_is_shown_as_such(at, answers, tmp_path):
    at()
    store(tmp_path, answers["alpha"], run={"name": "old", "hash": "1", "samples": 9})
    text = words(alive(at(ask="alpha")))
    assert "from another run of this model" in text and "run old, 9 samples, not the open one" in text
    assert answers["alpha"].sentence in text


@pytest.mark.parametrize("content", ["{", "[]", '{"schema": "pare-evidence/1", "question": "roles"}'])
def test_a_damaged_answer_is_one_line_and_the_page_lives(at, tmp_path, content):
    at()
    (tmp_path / "data" / "evidence").mkdir()
    (tmp_path / "data" / "evidence" / "roles.json").write_text(content)
    test = alive(at())
    assert "Unreadable" in words(test) and len(test.warning) == 1 and "roles.json" in words(test)
    assert test.button(key="measure_roles")


def test_one_click_measures_and_the_answer_takes_the_place_of_the_stored_one(at, answers, captures, tmp_path):
    at()
    store(tmp_path, answers["roles"])
    test = alive(at(ts="0.6"))
    assert test.button(key="measure_roles").label == "Measure again on this run"
    test = test.button(key="measure_roles").click().run()
    jobs = open_workspace(tmp_path / "workspace")
    (job,) = jobs.list(command="evidence")
    assert job.arguments["question"] == "roles" and job.arguments["tau_s"] == 0.6
    assert Path(job.arguments["source"]) == captures / "full" and "number 1 in the queue" in shown(test)
    work_off(jobs, lambda job, _: evidence(**{k: v for k, v in job.arguments.items() if k != "device"}))
    text = words(alive(at(ts="0.6")))
    assert "measured here · model random" in text and "1 of 6 questions" in text
    run = Run.open(captures / "full")
    places = Places(tmp_path / "workspace", (captures,), tmp_path / "data")
    found = find_answers(places, run.manifest.model, run.hash, places.answers())["roles"]
    assert found.answer.settings["tau_s"] == 0.6 and not found.stored


def test_measuring_again_offers_what_the_answer_was_measured_with():
    stored = {name: read_answer(PROJECT / "data" / "evidence" / f"{name}.json") for name in ("premise", "scores")}
    assert effort_of("premise", "demo", stored["premise"]) == Effort(24, 10, draws=1, removed=(1, 2))
    assert effort_of("scores", "demo", stored["scores"]) == Effort(samples=2, steps=20)
    assert effort_of("premise", "demo", None) == Effort(samples=24, steps=20)
    run, places = Run.open(PROJECT / "data" / "runs" / "demo"), Places(PROJECT / "nowhere", (), PROJECT / "data")
    effort = effort_of("premise", "demo", stored["premise"])
    arguments = job_arguments(run, "premise", Selection(), places, effort)
    # The command that made the stored answer says the same.
    own = dict(pairwise(stored["premise"].command.split()))
    for flag in ("samples", "draws", "steps"):
        assert str(arguments[flag]) == own[f"--{flag}"], flag
    assert "remove" not in arguments
    other = job_arguments(run, "premise", Selection(), places, replace(effort, removed=(1, 3)))
    assert other["remove"] == [1, 3]
    videos = stored["premise"].n["videos"]
    assert f"{videos} videos of 10 steps, 24 prompts, 1 draw" in cost_line(run, "premise", places, effort)
    assert not {"steps", "draws"} & set(job_arguments(run, "premise", Selection(), places, Effort(24, 20)))


def shown(test) -> str:
    return "\n".join(str(one.proto.text) for one in test.get("progress"))


def test_the_shipped_answers_are_small_and_of_the_shipped_model():
    from pare.reference import model_identity
    from workbench.demo.evidence import LARGEST, results_table

    files = sorted((PROJECT / "data" / "evidence").glob("*.json"))
    assert sum(path.stat().st_size for path in files) <= LARGEST
    names = {path.stem for path in files}
    document = (PROJECT / "docs" / "evidence.md").read_text("utf-8")
    assert results_table(PROJECT / "data" / "evidence") in document
    if names:
        found = find_answers(Places(PROJECT / "nowhere", (), PROJECT / "data"), model_identity("demo"), None, [])
        assert all(found[name].answer is not None for name in names)
        # What a question asks for and the run cannot tell stands beside its verdict.
        limits = {name: each.answer.limits for name, each in found.items() if each.answer is not None}
        said = {"roles": ("branches and seeds not varied",), "routes": ("by block norms, no router recorded",)}
        assert {name: words for name, words in limits.items() if words} == said


def test_answers_written_by_the_command_are_found_in_the_places(answers, captures, tmp_path):
    write_answer(answers["routes"], tmp_path / "mine" / "routes")
    places = Places(tmp_path / "workspace", (tmp_path / "mine",), tmp_path / "data")
    run = Run.open(captures / "full")
    found = find_answers(places, run.manifest.model, run.hash, places.answers())
    assert found["routes"].state == "here" and found["roles"].state == "none"
