"""`pare route` and the router flags of `pare generate`: what is chosen, what is refused, what files say."""

import json

import numpy as np
import pytest
import torch

from analysis.block_values import block_values
from analysis.routes import route_array
from analysis.runs import Run
from pare.depth.budget import BudgetSchedule
from pare.depth.costs import CostTable
from pare.depth.learned import LearnedRouter
from pare.depth.table import DecisionTable
from pare.errors import Cancelled, InputError
from pare.models import load_pipeline
from pare.video import read_video
from tests.tiny import PROMPT, save, tiny_pipeline
from workbench.commands.capture import capture
from workbench.commands.generate import generate
from workbench.commands.generate import render as render_generate
from workbench.commands.route import render, route
from workbench.routing import choose_routing
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings

BLOCKS, STEPS = 5, 3
PROMPTS = [PROMPT, "a blue 3 standing still"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save(tiny_pipeline(num_layers=BLOCKS), tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module")
def load(folder):
    """The pipeline loaded once, as a worker keeps it."""
    pipe = load_pipeline(folder)
    return lambda model, **options: pipe if model == folder else load_pipeline(model, **options)


@pytest.fixture(scope="module")
def dense_run(folder, load, tmp_path_factory):
    out = tmp_path_factory.mktemp("dense") / "run"
    capture(folder, out=out, prompts=PROMPTS, statistics="block/residual_norm,block/input_norm", load=load)
    return out


@pytest.fixture(scope="module")
def routed_run(folder, load, dense_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("routed") / "run"
    result = route(folder, out=out, prompts=PROMPTS, router="random", k_min=3, k_max=5, load=load)
    return out, result


@pytest.fixture(scope="module")
def student(folder, tmp_path_factory):
    pipe = load_pipeline(folder)
    torch.manual_seed(0)
    router = LearnedRouter(BLOCKS, channels=4, frequencies=8, hidden=16)
    torch.nn.init.normal_(router.last.weight, std=4.0)
    pipe.transformer.attach_router(router, BudgetSchedule.linear(2, 4))
    return str(save(pipe, tmp_path_factory.mktemp("student") / "student"))


def choose(folder, **words):
    return choose_routing(folder, RoutingSettings.of(**words), RunSettings.of().filled(folder))


def test_a_routed_run_is_a_run_with_decisions(folder, routed_run, load):
    out, result = routed_run
    run = Run.open(out)
    routes = run.routes()
    assert run.complete and len(run.videos) == 2
    assert run.statistics == ("block/residual_norm", "block/input_norm", "block/cosine")
    assert run.manifest.settings["routing"] == {"router": "random", "budget": {"k_min": 3.0, "k_max": 5.0}}
    budget = BudgetSchedule.linear(3, 5)
    counts = [budget.count(t, 0, BLOCKS) for t in run.timesteps]
    assert (route_array(routes, "ran").sum(axis=2) == counts).all()
    assert result["mean_blocks"] == np.mean(counts) and result["achieved"] == pytest.approx(np.mean(counts) / BLOCKS)
    assert result["variation"]["samples"] == 2
    json.dumps(result)
    assert "by random" in render(result) and "disagree" in render(result)
    # Samples have seeds of their own, which their random routes follow.
    assert not np.array_equal(route_array(routes, "score")[0], route_array(routes, "score")[1])
    assert not load(folder).transformer.is_routing_enabled


def test_generate_shows_what_route_recorded(folder, routed_run, load, tmp_path):
    run = Run.open(routed_run[0])
    result = generate(
        folder, prompt=PROMPTS[1], out=tmp_path / "v.mp4", router="random", k_min=3, k_max=5, seed=1, load=load
    )
    assert np.array_equal(read_video(tmp_path / "v.mp4")[0], read_video(run.videos[1])[0])
    ran = route_array(run.routes([1]), "ran")[0]
    assert result["routing"]["blocks_run"] == ran.sum(axis=1).tolist()
    metadata = read_video(tmp_path / "v.mp4")[2]
    assert metadata["routing"]["router"] == "random" and "router_milliseconds" not in metadata["routing"]
    assert "blocks a step by random" in render_generate(result)
    again = generate(
        folder, prompt=PROMPTS[1], out=tmp_path / "w.mp4", router=run.folder / "routes.parquet", seed=1, load=load
    )
    assert again["routing"]["router"] == "table" and again["routing"]["table"]["name"] == "routes.parquet"


def test_importance_comes_from_a_run(folder, dense_run, load, tmp_path):
    choice = choose(folder, router="importance", run=str(dense_run), k_min=3)
    values = block_values(Run.open(dense_run))
    np.testing.assert_array_equal(choice.importance[1], values.cells())
    assert choice.about["run"]["hash"] == Run.open(dense_run).hash
    result = route(folder, out=tmp_path / "run", prompts=PROMPTS, run=dense_run, share=0.6, load=load)
    assert result["routing"]["router"] == "importance"
    # floor(0.6 · 5 · 3) of fifteen.
    assert result["mean_blocks"] == pytest.approx(9 / STEPS)
    assert result["variation"]["disagreement"] == 0
    static = choose(folder, router="static", run=str(dense_run), k_min=3, k_max=3)
    np.testing.assert_allclose(static.config(0).router.scores, values.cells().mean(axis=0))


def test_all_blocks_is_the_unrouted_video(folder, load, tmp_path):
    for name, words in (
        ("dense", {}),
        ("all", {"router": "random", "k_min": 5, "k_max": 5}),
        ("none", {"router": "none"}),
    ):
        result = generate(folder, prompt=PROMPT, out=tmp_path / f"{name}.mp4", load=load, **words)
        assert ("routing" in result) == (name != "dense")
    first, *others = (read_video(tmp_path / f"{name}.mp4")[0] for name in ("dense", "all", "none"))
    assert all(np.array_equal(first, other) for other in others)


def test_a_student_is_routed_by_its_own_router_and_can_be_stopped_from_it(student, folder, load, tmp_path):
    own = generate(student, prompt=PROMPT, out=tmp_path / "own.mp4")
    assert own["routing"]["router"] == "learned" and max(own["routing"]["blocks_run"]) <= 4
    assert choose(student, k_min=4, k_max=5).router == "learned"
    off = generate(student, prompt=PROMPT, out=tmp_path / "off.mp4", router="none")
    dense = generate(folder, prompt=PROMPT, out=tmp_path / "dense.mp4", load=load)
    assert off["routing"] == {"router": "none"} and "routing" not in dense
    assert np.array_equal(read_video(tmp_path / "off.mp4")[0], read_video(tmp_path / "dense.mp4")[0])
    planned = generate(student, prompt=PROMPT, out=tmp_path / "plan.mp4", dry_run=True)
    # At t = 1000, 857 and 600 run 4, 3 and 3.
    assert planned["block_share"] == pytest.approx(np.mean([4, 3, 3]) / BLOCKS)


def test_seconds_are_met_by_a_measured_table(folder, tmp_path):
    path = CostTable(BLOCKS, block=0.1, forward=0.05, video=1.0).save(tmp_path / "costs.json")
    choice = choose(folder, router="random", seconds=4.0, costs=str(path))
    # 4 = 1 + 2·(3·0.05 + n·0.1): thirteen blocks.
    assert sum(choice.budget.counts) == 13


def test_a_plan_counts_the_blocks_that_run(folder, tmp_path):
    whole = generate(folder, prompt=PROMPT, out=tmp_path / "v.mp4", dry_run=True)
    part = route(folder, out=tmp_path / "run", prompts=PROMPTS, router="random", k_min=3, k_max=3, dry_run=True)
    assert part["flops_per_forward"] == pytest.approx(whole["flops_per_forward"] * 3 / BLOCKS)
    assert "60.0% of them run" in render(part) and not (tmp_path / "run").exists()


def test_a_cancelled_route_leaves_whole_samples_and_goes_on(folder, routed_run, load, tmp_path):
    def stop(done, total, message=""):
        if done == STEPS + 1:
            raise Cancelled

    words = {"prompts": PROMPTS, "router": "random", "k_min": 3, "k_max": 5, "load": load}
    with pytest.raises(Cancelled):
        route(folder, out=tmp_path / "run", progress=stop, **words)
    assert not load(folder).transformer.is_routing_enabled
    assert Run.open(tmp_path / "run").finished == (0,)
    route(folder, out=tmp_path / "run", resume=True, **words)
    for name in ("routes.parquet", "run.json", "summary.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (routed_run[0] / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"router": "best"}, "decision table"),
        ({"router": "learned"}, "student with a router"),
        ({"router": "importance"}, "pare capture"),
        ({"router": "random", "k_min": 1}, "--k-min"),
        ({"router": "random", "k_max": 6}, "--k-max"),
        ({"router": "random", "k_min": 5, "k_max": 3}, "--k-min"),
        ({"router": "random", "k_min": 3, "share": 0.5}, "several budgets"),
        ({"router": "random", "seconds": 3.0}, "--costs"),
        ({"router": "random", "share": 2.0}, "--share"),
        ({"router": "random", "run": "somewhere"}, "--run"),
        ({"router": "none", "k_min": 3}, "none"),
        ({"router": "random", "k": 3}, "unknown flag"),
    ],
    ids=str,
)
def test_flags_that_cannot_be_are_refused_in_one_line(folder, words, what):
    with pytest.raises(InputError, match=what) as error:
        choose(folder, **words)
    assert "\n" not in str(error.value)


def test_a_run_and_a_table_of_another_model_are_refused(folder, dense_run, tmp_path):
    other = str(save(tiny_pipeline(num_layers=4), tmp_path / "other"))
    with pytest.raises(InputError, match="5 blocks"):
        choose(other, router="importance", run=str(dense_run))
    table = DecisionTable((900.0,), np.ones((1, 4), bool)).save(tmp_path / "table.json")
    assert choose(other, router=str(table)).budget.count(1.0, 0, 4) == 4
    with pytest.raises(InputError, match="4 blocks"):
        choose(folder, router=str(table))
    costs = CostTable(4, block=0.1).save(tmp_path / "costs.json")
    with pytest.raises(InputError, match="--costs"):
        choose(folder, router="random", seconds=9.0, costs=str(costs))


def test_the_bundled_run_routes_the_demo_model():
    choice = choose("demo", router="importance")
    assert choice.importance[1].shape == (10, 8) and choice.about["run"]["name"] == "demo"
    assert choice.about["budget"] == {"k_min": 4.0, "k_max": 7.0}
