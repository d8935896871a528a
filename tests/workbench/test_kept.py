"""What is kept is told apart by every argument that counts, and by nothing else."""

import numpy as np
import pandas as pd
import pytest
import streamlit as st

from workbench.pages.kept import kept
from workbench.places import Places


@pytest.fixture(autouse=True)
def nothing_kept():
    yield
    st.cache_data.clear()
    st.cache_resource.clear()


def test_every_argument_counts_but_those_that_begin_with_an_underscore(tmp_path):
    asked = []

    @kept(st.cache_resource, max_entries=20)
    def found(place: object, name: str | None, steps: list[int] | None, _run: object) -> list[object]:
        asked.append((place, name, steps))
        return [place, name, steps]

    places = Places(tmp_path, (tmp_path,)), Places(tmp_path, ())
    given = [(place, name, steps) for place in places for name in ("a", "1", None) for steps in ([1], [1, 2], None)]
    for one in given:
        assert found(*one, np.zeros(2)) == list(one)
    assert asked == given
    for one in given:
        assert found(*one, pd.DataFrame()) == list(one)
    assert asked == given
    assert found("1", None, None, None) != found(1, None, None, None), "a text is no number"


def test_functions_of_one_name_do_not_share_what_they_keep():
    def made(factor: int):
        if factor == 2:

            @kept(st.cache_data)
            def times(number: int) -> int:
                return 2 * number

        else:

            @kept(st.cache_data)
            def times(number: int) -> int:
                return number + number + number

        return times

    assert (made(2)(5), made(3)(5)) == (10, 15)


def test_data_are_copied_and_resources_shared_as_streamlit_does_it():
    def make(size: int) -> list[int]:
        return [0] * size

    copied, shared = kept(st.cache_data)(make), kept(st.cache_resource)(make)
    assert copied(3) == copied(3) and copied(3) is not copied(3)
    assert shared(3) is shared(3)


def test_clear_forgets():
    asked = []

    @kept(st.cache_data)
    def found(name: str) -> str:
        asked.append(name)
        return name

    found("a")
    found.clear()
    found("a")
    assert asked == ["a", "a"]


@pytest.mark.parametrize("value", [np.zeros(3), pd.DataFrame({"a": [1]}), object()])
def test_what_does_not_read_as_what_it_is_is_refused(value):
    found = kept(st.cache_data)(lambda values: None)
    with pytest.raises(TypeError, match=type(value).__name__):
        found(value)
