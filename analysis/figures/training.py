"""Figures of a training: its losses, what is logged beside them, validations over time, roles and gates of the student."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import ROLE_COLORS, ROLE_NAMES, Mark, ink_on, make_figure, on_white

ABOVE = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
# Okabe-Ito, readable on light and dark; each line with a dash and each point set with a symbol of its own.
LINES = (
    ("#0072B2", "solid", "circle"),
    ("#E69F00", "dash", "square"),
    ("#009E73", "dot", "diamond"),
    ("#CC79A7", "dashdot", "triangle-up"),
    ("#D55E00", "longdash", "x"),
    ("#56B4E9", "longdashdot", "star"),
    ("#7f7f7f", "solid", "cross"),
)
PATTERNS = {"S": "", "M": "/", "T": "."}


def loss_curves(
    curves: pd.DataFrame, losses: Sequence[str], *, samples: int, steps: int = 0, height: int = 360
) -> go.Figure:
    """The loss and its parts by step, on a logarithmic axis; every point is the mean over one step's `samples`.

    `losses` are columns of `curves`, the weighted sum first. `steps` is how far the training will go.

    >>> frame = pd.DataFrame({"step": [1, 2], "loss": [2.0, 1.0], "data": [0.5, float("nan")]})
    >>> [trace.name for trace in loss_curves(frame, ["loss", "data"], samples=8).data]
    ['loss', 'data']
    """
    traces: list[Mark] = []
    for (color, dash, symbol), name in zip(_endless(len(losses)), losses, strict=True):
        rows = curves[np.isfinite(curves[name]) & (curves[name] > 0)]
        few = len(rows) < 40
        line: Mark = {"type": "scatter", "name": name, "x": rows["step"], "y": rows[name], "cliponaxis": False}
        line |= {"mode": "lines+markers" if few else "lines", "marker": {"symbol": symbol, "size": 6, "color": color}}
        line |= {"line": {"color": color, "dash": dash, "width": 2.5 if name == "loss" else 1.5}}
        traces.append(line | {"hovertemplate": f"%{{y:.4g}} (n {samples})"})
    last = max(float(curves["step"].max()) if len(curves) else 0.0, 1.0)
    return make_figure(
        traces,
        x={"name": "training step", "range": [0, max(steps, last)]},
        y={"name": f"loss, n = {samples} samples a point", "type": "log", "exponentformat": "power", "nticks": 6},
        height=height,
        margin={"l": 66, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend=ABOVE,
    )


def logged_curve(curves: pd.DataFrame, column: str, name: str, *, log: bool = False, height: int = 200) -> go.Figure:
    """One logged number by step: learning_rate, gradient_norm, blocks_run.

    >>> logged_curve(pd.DataFrame({"step": [1], "blocks_run": [5.5]}), "blocks_run", "blocks").data[0].y.tolist()
    [5.5]
    """
    rows = curves[np.isfinite(curves[column])]
    color = LINES[0][0]
    line: Mark = {"type": "scatter", "x": rows["step"], "y": rows[column], "line": {"color": color, "width": 1.5}}
    line |= {"mode": "lines+markers" if len(rows) < 40 else "lines", "hovertemplate": "%{y:.4g}<extra></extra>"}
    scale: Mark = {"exponentformat": "power", "nticks": 6}
    if log:
        positive = rows[column][rows[column] > 0]
        scale["type"] = "log"
        # Over several decades the steps between them would stand too close.
        if len(positive) and positive.max() > 20 * positive.min():
            scale = {"type": "log", "exponentformat": "power", "dtick": 1}
    # Powers are set larger than other numbers, and the axis has a name beside them.
    margin = {"l": 66, "r": 34, "t": 10, "b": 42}
    return make_figure([line], x={"name": "step"}, y={"name": name, **scale}, height=height, margin=margin)


def validation_curves(
    frame: pd.DataFrame, by: str, value: str, name: str, *, share: bool = False, height: int = 260
) -> go.Figure:
    """Means over held-out samples by step, with their 95 % intervals: a line per value of the column `by`.

    `frame` has columns step, `by`, `value`, low, high and n.

    >>> row = {"step": 10, "sigma": 0.5, "mean": 0.2, "low": 0.1, "high": 0.3, "n": 4}
    >>> validation_curves(pd.DataFrame([row]), "sigma", "mean", "error").data[0].error_y.array.tolist()
    [0.1]
    """
    traces: list[Mark] = []
    groups = list(frame.groupby(by, sort=True))
    for (color, dash, symbol), (which, rows) in zip(_endless(len(groups)), groups, strict=True):
        above, below = rows["high"] - rows[value], rows[value] - rows["low"]
        interval = {"type": "data", "array": above.round(9), "arrayminus": below.round(9), "width": 3, "thickness": 1}
        words = [
            f"{row[value]:.4g} [{row['low']:.4g}, {row['high']:.4g}], n {row['n']:g}" for _, row in rows.iterrows()
        ]
        line: Mark = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": f"σ = {which}" if by == "sigma" else str(which),
            "customdata": words,
        }
        line |= {"x": rows["step"], "y": rows[value], "error_y": interval, "hovertemplate": "%{customdata}"}
        traces.append(line | {"line": {"color": color, "dash": dash}, "marker": {"symbol": symbol, "size": 7}})
    return make_figure(
        traces,
        x={"name": "training step"},
        y={"name": name, **({"tickformat": ".0%", "range": [0, 1.05]} if share else {"rangemode": "tozero"})},
        height=height,
        margin={"l": 58, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend=ABOVE,
    )


def role_counts(teacher: pd.DataFrame, student: pd.DataFrame, *, height: int = 260) -> go.Figure:
    """Heads of every role by block: the teacher's bar and, beside it, the student's, outlined.

    Both frames are `counts_by_block`'s: block, S, M, T.

    >>> frame = pd.DataFrame({"block": [0], "S": [1], "M": [0], "T": [2]})
    >>> len(role_counts(frame, frame).data)
    6
    """
    traces: list[Mark] = []
    for whose, frame, alpha in (("teacher", teacher, 0.55), ("student", student, 1.0)):
        for letter, color in ROLE_COLORS.items():
            words = [
                f"{whose}, block {block}: {n} {ROLE_NAMES[letter]}"
                for block, n in zip(frame["block"], frame[letter], strict=True)
            ]
            bar: Mark = {
                "type": "bar",
                "x": frame["block"],
                "y": frame[letter],
                "offsetgroup": whose,
                "customdata": words,
            }
            bar |= {"name": f"{letter} {ROLE_NAMES[letter]}", "hovertemplate": "%{customdata}<extra></extra>"}
            # One key for both; which bar is whose is said below them.
            bar |= {"legendgroup": letter, "showlegend": whose == "student"}
            outline = {"width": 1.5 if whose == "student" else 0, "color": "#7f7f7f"}
            # Over the fill, so that the letter has one colour behind it on a light and on a dark page.
            pattern = {"shape": PATTERNS[letter], "size": 5, "solidity": 0.2, "fillmode": "overlay"}
            fill = on_white(color, alpha)
            bar |= {"marker": {"color": fill, "pattern": pattern | {"fgcolor": "#fff"}, "line": outline}}
            bar |= {"text": [letter if n else "" for n in frame[letter]], "textposition": "inside", "textangle": 0}
            traces.append(bar | {"insidetextfont": {"color": ink_on(fill)}, "insidetextanchor": "middle"})
    return make_figure(
        traces,
        x={"name": "block (left the teacher, right the student)", "dtick": 1 if len(teacher) <= 16 else 5},
        y={"name": "heads"},
        height=height,
        barmode="stack",
        bargap=0.25,
        hovermode="closest",
        margin={"l": 52, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend=ABOVE,
    )


def gate_shares(ran: np.ndarray, sigmas: Sequence[float], *, height: int = 220) -> go.Figure:
    """Share of the samples in which a block ran, by σ and block: `ran` [sample, sigma, block].

    >>> gate_shares(np.ones((2, 1, 3)), [0.5]).data[0].z.tolist()
    [[1.0, 1.0, 1.0]]
    """
    shares = np.asarray(ran, float).mean(axis=0)
    samples, blocks = len(ran), shares.shape[1]
    cells: Mark = {"type": "heatmap", "z": shares, "x": list(range(blocks)), "y": [f"{each:g}" for each in sigmas]}
    cells |= {"colorscale": "Cividis", "zmin": 0, "zmax": 1, "xgap": 1, "ygap": 1, "colorbar": {"tickformat": ".0%"}}
    if blocks <= 16:
        cells |= {"text": [[f"{each:.0%}" for each in row] for row in shares], "texttemplate": "%{text}"}
    cells["hovertemplate"] = f"block %{{x}} at σ %{{y}}: ran in %{{z:.0%}} of n {samples} samples<extra></extra>"
    return make_figure(
        [cells],
        x={"name": "block", "dtick": 1 if blocks <= 16 else 5},
        y={"name": "noise level σ", "type": "category"},
        height=height,
        hovermode="closest",
    )


def gate_table(ran: np.ndarray, sigmas: Sequence[float]) -> pd.DataFrame:
    """One row per noise level and block: `sigma`, `block`, the `share` of the samples in which it ran, and `n`.

    >>> gate_table(np.ones((2, 1, 2)), [0.5]).values.tolist()
    [[0.5, 0.0, 1.0, 2.0], [0.5, 1.0, 1.0, 2.0]]
    """
    shares = np.asarray(ran, float).mean(axis=0)
    level, block = np.indices(shares.shape)
    columns = {"sigma": np.asarray(sigmas, float)[level], "block": block, "share": shares}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()}).assign(n=len(ran))


def _endless(count: int) -> list[tuple[str, str, str]]:
    return [LINES[index % len(LINES)] for index in range(count)]
