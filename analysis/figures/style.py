"""Colours and layout that every figure shares: Okabe-Ito roles, always with their letter, on any background."""

import plotly.graph_objects as go

ROLE_COLORS = {"S": "#0072B2", "M": "#999999", "T": "#D55E00"}
ROLE_NAMES = {"S": "spatial", "M": "mixed", "T": "temporal"}
GUIDE = "rgba(128, 128, 128, 0.55)"


def empty_figure(*, x: str, y: str, height: int) -> go.Figure:
    """A transparent figure with named axes, so that it reads on a light and on a dark page."""
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 52, "r": 12, "t": 10, "b": 42},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        showlegend=False,
        hovermode="x unified",
        font={"size": 12},
    )
    figure.update_xaxes(title={"text": x, "standoff": 6}, showgrid=False, zeroline=False, ticks="outside", ticklen=3)
    figure.update_yaxes(title={"text": y, "standoff": 6}, gridcolor="rgba(128,128,128,0.15)", zeroline=False)
    return figure


def rgba(color: str, alpha: float) -> str:
    """A hex colour with an opacity.

    >>> rgba("#0072B2", 0.2)
    'rgba(0, 114, 178, 0.2)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {alpha})"
