"""The hard top-K: budgets honoured exactly, ties, the distance to the flip, and decisions made anew."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pare.depth.budget import BudgetSchedule, fewest
from pare.depth.costs import CostTable
from pare.depth.decision import choose_blocks, distance_to_flip, redecide
from pare.depth.gate import gated_residual, hard_top_k, relative_scores, straight_through
from pare.errors import InputError


@st.composite
def decisions(draw):
    blocks, batch = draw(st.integers(1, 24)), draw(st.integers(1, 4))
    # Few values, so that ties are common; and any finite ones.
    element = draw(st.sampled_from([st.integers(-2, 2).map(float), st.floats(-1e6, 1e6)]))
    scores = draw(hnp.arrays(np.float64, (batch, blocks), elements=element))
    counts = draw(hnp.arrays(np.int64, (batch,), elements=st.integers(fewest(blocks), blocks)))
    return scores, counts


@settings(max_examples=150, deadline=None)
@given(decisions())
def test_the_budget_is_honoured_exactly(case):
    scores, counts = case
    ran = choose_blocks(scores, counts)
    assert (ran.sum(axis=1) == counts).all()
    assert ran[:, 0].all() and ran[:, -1].all()
    for row, chosen in zip(scores, ran, strict=True):
        inside = range(1, len(row) - 1)
        for one in inside:
            for other in inside:
                if chosen[one] and not chosen[other]:
                    assert row[one] > row[other] or (row[one] == row[other] and one < other)


@settings(max_examples=60, deadline=None)
@given(decisions(), st.floats(0, 20), st.floats(0, 20), st.floats(0, 1000))
def test_every_schedule_is_honoured_for_any_model(case, one, other, timestep):
    scores, _ = case
    blocks = scores.shape[1]
    schedule = BudgetSchedule.linear(*sorted((one, other)))
    try:
        schedule.check(blocks)
    except InputError:
        return
    count = schedule.count(timestep, 0, blocks)
    assert (choose_blocks(scores, count).sum(axis=1) == count).all()
    assert schedule.asked(timestep) - 1 < count <= schedule.asked(timestep) + 1e-3


def test_scores_that_are_missing_and_budgets_out_of_range_are_refused():
    with pytest.raises(InputError, match="block 2"):
        choose_blocks(np.array([[0.0, 1.0, np.nan, 0.0]]), 3)
    for count in (1, 5):
        with pytest.raises(InputError, match="2 to 4"):
            choose_blocks(np.zeros((1, 4)), count)


def test_infinite_scores_rank_like_others():
    scores = np.array([-np.inf, np.inf, 1.0, -np.inf, np.inf, 0.0])
    assert choose_blocks(scores, 4).tolist() == [True, True, False, False, True, True]


@settings(max_examples=60, deadline=None)
@given(decisions())
def test_a_score_moved_beyond_its_distance_flips_and_before_it_does_not(case):
    scores, counts = case
    ran = choose_blocks(scores, counts)
    distance = distance_to_flip(scores, ran)
    assert np.isnan(distance[:, [0, -1]]).all()
    for sample, block in np.argwhere(np.isfinite(distance))[:6]:
        for factor, flips in ((0.5, False), (1.5, True)):
            moved = scores.copy()
            move = factor * distance[sample, block] + (1e-3 if flips else -1e-3 * (distance[sample, block] > 0))
            moved[sample, block] += -move if ran[sample, block] else move
            if not flips and distance[sample, block] <= 2e-3:
                continue
            assert (choose_blocks(moved, counts)[sample, block] != ran[sample, block]) == flips


def test_no_flip_where_nobody_can_change_places():
    scores = np.arange(5.0)
    assert np.isnan(distance_to_flip(scores, choose_blocks(scores, 5))).all()
    assert np.isnan(distance_to_flip(scores, choose_blocks(scores, 2))).all()


def test_deciding_again_predicts_cost():
    scores = np.random.default_rng(0).normal(size=(3, 4, 8))
    timesteps, budget = [900.0, 600.0, 300.0, 100.0], BudgetSchedule.linear(3, 7)
    costs, flops = CostTable(8, 0.1, 0.05, 0.01, 1.0), np.arange(1.0, 9.0)
    again = redecide(scores, budget, timesteps=timesteps, block_flops=flops, costs=costs, forwards=2)
    assert again.counts.tolist() == [budget.count(t, step, 8) for step, t in enumerate(timesteps)]
    assert (again.ran == choose_blocks(scores, again.counts)).all()
    assert again.flops == pytest.approx(2 * np.mean([(ran * flops).sum() for ran in again.ran]))
    assert again.share == pytest.approx(again.flops / (2 * 4 * flops.sum()))
    assert again.seconds == pytest.approx(1.0 + 4 * 0.01 + 2 * (4 * 0.05 + again.counts.sum() * 0.1))
    dense = redecide(scores, BudgetSchedule.constant(8), timesteps=timesteps, block_flops=flops)
    assert dense.share == 1 and dense.seconds is None and dense.ran.all()


def test_deciding_again_needs_matching_shapes():
    with pytest.raises(InputError, match="timesteps"):
        redecide(np.zeros((4, 8)), BudgetSchedule.constant(4), timesteps=[1.0])
    with pytest.raises(InputError, match="block_flops"):
        redecide(np.zeros((1, 8)), BudgetSchedule.constant(4), timesteps=[1.0], block_flops=[1.0])


@settings(max_examples=50, deadline=None)
@given(decisions())
def test_the_gate_is_the_hard_mask_exactly(case):
    scores, counts = case
    logits = torch.from_numpy(scores).float().requires_grad_()
    mask = hard_top_k(logits, counts)
    # float32 may make ties where float64 had none, so the mask is that of the float32 scores.
    assert (mask.numpy() == choose_blocks(logits.detach().numpy(), counts)).all()
    assert torch.equal(straight_through(logits, mask), mask.float())
    assert torch.equal(straight_through(relative_scores(logits), mask), mask.float())


def test_the_gradient_of_the_gate():
    torch.manual_seed(0)
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    x, block = torch.randn(2, 3, 4, 6, dtype=torch.float64)
    gradient = torch.randn(3, 4, 6, dtype=torch.float64)
    mask = hard_top_k(logits, np.array([3, 4, 5]))
    gates = straight_through(logits, mask)
    result = [gated_residual(x, block * (index + 1), gates[:, index]) for index in range(5)]
    sum((each * gradient).sum() for each in result).backward()
    soft = torch.sigmoid(logits.detach())
    for index in range(5):
        # ∂/∂r_i = sigmoid'(r_i)·⟨g, B(x) − x⟩, also where the block is off.
        inner = (gradient * (block * (index + 1) - x)).sum(dim=(1, 2))
        torch.testing.assert_close(logits.grad[:, index], soft[:, index] * (1 - soft[:, index]) * inner)
        expected = torch.where(mask[:, index, None, None], block * (index + 1), x)
        assert torch.equal(result[index], expected)


def test_the_relative_gradient_is_that_of_scores_over_their_mean_and_never_moves_all_of_them():
    torch.manual_seed(1)
    logits = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    mask = hard_top_k(logits, np.array([3, 4, 5, 6]))
    # Opening every gate helps, as it does in training.
    wanted = -torch.rand(4, 6, dtype=torch.float64)
    (straight_through(relative_scores(logits), mask) * wanted).sum().backward()
    for sample in range(4):
        free = logits.detach()[sample, 1:5].numpy()
        soft = 1 / (1 + np.exp(-(free - free.mean())))
        pull = soft * (1 - soft) * wanted[sample, 1:5].numpy()
        np.testing.assert_allclose(logits.grad[sample, 1:5], pull - pull.mean(), rtol=1e-12, atol=1e-15)
    assert (logits.grad[:, [0, 5]] == 0).all()
    assert logits.grad.sum(dim=1).abs().max() < 1e-15
    absolute = torch.autograd.grad((straight_through(logits, mask) * wanted).sum(), logits)[0]
    assert (absolute < 0).all(), "as written all scores rise"
