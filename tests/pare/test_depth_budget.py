"""K(t): the numbers of the method, targets met to the block, and what is refused."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pare.depth.budget import BudgetSchedule, fewest, shifted_timesteps
from pare.depth.costs import CostTable
from pare.errors import InputError
from tests.tiny import UniPCMultistepScheduler

PAPER = BudgetSchedule.paper(40)


@pytest.mark.parametrize(
    ("timesteps", "mean"),
    [
        (tuple(range(1, 1001)), 27.0),
        (shifted_timesteps(50, 3.0), 29.8),
        (shifted_timesteps(50, 5.0), 30.8),
        (shifted_timesteps(4, 3.0), 31.5),
    ],
    ids=["uniform", "50 steps, shift 3", "50 steps, shift 5", "4 steps, shift 3"],
)
def test_the_mean_number_of_blocks_of_every_sampler(timesteps, mean):
    assert round(PAPER.mean_count(timesteps, 40), 1) == mean


@pytest.mark.parametrize("shift", [3.0, 5.0])
def test_the_timesteps_are_those_of_the_sampler(shift):
    sampler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
    sampler.set_timesteps(50)
    own = sampler.timesteps.tolist()
    assert np.abs(np.array(own) - shifted_timesteps(50, shift)).max() < 4
    assert abs(PAPER.mean_count(own, 40) - PAPER.mean_count(shifted_timesteps(50, shift), 40)) < 0.05


def test_the_ends_and_the_four_steps():
    assert (PAPER.count(0.0, 0, 40), PAPER.count(1000.0, 0, 40)) == (20, 35)
    assert [PAPER.count(t, 0, 40) for t in (1000, 900, 750, 500)] == [35, 33, 31, 27]


def test_a_float32_timestep_loses_no_block():
    below = float(np.nextafter(np.float32(800), np.float32(0)))
    assert PAPER.count(below, 0, 40) == PAPER.count(800.0, 0, 40) == 32


@pytest.mark.parametrize(("blocks", "ends"), [(40, (20, 35)), (30, (15, 26.25)), (8, (4, 7)), (2, (2, 2)), (1, (1, 1))])
def test_small_models_scale_the_budget(blocks, ends):
    schedule = BudgetSchedule.paper(blocks)
    assert (schedule.k_min, schedule.k_max) == ends
    schedule.check(blocks)


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.integers(2, 48),
    timesteps=st.lists(st.integers(0, 1000).map(float), min_size=1, max_size=12),
    share=st.floats(0.02, 1.0),
)
def test_a_share_is_met_to_the_block(blocks, timesteps, share):
    assume(share >= fewest(blocks) / blocks)
    schedule = BudgetSchedule.from_share(share, timesteps, blocks)
    counts = [schedule.count(t, step, blocks) for step, t in enumerate(timesteps)]
    total = sum(counts)
    assert total <= share * blocks * len(timesteps) + 1e-6 < total + 1 + 1e-6
    assert fewest(blocks) <= min(counts) and max(counts) <= blocks
    # Noisier steps get no fewer.
    order = np.argsort(timesteps, kind="stable")
    ordered = np.array(counts)[order]
    distinct = np.diff(np.array(timesteps)[order]) > 0
    assert (np.diff(ordered)[distinct] >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seconds=st.floats(1.0, 40.0), guidance=st.booleans())
def test_seconds_are_met_by_the_largest_budget(seconds, guidance):
    costs = CostTable(blocks=8, block=0.01, forward=0.003, step=0.002, video=0.4)
    timesteps, forwards = shifted_timesteps(50, 3.0), 2 if guidance else 1
    least = costs.seconds(blocks_run=2 * 50, steps=50, forwards=forwards)
    if seconds < least:
        with pytest.raises(InputError, match="--seconds"):
            BudgetSchedule.from_seconds(seconds, costs, timesteps, guidance=guidance)
        return
    schedule = BudgetSchedule.from_seconds(seconds, costs, timesteps, guidance=guidance)
    run = int(sum(schedule.counts))
    assert costs.seconds(blocks_run=run, steps=50, forwards=forwards) <= seconds + 1e-6
    more = costs.seconds(blocks_run=run + 1, steps=50, forwards=forwards)
    assert more > seconds - 1e-6 or run == 8 * 50


def test_a_schedule_survives_json():
    for schedule in (PAPER, BudgetSchedule.by_step([7, 5]), BudgetSchedule.by_timestep([900, 100], [7, 5])):
        assert BudgetSchedule.from_dict(schedule.to_dict()) == schedule


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: BudgetSchedule.linear(9, 5), "--k-min"),
        (lambda: BudgetSchedule.linear(float("nan"), 5), "budget"),
        (lambda: BudgetSchedule.linear(1, 5).check(8), "--k-min"),
        (lambda: BudgetSchedule.linear(4, 9).check(8), "--k-max"),
        (lambda: BudgetSchedule.by_step([]), "budget"),
        (lambda: BudgetSchedule.by_step([4, 4]).count(100.0, 2, 8), "step 2"),
        (lambda: BudgetSchedule.by_timestep([900.0], [4, 4]), "timesteps"),
        (lambda: BudgetSchedule.from_share(0.1, [500.0], 8), "--share"),
        (lambda: BudgetSchedule.from_share(1.1, [500.0], 8), "--share"),
        (lambda: PAPER.count(1001.0, 0, 40), "timestep"),
        (lambda: BudgetSchedule.from_dict({"k_min": 4}), "budget"),
        (lambda: BudgetSchedule.from_dict({"k_min": 9, "k_max": 4}), "--k-min"),
        (lambda: shifted_timesteps(0, 3.0), "steps"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(make, what):
    with pytest.raises(InputError, match=what):
        make()


def test_a_cost_table_is_read_as_it_was_written(tmp_path):
    table = CostTable(8, 0.01, 0.002, 0.001, 0.5, about={"model": "demo"})
    assert CostTable.load(table.save(tmp_path / "costs.json")) == table


@pytest.mark.parametrize(
    "content",
    ["", "[1]", '{"schema": "other"}', '{"schema": "pare-depth-costs/1"}',
     '{"schema": "pare-depth-costs/1", "blocks": 8, "block": "fast"}',
     '{"schema": "pare-depth-costs/1", "blocks": 8, "block": 0}',
     '{"schema": "pare-depth-costs/1", "blocks": 8, "block": 1, "colour": 1}'],
)  # fmt: skip
def test_a_foreign_cost_table_is_refused(content, tmp_path):
    (tmp_path / "costs.json").write_text(content)
    with pytest.raises(InputError, match="cost"):
        CostTable.load(tmp_path / "costs.json")
