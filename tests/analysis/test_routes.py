"""Decisions as a part of a run, and how much they vary with content."""

import doctest
import importlib
import itertools
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from analysis import recording
from analysis.block_runs import block_runs
from analysis.capture_spec import CaptureSpec
from analysis.figures.routes import runs_over_timesteps
from analysis.merge import merge_runs
from analysis.route_variation import route_variation
from analysis.routes import COLUMNS, route_array, routes_frame
from analysis.runs import Run
from pare.depth.budget import BudgetSchedule
from pare.depth.learned import LearnedRouter
from pare.depth.routers import RandomRouter, TableRouter
from pare.depth.routing import RoutingConfig
from pare.depth.table import DecisionTable
from pare.errors import InputError
from pare.geometry import Geometry
from pare.transformer import PareWanTransformer3DModel
from tests.tiny import DEFAULTS, LATENT_CHANNELS, VAE_SPATIAL, VAE_TEMPORAL, tiny_pipeline

BLOCKS, STEPS = 5, 3
BUDGET = BudgetSchedule.linear(3, 5)
SETTINGS = DEFAULTS | {"steps": STEPS, "negative_prompt": None, "seed": 0}
SPEC = CaptureSpec(("block/residual_norm", "block/input_norm"), moments=False)


@pytest.fixture(scope="module")
def pipe():
    made = tiny_pipeline(num_layers=BLOCKS)
    made.transformer = PareWanTransformer3DModel.from_stock(made.transformer)
    return made


def routed(pipe, make_router, budget=BUDGET):
    """What `record` puts around a sample: a router made from the sample's seed."""

    @contextmanager
    def around(sample):
        with pipe.transformer.routed(RoutingConfig(make_router(sample.seed), budget)):
            yield

    return around


def record(pipe, out, make_router=lambda seed: RandomRouter(BLOCKS, seed), mode="trajectory", **more):
    geometry = Geometry.from_config(
        dict(pipe.transformer.config),
        {"scale_factor_spatial": VAE_SPATIAL, "scale_factor_temporal": VAE_TEMPORAL, "z_dim": LATENT_CHANNELS},
    )
    settings = SETTINGS | {"seed": more.pop("seed", 0), "routing": {"router": "random"}}
    manifest = recording.plan(
        pipe, model={"model_id": "tiny", "config_hash": "0"}, geometry=geometry, mode=mode, settings=settings,
        prompts=["a red 7", "a blue 3 standing still"], samples=3, spec=SPEC,
    )  # fmt: skip
    return recording.record(pipe, manifest, out, around=routed(pipe, make_router), **more)


@pytest.fixture(scope="module")
def run(pipe, tmp_path_factory):
    return record(pipe, tmp_path_factory.mktemp("run") / "run")


def test_a_run_has_every_decision(run, pipe):
    routes = run.routes()
    assert list(routes.columns) == list(COLUMNS) and len(routes) == 3 * STEPS * BLOCKS
    assert not pipe.transformer.is_routing_enabled
    ran, score = route_array(routes, "ran"), route_array(routes, "score")
    for sample, step in itertools.product(range(3), range(STEPS)):
        t = run.timesteps[step]
        expected = RandomRouter(BLOCKS, sample)(torch.tensor([t]), torch.zeros(1, 1, 1, 1, 1))
        np.testing.assert_array_equal(score[sample, step], expected[0].numpy())
        assert ran[sample, step].sum() == BUDGET.count(t, step, BLOCKS)
    cells = routes.set_index(["sample", "step", "block"])
    assert cells.loc[(0, 0, 0), "asked"] == pytest.approx(BUDGET.asked(run.timesteps[0]) / BLOCKS)
    # The blocks that were measured are those that ran.
    measured = ~np.isnan(run.array("block/residual_norm"))
    assert (measured[:, :, 0] == ran).all() and (measured[:, :, 1] == ran).all()
    assert (run.summary("block/residual_norm")["n"][:, 0] == ran.sum(axis=0)).all()


