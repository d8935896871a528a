"""The Route page in every state: what it says is what the routers decide, and its jobs are those of what it shows."""

import doctest
import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.figures.routes import disagreement_by_step
from analysis.route_variation import route_variation
from analysis.routes import NAME, route_array
from analysis.runs import Run
from pare.cost import flops
from pare.depth.budget import BudgetSchedule
from pare.depth.costs import CostTable
from pare.depth.decision import redecide
from pare.depth.table import DecisionTable
from pare.geometry import DEMO, Clip
from pare.models import load_pipeline
from pare.video import read_video
from tests.runs_fixture import make_run
from tests.tiny import PROMPT, save, tiny_pipeline
from tests.workbench.test_prune_page import alive, components, link_of, words, work_off
from workbench import cli
from workbench.commands.capture import capture
from workbench.commands.generate import generate
from workbench.commands.route import route
from workbench.components.lanes import component
from workbench.components.lanes.component import Lanes, lanes
from workbench.jobs.api import open_workspace
from workbench.pages import route_plan
from workbench.pages.route_plan import decisions_of, sampler_timesteps
from workbench.pages.route_take_out import planned_command, planned_part, report_again
from workbench.places import Places
from workbench.report.build import build_report
from workbench.report.page import render_report
from workbench.routing import choose_routing
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings
from workbench.state import Selection

