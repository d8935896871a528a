"""Figures of what the blocks do: how much each one changes its input, by timestep."""

import numpy as np
import plotly.graph_objects as go

from analysis.figures.style import make_figure


def residual_map(
    values: np.ndarray, timesteps: np.ndarray, *, name: str = "‖B(x) − x‖ / ‖x‖", samples: int, height: int = 260
) -> go.Figure:
    """Block × timestep map of `values` [step, block], from t = 1000 on the left, in viridis from 0; NaN stays empty.

    `samples` is the n behind every cell.
    """
    values, timesteps = np.asarray(values, float), np.asarray(timesteps, float)
    order = np.argsort(-timesteps, kind="stable")
    blocks = values.shape[1]
    heat = {
        "type": "heatmap",
        "z": values[order].T,
        "x": [f"{step:.0f}" for step in timesteps[order]],
        "y": list(range(blocks)),
        "zmin": 0,
        "zmax": float(np.nanmax(values)) if np.isfinite(values).any() else 1.0,
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"block %{{y}} · t %{{x}} · %{{z:.3f}} · n {samples}<extra></extra>",
    }
    return make_figure(
        [heat],
        x={"name": "timestep t", "type": "category", "nticks": 12},
        y={"name": "block", "autorange": "reversed", "dtick": 1 if blocks <= 12 else 5, "showgrid": False},
        height=height,
        hovermode="closest",
    )
