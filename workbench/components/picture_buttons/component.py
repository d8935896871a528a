"""The picture buttons on a Streamlit page: they work in the browser alone and send nothing back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from workbench.components.source import source

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from streamlit.components.v2.types import ComponentRenderer

WIDTH, HEIGHT = 900, 400
"""Pixels of a saved picture, higher where the figure is; a PNG has twice as many each way."""


def picture_buttons(figure: go.Figure, *, name: str, title: str, script: str, key: str) -> None:
    """Show buttons that save `figure` as `name`.png and `name`.svg, drawn by the plotly.js at the address `script`.

    `title` says in words what the picture shows; an SVG carries it.
    """
    _renderer()(
        key=key,
        width="content",
        data={
            "figure": paper(figure).to_json(),
            "width": WIDTH,
            "height": max(HEIGHT, round(figure.layout.height or 0)),
            "name": name,
            "title": title,
            "script": script,
        },
    )


def paper(figure: go.Figure) -> go.Figure:
    """The figure as it leaves the page: on white, so that it reads wherever it is put.

    >>> import plotly.graph_objects as go
    >>> paper(go.Figure(layout={"paper_bgcolor": "rgba(0,0,0,0)"})).layout.paper_bgcolor
    'white'
    """
    import plotly.graph_objects as go

    return go.Figure(figure).update_layout(paper_bgcolor="white", plot_bgcolor="white")


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    html, css, js = (source(f"picture_buttons/picture_buttons.{end}") for end in ("html", "css", "js"))
    return st.components.v2.component("pare-workbench.picture_buttons", html=html, css=css, js=js)
