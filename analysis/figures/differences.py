"""Figures of what differs: B − A of heads and of blocks around zero, two masks over each other, effects of metrics."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import GUIDE, Mark, make_figure
from analysis.run_difference import RunDifference
from pare.mask import PARTS, Mask

# Blue below zero, orange above, by the colour-blind-safe scheme of signed values; the sign is always written as well.
DIVERGING = ("#0072B2", "#7fb8d8", "#f4f4f2", "#eeb38a", "#D55E00")
AGREEMENT = {
    "kept by both": ("", "#0072B2"),
    "kept by A alone": ("A", "#E69F00"),
    "kept by B alone": ("B", "#CC79A7"),
    "removed by both": ("×", "#999999"),
}
"""What two masks say of a head, with the letter that stands in its cell."""


def diverging_limit(difference: np.ndarray) -> float:
    """Where a scale centred at 0 ends on both sides: the largest |B − A|, 1 where there is none.

    >>> diverging_limit(np.array([0.25, -0.5, np.nan])), diverging_limit(np.array([0.0]))
    (0.5, 1.0)
    """
    known = np.abs(difference[np.isfinite(difference)])
    return float(known.max()) if known.size and known.max() > 0 else 1.0


def difference_grid(found: RunDifference, *, name: str | None = None, height: int | None = None) -> go.Figure:
    """B − A of every head [block, head] on a scale centred at 0, a sign where the interval leaves 0 out; NaN stays empty.

    The app's difference grid as a still picture, for notebooks and export. Heads absent in a run are marked. `name`
    stands beside the scale; by default it says of which statistic.
    """
    blocks, heads = found.difference.shape
    limit = diverging_limit(found.difference)
    signs = np.where(found.clear, np.where(found.difference > 0, "+", "−"), "")
    words = [[_head_words(found, block, head) for head in range(heads)] for block in range(blocks)]
    heat: Mark = {
        "type": "heatmap", "z": found.difference, "zmin": -limit, "zmax": limit, "xgap": 1, "ygap": 1,
        "colorscale": [[at / (len(DIVERGING) - 1), color] for at, color in enumerate(DIVERGING)],
        "colorbar": {"title": {"text": name or f"B − A of {found.statistic}", "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "text": signs, "texttemplate": "%{text}", "customdata": words,
        "hovertemplate": "block %{y}, head %{x} · %{customdata}<extra></extra>",
    }  # fmt: skip
    block, head = np.nonzero(np.isnan(found.difference))
    absent: Mark = {
        "type": "scatter", "mode": "markers", "x": head, "y": block, "hoverinfo": "skip",
        "marker": {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": GUIDE}},
    }  # fmt: skip
    return make_figure(
        [heat, absent],
        x={"name": "head", "side": "top", "dtick": 1 if heads <= 16 else 5, "range": [-0.5, heads - 0.5]},
        y={"name": "block", "range": [blocks - 0.5, -0.5], "dtick": 1 if blocks <= 16 else 5, "showgrid": False},
        height=height or 80 + max(8, min(28, 560 // blocks)) * blocks,
        margin={"l": 52, "r": 12, "t": 52, "b": 20},
        hovermode="closest",
    )


def difference_per_block(found: RunDifference, *, name: str, height: int = 260) -> go.Figure:
    """B − A of every block with its 95 % interval over prompts, around a line at 0; filled where the interval leaves 0 out.

    `found` is a difference over [block]; `name` says of what.
    """
    blocks = np.arange(len(found.difference))
    points: Mark = {
        "type": "scatter", "mode": "markers", "x": blocks, "y": found.difference,
        "error_y": {
            "type": "data", "symmetric": False, "thickness": 1, "width": 3, "color": GUIDE,
            "array": np.nan_to_num(found.high - found.difference),
            "arrayminus": np.nan_to_num(found.difference - found.low),
        },
        "marker": {
            "size": 9, "symbol": np.where(found.clear, "circle", "circle-open").tolist(),
            "color": np.where(found.difference > 0, DIVERGING[-1], DIVERGING[0]).tolist(),
        },
        "customdata": np.stack([found.mean_a, found.mean_b, found.n], axis=1),
        "hovertemplate": "block %{x} · B − A %{y:+.3g} · A %{customdata[0]:.3g}, B %{customdata[1]:.3g} · "
        "n %{customdata[2]}<extra></extra>",
    }  # fmt: skip
    return make_figure(
        [points],
        x={"name": "block", "dtick": 1 if len(blocks) <= 16 else 5, "range": [-0.5, len(blocks) - 0.5]},
        y={"name": name, "zeroline": True, "zerolinecolor": GUIDE},
        height=height,
        hovermode="closest",
        margin={"l": 64, "r": 12, "t": 10, "b": 42},
    )


def mask_agreement(a: Mask, b: Mask, part: str = "self_heads", *, height: int | None = None) -> go.Figure:
    """Which heads both masks keep, one alone keeps, and both remove, [block, head], each with its letter.

    >>> keep = np.array([[True, True, False]])
    >>> one, two = (Mask(keep[:, order], keep, keep) for order in ([0, 1, 2], [0, 2, 1]))
    >>> mask_agreement(one, two).data[0].text.tolist()
    [['', 'A', 'B']]
    """
    codes = agreement(getattr(a, part), getattr(b, part))
    names = np.array(list(AGREEMENT))
    letters, colors = (list(each) for each in zip(*AGREEMENT.values(), strict=True))
    blocks, heads = codes.shape
    heat: Mark = {
        "type": "heatmap", "z": codes, "zmin": 0, "zmax": len(names) - 1, "showscale": False, "xgap": 1, "ygap": 2,
        # Four flat colours: each spans a quarter of the scale.
        "colorscale": [[(code + end) / len(names), color] for code, color in enumerate(colors) for end in (0, 1)],
        "text": np.array(letters)[codes], "texttemplate": "%{text}", "textfont": {"color": "#000"},
        "customdata": names[codes], "hovertemplate": "block %{y}, head %{x} · %{customdata}<extra></extra>",
    }  # fmt: skip
    entries: list[Mark] = [
        {
            "type": "scatter", "mode": "markers", "x": [None], "y": [None],
            "name": f"{letter} {name}".strip(), "marker": {"symbol": "square", "size": 11, "color": color},
        }
        for name, (letter, color) in AGREEMENT.items()
    ]  # fmt: skip
    return make_figure(
        [heat, *entries],
        x={"name": "head", "side": "top", "dtick": 1 if heads <= 16 else 5, "range": [-0.5, heads - 0.5]},
        y={"name": "block", "range": [blocks - 0.5, -0.5], "dtick": 1 if blocks <= 16 else 5, "showgrid": False},
        height=height or 110 + max(8, min(26, 520 // blocks)) * blocks,
        margin={"l": 52, "r": 12, "t": 52, "b": 42},
        hovermode="closest",
        showlegend=True,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
    )


def agreement(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """0 kept by both, 1 by A alone, 2 by B alone, 3 removed by both: the order of `AGREEMENT`.

    >>> agreement(np.array([True, True, False, False]), np.array([True, False, True, False])).tolist()
    [0, 1, 2, 3]
    """
    return np.where(a, np.where(b, 0, 1), np.where(b, 2, 3))


def flips_per_block(a: Mask, b: Mask, *, height: int = 240) -> go.Figure:
    """How many self-attention and cross-attention heads one mask alone keeps, in every block."""
    parts = {"self_heads": ("self", "#0072B2", ""), "cross_heads": ("cross", "#E69F00", "/")}
    bars: list[Mark] = [
        {
            "type": "bar", "name": name, "y": (getattr(a, part) != getattr(b, part)).sum(axis=1),
            "x": list(range(len(a.self_heads))), "marker": {"color": color, "pattern": {"shape": pattern, "size": 5}},
            "hovertemplate": f"%{{y}} {name}-attention heads<extra></extra>",
        }
        for part, (name, color, pattern) in parts.items()
    ]  # fmt: skip
    blocks = len(a.self_heads)
    return make_figure(
        bars,
        x={"name": "block", "dtick": 1 if blocks <= 16 else 5},
        y={"name": "heads decided otherwise", "rangemode": "tozero", "tickformat": "d"},
        height=height,
        barmode="group",
        margin={"l": 52, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )


def agreement_table(a: Mask, b: Mask, part: str = "self_heads") -> pd.DataFrame:
    """One row per head: `block`, `head`, and whether mask `a` and mask `b` keep it."""
    first, second = getattr(a, part), getattr(b, part)
    block, head = np.indices(first.shape)
    columns = {"block": block, "head": head, "kept_by_a": first, "kept_by_b": second}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def flip_table(a: Mask, b: Mask) -> pd.DataFrame:
    """One row per block: how many units of every part A alone keeps, and B alone."""
    columns: dict[str, np.ndarray] = {"block": np.arange(len(a.self_heads))}
    for part in PARTS:
        first, second = getattr(a, part), getattr(b, part)
        columns |= {f"{part}_a": (first & ~second).sum(axis=1), f"{part}_b": (second & ~first).sum(axis=1)}
    return pd.DataFrame(columns)


def metric_effects(table: pd.DataFrame, *, height: int | None = None) -> go.Figure:
    """B − A of every metric over its spread between prompts, so that units can stand side by side; with its interval.

    `table` has columns title, group, effect, effect_low, effect_high, clear; the first row is drawn on top.
    """
    rows = table.dropna(subset=["effect"])
    points: Mark = {
        "type": "scatter", "mode": "markers", "x": rows["effect"], "y": rows["title"],
        "error_x": {
            "type": "data", "symmetric": False, "thickness": 1.5, "width": 3, "color": GUIDE,
            "array": (rows["effect_high"] - rows["effect"]).fillna(0),
            "arrayminus": (rows["effect"] - rows["effect_low"]).fillna(0),
        },
        "marker": {
            "size": 10, "symbol": np.where(rows["clear"], "circle", "circle-open").tolist(),
            "color": np.where(rows["effect"] > 0, DIVERGING[-1], DIVERGING[0]).tolist(),
        },
        "hovertemplate": "%{y} · %{x:+.2f} spreads<extra></extra>",
    }  # fmt: skip
    return make_figure(
        [points],
        x={"name": "B − A in spreads between prompts", "zeroline": True, "zerolinecolor": GUIDE},
        y={"name": "", "autorange": "reversed", "automargin": True},
        height=height or 90 + 26 * max(1, len(rows)),
        hovermode="closest",
        margin={"l": 160, "r": 12, "t": 10, "b": 42},
    )


def _head_words(found: RunDifference, block: int, head: int) -> str:
    at = block, head
    for side, absent in (("A", found.absent_a), ("B", found.absent_b)):
        if absent[at]:
            return f"absent in {side}"
    interval = "" if np.isnan(found.low[at]) else f" [{found.low[at]:+.3g}, {found.high[at]:+.3g}]"
    means = f"A {found.mean_a[at]:.3g}, B {found.mean_b[at]:.3g}"
    return f"{found.difference[at]:+.3g}{interval} · {means} · n {found.n[at]}"
