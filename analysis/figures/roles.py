"""Figures of the intra-slice ratio and the roles it gives: over timesteps, as a histogram, per block."""

from itertools import cycle

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import (
    BRANCH_DASHES,
    ROLE_COLORS,
    ROLE_NAMES,
    Mark,
    band,
    ink_on,
    label,
    level,
    make_figure,
    rgba,
    upright,
)

BESIDE = {"xref": "paper", "x": 1, "xanchor": "left", "xshift": 4}
BEYOND = {**BESIDE, "xshift": 30}
"""Where role letters stand: beyond 1/Fl, which falls into the range of one of them."""


def ratio_over_timesteps(
    frame: pd.DataFrame, *, tau_s: float, tau_t: float, uniform: float, height: int = 230
) -> go.Figure:
    """One head's ratio along the denoising, from t = 1000 on the left to 0 on the right.

    `frame` has one row per step with columns `timestep`, `mean`, `low`, `high` (the interval over samples) and `n`;
    with a column `branch`, one row per step and guidance branch, each branch is a line of its own. Role bands, both
    thresholds and uniform attention (1/Fl) are marked.
    """
    groups = list(frame.groupby("branch", sort=False)) if "branch" in frame else [("", frame)]
    traces = [
        trace
        for (name, part), dash in zip(groups, cycle(BRANCH_DASHES), strict=False)
        for trace in _ratio_line(part, str(name) if len(groups) > 1 else "", dash, tau_s, tau_t)
    ]
    bands = {"S": (tau_s, 1.0), "T": (0.0, tau_t)}
    return make_figure(
        traces,
        x={"name": "timestep t", "autorange": "reversed"},
        y={"name": "ratio r", "range": [0, 1], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        height=height,
        margin={"l": 52, "r": 46, "t": 28 if len(groups) > 1 else 10, "b": 42},
        shapes=[*(band(*ends, rgba(ROLE_COLORS[role], 0.14)) for role, ends in bands.items()), level(uniform)],
        annotations=[
            # Beside the plot, where no curve can run through them.
            label("<b>S</b>", **BEYOND, y=(1 + tau_s) / 2),
            label("<b>M</b>", **BEYOND, y=(tau_s + tau_t) / 2),
            label("<b>T</b>", **BEYOND, y=tau_t / 2),
            label(f"1/{round(1 / uniform)}", **BESIDE, y=uniform),
        ],
        showlegend=len(groups) > 1,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )


def _ratio_line(frame: pd.DataFrame, branch: str, dash: str, tau_s: float, tau_t: float) -> list[Mark]:
    # Plain arrays: plotly takes three times as long over columns of a frame.
    column = {name: values.to_numpy() for name, values in frame.sort_values("timestep", ascending=False).items()}
    known = ~np.isnan(column["low"]) & ~np.isnan(column["high"])
    timesteps, low, high = (column[name][known] for name in ("timestep", "low", "high"))
    letters = _letters(column["mean"], tau_s, tau_t)
    interval = {
        "type": "scatter",
        "name": "95 % interval",
        "x": np.concatenate([timesteps, timesteps[::-1]]),
        "y": np.concatenate([high, low[::-1]]),
        "fill": "toself",
        "fillcolor": "rgba(128,128,128,0.35)" if not branch else "rgba(128,128,128,0.22)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    before = f"{branch} · " if branch else ""
    ratio = {
        "type": "scatter",
        "name": branch or "ratio",
        "x": column["timestep"],
        "y": column["mean"],
        "mode": "lines+markers",
        # A head of ratio 0 lies on the axis.
        "cliponaxis": False,
        "line": {"color": "gray", "width": 1.5, "dash": dash},
        "marker": {"size": 8, "color": [ROLE_COLORS.get(letter, "gray") for letter in letters]},
        "customdata": np.stack([letters, *(_numbers(column[name]) for name in ("low", "high", "n"))], axis=-1),
        "hovertemplate": before
        + "%{customdata[0]} · r %{y:.3f} [%{customdata[1]}, %{customdata[2]}] · n %{customdata[3]}"
        "<extra></extra>",
    }
    return [interval, ratio]


def ratio_histogram(
    ratio: np.ndarray, *, tau_s: float, tau_t: float, uniform: float, bins: int = 50, height: int = 220
) -> go.Figure:
    """How many heads have which ratio, coloured by role; `ratio` holds one value per head, NaN is left out."""
    values = np.asarray(ratio, float).ravel()
    values = np.clip(values[~np.isnan(values)], 0, 1)
    letters = _letters(values, tau_s, tau_t)
    edges = np.linspace(0, 1, bins + 1)
    bars = [
        {
            "type": "bar",
            "name": f"{letter} {name}",
            "x": (edges[:-1] + edges[1:]) / 2,
            "y": np.histogram(values[letters == letter], edges)[0],
            "width": 1 / bins,
            "marker": {"color": ROLE_COLORS[letter]},
            "hovertemplate": f"{letter} · r %{{x:.2f}} · %{{y}} heads<extra></extra>",
        }
        for letter, name in ROLE_NAMES.items()
    ]
    marks = {"τt": tau_t, "τs": tau_s, "1/Fl": uniform}
    highest = int(np.histogram(values, edges)[0].max())
    return make_figure(
        bars,
        x={"name": "ratio r", "range": [0, 1]},
        # Room above the bars for the names of the thresholds.
        y={"name": "heads", "range": [0, 1.2 * max(highest, 1)]},
        height=height,
        shapes=[upright(value, "dot" if text == "1/Fl" else "solid") for text, value in marks.items()],
        annotations=[
            label(text, x=value, xanchor="left", yref="paper", y=1, yanchor="top") for text, value in marks.items()
        ],
        barmode="stack",
        bargap=0,
    )


def roles_per_block(letters: np.ndarray, *, height: int = 220) -> go.Figure:
    """How many heads of every block are spatial, mixed and temporal, as the paper's Fig. 2a; `letters` [block, head].

    Any letter but S, M and T (a head that was not captured) is left out.
    """
    letters = np.asarray(letters)
    bars = [
        {
            "type": "bar",
            "name": f"{letter} {name}",
            "x": list(range(len(letters))),
            "y": (letters == letter).sum(axis=1),
            "marker": {"color": ROLE_COLORS[letter]},
            "hovertemplate": f"{letter} %{{y}}<extra></extra>",
        }
        for letter, name in ROLE_NAMES.items()
    ]
    return make_figure(
        bars,
        x={"name": "block", "dtick": 1 if len(letters) <= 12 else 5},
        y={"name": "heads"},
        height=height,
        barmode="stack",
        bargap=0.15,
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )


def ratio_of_heads(frame: pd.DataFrame, *, tau_s: float, tau_t: float, uniform: float, height: int = 220) -> go.Figure:
    """Ratio of every head of one block with its standard error, coloured and lettered by role.

    `frame` has one row per head with columns `head`, `ratio`, `standard_error` and `n` (`analysis.figures.tables.head_table`
    gives one). Both thresholds and uniform attention (1/Fl) are marked.

    >>> frame = pd.DataFrame({"head": [0, 1], "ratio": [0.9, 0.1], "standard_error": [0.05, np.nan], "n": [4, 1]})
    >>> [str(text) for text in ratio_of_heads(frame, tau_s=0.7, tau_t=0.3, uniform=0.25).data[0].text]
    ['S', 'T']
    """
    letters = _letters(frame["ratio"].to_numpy(float), tau_s, tau_t)
    bars = {
        "type": "bar",
        "x": frame["head"],
        "y": frame["ratio"],
        "error_y": {"type": "data", "array": frame["standard_error"].fillna(0), "color": "gray", "thickness": 1.5},
        "text": letters,
        "textposition": "inside",
        "insidetextanchor": "start",
        "insidetextfont": {"color": [ink_on(ROLE_COLORS.get(letter, "#808080")) for letter in letters]},
        "marker": {"color": [ROLE_COLORS.get(letter, "gray") for letter in letters]},
        "customdata": np.stack([*(_numbers(frame[name].to_numpy()) for name in ("standard_error", "n"))], axis=-1),
        "hovertemplate": "head %{x} · %{text} · r %{y:.3f} ± %{customdata[0]} · n %{customdata[1]}<extra></extra>",
    }
    return make_figure(
        [bars],
        x={"name": "head", "dtick": 1 if len(frame) <= 16 else 5},
        y={"name": "ratio r", "range": [0, 1], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        height=height,
        margin={"l": 52, "r": 50, "t": 10, "b": 42},
        hovermode="closest",
        bargap=0.2,
        shapes=[level(tau_s, "solid"), level(tau_t, "solid"), level(uniform)],
        annotations=[
            label(text, **BESIDE, y=value) for text, value in (("τs", tau_s), ("τt", tau_t), ("1/Fl", uniform))
        ],
    )


def mean_ratio_per_block(
    frame: pd.DataFrame, *, tau_s: float, tau_t: float, uniform: float, height: int = 220
) -> go.Figure:
    """Mean ratio of every block's heads with its interval over samples, as the paper's Fig. 2b.

    `frame` has one row per block with columns `block`, `mean`, `low`, `high` and `n`
    (`analysis.block_values.ratio_by_block` gives one). Role bands and uniform attention (1/Fl) are marked.
    """
    column = {name: values.to_numpy() for name, values in frame.items()}
    spread = {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(column["high"] - column["mean"]),
        "arrayminus": np.nan_to_num(column["mean"] - column["low"]),
        "color": "gray",
        "thickness": 1.5,
        "width": 3,
    }
    dots = {
        "type": "scatter",
        "name": "mean ratio",
        "x": column["block"],
        "y": column["mean"],
        "error_y": spread,
        "mode": "lines+markers",
        "line": {"color": "gray", "width": 1},
        "marker": {"size": 8, "color": "gray"},
        "customdata": np.stack([_numbers(column[name]) for name in ("low", "high", "n")], axis=-1),
        "hovertemplate": "r %{y:.3f} [%{customdata[0]}, %{customdata[1]}] · n %{customdata[2]}<extra></extra>",
    }
    bands = {"S": (tau_s, 1.0), "T": (0.0, tau_t)}
    return make_figure(
        [dots],
        x={"name": "block", "dtick": 1 if len(frame) <= 12 else 5},
        y={"name": "mean ratio r", "range": [0, 1], "tickvals": [0, 0.25, 0.5, 0.75, 1]},
        height=height,
        margin={"l": 52, "r": 46, "t": 10, "b": 42},
        shapes=[*(band(*ends, rgba(ROLE_COLORS[role], 0.14)) for role, ends in bands.items()), level(uniform)],
        annotations=[
            label("<b>S</b>", **BEYOND, y=(1 + tau_s) / 2),
            label("<b>T</b>", **BEYOND, y=tau_t / 2),
            label(f"1/{round(1 / uniform)}", **BESIDE, y=uniform),
        ],
    )


def _letters(values: np.ndarray, tau_s: float, tau_t: float) -> np.ndarray:
    letters = np.where(values > tau_s, "S", np.where(values < tau_t, "T", "M"))
    return np.where(np.isnan(values), "", letters)


def _numbers(values: np.ndarray) -> list[str]:
    return ["–" if value != value else f"{value:.3g}" for value in values]
