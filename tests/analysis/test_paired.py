"""Paired differences: against a bootstrap written out, and on cases whose answer is known."""

import doctest

import numpy as np
import pytest

import analysis.paired
from analysis.paired import mean_over_prompts, paired_difference
from pare.errors import InputError


def test_examples():
    assert doctest.testmod(analysis.paired).failed == 0


def test_pairing_removes_what_a_prompt_adds_to_both_sides():
    rng = np.random.default_rng(0)
    prompt = rng.normal(scale=10, size=40)
    a, b = prompt + rng.normal(scale=0.1, size=40), prompt + 0.5 + rng.normal(scale=0.1, size=40)
    found = paired_difference(a, b)
    assert found.clear and 0.4 < found.low < found.difference < found.high < 0.6
    # Unpaired, each mean alone is uncertain by more than the difference.
    alone = mean_over_prompts(a)
    assert alone.high - alone.low > 2
    other_way = paired_difference(b, a)
    assert (other_way.difference, other_way.mean_a) == pytest.approx((-found.difference, found.mean_b))


def test_the_interval_is_that_of_a_bootstrap_written_out():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=12), rng.normal(loc=0.3, size=12)
    found = paired_difference(a, b)
    draws = [np.mean((b - a)[rng.integers(12, size=12)]) for _ in range(10_000)]
    assert [found.low, found.high] == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)
    assert found == paired_difference(a, b)
    assert found.low != paired_difference(a, b, seed=1).low


def test_videos_of_one_prompt_are_not_independent():
    # Two prompts with many seeds each: the interval spans the prompts, not the videos.
    a, b = np.zeros(40), np.repeat([1.0, 3.0], 20)
    found = paired_difference(a, b, ["one"] * 20 + ["other"] * 20)
    assert (found.n, found.prompts, found.difference, found.low, found.high) == (40, 2, 2.0, 1.0, 3.0)
    assert paired_difference(a, b).low > 1.5
    # A prompt with more seeds does not count for more.
    assert paired_difference([0.0, 0.0, 0.0], [1.0, 1.0, 4.0], ["x", "x", "y"]).difference == 2.5


def test_a_missing_value_leaves_its_whole_pair_out():
    found = paired_difference([1.0, np.nan, 3.0, 4.0], [2.0, 100.0, 4.0, np.nan])
    assert (found.n, found.mean_a, found.mean_b, found.difference) == (2, 2.0, 3.0, 1.0)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [2.0]), ([np.nan], [1.0])])
def test_fewer_than_two_prompts_have_no_interval(a, b):
    found = paired_difference(a, b)
    assert np.isnan(found.low) and np.isnan(found.high) and not found.clear
    assert found.n == sum(not np.isnan(x + y) for x, y in zip(a, b, strict=True))


def test_what_is_not_paired_is_refused():
    with pytest.raises(InputError, match="pairs"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="prompts"):
        mean_over_prompts([1.0], ["a", "b"])
