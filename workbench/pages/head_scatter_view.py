"""All heads as a scatter of any two metrics; a click pins one."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from analysis.figures.head_scatter import head_scatter
from analysis.head_metrics import METRICS, known_metrics
from analysis.runs import Run
from workbench import recipes
from workbench.pages import head_data
from workbench.pages.chart import show_chart
from workbench.pages.pinned_part import choose_pinned
from workbench.pages.text import plain
from workbench.state import Selection


def show_scatter(run: Run, selection: Selection, cell: tuple[int, int] | None) -> None:
    """Every head by two metrics and a colour; a click pins the head."""
    known = known_metrics(run)
    x, y = (name if name in known else "block" for name in (selection.x, selection.y))
    color = selection.color if selection.color in known else "role"
    names = tuple(dict.fromkeys([x, y, *([color] if color != "role" else [])]))
    table = head_data.table_of_metrics(run, selection, names)
    titles = {name: f"{METRICS[name].title}, {METRICS[name].symbol}" for name in names}
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    show_chart(
        head_scatter(table, x, y, color, names=titles, pinned=cell, **thresholds),
        key="head_scatter",
        alt=f"All heads by {METRICS[x].title} and {METRICS[y].title}, shapes by role.",
        table=table,
        python=recipes.head_scatter(run, selection, x, y, color, titles, cell),
        command=None,
        name=f"{run.folder.name}-{x}-{y}",
        on_select=lambda: pin_point(st.session_state.get("head_scatter")),
    )
    counts = {int(table[f"{name}_n"].iloc[0]) for name in names if f"{name}_n" in table}
    count = " and ".join(str(one) for one in sorted(counts))
    whole = [METRICS[name].title for name in names if METRICS[name].whole]
    st.caption(
        plain(
            f"n = {count} samples. A click pins a head."
            + (f" Over all samples and steps: {' and '.join(whole)}." if whole else "")
        )
    )


def pin_point(event: Any) -> None:
    """Pin the head of the point that was clicked, if it was one."""
    cell = clicked(event)
    if cell is not None:
        choose_pinned(block=cell[0], head=cell[1])


def clicked(event: Any) -> tuple[int, int] | None:
    """The (block, head) of the first point of a chart's selection; None for anything else.

    >>> clicked({"selection": {"points": [{"customdata": [3, 7]}]}})
    (3, 7)
    """
    points = event.get("selection", {}).get("points") if isinstance(event, Mapping) else None
    found = points[0].get("customdata") if points else None
    # Plotly gives an array or, from a typed one, its places by number.
    if isinstance(found, Mapping):
        found = [found.get("0"), found.get("1")]
    if not isinstance(found, list | tuple) or len(found) < 2:
        return None
    if not all(isinstance(each, int | float) and each == int(each) for each in found[:2]):
        return None
    return int(found[0]), int(found[1])
