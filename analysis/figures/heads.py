"""Figures of single heads: all of them as a grid, and one head's attention between frames."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import GUIDE, ROLE_COLORS, ROLE_NAMES, Mark, ink_on, make_figure
from analysis.marks import MARK_NAMES
from analysis.roles import LETTERS, classify

LETTERED_HEADS = 24
"""Up to so many heads in a row, letters fit the cells; wider grids rely on colour, hover and the legend."""
REMOVED = "removed"


def head_grid(frame: pd.DataFrame, *, tau_s: float, tau_t: float, height: int | None = None) -> go.Figure:
    """Role of every head, block by block: the app's head grid as a still picture, for notebooks and export.

    `frame` has one row per head with `block`, `head`, `ratio` (`analysis.roles.role_table` gives one), optionally
    `mark` (U uniform, F first-frame sink: outlined) and `removed` (bool: crossed). Heads without a ratio are hatched.
    """
    blocks, heads = (int(frame[axis].max()) + 1 for axis in ("block", "head"))
    ratio = np.full((blocks, heads), np.nan)
    ratio[frame["block"], frame["head"]] = frame["ratio"]
    letters = classify(ratio, tau_s, tau_t)
    codes = np.full(ratio.shape, np.nan)
    for code, letter in enumerate(LETTERS):
        codes[letters == letter] = code
    marks = np.full(ratio.shape, "", dtype="<U2")
    if "mark" in frame:
        marks[frame["block"], frame["head"]] = frame["mark"]
    hover = [[_words(ratio[b, h], letters[b, h], marks[b, h]) for h in range(heads)] for b in range(blocks)]
    colors = [ROLE_COLORS[letter] for letter in LETTERS]
    traces = [
        {
            "type": "heatmap",
            "z": codes,
            "zmin": 0,
            "zmax": 2,
            # Three flat colours: each spans a third of the scale.
            "colorscale": [[(code + end) / 3, color] for code, color in enumerate(colors) for end in (0, 1)],
            "showscale": False,
            "xgap": 1,
            "ygap": 2,
            "customdata": hover,
            "hovertemplate": "block %{y}, head %{x} · %{customdata}<extra></extra>",
        }
    ]
    lettered = heads <= LETTERED_HEADS
    if lettered:
        traces.append(_letters(letters))
    where = {
        MARK_NAMES["F"]: ("square-open", np.char.find(marks, "F") >= 0),
        MARK_NAMES["U"]: ("circle-open", np.char.find(marks, "U") >= 0),
        "not captured": ("hash-open", letters == ""),
        REMOVED: ("x-thin-open", _cells(frame, "removed", ratio.shape)),
    }
    shown = {name: symbol for name, (symbol, cells) in where.items() if cells.any()}
    traces += [
        _crosses(where[name][1]) if name == REMOVED and lettered else _symbols(name, symbol, where[name][1])
        for name, symbol in shown.items()
    ]
    return make_figure(
        [*traces, *_legend(shown)],
        x={"name": "head", "side": "top", "dtick": 1 if heads <= 16 else 5, "range": [-0.5, heads - 0.5]},
        y={"name": "block", "range": [blocks - 0.5, -0.5], "dtick": 1 if blocks <= 16 else 5, "showgrid": False},
        height=height or 110 + max(8, min(28, 560 // blocks)) * blocks,
        margin={"l": 52, "r": 12, "t": 52, "b": 42},
        hovermode="closest",
        showlegend=True,
        legend={"orientation": "h", "y": -0.02, "yanchor": "top", "x": 0},
    )


def frame_map(values: np.ndarray, *, name: str = "share of attention", height: int = 260) -> go.Figure:
    """Attention from every query frame (down) to every key frame (across), `values` [frame_q, frame_k], rows sum to 1.

    Viridis from 0; uniform attention would have 1/Fl everywhere, which the hover text compares with.
    """
    values = np.asarray(values, float)
    frames = len(values)
    heat = {
        "type": "heatmap",
        "z": values,
        "zmin": 0,
        "zmax": float(np.nanmax(values)) if np.isfinite(values).any() else 1.0,
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": name, "side": "right"}, "thickness": 10, "outlinewidth": 0},
        "hovertemplate": f"from frame %{{y}} to frame %{{x}} · %{{z:.3f}} (uniform {1 / frames:.3f})<extra></extra>",
    }
    every = 1 if frames <= 12 else 5
    return make_figure(
        [heat],
        x={"name": "key frame", "dtick": every, "constrain": "domain", "constraintoward": "left"},
        y={"name": "query frame", "dtick": every, "autorange": "reversed", "scaleanchor": "x", "constrain": "domain",
           "showgrid": False},
        height=height,
        # Square cells: a wider figure would leave its scale far from them.
        width=height + 130,
        hovermode="closest",
    )  # fmt: skip


def _words(ratio: float, letter: str, mark: str) -> str:
    if not letter:
        return "not captured"
    return " · ".join([f"r {ratio:.3f}", ROLE_NAMES[letter], *(MARK_NAMES[one] for one in mark)])


def _cells(frame: pd.DataFrame, column: str, shape: tuple[int, int]) -> np.ndarray:
    cells = np.zeros(shape, bool)
    if column in frame:
        cells[frame["block"], frame["head"]] = frame[column].astype(bool)
    return cells


def _letters(letters: np.ndarray) -> Mark:
    """The role of every cell, written: a heat map has one colour for all its texts, which would not read on all roles."""
    block, head = np.nonzero(letters != "")
    written = letters[block, head]
    return {
        "type": "scatter",
        "name": "letters",
        "x": head,
        "y": block,
        "mode": "text",
        "text": written,
        "textfont": {"color": [ink_on(ROLE_COLORS[letter]) for letter in written], "size": 11},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _symbols(name: str, symbol: str, cells: np.ndarray) -> Mark:
    block, head = np.nonzero(cells)
    # Black reads on all three role colours; cells without one stand on the page itself.
    color = GUIDE if name == "not captured" else "#000"
    return {
        "type": "scatter",
        "name": name,
        "x": head,
        "y": block,
        "mode": "markers",
        "marker": {"symbol": symbol, "size": 15, "color": color, "line": {"color": color, "width": 1.5}},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _crosses(cells: np.ndarray) -> Mark:
    """From the corners of every cell towards its middle, which stays free for the letter."""
    centres = np.argwhere(cells)[:, None, None]
    arms = np.array([(1, 1), (1, -1), (-1, 1), (-1, -1)])[:, None] * np.array([[0.2], [0.44]])
    # The third point of an arm is none, where the line breaks off.
    ends = np.concatenate([centres + arms, np.full((len(centres), 4, 1, 2), np.nan)], axis=2).reshape(-1, 2)
    return {
        "type": "scatter",
        "name": REMOVED,
        "x": ends[:, 1],
        "y": ends[:, 0],
        "mode": "lines",
        "line": {"color": "#000", "width": 1.5},
        "hoverinfo": "skip",
        "showlegend": False,
    }


def _legend(symbols: dict[str, str]) -> list[Mark]:
    """Entries for the roles, which a heat map has none of, and for the marks, in a grey that reads on any page."""
    roles = {f"{letter} {name}": ("square", ROLE_COLORS[letter]) for letter, name in ROLE_NAMES.items()}
    marks = {name: (symbol, "#888") for name, symbol in symbols.items()}
    return [
        {
            "type": "scatter",
            "name": name,
            "x": [None],
            "y": [None],
            "mode": "markers",
            "marker": {"symbol": symbol, "size": 11, "color": color, "line": {"color": color, "width": 1.5}},
        }
        for name, (symbol, color) in {**roles, **marks}.items()
    ]
