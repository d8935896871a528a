"""How many heads stay and which."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pare.errors import InputError
from pare.width.heads import allocate, kept_count, normalised, select_global, select_heads


@pytest.mark.parametrize(
    "heads, ratio, min_heads, count",
    [
        (40, 0.3, None, 28),
        (12, 0.3, None, 9),
        (10, 0.3, None, 7),
        (40, 0.9, None, 8),
        (10, 0.7, None, 3),
        (10, 0.9, 4, 4),
    ],
)
def test_kept_count(heads, ratio, min_heads, count):
    assert kept_count(heads, ratio, min_heads) == count


@pytest.mark.parametrize("ratio", [1.0, -0.1, 1.5, float("nan")])
def test_a_ratio_outside_is_refused(ratio):
    with pytest.raises(InputError, match="ratio"):
        kept_count(40, ratio)


@pytest.mark.parametrize("min_heads", [0, 41])
def test_a_floor_outside_is_refused(min_heads):
    with pytest.raises(InputError, match="min-heads"):
        kept_count(40, 0.3, min_heads)


@given(st.integers(1, 60), st.integers(1, 99))
def test_count_is_the_smallest_that_removes_no_more_than_asked(heads, percent):
    count = kept_count(heads, percent / 100, min_heads=1)
    assert 1 <= count <= heads
    assert count * 100 >= heads * (100 - percent) > (count - 1) * 100


@given(st.integers(0, 1000), st.integers(1, 10))
def test_the_highest_stay_in_every_block(seed, count):
    scores = np.random.default_rng(seed).integers(0, 5, (4, 10)).astype(float)
    keep = select_heads(scores, count)
    assert (keep.sum(axis=1) == count).all()
    for row, kept in zip(scores, keep, strict=True):
        expected = sorted(range(10), key=lambda head: (-row[head], head))[:count]
        assert sorted(np.flatnonzero(kept)) == sorted(expected)


def test_missing_scores_are_refused():
    with pytest.raises(InputError, match="block 0 head 1"):
        select_heads(np.array([[1.0, np.nan]]), 1)


def test_all_stay_at_ratio_zero():
    assert kept_count(40, 0.0) == 40 and kept_count(10, 0.0, min_heads=3) == 10


@given(st.integers(0, 1000), st.integers(1, 3), st.integers(0, 12))
@settings(max_examples=50, deadline=None)
def test_global_keeps_the_floor_of_each_block_and_then_the_highest(seed, floor, extra):
    scores = np.random.default_rng(seed).integers(0, 6, (4, 6)).astype(float)
    total = 4 * floor + extra
    keep = select_global(scores, total, floor)
    cells = sorted(np.ndindex(4, 6), key=lambda cell: (-scores[cell], cell))
    expected = {cell for block in range(4) for cell in [each for each in cells if each[0] == block][:floor]}
    expected |= set([cell for cell in cells if cell not in expected][: total - len(expected)])
    assert {tuple(cell) for cell in np.argwhere(keep).tolist()} == expected and keep.sum() == total


def test_global_refuses_what_the_floors_do_not_leave():
    with pytest.raises(InputError, match="heads to keep"):
        select_global(np.ones((2, 4)), 3, 2)
    with pytest.raises(InputError, match="heads to keep"):
        select_global(np.ones((2, 4)), 9, 2)


@given(st.integers(0, 1000), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_normalised_scores_do_not_depend_on_the_scale_of_a_block(seed, factor):
    scores = np.random.default_rng(seed).random((3, 5))
    scaled = scores * np.array([[1.0], [factor], [1.0]])
    np.testing.assert_allclose(normalised(scores), normalised(scaled), rtol=1e-12)
    np.testing.assert_allclose(np.square(normalised(scores)).sum(axis=1), 1, rtol=1e-12)
    assert (allocate(scores, 2) == allocate(scaled, 2)).all()


def test_an_unknown_allocation_is_refused():
    with pytest.raises(InputError, match=r"--allocation.*fair"):
        allocate(np.ones((2, 4)), 2, "fair")
