"""Numbers per head: each metric against its formula in double precision, and ranks by every scorer."""

import numpy as np
import pytest

from analysis.figures.head_scatter import head_scatter
from analysis.head_metrics import METRICS, head_metric, known_metrics, metric_table
from analysis.importance import run_importance
from analysis.roles import classify
from analysis.score_ranks import rank_of, ranks
from analysis.scores import Scores
from pare.errors import InputError
from tests.runs_fixture import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("metrics") / "run", 3, 4, steps=5, samples=4, branches=("cond", "uncond"))


def test_metrics_are_their_formulas(run):
    ratio = run.array("self/ratio", run.finished).astype(np.float64)
    part = {"branch": "uncond", "steps": [1, 2, 4]}
    chosen = ratio[:, [1, 2, 4]][:, :, [1]]
    expected = {
        "ratio": chosen.mean(axis=(0, 1, 2)),
        "spread": chosen.mean(axis=(0, 2)).std(axis=0, ddof=1),
        "sample_spread": chosen.std(axis=0, ddof=1).mean(axis=(0, 1)),
        "block": np.repeat(np.arange(3.0), 4).reshape(3, 4),
        "importance": run_importance(run, "uncond")["self"],
    }
    letters = classify(ratio[:, :, [1]].mean(axis=(0, 1, 2)), 0.7, 0.3)
    expected["protected"] = expected["importance"] * np.where(letters == "T", 2.0, 1.0)
    for name, values in expected.items():
        found, samples = head_metric(run, name, **part, alpha=2.0)
        np.testing.assert_allclose(found, values, rtol=2e-6)
        assert samples == (0 if name == "block" else 4)


def test_what_a_run_lacks_is_not_offered_and_refused(run):
    known = known_metrics(run)
    assert "ratio" in known and "entropy" not in known and set(known) < set(METRICS)
    with pytest.raises(InputError, match="no self/entropy"):
        head_metric(run, "entropy")
    with pytest.raises(InputError, match="choose one of them"):
        head_metric(run, "colour")


def test_a_single_step_has_no_spread_over_timesteps(run):
    values, _ = head_metric(run, "spread", steps=[2])
    assert np.isnan(values).all()
    # Heads without a number are left out of the picture.
    table = metric_table(run, ["ratio", "spread"], steps=[2])
    figure = head_scatter(table, "ratio", "spread", names={"ratio": "r", "spread": "sd"})
    assert sum(len(trace.x) for trace in figure.data) == 0


@pytest.mark.parametrize("color", ["role", "value_norm"])
def test_the_scatter_shows_every_head_once_and_rings_the_pinned_one(run, color):
    table = metric_table(run, ["ratio", "importance", "value_norm"])
    names = {name: name for name in ("ratio", "importance", "value_norm")}
    figure = head_scatter(table, "ratio", "importance", color, names=names, pinned=(1, 2), tau_s=0.7, tau_t=0.3)
    *roles, ring = figure.data
    places = {
        tuple(cell): (x, y) for trace in roles for cell, x, y in zip(trace.customdata, trace.x, trace.y, strict=True)
    }
    assert len(places) == 12
    row = table[(table["block"] == 1) & (table["head"] == 2)].iloc[0]
    assert places[(1, 2)] == (row["ratio"], row["importance"]) == (ring.x[0], ring.y[0])
    assert len({trace.marker.symbol for trace in roles}) == len(roles)
    assert len(figure.layout.shapes) == 2


def test_ranks_count_the_heads_above():
    generator = np.random.default_rng(3)
    values = generator.integers(0, 5, (3, 4)).astype(float)
    values[2, 3] = np.nan
    for block in range(3):
        for head in range(4):
            own, found = values[block, head], rank_of(values, block, head)
            if np.isnan(own):
                assert found is None
                continue
            above = [sum(other > own for other in among) for among in (values[block], values.ravel())]
            assert found == (above[0] + 1, 4 - (block == 2), above[1] + 1, 11)


def test_a_heads_interval_is_that_of_all_heads():
    generator = np.random.default_rng(4)
    scores = Scores("energy", {"self": generator.random((6, 3, 4))}, finish="root")
    (found,) = ranks({"energy": scores}, 2, 1)
    low, high = scores.interval("self")
    assert (found.low, found.high) == pytest.approx((low[2, 1], high[2, 1]), rel=1e-12) and found.n == 6
    # Every draw is the score of the samples drawn.
    draws = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=1000)
    redrawn = np.stack([scores.score("self", counts) for counts in draws])
    np.testing.assert_allclose([low, high], np.quantile(redrawn, [0.025, 0.975], axis=0), rtol=1e-12)
    assert found.score == np.sqrt(scores.values["self"][:, 2, 1].mean())
