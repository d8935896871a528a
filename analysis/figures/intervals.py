"""Numbers with their intervals, a row each over named guides: what a table of comparisons looks like as a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import Mark, label, make_figure, upright

DOT = "#0072B2"
ROW = 34


def intervals(
    traces: Sequence[Mark],
    *,
    labels: Sequence[str],
    x: Mark,
    guides: Mapping[str, float],
    left: int = 150,
    top: int = 24,
    **layout: Any,
) -> go.Figure:
    """Numbers with intervals, a row each from the top, over named guides at fixed values of x."""
    return make_figure(
        traces,
        x={"showgrid": True, "gridcolor": "rgba(128,128,128,0.15)", **x},
        # Whole labels, however long: the margin is the least that they get.
        y={
            "name": "",
            "automargin": True,
            "categoryorder": "array",
            "categoryarray": list(reversed(list(dict.fromkeys(labels)))),
        },
        height=top + 62 + ROW * max(len(set(labels)), 1),
        margin={"l": left, "r": 20, "t": top, "b": 46},
        hovermode="closest",
        shapes=[upright(value, "dash") for value in guides.values()],
        annotations=[
            label(name, x=value, xanchor="center", yref="paper", y=1, yanchor="bottom")
            for name, value in guides.items()
            if name
        ],
        **layout,
    )


def dots(
    rows: pd.DataFrame,
    labels: Sequence[str] | pd.Series,
    column: str,
    *,
    name: str,
    words: list[str],
    symbol: str = "circle",
    color: str = DOT,
) -> Mark:
    """A trace of `intervals`: `column` of each row with its columns low and high; `words` are columns told on hover."""
    told = ", ".join(f"{word} %{{customdata[{at + 2}]}}" for at, word in enumerate(words))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": rows[column],
        "y": list(labels),
        "error_x": error_bars(rows, column, "low", "high"),
        "marker": {"size": 9, "color": color, "symbol": symbol},
        "customdata": hover_words(rows, ["low", "high", *words]),
        "hovertemplate": "%{x:.3g} [%{customdata[0]}, %{customdata[1]}] · " + told + "<extra>%{y}</extra>",
    }


def error_bars(rows: pd.DataFrame, column: str, low: str | None = None, high: str | None = None) -> Mark:
    """Error bars from a table's ends: `column`_low and _high where it has them, else low and high."""
    own = f"{column}_low" in rows.columns
    low, high = low or (f"{column}_low" if own else "low"), high or (f"{column}_high" if own else "high")
    value = pd.to_numeric(rows[column], errors="coerce")
    return {
        "type": "data",
        "symmetric": False,
        "array": (pd.to_numeric(rows[high], errors="coerce") - value).fillna(0).clip(lower=0),
        "arrayminus": (value - pd.to_numeric(rows[low], errors="coerce")).fillna(0).clip(lower=0),
        "thickness": 1.5,
        "width": 4,
    }


def hover_words(rows: pd.DataFrame, columns: list[str]) -> list[list[str]]:
    """Columns of a table as short words, a row each.

    >>> hover_words(pd.DataFrame({"n": [3], "low": [float("nan")]}), ["n", "low"])
    [['3', '–']]
    """
    return [[_number(row[name]) for name in columns] for _, row in rows.iterrows()]


def _number(value: Any) -> str:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "–"
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)
