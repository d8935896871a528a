"""Figures that a page shows, made once from the same data: a change on a page leaves most of its charts as they are."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
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


def content(values: np.ndarray | pd.DataFrame) -> bytes:
    """Everything that tells these values from others: Streamlit's own key is slow for frames and samples large arrays.

    >>> content(np.zeros(2)) == content(np.zeros((1, 2))), content(np.zeros(2)) == content(np.zeros(2))
    (False, True)
    """
    if isinstance(values, pd.DataFrame):
        return b"\0".join(repr(name).encode() + content(values[name].to_numpy()) for name in values.columns)
    shape = f"{values.dtype.str}{values.shape}".encode()
    return shape + (repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes())


# Building and checking a figure takes plotly ten times as long as telling that its data are the same.
@st.cache_resource(max_entries=128, show_spinner=False, hash_funcs={np.ndarray: content, pd.DataFrame: content})
def _drawn(name: str, given: tuple[Any, ...], named: dict[str, Any], _make: Callable[..., go.Figure]) -> go.Figure:
    return _make(*given, **named)
