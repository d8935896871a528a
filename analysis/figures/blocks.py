"""Figures of what the blocks do: how much each one, and each of its parts, changes its input, by timestep."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import PART_COLORS, Mark, make_figure, root_palette

RESIDUAL = "‖B(x) − x‖ / ‖x‖"


def residual_map(
    values: np.ndarray,
    timesteps: np.ndarray,
    *,
    name: str = RESIDUAL,
    samples: int,
    limits: tuple[float, float] | None = None,
    height: int = 260,
) -> go.Figure:
    """Block × timestep map of `values` [step, block], from t = 1000 on the left, in viridis; NaN stays empty.

    The colours span `limits`, from 0 to the largest value unless given; from 0 they go by the square root (`root_palette`).
    `samples` is the n behind every cell.
    """
    values = np.asarray(values, float)
    low, high = limits or (0.0, _largest(values))
    heat = _map(values, timesteps, samples) | {
        "zmin": low,
        "zmax": high,
        "colorscale": "Viridis" if low else _by_root(),
        "colorbar": {"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }
    return make_figure([heat], x=_timesteps(), y=_blocks(values.shape[1]), height=height, hovermode="closest")


def _by_root() -> list[list[Any]]:
    colours = root_palette()
    return [[place / (len(colours) - 1), colour] for place, colour in enumerate(colours)]


def residual_parts(
    parts: Mapping[str, np.ndarray],
    timesteps: np.ndarray,
    *,
    name: str = RESIDUAL,
    samples: int,
    height: int = 280,
) -> go.Figure:
    """Block × timestep maps side by side under one colour scale, of the whole block and its parts.

    `parts` is title → values [step, block]; all are norms over the norm of the block's input.
    """
    high = max(_largest(np.asarray(values, float)) for values in parts.values())
    width = 1 / len(parts)
    heats: list[Mark] = []
    titles: list[Mark] = []
    layout: dict[str, Any] = {}
    for position, (title, values) in enumerate(parts.items()):
        number = "" if position == 0 else str(position + 1)
        heats.append(
            _map(np.asarray(values, float), timesteps, samples)
            | {"name": title, "xaxis": f"x{number}", "yaxis": f"y{number}", "coloraxis": "coloraxis"}
        )
        domain = [position * width, (position + 0.9) * width]
        titles.append(
            {"text": title, "showarrow": False, "xref": "paper", "yref": "paper", "x": sum(domain) / 2, "y": 1,
             "yanchor": "bottom"}
        )  # fmt: skip
        if position:
            shared = {"title": {"text": "timestep t", "standoff": 6}, "type": "category", "nticks": 6}
            layout[f"xaxis{number}"] = {**shared, "domain": domain, "anchor": f"y{number}"}
            layout[f"yaxis{number}"] = {
                "matches": "y", "showticklabels": False, "anchor": f"x{number}", "showgrid": False,
            }  # fmt: skip
    layout["coloraxis"] = {
        "cmin": 0, "cmax": high, "colorscale": _by_root(),
        "colorbar": {"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
    }  # fmt: skip
    blocks = np.shape(next(iter(parts.values())))[1]
    return make_figure(
        heats,
        x=_timesteps() | {"domain": [0, 0.9 * width], "nticks": 6},
        y=_blocks(blocks),
        height=height,
        margin={"l": 52, "r": 34, "t": 28, "b": 42},
        annotations=titles,
        hovermode="closest",
        **layout,
    )


def parts_over_timesteps(frames: Mapping[str, pd.DataFrame], *, name: str = RESIDUAL, height: int = 250) -> go.Figure:
    """One block along the denoising, from t = 1000 on the left: the whole block and its parts, with their intervals.

    `frames` is title → one row per step with columns `timestep`, `mean`, `low`, `high` and `n`; the first is drawn
    strongest.
    """
    traces: list[Mark] = []
    for (title, frame), (color, dash) in zip(frames.items(), PART_COLORS, strict=False):
        # Plain arrays: plotly takes three times as long over columns of a frame.
        column = {name: values.to_numpy() for name, values in frame.sort_values("timestep", ascending=False).items()}
        spread = {
            "type": "data",
            "symmetric": False,
            "array": np.nan_to_num(column["high"] - column["mean"]),
            "arrayminus": np.nan_to_num(column["mean"] - column["low"]),
            "color": color,
            "thickness": 1,
            "width": 2,
        }
        traces.append(
            {
                "type": "scatter",
                "name": title,
                "x": column["timestep"],
                "y": column["mean"],
                "error_y": spread,
                "mode": "lines+markers",
                "line": {"color": color, "dash": dash, "width": 2.5 if not traces else 1.5},
                "marker": {"size": 6 if not traces else 4},
                "customdata": column["n"][:, None],
                "hovertemplate": f"{title} %{{y:.3f}} · n %{{customdata[0]}}<extra></extra>",
            }
        )
    return make_figure(
        traces,
        x={"name": "timestep t", "autorange": "reversed"},
        y={"name": name, "rangemode": "tozero"},
        height=height,
        margin={"l": 64, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )


def _map(values: np.ndarray, timesteps: np.ndarray, samples: int) -> Mark:
    timesteps = np.asarray(timesteps, float)
    order = np.argsort(-timesteps, kind="stable")
    return {
        "type": "heatmap",
        "z": values[order].T,
        "x": [f"{step:.0f}" for step in timesteps[order]],
        "y": list(range(values.shape[1])),
        "hovertemplate": f"block %{{y}} · t %{{x}} · %{{z:.3f}} · n {samples}<extra></extra>",
    }


def _largest(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 1.0


def _timesteps() -> Mark:
    return {"name": "timestep t", "type": "category", "nticks": 12}


def _blocks(blocks: int) -> Mark:
    return {"name": "block", "autorange": "reversed", "dtick": 1 if blocks <= 12 else 5, "showgrid": False}
