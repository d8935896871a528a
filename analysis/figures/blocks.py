"""Figures of what the blocks do: how much each one changes its input, by timestep."""

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import empty_figure


def residual_map(
    values: np.ndarray, timesteps: np.ndarray, *, name: str = "‖B(x) − x‖ / ‖x‖", samples: int, height: int = 260
) -> go.Figure:
    """Block × timestep map of `values` [step, block], from t = 1000 on the left, in viridis from 0; NaN stays empty.

    `samples` is the n behind every cell.
    """
    order = np.argsort(-np.asarray(timesteps), kind="stable")
    figure = empty_figure(x="timestep t", y="block", height=height)
    steps = np.asarray(timesteps)[order]
    figure.add_heatmap(
        z=np.asarray(values)[order].T,
        x=[f"{step:.0f}" for step in steps],
        y=list(range(np.shape(values)[1])),
        zmin=0,
        zmax=float(np.nanmax(values)) if np.isfinite(values).any() else 1.0,
        colorscale="Viridis",
        colorbar={"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        hovertemplate=f"block %{{y}} · t %{{x}} · %{{z:.3f}} · n {samples}<extra></extra>",
    )
    figure.update_xaxes(type="category", nticks=12)
    figure.update_yaxes(autorange="reversed", dtick=1 if np.shape(values)[1] <= 12 else 5, showgrid=False)
    figure.update_layout(hovermode="closest")
    return figure
