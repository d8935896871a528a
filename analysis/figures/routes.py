"""Figures of what a router decided."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.intervals import error_bars
from analysis.figures.style import PART_COLORS, Mark, label, level, make_figure
from analysis.route_variation import RouteVariation


def disagreement_by_step(found: RouteVariation, *, height: int = 220) -> go.Figure:
    """Chance that two samples decide differently on a block that is not always on, by timestep, from t = 1000 on.

    The dotted line is what blocks drawn at random would have on average.
    """
    order = np.argsort(-found.timesteps, kind="stable")
    largest = float(np.nanmax([found.ceiling, *found.by_step])) if np.isfinite(found.ceiling) else 1.0
    bars = {
        "type": "bar",
        "x": [f"{found.timesteps[step]:.0f}" for step in order],
        "y": found.by_step[order],
        "marker": {"color": PART_COLORS[1][0]},
        "hovertemplate": f"%{{y:.1%}}, n {found.samples}<extra></extra>",
    }
    return make_figure(
        [bars],
        x={"name": "timestep t", "type": "category", "nticks": 12},
        y={"name": "samples disagree", "tickformat": "~%", "range": [0, 1.15 * largest or 1.0]},
        height=height,
        shapes=[level(found.ceiling)],
        annotations=[label("at random", xref="paper", x=1, xanchor="right", y=found.ceiling, yanchor="bottom")],
    )


def runs_over_timesteps(table: pd.DataFrame, *, height: int = 220) -> go.Figure:
    """The share of samples in which a block runs, by timestep, from t = 1000 on, with 95 % intervals (`block_runs`)."""
    cells = zip(table["low"], table["high"], table["n"], strict=True)
    words = [f"[{low:.1%}, {high:.1%}], n {n}" for low, high, n in cells]
    dots = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [f"{timestep:.0f}" for timestep in table["timestep"]],
        "y": table["ran"].to_numpy(),
        "line": {"color": PART_COLORS[1][0]},
        "error_y": error_bars(table, "ran"),
        "customdata": words,
        "hovertemplate": "%{y:.1%} %{customdata}<extra></extra>",
    }
    return make_figure(
        [dots],
        x={"name": "timestep t", "type": "category", "nticks": 12},
        y={"name": "samples that run it", "tickformat": "~%", "range": [-0.03, 1.03]},
        height=height,
    )


def decision_map(
    ran: np.ndarray,
    scores: np.ndarray,
    timesteps: np.ndarray,
    *,
    limits: tuple[float, float] | None = None,
    height: int = 320,
) -> go.Figure:
    """Which blocks ran at every step, from t = 1000 on the left: coloured by score where they ran, a cross where not.

    `ran` and `scores` are [step, block]; colours span `limits`, from the lowest to the highest
    score of the blocks that are not always on unless given.

    >>> figure = decision_map(np.array([[True, False, True]]), np.array([[1.0, 0.5, 2.0]]), np.array([900.0]))
    >>> [int(block) for block in figure.data[1].y]
    [1]
    """
    order = np.argsort(-np.asarray(timesteps, float), kind="stable")
    ran, scores = np.asarray(ran, bool)[order], np.asarray(scores, float)[order]
    names = [f"{timesteps[step]:.0f}" for step in order]
    blocks = ran.shape[1]
    middle = scores[:, 1:-1] if blocks > 2 else scores
    low, high = limits or (float(np.nanmin(middle)), float(np.nanmax(middle)))
    words = [[f"score {score:.3g} · {'ran' if one else 'skipped'}" for one, score in zip(*row, strict=True)]
             for row in zip(ran.T, scores.T, strict=True)]  # fmt: skip
    cells: Mark = {
        "type": "heatmap", "z": np.where(ran, scores, np.nan).T, "x": names, "y": list(range(blocks)),
        "zmin": low, "zmax": high, "colorscale": "Cividis", "xgap": 1, "ygap": 1, "customdata": words, "hoverongaps": True,
        "hovertemplate": "block %{y} · t %{x} · %{customdata}<extra></extra>",
        "colorbar": {"title": {"text": "score", "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }  # fmt: skip

    step, block = np.nonzero(~ran)
    crosses: Mark = {
        "type": "scatter", "mode": "markers", "x": [names[one] for one in step], "y": block, "hoverinfo": "skip",
        "marker": {"symbol": "x-thin-open", "size": 6, "color": "#888", "line": {"width": 1.5, "color": "#888"}},
    }  # fmt: skip
    return make_figure(
        [cells, crosses],
        x={"name": "timestep t", "type": "category", "nticks": 12},
        y={"name": "block", "autorange": "reversed", "dtick": 1 if blocks <= 12 else 5, "showgrid": False},
        height=height,
        hovermode="closest",
    )
