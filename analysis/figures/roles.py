"""Figures of the intra-slice ratio and the roles it gives: over timesteps, as a histogram, per block."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import GUIDE, ROLE_COLORS, ROLE_NAMES, empty_figure, rgba


def ratio_over_timesteps(
    frame: pd.DataFrame, *, tau_s: float, tau_t: float, uniform: float, height: int = 230
) -> go.Figure:
    """One head's ratio along the denoising, from t = 1000 on the left to 0 on the right.

    `frame` has one row per step with columns `timestep`, `mean`, `low`, `high` (the interval over samples) and `n`.
    Role bands, both thresholds and uniform attention (1/Fl) are marked.
    """
    figure = empty_figure(x="timestep t", y="ratio r", height=height)
    frame = frame.sort_values("timestep", ascending=False)
    for low, high, role in ((tau_s, 1.0, "S"), (0.0, tau_t, "T")):
        figure.add_hrect(y0=low, y1=high, fillcolor=rgba(ROLE_COLORS[role], 0.14), line_width=0, layer="below")
        figure.add_annotation(
            x=0.99, xref="paper", xanchor="right", y=high, yanchor="top",
            text=f"{role} {ROLE_NAMES[role]}", showarrow=False, font={"size": 11},
        )  # fmt: skip
    figure.add_hline(y=uniform, line={"color": GUIDE, "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=1.01, xref="paper", xanchor="left", y=uniform, yanchor="middle", showarrow=False,
        text=f"1/{round(1 / uniform)}", font={"size": 11}, hovertext=f"uniform attention: {uniform:.3f}",
    )  # fmt: skip
    figure.update_layout(margin={"r": 34})
    known = frame.dropna(subset=["low", "high"])
    figure.add_scatter(
        x=pd.concat([known["timestep"], known["timestep"][::-1]]),
        y=pd.concat([known["high"], known["low"][::-1]]),
        fill="toself", fillcolor="rgba(128,128,128,0.35)", line={"width": 0}, hoverinfo="skip", name="95 % interval",
    )  # fmt: skip
    letters = np.where(frame["mean"] > tau_s, "S", np.where(frame["mean"] < tau_t, "T", "M"))
    figure.add_scatter(
        x=frame["timestep"], y=frame["mean"], mode="lines+markers", name="ratio",
        line={"color": "gray", "width": 1.5},
        marker={"size": 8, "color": [ROLE_COLORS[letter] for letter in letters]},
        customdata=np.stack([letters, *(_numbers(frame[column]) for column in ("low", "high", "n"))], axis=-1),
        hovertemplate="%{customdata[0]} · r %{y:.3f} [%{customdata[1]}, %{customdata[2]}] · n %{customdata[3]}"
        "<extra></extra>",
    )  # fmt: skip
    figure.update_yaxes(range=[0, 1.0], tickvals=[0, 0.25, 0.5, 0.75, 1])
    figure.update_xaxes(autorange="reversed")
    return figure


def ratio_histogram(
    ratio: np.ndarray, *, tau_s: float, tau_t: float, uniform: float, bins: int = 50, height: int = 220
) -> go.Figure:
    """How many heads have which ratio, coloured by role; `ratio` holds one value per head, NaN is left out."""
    values = np.asarray(ratio, float).ravel()
    values = np.clip(values[~np.isnan(values)], 0, 1)
    letters = np.where(values > tau_s, "S", np.where(values < tau_t, "T", "M"))
    figure = empty_figure(x="ratio r", y="heads", height=height)
    edges = np.linspace(0, 1, bins + 1)
    for letter, name in ROLE_NAMES.items():
        counts, _ = np.histogram(values[letters == letter], edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts, width=1 / bins, marker={"color": ROLE_COLORS[letter]},
            name=f"{letter} {name}", hovertemplate=f"{letter} · r %{{x:.2f}} · %{{y}} heads<extra></extra>",
        )  # fmt: skip
    for value, label in ((tau_t, "τt"), (tau_s, "τs"), (uniform, "1/Fl")):
        dash = "dot" if label == "1/Fl" else "solid"
        figure.add_vline(x=value, line={"color": GUIDE, "width": 1, "dash": dash}, annotation_text=label)
    figure.update_layout(barmode="stack", bargap=0)
    figure.update_xaxes(range=[0, 1])
    return figure


def roles_per_block(letters: np.ndarray, *, height: int = 220) -> go.Figure:
    """How many heads of every block are spatial, mixed and temporal; `letters` [block, head] are S, M, T.

    Any other letter (a head that was not captured) is left out.
    """
    letters = np.asarray(letters)
    blocks = list(range(len(letters)))
    figure = empty_figure(x="block", y="heads", height=height)
    for letter, name in ROLE_NAMES.items():
        figure.add_bar(
            x=blocks, y=(letters == letter).sum(axis=1), name=f"{letter} {name}",
            marker={"color": ROLE_COLORS[letter]}, hovertemplate=f"{letter} %{{y}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(barmode="stack", bargap=0.15, showlegend=True)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0})
    figure.update_xaxes(dtick=1 if len(blocks) <= 12 else 5)
    return figure


def _numbers(values: pd.Series) -> list[str]:
    return ["–" if value != value else f"{value:.3g}" for value in values]
