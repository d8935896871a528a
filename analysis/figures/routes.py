"""Figures of what a router decided."""

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import PART_COLORS, label, level, make_figure
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
        y={"name": "samples disagree", "tickformat": ".0%", "range": [0, 1.15 * largest or 1.0]},
        height=height,
        shapes=[level(found.ceiling)],
        annotations=[label("at random", xref="paper", x=1, xanchor="right", y=found.ceiling, yanchor="bottom")],
    )
