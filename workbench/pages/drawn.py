"""Figures that a page shows, made once from the same data: a change on a page leaves most of its charts as they are."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go
import streamlit as st


def drawn(make: Callable[..., go.Figure], *given: Any, **named: Any) -> go.Figure:
    """`make(*given, **named)`, a pure function of what it is given; the figure is shared, so nobody changes it.

    >>> from analysis.figures.style import make_figure
    >>> axis = {"name": "x"}
    >>> drawn(make_figure, [], x=axis, y=axis, height=20) is drawn(make_figure, [], x=axis, y=axis, height=20)
    True
    """
    return _drawn(f"{make.__module__}.{make.__qualname__}", given, named, make)


# Building and checking a figure takes plotly ten times as long as telling that its data are the same.
@st.cache_resource(max_entries=128, show_spinner=False)
def _drawn(name: str, given: tuple[Any, ...], named: dict[str, Any], _make: Callable[..., go.Figure]) -> go.Figure:
    return _make(*given, **named)