def test_a_part_of_the_decisions(run):
    assert set(run.routes([1])["sample"]) == {1}
    assert set(run.routes(steps=[0, 2])["step"]) == {0, 2}
    assert set(run.routes(t_max=float(run.timesteps[1]))["step"]) == {1, 2}
    with pytest.raises(InputError, match="sample"):
        run.routes([3])


def test_a_run_that_is_cut_off_goes_on_to_the_same_bytes(run, pipe, tmp_path):
    class Stop(Exception):
        pass

    calls = []

    def stop(done, total, message=""):
        calls.append(done)
        if len(calls) == STEPS + 2:
            raise Stop

    with pytest.raises(Stop):
        record(pipe, tmp_path / "run", progress=stop)
    half = Run.open(tmp_path / "run")
    assert set(half.routes()["sample"]) == set(half.finished) == {0}
    assert not pipe.transformer.is_routing_enabled
    record(pipe, tmp_path / "run", resume=True)
    files = {
        path.relative_to(run.folder) for path in run.folder.rglob("*") if path.is_file() and path.name != "log.jsonl"
    }
    assert files == {path.relative_to(half.folder) for path in half.folder.rglob("*") if path.is_file()} - {
        (half.folder / "log.jsonl").relative_to(half.folder)
    }
    for name in files:
        assert (run.folder / name).read_bytes() == (half.folder / name).read_bytes(), name


def test_a_run_is_replayed_from_its_table(run, pipe, tmp_path):
    def replay(seed):
        return TableRouter(DecisionTable.load(run.folder / "routes.parquet", sample=seed))

    again = record(pipe, tmp_path / "again", replay)
    assert (again.routes()["ran"] == run.routes()["ran"]).all()
    for one, other in zip(run.videos.values(), again.videos.values(), strict=True):
        from pare.video import read_video

        assert np.array_equal(read_video(one)[0], read_video(other)[0])


def test_calibration_on_a_routed_model_has_decisions_at_its_timesteps(pipe, tmp_path):
    run = record(pipe, tmp_path / "run", mode="calibration")
    routes = run.routes()
    assert sorted(set(routes["timestep"])) == sorted(run.timesteps) and set(routes["step"]) == set(range(10))


def test_merged_runs_keep_their_decisions(run, pipe, tmp_path):
    other = record(pipe, tmp_path / "other", seed=10)
    merged = merge_runs([run, other], tmp_path / "merged")
    assert (route_array(merged.routes(), "ran")[:3] == route_array(run.routes(), "ran")).all()
    assert (route_array(merged.routes(), "ran")[3:] == route_array(other.routes(), "ran")).all()


def test_runs_without_decisions_and_tables_of_other_runs_are_refused(run, tmp_path):
    from tests.runs_fixture import make_run

    plain = make_run(tmp_path / "plain", blocks=3, heads=2, steps=2, samples=2)
    with pytest.raises(InputError, match="without decisions"):
        plain.routes()
    (plain.folder / "routes.parquet").write_bytes((run.folder / "routes.parquet").read_bytes())
    with pytest.raises(InputError, match="another run"):
        plain.routes()
    (plain.folder / "routes.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="Parquet"):
        plain.routes()


def test_cells_that_are_missing_are_refused(run):
    with pytest.raises(InputError, match="missing"):
        route_array(run.routes().drop(index=4), "ran")
    assert routes_frame(0, []).empty


def brute_force(ran):
    """The share of pairs of different samples that decide differently, mean over steps and middle blocks."""
    pairs = list(itertools.combinations(range(len(ran)), 2))
    return np.mean([(ran[a] != ran[b])[..., 1:-1].mean() for a, b in pairs])


def table(ran):
    samples, steps, blocks = np.indices(ran.shape).reshape(3, -1)
    return pd.DataFrame(
        {"sample": samples, "step": steps, "timestep": 900.0 - 100 * steps, "block": blocks, "ran": ran.ravel()}
    )


def test_variation_is_the_share_of_pairs_that_differ():
    generator = np.random.default_rng(0)
    ran = generator.random((6, 4, 7)) < 0.6
    ran[..., [0, -1]] = True
    found = route_variation(table(ran))
    assert found.disagreement == pytest.approx(brute_force(ran))
    assert found.low <= found.disagreement <= found.high and found.varies
    assert np.isnan(found.by_block[[0, -1]]).all() and found.by_step.mean() == pytest.approx(found.disagreement)
    without = [brute_force(np.delete(ran, index, axis=0)) for index in range(6)]
    error = np.sqrt(5 / 6 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert found.high - found.disagreement == pytest.approx(1.959963984540054 * error)


def test_a_timestep_only_router_has_no_variation(run):
    one = route_array(run.routes(), "ran")[:1]
    found = route_variation(table(np.repeat(one, 4, axis=0)))
    assert (found.disagreement, found.low, found.high) == (0.0, 0.0, 0.0) and not found.varies


@pytest.mark.parametrize("name", ["block_runs", "routes", "route_variation"])
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"analysis.{name}"))
    assert found.attempted > 0 and found.failed == 0


