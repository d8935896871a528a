"""Colours, marks and layout that every figure shares: Okabe-Ito roles, always with their letter, on any background."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.colors import sample_colorscale

ROLE_COLORS = {"S": "#0072B2", "M": "#999999", "T": "#D55E00"}
ROLE_NAMES = {"S": "spatial", "M": "mixed", "T": "temporal"}
# Readable on light and dark; each with a dash of its own, so that no line is told by colour alone.
PART_COLORS = (("#7f7f7f", "solid"), ("#0072B2", "dash"), ("#009E73", "dot"), ("#CC79A7", "dashdot"))
BRANCH_DASHES = ("solid", "dot", "dash")
GUIDE = "rgba(128, 128, 128, 0.55)"
AXIS = {"automargin": True, "title": {"standoff": 15}}
TEMPLATE = {"layout": {"xaxis": AXIS, "yaxis": AXIS}}
"""In place of plotly's own, whose colours are those of one page; it is most of what a small figure weighs."""
Mark = dict[str, Any]


def make_figure(
    traces: Sequence[Mark],
    *,
    x: Mark,
    y: Mark,
    height: int,
    shapes: Sequence[Mark] = (),
    annotations: Sequence[Mark] = (),
    **layout: Any,
) -> go.Figure:
    """A transparent figure with named axes, so that it reads on a light and on a dark page.

    `x` and `y` are axis settings with `name`. Everything is given at once: plotly checks a figure again at each update,
    which on a page with three of them is most of the server's work.
    """
    return go.Figure(
        data=list(traces),
        layout={
            "template": TEMPLATE,
            "height": height,
            "margin": {"l": 52, "r": 34, "t": 10, "b": 42},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "showlegend": False,
            "hovermode": "x unified",
            "font": {"size": 12},
            "xaxis": {"showgrid": False, "zeroline": False, "ticks": "outside", "ticklen": 3, **_axis(x)},
            "yaxis": {"gridcolor": "rgba(128,128,128,0.15)", "zeroline": False, **_axis(y)},
            "shapes": list(shapes),
            "annotations": list(annotations),
            **layout,
        },
    )


def band(low: float, high: float, color: str) -> Mark:
    """A tinted range of y over the whole width."""
    return {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": low, "y1": high,
        "fillcolor": color, "line": {"width": 0}, "layer": "below",
    }  # fmt: skip


def level(value: float, dash: str = "dot") -> Mark:
    """A horizontal guide at y = value."""
    line = {"color": GUIDE, "width": 1, "dash": dash}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value, "line": line}


def upright(value: float, dash: str = "solid") -> Mark:
    """A vertical guide at x = value."""
    line = {"color": GUIDE, "width": 1, "dash": dash}
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": value, "x1": value, "line": line}


def label(text: str, **place: Any) -> Mark:
    """A small text without an arrow."""
    return {"text": text, "showarrow": False, "font": {"size": 11}, **place}


def root_palette(colours: int = 33) -> list[str]:
    """Viridis by the square root of evenly spaced values from 0 on, so that one large value leaves the small ones apart.

    >>> root_palette(5)
    ['#440154', '#22908c', '#4abf6d', '#a6db34', '#fde725']
    """
    shares = np.sqrt(np.linspace(0, 1, colours)).tolist()
    rgb = sample_colorscale("Viridis", shares, colortype="tuple")
    return ["#" + "".join(f"{round(255 * part):02x}" for part in each) for each in rgb]


def ink_on(color: str) -> str:
    """Black or white, whichever reads better on a hex colour (the larger contrast of WCAG).

    >>> [ink_on(color) for color in ROLE_COLORS.values()]
    ['#fff', '#000', '#000']
    """
    return "#000" if contrast("#000000", color) >= contrast("#ffffff", color) else "#fff"


def contrast(one: str, two: str) -> float:
    """The contrast of two hex colours by WCAG, from 1 to 21; text needs 4.5.

    >>> round(contrast("#ffffff", "#999999"), 2)
    2.85
    """
    high, low = sorted((_luminance(one), _luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    levels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return sum(share * level for share, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def on_white(color: str, alpha: float) -> str:
    """A hex colour as it looks on white at an opacity: a tint that is the same on every page.

    >>> on_white("#0072B2", 0.5)
    '#80b8d8'
    """
    levels = [round(255 + alpha * (int(color[i : i + 2], 16) - 255)) for i in (1, 3, 5)]
    return "#" + "".join(f"{level:02x}" for level in levels)


def rgba(color: str, alpha: float) -> str:
    """A hex colour with an opacity.

    >>> rgba("#0072B2", 0.2)
    'rgba(0, 114, 178, 0.2)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"


def _axis(settings: Mapping[str, Any]) -> Mark:
    own = dict(settings)
    return {"title": {"text": own.pop("name"), "standoff": 18}, **own}
