"""Intervals over prompts and training seeds: against a bootstrap written out, and on cases whose answer is known."""

import doctest

import numpy as np
import pytest

import analysis.paired_seeds
from analysis.paired import paired_difference
from analysis.paired_seeds import difference_over_seeds, mean_over_seeds
from pare.errors import InputError


def test_examples():
    assert doctest.testmod(analysis.paired_seeds).failed == 0


def written_out(values, seed=0, draws=4000):
    """The bootstrap over prompts and seeds, a draw at a time, in float64."""
    rng = np.random.default_rng(seed + 100)
    seeds, prompts = values.shape
    means = []
    for _ in range(draws):
        rows, columns = rng.integers(seeds, size=seeds), rng.integers(prompts, size=prompts)
        cells = [values[row, column] for row in rows for column in columns if not np.isnan(values[row, column])]
        means.append(sum(cells) / len(cells))
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_is_that_of_a_bootstrap_written_out():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 12)) + rng.normal(scale=0.5, size=(3, 1))
    values[0, 3] = values[2, 5] = np.nan
    found = mean_over_seeds(values)
    assert (found.n, found.prompts, found.mean) == (34, 12, pytest.approx(np.nanmean(values)))
    assert [found.low, found.high] == pytest.approx(written_out(values), abs=0.05)


def test_trainings_that_differ_widen_the_interval():
    rng = np.random.default_rng(2)
    prompts = rng.normal(size=200) * 0.1
    alike = np.tile(prompts, (3, 1))
    apart = alike + np.array([[-1.0], [0.0], [1.0]])
    narrow, wide = mean_over_seeds(alike), mean_over_seeds(apart)
    assert narrow.mean == pytest.approx(wide.mean) and wide.high - wide.low > 10 * (narrow.high - narrow.low)


def test_one_training_is_the_paired_difference_over_prompts():
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(1, 40)), rng.normal(loc=0.4, size=(1, 40))
    b[0, 7] = np.nan
    found, known = difference_over_seeds(a, b), paired_difference(a[0], b[0])
    assert (found.n, found.mean_a, found.mean_b) == pytest.approx((known.n, known.mean_a, known.mean_b))
    assert (found.difference, found.low, found.high) == pytest.approx(
        (known.difference, known.low, known.high), abs=0.03
    )


def test_a_teacher_stands_for_every_training():
    a, b = np.array([[1.0, 2.0, 3.0]]), np.array([[2.0, 3.0, np.nan], [3.0, 4.0, 5.0]])
    found = difference_over_seeds(a, b)
    assert found.n == 5 and found.difference == pytest.approx((1 + 1 + 2 + 2 + 2) / 5)
    assert found.mean_a == pytest.approx((1 + 2 + 1 + 2 + 3) / 5)


def test_nothing_measured_and_other_shapes():
    empty = mean_over_seeds(np.full((2, 3), np.nan))
    assert empty.n == 0 and np.isnan(empty.mean)
    alone = mean_over_seeds(np.array([[2.0]]))
    assert alone.mean == 2.0 and np.isnan(alone.low)
    with pytest.raises(InputError, match="seeds, prompts"):
        mean_over_seeds(np.zeros(3))
    with pytest.raises(InputError, match="same prompts"):
        difference_over_seeds(np.zeros((2, 3)), np.zeros((3, 3)))