def test_how_often_a_block_runs_is_counted_by_hand():
    ran = np.random.default_rng(2).random((7, 4, 5)) < 0.4
    rows = [
        (sample, step, 900.0 - 200 * step, block, float(sample), ran[sample, step, block])
        for sample in range(7)
        for step in range(4)
        for block in range(5)
    ]
    routes = pd.DataFrame(rows, columns=["sample", "step", "timestep", "block", "score", "ran"])
    found = block_runs(routes.sample(frac=1, random_state=0), 2)
    assert found["timestep"].tolist() == [900.0, 700.0, 500.0, 300.0] and set(found["n"]) == {7}
    for step, row in found.iterrows():
        share = sum(ran[sample, step, 2] for sample in range(7)) / 7
        # Wilson's interval, as it is written.
        z = 1.959963984540054
        middle, half = (
            (share + z**2 / 14) / (1 + z**2 / 7),
            z * np.sqrt(share * (1 - share) / 7 + z**2 / 196) / (1 + z**2 / 7),
        )
        assert row["ran"] == pytest.approx(share) and row["score"] == 3.0
        assert (row["low"], row["high"]) == pytest.approx((middle - half, middle + half), abs=1e-9)
    figure = runs_over_timesteps(found)
    assert list(figure.data[0].y) == found["ran"].tolist() and figure.data[0].x[0] == "900"
    with pytest.raises(InputError, match="block 9 of blocks 0 to 4"):
        block_runs(routes, 9)


def test_blocks_drawn_at_random_reach_the_ceiling():
    generator = np.random.default_rng(1)
    ran = np.ones((200, 5, 12), bool)
    for sample, step in itertools.product(range(200), range(5)):
        ran[sample, step, 1:-1] = np.isin(np.arange(10), generator.choice(10, 6, replace=False))
    found = route_variation(table(ran))
    # Of ten blocks six run: 2·0.6·0.4.
    assert found.ceiling == pytest.approx(0.48) and found.disagreement == pytest.approx(0.48, abs=0.01)


def test_too_few_samples_and_blocks_have_no_variation():
    assert np.isnan(route_variation(table(np.ones((1, 2, 5), bool))).disagreement)
    two = route_variation(table(np.ones((2, 2, 5), bool)))
    assert two.disagreement == 0 and np.isnan(two.low)
    assert np.isnan(route_variation(table(np.ones((4, 2, 2), bool))).disagreement)
    with pytest.raises(InputError, match="no decisions"):
        route_variation(pd.DataFrame())


def test_the_content_has_a_say_in_a_learned_router(pipe, tmp_path):
    torch.manual_seed(0)
    router = LearnedRouter(BLOCKS, channels=4, frequencies=8, hidden=16)
    with torch.no_grad():
        router.first.weight[:, 8:] *= 50
    torch.nn.init.normal_(router.last.weight, std=4.0)
    run = record(pipe, tmp_path / "run", lambda seed: router)
    assert route_array(run.routes(), "score").std(axis=0).min() > 0
