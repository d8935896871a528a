"""The config of a student: widths and indices, readable without torch."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pare import student
from pare.errors import InputError

BASE = {"num_layers": 2, "num_attention_heads": 4, "ffn_dim": 10}
KEEP = {
    "self_heads": np.array([[1, 0, 1, 1], [0, 0, 0, 1]], bool),
    "cross_heads": np.ones((2, 4), bool),
    "neurons": np.array([[1, 0] * 5, [1] * 10], bool),
}


def test_examples():
    assert doctest.testmod(student).failed == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=70))
def test_a_bitmap_is_read_back(row):
    row = np.array(row)
    assert (student.unpack(student.pack(row), len(row)) == row).all()


def test_what_is_described_is_what_is_kept():
    config = BASE | student.describe(KEEP)
    assert "cross_heads" not in config
    for part, rows in student.kept(config).items():
        assert (rows == KEEP[part]).all()
    assert student.counts(config) == {"self_heads": [3, 1], "neurons": [5, 10]}
    assert student.is_pruned(config) and not student.is_pruned(BASE)
    assert student.widths(BASE) == (student.BlockWidth(4, 4, 10),) * 2


def test_a_14b_config_stays_small():
    draw = np.random.default_rng(0)
    keep = {"neurons": draw.random((40, 13824)) < 0.7}
    assert len(str(student.describe(keep))) < 150_000


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"self_heads": [3]}, "self_heads"),
        ({"self_heads": [3, 0]}, "self_heads"),
        ({"neurons": [11, 10]}, "neurons"),
        ({"kept_self_heads": None}, "kept_self_heads"),
        ({"kept_self_heads": [[0, 2], [3]]}, "kept_self_heads"),
        ({"kept_self_heads": [[2, 0, 3], [3]]}, "kept heads"),
        ({"kept_self_heads": [[0, 2, 4], [3]]}, "kept heads"),
        ({"kept_neurons": ["xyz", "ffc"]}, "kept_neurons"),
        ({"kept_neurons": ["aa", "ffc"]}, "kept_neurons"),
        ({"kept_neurons": ["aab", "ffc"]}, "kept_neurons"),
    ],
)
def test_contradictions_are_refused(change, name):
    with pytest.raises(InputError, match=name):
        student.kept(BASE | student.describe(KEEP) | change)
