"""Suggested thresholds lie in gaps that are there, and none is suggested where chance explains the histogram."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.roles import check_thresholds
from analysis.thresholds import WINDOW, suggest_thresholds


def mixture(seed: int, *centres: float, heads: int = 40, spread: float = 0.03) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.clip(np.concatenate([random.normal(centre, spread, heads) for centre in centres]), 0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_three_groups_of_heads_are_parted_where_no_head_lies(seed):
    ratio = mixture(seed, 0.12, 0.5, 0.88)
    tau_s, tau_t = suggest_thresholds(ratio)
    assert tau_t is not None and tau_s is not None
    for threshold in (tau_s, tau_t):
        assert not (np.abs(ratio - threshold) < WINDOW / 2 - 1e-6).any()
    assert [(ratio > tau_s).sum(), (ratio < tau_t).sum()] == [40, 40]


@pytest.mark.parametrize(
    ("centres", "has_s", "has_t"), [((0.1, 0.4), False, True), ((0.6, 0.9), True, False), ((0.5,), False, False)]
)
def test_a_side_without_a_gap_has_no_threshold(centres, has_s, has_t):
    tau_s, tau_t = suggest_thresholds(mixture(0, *centres))
    assert (tau_s is not None, tau_t is not None) == (has_s, has_t)


def test_one_smooth_histogram_has_no_gap():
    random = np.random.default_rng(0)
    draws = [random.random, lambda n: random.beta(1, 4, n), lambda n: random.beta(2, 2, n)]
    found = [suggest_thresholds(draw(heads)) for draw in draws for heads in (80, 1600) for _ in range(50)]
    assert sum(pair != (None, None) for pair in found) <= 0.03 * len(found)


def test_few_heads_and_none_have_no_gap():
    assert suggest_thresholds(np.array([0.1, 0.1, 0.9, 0.9])) == (None, None)
    assert suggest_thresholds(np.array([])) == suggest_thresholds(np.full((2, 2), np.nan)) == (None, None)


@given(arrays(float, st.integers(0, 200), elements=st.floats(0, 1) | st.just(np.nan)), st.randoms())
def test_any_heads_give_valid_thresholds_in_any_order(ratio, random):
    tau_s, tau_t = suggest_thresholds(ratio)
    check_thresholds(0.7 if tau_s is None else tau_s, 0.3 if tau_t is None else tau_t)
    order = list(range(len(ratio)))
    random.shuffle(order)
    assert suggest_thresholds(ratio[order]) == (tau_s, tau_t)
