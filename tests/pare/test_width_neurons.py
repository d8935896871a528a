"""Neurons that stay: the blocked choice is the one-by-one choice, whatever the weights."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pare.errors import InputError
from pare.width.neurons import activation_importance, diverse, highest, neuron_importance


def one_by_one(up: np.ndarray, down: np.ndarray, count: int, tau: float = 0.90) -> tuple[list[bool], list]:
    """Eq. 6 and 7 as they are written, in float64, one neuron after the other."""
    neurons = range(len(up))
    score = [math.sqrt(sum(up[k] ** 2)) * math.sqrt(sum(down[:, k] ** 2)) for k in neurons]
    signature = [np.concatenate([up[k], down[:, k]]) for k in neurons]
    length = [math.sqrt(sum(each**2)) for each in signature]

    def cosine(k: int, j: int) -> float:
        size = length[k] * length[j]
        return float(signature[k] @ signature[j]) / size if size else 0.0

    queue, kept, passes = sorted(neurons, key=lambda k: (-score[k], k)), [], []
    while len(kept) < count:
        skipped = []
        for k in queue:
            if len(kept) == count:
                break
            if tau < 1 and any(cosine(k, j) > tau for j in kept):
                skipped.append(k)
            else:
                kept.append(k)
        passes.append((tau, len(skipped)))
        queue, tau = skipped, min(round(tau + 0.02, 10), 1.0)
    return [k in kept for k in neurons], passes


def check(up: np.ndarray, down: np.ndarray, count: int, block: int, tau: float = 0.90) -> None:
    found = diverse(torch.from_numpy(up), torch.from_numpy(down), count, tau=tau, block=block)
    keep, passes = one_by_one(up, down, count, tau)
    assert found.keep.tolist() == keep
    assert [tuple(each) for each in found.passes] == passes
    assert found.keep.sum() == count


@given(st.integers(0, 10**6), st.integers(2, 40), st.floats(0.1, 1), st.integers(1, 17), st.sampled_from([0.5, 0.9]))
@example(814117, 16, 0.6774, 11, 0.5)  # kept neurons out of order after relaxation
@settings(max_examples=30, deadline=None)
def test_the_choice_is_that_of_one_by_one(seed, ffn, share, block, tau):
    generator = np.random.default_rng(seed)
    # Few directions, repeated with a little noise, so that many pairs lie on both sides of every threshold.
    directions = generator.normal(size=(max(2, ffn // 4), 6))
    rows = directions[generator.integers(0, len(directions), ffn)] + generator.normal(size=(ffn, 6)) * 0.3
    rows *= generator.lognormal(size=(ffn, 1))
    check(rows[:, :3].copy(), rows[:, 3:].T.copy(), max(1, int(ffn * share)), block, tau)


@given(st.integers(0, 10**6), st.integers(2, 30), st.integers(1, 9))
@settings(max_examples=25, deadline=None)
def test_ties_duplicates_and_empty_neurons(seed, ffn, block):
    """Small whole numbers: equal scores, equal signatures, exact thresholds and zeros abound."""
    rows = np.random.default_rng(seed).integers(-1, 2, (ffn, 4)).astype(float)
    check(rows[:, :2].copy(), rows[:, 2:].T.copy(), max(1, ffn * 2 // 3), block)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_wide_layer_in_its_own_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    up = torch.randn(300, 48, generator=generator)
    down = torch.randn(48, 300, generator=generator)
    for neuron in range(0, 300, 3):  # near copies, their cosine between 0.85 and 1
        other = (neuron + 7) % 300
        noise = 0.55 * torch.rand(1, generator=generator)
        up[other] = up[neuron] + noise * torch.randn(48, generator=generator)
        down[:, other] = down[:, neuron] + noise * torch.randn(48, generator=generator)
    up, down = up.to(dtype), down.to(dtype)
    found = diverse(up, down, 280, block=64)
    keep, passes = one_by_one(up.double().numpy(), down.double().numpy(), 280)
    assert found.keep.tolist() == keep and [tuple(each) for each in found.passes] == passes
    assert len(passes) > 1 and passes[0][1] > 20


@pytest.mark.parametrize("shift, survivors", [(1e-9, [True, False, True]), (-1e-9, [True, True, False])])
def test_pairs_at_the_threshold_are_told_apart_beyond_float32(shift, survivors):
    cosine = 0.9 + shift
    up = np.array([[3.0, 0.0], [2 * cosine, 2 * math.sqrt(1 - cosine**2)], [0.0, 0.0]])
    down = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    check(up, down, 2, block=2)
    assert diverse(torch.from_numpy(up), torch.from_numpy(down), 2).keep.tolist() == survivors


def test_a_duplicated_pair_keeps_one_until_relaxation_ends():
    up = torch.eye(6)
    up[5] = up[0]
    found = diverse(up, up.T.contiguous(), 5)
    assert found.keep.tolist() == [True] * 5 + [False] and [each.skipped for each in found.passes] == [0]
    found = diverse(up, up.T.contiguous(), 6)
    assert found.keep.all()
    assert [each.tau for each in found.passes] == [0.90, 0.92, 0.94, 0.96, 0.98, 1.0]
    assert [each.skipped for each in found.passes] == [1, 1, 1, 1, 1, 0]


def test_all_alike_still_meets_the_budget():
    up = torch.ones(10, 3)
    found = diverse(up, torch.ones(3, 10), 7, block=4)
    assert found.keep.tolist() == [True] * 7 + [False] * 3


def test_importance_is_the_product_of_norms():
    up, down = torch.randn(5, 3).bfloat16(), torch.randn(3, 5).bfloat16()
    expected = np.linalg.norm(up.double(), axis=1) * np.linalg.norm(down.double(), axis=0)
    np.testing.assert_allclose(neuron_importance(up, down), expected, rtol=1e-14)
    mean_square = np.array([0.0, 1.0, 4.0, 9.0, 16.0])
    expected = np.arange(5) * np.linalg.norm(down.double(), axis=0)
    np.testing.assert_allclose(activation_importance(mean_square, down), expected, rtol=1e-14)


def test_highest_breaks_ties_by_index():
    assert highest(torch.tensor([2.0, 1.0, 2.0, 2.0]), 2).keep.tolist() == [True, False, True, False]


def test_what_makes_no_choice_is_refused():
    up, down = torch.ones(4, 2), torch.ones(2, 4)
    with pytest.raises(InputError, match="neurons to keep"):
        diverse(up, down, 5)
    with pytest.raises(InputError, match="tau-ffn"):
        diverse(up, down, 2, tau=0.0)
    with pytest.raises(InputError, match="neuron 2"):
        diverse(up.index_fill(0, torch.tensor(2), math.nan), down, 2)
    with pytest.raises(InputError, match="never ran"):
        activation_importance(np.array([1.0, math.nan, 1.0, 1.0]), down)