PAGE = "workbench/pages/route.py"
BLOCKS, STEPS = 6, 3
PROMPTS = [PROMPT, "a blue 3 standing still", "a green 5 moving right, slow"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    """Beside its runs, where the page finds it again."""
    return str(save(tiny_pipeline(num_layers=BLOCKS), tmp_path_factory.mktemp("route") / "captures" / "tiny"))


@pytest.fixture(scope="module")
def load(model):
    """The pipeline loaded once, as a worker keeps it."""
    pipe = load_pipeline(model)
    return lambda _, **__: pipe


@pytest.fixture(scope="module")
def captures(model, load) -> Path:
    """`dense` has block norms alone, `routed` has the decisions of real generation at K from 3 to 5."""
    folder = Path(model).parent
    statistics = "block/residual_norm,block/input_norm"
    capture(model, out=folder / "dense", prompts=PROMPTS[:2], statistics=statistics, load=load)
    route(model, out=folder / "routed", prompts=PROMPTS, router="random", k_min=3, k_max=5, load=load)
    return folder


@pytest.fixture
def at(open_page, captures):
    """at(**link) runs the page on these captures."""

    def run(folder: Path | None = captures, **link: str) -> AppTest:
        return open_page(PAGE, folder, **link)

    return run


ROUTED, DENSE = {"run": "captures/routed"}, {"run": "captures/dense"}


@pytest.mark.parametrize("module", [route_plan, component])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def test_recorded_decisions_are_shown_as_they_were_made(at, captures):
    test = alive(at(**ROUTED))
    run = Run.open(captures / "routed")
    routes = run.routes()
    mean, found = route_array(routes, "ran").sum(axis=2).mean(), route_variation(routes)
    assert f"random router ran {mean:.2f} of {BLOCKS} blocks a step" in test.title[0].value.replace("\\", "")
    text = words(test)
    interval = f"**{found.disagreement:.1%}** [{found.low:.1%}, {found.high:.1%}]"
    assert interval in text and "n = 3 samples" in text and f"{found.ceiling:.1%}" in text
    assert "0 of 18 decisions differ" in text and components(test).count("lanes") == 2
    assert test.slider(key="route_budget").value == (3, 5)
    # Nothing was chosen, so the link names nothing but the run.
    assert link_of(test) == ROUTED


def test_another_budget_is_decided_from_the_stored_scores_and_priced(at, captures, model, tmp_path):
    run = Run.open(captures / "routed")
    again = redecide(route_array(run.routes(), "score")[1], BudgetSchedule.linear(2, 4), timesteps=run.timesteps)
    size = run.manifest.clip
    clip = Clip(size["height"], size["width"], size["frames"])
    block = flops(run.geometry, clip).total / BLOCKS
    costs = CostTable(blocks=BLOCKS, block=0.25, video=1.0, about={"model": model, **{n: size[n] for n in size}})
    foreign = CostTable(blocks=BLOCKS, block=9.0, about={"model": "demo"})
    (tmp_path / "workspace").mkdir()
    costs.save(tmp_path / "workspace" / "costs.json")
    foreign.save(tmp_path / "workspace" / "a.json")
    (tmp_path / "workspace" / "b.json").write_text("{")
    test = alive(at(**ROUTED, sample="1", kmin="2", kmax="4"))
    text = words(test)
    assert f"{again.counts.mean():.2f} of {BLOCKS} blocks a step over {STEPS} steps: **{again.share:.1%}**" in text
    assert f"{2 * block * again.counts.sum() / 1e6:,.1f} MFLOP" in text
    assert f"about **{costs.seconds(blocks_run=int(again.counts.sum()), steps=STEPS, forwards=2):.3g} s**" in text
    recorded = route_array(run.routes(), "ran")[1]
    assert f"{int((again.ran != recorded).sum())} of 18 decisions differ" in text
    # Moving the slider is the same view, and the way back is a button.
    other = alive(at(**ROUTED, sample="1")).slider(key="route_budget").set_value((2, 4)).run()
    assert link_of(other) == {**ROUTED, "sample": "1", "kmin": "2", "kmax": "4"}
    assert words(other) == text
    assert link_of(other.button(key="undo_budget").click().run()) == {**ROUTED, "sample": "1"}


def test_two_samples_stand_side_by_side(at, captures):
    test = alive(at(**ROUTED, sample="0", vs="2"))
    ran = route_array(Run.open(captures / "routed").routes(), "ran")
    assert f"{PROMPTS[2]} ({int((ran[0] != ran[2]).sum())} of 18 decisions differ)" in words(test)
    assert test.selectbox(key="route_versus").value == 2
    # A sample is not shown beside itself.
    assert alive(test.selectbox(key="route_sample").set_value(2).run()).selectbox(key="route_versus").value == -1


def test_edited_decisions_run_as_a_job_and_are_found_again(at, captures, model, load, tmp_path):
    run = Run.open(captures / "routed")
    ran = route_array(run.routes(), "ran")[0].astype(bool)
    link = {**ROUTED, "flip": "0.2-2.4"}
    test = alive(at(**link))
    assert "2 turned over by hand" in words(test) and "2 of 18 decisions differ" in words(test)
    test.button(key="submit_routed").click().run()
    alive(test)
    jobs = open_workspace(tmp_path / "workspace")
    made = {Path(job.arguments["out"]).name: job for job in jobs.list(command="generate")}
    assert set(made) == {"dense.mp4", "routed.mp4"}
    table = DecisionTable.load(made["routed.mp4"].arguments["router"])
    wanted = ran.copy()
    wanted[0, 2], wanted[2, 4] = ~ran[0, 2], ~ran[2, 4]
    assert np.array_equal(table.ran, wanted) and table.about == {"from": "routed", "sample": 0}
    counts = {}

    def work(job, folder):
        result = generate(load=load, **job.arguments)
        counts[Path(job.arguments["out"]).name] = result.get("routing")
        return result

    work_off(jobs, work)
    assert counts["routed.mp4"]["blocks_run"] == wanted.sum(axis=1).tolist()
    # Another tab with the same link finds both videos, and the recorded one beside them.
    again = alive(at(**link))
    assert "player" in components(again) and again.button(key="submit_routed").disabled
    # Undone, the edits' video is not there.
    undone = alive(again.button(key="undo_edits").click().run())
    assert link_of(undone) == ROUTED and "player" not in components(undone)


def test_the_unchanged_decisions_replay_to_the_recorded_video(at, captures, load, tmp_path):
    test = alive(at(**ROUTED, sample="1"))
    test.button(key="submit_routed").click().run()
    jobs = open_workspace(tmp_path / "workspace")
    (job,) = [job for job in jobs.list(command="generate") if job.arguments["router"] != "none"]
    generate(load=load, **{**job.arguments, "out": tmp_path / "again.mp4"})
    recorded = read_video(Run.open(captures / "routed").videos[1])[0]
    assert np.array_equal(read_video(tmp_path / "again.mp4")[0], recorded)


def test_without_decisions_it_shows_what_an_importance_router_would_decide(at, captures, model, load, tmp_path):
    test = alive(at(**DENSE, kmin="3", kmax="5"))
    text = words(test)
    assert "what an importance router would decide" in text and components(test).count("lanes") == 1
    run = Run.open(captures / "dense")
    settings = RunSettings.of().filled(model)
    words_ = RoutingSettings.of(router="importance", k_min=3, k_max=5, run=run.folder)
    choice = choose_routing(model, words_, settings)
    assert choice is not None
    decisions = decisions_of(run)
    assert decisions is not None and not decisions.recorded
    for measured, importance in (choice.importance,):
        order = np.argsort(-measured)
        assert np.array_equal(decisions.scores[0], importance[order])
        assert np.array_equal(decisions.timesteps, measured[order])
    # What is predicted is what the router then does, step by step of the sampler.
    result = generate(
        model, prompt=PROMPT, out=tmp_path / "x.mp4", router="importance", k_min=3, k_max=5, run=run.folder, load=load
    )
    predicted = route_plan.route_plan(run, decisions, Selection(k_min=3, k_max=5), model, None)
    assert predicted.mean_count == pytest.approx(result["routing"]["mean_blocks"], abs=0.34)
    assert len(sampler_timesteps(run, decisions)) == STEPS


def test_the_mean_of_a_video_is_told_from_the_mean_of_the_columns(at):
    run = Run.open(DEMO.parent / "runs" / "demo")
    decisions = decisions_of(run)
    assert decisions is not None
    planned = route_plan.route_plan(run, decisions, Selection(), "demo", None)
    columns = f"{planned.ran.sum(axis=1).mean():.2f}"
    told = f"{planned.mean_count:.2f} blocks a step over the video's {planned.steps} unevenly spaced steps; the columns are "
    told += f"the run's {len(run.timesteps)} timesteps, whose mean is {columns}"
    assert (
        told in words(alive(at(DEMO.parent / "runs", run="runs/demo"))).replace("\\", "")
        and columns != f"{planned.mean_count:.2f}"
    )


def test_its_report_begins_with_what_would_run(captures, model):
    run, selection = Run.open(captures / "dense"), Selection(k_min=3, k_max=4, edits=((0, 2),))
    decisions = decisions_of(run)
    planned = route_plan.route_plan(run, decisions, selection, model, None)
    places = Places(captures.parent / "w", (captures,))
    command = planned_command(run, decisions, planned, selection, places)
    assert "--router routes.json" in command and "--k-min" not in command
    unturned = selection.changed(edits=())
    again = route_plan.route_plan(run, decisions, unturned, model, None)
    assert "--k-min 3 --k-max 4" in planned_command(run, decisions, again, unturned, places)
    part = planned_part(run, decisions, planned, selection, command=command)
    made = build_report(run, selection, first=[part], headline="What runs.", command=report_again(part.command))
    assert made.parts[0] is part and made.finding == "What runs."
    assert "K from 3 to 4, 1 turned over by hand" in part.title
    assert f"{planned.mean_count:.2f} of {BLOCKS} blocks a step, {planned.share:.1%} of the block FLOPs" in part.words
    assert part.table["ran"].to_numpy().reshape(planned.ran.shape).tolist() == planned.ran.tolist()
    assert planned.steps_at.sum() == planned.steps and len(planned.steps_at) == len(planned.ran)
    page = render_report(made)
    assert "What runs." in page and "pare report routed --out report.html" in page


def test_recording_is_offered_with_its_command_and_its_cost(at, captures, load, tmp_path):
    test = alive(at(**DENSE))
    (code,) = [shlex.split(code.value) for code in test.code if "pare route" in code.value]
    cli.check_words(code[1], code[2:])
    assert any("2 videos of 3 steps on cpu" in each for each in words(test).splitlines())
    test.button(key="submit_route").click().run()
    alive(test)
    jobs = open_workspace(tmp_path / "workspace")
    work_off(jobs, lambda job, _: route(load=load, **job.arguments))
    again = alive(at(**DENSE))
    (job,) = jobs.list(command="route")
    name = Places.from_environment().name_of(jobs.folder(job.id) / "artefacts" / "routed")
    opened = alive(at(run=name))
    assert "importance router ran" in opened.title[0].value
    assert "decided the same" not in opened.title[0].value  # two samples: no interval, so nothing is claimed
    assert again.get("page_link") and not [one for one in again.button if one.key == "submit_route"]


def test_a_run_with_neither_offers_to_record(at, tmp_path):
    folder = tmp_path / "captures"
    run = make_run(folder / "plain", 3, 4, steps=2, samples=2)
    manifest = json.loads((run.folder / "run.json").read_text())
    for name in [name for name in manifest["statistics"] if name.startswith("block/")]:
        del manifest["statistics"][name]
    (run.folder / "run.json").write_text(json.dumps(manifest))
    test = alive(at(folder))
    assert "neither decisions nor block norms" in test.title[0].value
    assert any("pare route random" in code.value for code in test.code)


@pytest.mark.parametrize("damage", ["no parquet", "another run", "cells missing", "empty"])
def test_damaged_decisions_are_one_line_and_the_page_lives(at, captures, tmp_path, damage):
    folder = tmp_path / "captures"
    shutil.copytree(captures / "routed", folder / "routed")
    path = folder / "routed" / NAME
    if damage == "no parquet":
        path.write_bytes(b"no table")
    else:
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        metadata = {} if damage == "another run" else table.schema.metadata
        rows = {"cells missing": table.slice(1), "empty": table.slice(0, 0)}.get(damage, table)
        pq.write_table(rows.replace_schema_metadata(metadata), path)
    test = at(folder, **ROUTED)
    assert not test.exception
    (error,) = [each.value.replace("\\", "") for each in test.error]
    assert "\n" not in error and all(part in error for part in ("got ", "; expected ", "; fix: "))


def test_what_the_browser_cannot_be_shown_is_refused():
    ran = np.ones((2, 4), bool)
    values = ran.astype(float)
    shown = Lanes(ran, values, values, np.array([900.0, 500.0]), ~ran, ~ran, np.ones((2, 3)))
    with pytest.raises(Exception, match="one shape"):
        lanes(shown, title="x", score_limits=(0, 1), score_palette=["#000", "#fff"])


def test_the_figure_shows_what_was_found(captures):
    found = route_variation(Run.open(captures / "routed").routes())
    figure = disagreement_by_step(found)
    assert np.allclose(figure.data[0].y, found.by_step) and figure.layout.shapes[0].y0 == found.ceiling
