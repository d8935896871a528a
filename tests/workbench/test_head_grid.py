"""The head grid's Python side: what it accepts, what it sends, what it believes of what comes back."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from pare.errors import InputError
from workbench.components.head_grid.cells import dense_cells, grid_shape
from workbench.components.head_grid.value import MIN_GAP, HeadGridValue, parse_value, whole_message

FALLBACK = HeadGridValue(0.7, 0.3, 1, 2)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({"thresholds": [0.6, 0.2]}, HeadGridValue(0.6, 0.2, 1, 2)),
        ({"thresholds": [0.31, 0.3]}, HeadGridValue(0.31, 0.3, 1, 2)),
        ({"thresholds": [1, 0], "cell": [7.0, 9]}, HeadGridValue(1.0, 0.0, 7, 9)),
        ({"cell": [0, 0]}, HeadGridValue(0.7, 0.3, 0, 0)),
        ({"thresholds": None, "cell": None}, FALLBACK),
    ],
)
def test_good_messages_are_taken(raw, expected):
    assert parse_value(raw, 8, 10, FALLBACK) == expected


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "[0.6, 0.2]",
        {"thresholds": [0.2, 0.6]},
        {"thresholds": [0.305, 0.3]},
        {"thresholds": [0.6]},
        {"thresholds": [1.2, 0.2]},
        {"thresholds": [0.6, -0.1]},
        {"thresholds": [float("nan"), 0.2]},
        {"thresholds": ["0.6", "0.2"]},
        {"thresholds": [True, False]},
        {"thresholds": {"0": 0.6, "1": 0.2}},
        {"cell": [8, 0]},
        {"cell": [0, 10]},
        {"cell": [-1, 0]},
        {"cell": [1.5, 0]},
        {"cell": [10**400, 0]},
        {"cell": [0, 0, 0]},
    ],
)
def test_bad_messages_change_nothing(raw):
    assert parse_value(raw, 8, 10, FALLBACK) == FALLBACK


numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3)
anything = st.recursive(
    numbers, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=2)
)


@given(st.one_of(anything, st.fixed_dictionaries({"thresholds": anything, "cell": anything})))
def test_no_message_breaks_the_rules(raw):
    value = parse_value(raw, 8, 10, FALLBACK)
    assert 0 <= value.tau_t < value.tau_s <= 1 and value.tau_s - value.tau_t >= MIN_GAP - 1e-9
    assert value.block in range(8) and value.head in range(10)


def test_heads_land_in_their_cells_whatever_the_order_of_rows():
    frame = pd.DataFrame({"block": [1, 0, 1], "head": [2, 1, 0], "ratio": np.float32([0.9, 0.5, 0.1])})
    cells = dense_cells(frame.assign(removed=[True, False, False], flags=[0, 2, 1]), *grid_shape(frame))
    np.testing.assert_array_equal(cells["ratio"], np.float32([np.nan, 0.5, np.nan, 0.1, np.nan, 0.9]))
    assert cells["removed"].tolist() == [0, 0, 0, 0, 0, 1]
    assert cells["flags"].tolist() == [0, 2, 0, 1, 0, 0]
    assert [str(column.dtype) for column in cells.values()] == ["float32", "int8", "int8"]


@pytest.mark.parametrize(
    ("rows", "shape", "message"),
    [
        ([(0, 0, 0.5), (0, 0, 0.6)], (1, 1), "one row per head"),
        ([(0, 3, 0.5)], (1, 2), "head 0 to 1"),
        ([(-1, 0, 0.5)], (1, 1), "block 0 to 0"),
        ([(0, 0, 1.5)], (1, 1), "ratios in 0..1"),
        ([(0, 0, np.inf)], (1, 1), "ratios in 0..1"),
    ],
)
def test_impossible_heads_are_refused(rows, shape, message):
    with pytest.raises(InputError, match=message):
        dense_cells(pd.DataFrame(rows, columns=["block", "head", "ratio"]), *shape)


def test_a_frame_without_heads_or_ratios_is_refused():
    with pytest.raises(InputError, match="columns block, head and ratio"):
        grid_shape(pd.DataFrame({"block": [0], "head": [0]}))
    with pytest.raises(InputError, match="at least one block"):
        grid_shape(pd.DataFrame({"block": [], "head": [], "ratio": []}))


def page() -> None:
    import pandas as pd
    import streamlit as st

    from workbench.components.head_grid.component import head_grid

    frame = pd.DataFrame({"block": [0, 1], "head": [0, 1], "ratio": [0.1, 0.9]})
    value = head_grid(frame, tau_s=0.7, tau_t=0.3, num_frames=9, pinned=(1, 0), key="grid")
    st.text(f"{value.tau_s} {value.tau_t} {value.block} {value.head}")


def test_the_component_mounts_and_returns_the_selection_it_was_given():
    app = AppTest.from_function(page).run()
    assert not app.exception
    assert app.text[0].value == "0.7 0.3 1 0"
    # A second app in the same process is a new runtime of Streamlit.
    assert AppTest.from_function(page).run().text[0].value == "0.7 0.3 1 0"


def test_what_the_browser_sent_is_returned_once_checked():
    app = AppTest.from_function(page)
    app.session_state["grid"] = {"thresholds": {"thresholds": [0.9, 0.1], "cell": [5, 5]}}
    app.run()
    assert app.text[0].value == "0.9 0.1 1 0"


def test_a_message_that_overtakes_another_loses_nothing():
    first = {"thresholds": {"thresholds": [0.65, 0.3], "cell": None}}
    second = {"cell": {"thresholds": [0.65, 0.3], "cell": [5, 1]}}
    # Python never ran between the two, so it still falls back on what was before both.
    assert parse_value(whole_message(second), 8, 10, HeadGridValue(0.7, 0.3)) == HeadGridValue(0.65, 0.3, 5, 1)
    assert parse_value(whole_message(first | second), 8, 10, HeadGridValue(0.7, 0.3)) == HeadGridValue(0.65, 0.3, 5, 1)
    older = {"thresholds": {"thresholds": [0.6, 0.3], "cell": [1, 1]}}
    newer = {"cell": {"thresholds": [0.7, 0.3], "cell": [5, 1]}}
    assert parse_value(whole_message(older | newer), 8, 10, HeadGridValue(0.7, 0.3)) == HeadGridValue(0.6, 0.3, 5, 1)
