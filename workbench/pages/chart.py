"""A chart on a page, and the way out of the page for it: PNG, SVG, CSV, and the Python and the command that make it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from workbench.components.copy_button.component import copy_button
from workbench.components.picture_buttons.component import picture_buttons
from workbench.pages.shell import guard
from workbench.report.part import Part
from workbench.server import plotly_address

PLOT = {"displaylogo": False, "modeBarButtonsToRemove": ["lasso2d", "select2d", "autoScale2d"], "displayModeBar": False}
Table: TypeAlias = pd.DataFrame | Callable[[], pd.DataFrame]
Figure: TypeAlias = go.Figure | Callable[[], go.Figure]


@dataclass(frozen=True, eq=False)
class Chart:
    """What leaves a page with a chart; figure and table are there, or made when they are asked for."""

    figure: Figure
    key: str
    alt: str
    table: Table | None
    python: str
    command: str | None
    name: str


def show_chart(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    table: Table | None,
    python: str,
    command: str | None,
    name: str,
    height: int | None = None,
    on_select: Callable[[], None] | None = None,
    config: dict[str, Any] | None = None,
) -> Any:
    """Draw a plotly figure with its "Take out" in the corner; returns what was selected in it where `on_select` is given.

    `table` is the frame behind it (or what makes it, called at the click), `python` the lines that make it from a run,
    `command` the command line that does, where there is one, `name` the stem of the files it is saved as.
    """
    with st.container(key=f"chart_{key}", gap=None):
        drawn = st.plotly_chart(
            figure,
            key=key,
            alt=alt,
            height="content" if height is None else height,
            on_select="ignore" if on_select is None else on_select,
            config={**PLOT, **(config or {})},
        )
        take_out(figure, key=key, alt=alt, table=table, python=python, command=command, name=name)
    return drawn


def show_part(part: Part, *, key: str, name: str) -> None:
    """Draw the figure of a part of a report, with its "Take out"; `key` and `name` as in `show_chart`."""
    if part.figure is None:
        raise ValueError("this part has no figure")
    show_chart(
        part.figure,
        key=key,
        alt=part.alt,
        table=part.table,
        python=part.python or "",
        command=part.command,
        name=name,
    )


def take_out(
    figure: Figure,
    *,
    key: str,
    alt: str,
    table: Table | None,
    python: str,
    command: str | None,
    name: str,
) -> None:
    """The "Take out" of a chart, alone: what a map drawn by a component of ours shows beside it (see `show_chart`)."""
    take_out_each({"Take out": Chart(figure, key, alt, table, python, command, name)})


def take_out_each(charts: Mapping[str, Chart]) -> None:
    """The "Take out" of charts that stand together, by their labels.

    Nothing is made before one is opened; opening it reruns nothing else of the page.
    """

    def show() -> None:
        first = next(iter(charts.values()))
        with st.container(key=f"corner_{first.key}", horizontal=True, horizontal_alignment="right"):
            opened = [
                (chart, st.popover(label, type="tertiary", key=f"take_out_{chart.key}", on_change="rerun"))
                for label, chart in charts.items()
            ]
        for chart, popover in opened:
            if popover.open:
                with popover, guard("take out"):
                    show_ways(chart)

    st.fragment(show)()


def show_ways(chart: Chart) -> None:
    """Draw what "Take out" offers: pictures and the table to save, Python and the command to copy."""
    script, texts = plotly_address(), (("Python", chart.python, "python"), ("command line", chart.command, "bash"))
    with st.container(horizontal=True, gap="small"):
        if script is not None:
            drawn = chart.figure() if callable(chart.figure) else chart.figure
            picture_buttons(drawn, name=chart.name, title=chart.alt, script=script, key=f"pictures_{chart.key}")
        table = chart.table
        if table is not None:
            csv_button(table, name=chart.name, key=chart.key)
        for label, text, language in texts:
            if text is not None:
                copy_button(f"Copy {label}", text, key=f"copy_{language}_{chart.key}")
    if script is None:
        st.caption("PNG and SVG: start the app with `pare app` or `make app`, which serve what draws them.")
    for _, text, language in texts:
        if text is not None:
            st.code(text, language=language, wrap_lines=True)


def csv_button(table: Table, *, name: str, key: str) -> None:
    """The button that saves a table of a page as `name`.csv; it is made at the click."""
    st.download_button(
        "CSV",
        data=lambda: csv(table),
        file_name=f"{name}.csv",
        mime="text/csv",
        on_click="ignore",
        key=f"csv_{key}",
    )


def csv(table: Table) -> bytes:
    """The frame behind a chart as CSV, UTF-8, with a row of column names.

    >>> csv(pd.DataFrame({"block": [0], "mean": [0.5]}))
    b'block,mean\\n0,0.5\\n'
    """
    frame = table() if callable(table) else table
    return frame.to_csv(index=False, lineterminator="\n").encode()
