"""A figure of all heads by two numbers, coloured by a third or by role."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import ROLE_COLORS, ROLE_NAMES, Mark, level, make_figure, upright

# A shape each, so that a role is never told by colour alone.
SYMBOLS = {"S": "square", "M": "circle", "T": "triangle-up", "": "x-thin-open"}
MISSING = "#888888"


def head_scatter(
    table: pd.DataFrame,
    x: str,
    y: str,
    color: str = "role",
    *,
    names: Mapping[str, str],
    pinned: tuple[int, int] | None = None,
    tau_s: float | None = None,
    tau_t: float | None = None,
    height: int = 520,
) -> go.Figure:
    """Every head as a point: `table` has columns `block`, `head`, `role` (letters) and those named `x`, `y` and `color`.

    Shapes tell roles; `color` is `role`, or a column on viridis. `names` are the titles of axes and scale. The `pinned`
    (block, head) is ringed; where an axis is `ratio`, thresholds are marked. Heads without either number are left out.
    """
    known = table.dropna(subset=[x, y])
    if color != "role":
        known = known.dropna(subset=[color])
    ends = (float(known[color].min()), float(known[color].max())) if color != "role" and len(known) else (0.0, 1.0)
    traces = [_points(part, letter, x, y, color, ends, names) for letter, part in known.groupby("role", sort=False)]
    if pinned is not None:
        traces.append(_ring(known[(known["block"] == pinned[0]) & (known["head"] == pinned[1])], x, y))
    shapes = [
        guide(threshold)
        for axis, guide in ((x, upright), (y, level))
        if axis == "ratio"
        for threshold in (tau_s, tau_t)
        if threshold is not None
    ]
    scale: Mark = {}
    if color != "role":
        scale["coloraxis"] = {
            "cmin": ends[0],
            "cmax": ends[1],
            "colorscale": "Viridis",
            "colorbar": {"title": {"text": names[color], "side": "right"}, "thickness": 10, "outlinewidth": 0},
        }
    return make_figure(
        traces,
        x={"name": names[x], "showgrid": True, "gridcolor": "rgba(128,128,128,0.15)"},
        y={"name": names[y]},
        height=height,
        margin={"l": 64, "r": 12, "t": 30, "b": 46},
        shapes=shapes,
        hovermode="closest",
        clickmode="event+select",
        dragmode=False,
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        **scale,
    )


def _points(
    part: pd.DataFrame,
    letter: str,
    x: str,
    y: str,
    color: str,
    ends: tuple[float, float],
    names: Mapping[str, str],
) -> Mark:
    marker: Mark = {"size": 10, "symbol": SYMBOLS.get(letter, "x"), "line": {"width": 1, "color": "rgba(0,0,0,0.55)"}}
    extra = ""
    if color == "role":
        marker["color"] = ROLE_COLORS.get(letter, MISSING)
    else:
        marker |= {"color": part[color], "coloraxis": "coloraxis"}
        extra = f" · {names[color]} %{{marker.color:.4g}}"
    return {
        "type": "scatter",
        "name": f"{letter} {ROLE_NAMES[letter]}" if letter in ROLE_NAMES else "no role",
        "x": part[x],
        "y": part[y],
        "mode": "markers",
        "marker": marker,
        "customdata": np.stack([part["block"], part["head"]], axis=-1),
        # What is chosen says so by its ring; the others keep their strength.
        "selected": {"marker": {"opacity": 1}},
        "unselected": {"marker": {"opacity": 1}},
        "hovertemplate": "block %{customdata[0]}, head %{customdata[1]} · "
        f"{names[x]} %{{x:.4g}} · {names[y]} %{{y:.4g}}{extra}<extra></extra>",
    }


def _ring(part: pd.DataFrame, x: str, y: str) -> Mark:
    return {
        "type": "scatter",
        "name": "pinned",
        "x": part[x],
        "y": part[y],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 20, "color": "#CC79A7", "line": {"width": 3}},
        "hoverinfo": "skip",
        "showlegend": False,
    }
