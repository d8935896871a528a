"""The figure of numbers per video frame: the player's strips as a still picture, a panel per measure."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.style import Mark, make_figure

LINES = (("#0072B2", "solid"), ("#D55E00", "dash"), ("#009E73", "dot"), ("#CC79A7", "dashdot"))
GAP = 0.12


def lines_by_frame(table: pd.DataFrame, *, height: int | None = None) -> go.Figure:
    """A line per video over its video frames, a panel per measure; a video has the same colour and dash in all of them.

    `table` is `analysis.metrics.by_frame.frame_table`'s.

    >>> row = {"measure": "PSNR", "unit": "dB", "video": "b", "against": "a", "video_frame": 0, "value": 30.0}
    >>> lines_by_frame(pd.DataFrame([row])).data[0].name
    'b against a'
    """
    measures = list(table["measure"].unique())
    videos = [*dict.fromkeys([*table["against"][table["against"] != ""], *table["video"]])]
    panels = max(len(measures), 1)
    traces: list[Mark] = []
    axes: dict[str, Mark] = {}
    for panel, measure in enumerate(measures):
        rows = table[table["measure"] == measure]
        # The first on top.
        bottom = (panels - 1 - panel) / panels
        domain = [bottom + (GAP / 2 if bottom else 0), bottom + 1 / panels - (GAP / 2 if panel else 0)]
        name = f"{str(measure).partition(' from ')[0]} ({rows['unit'].iloc[0]})"
        axes["yaxis" if panel == 0 else f"yaxis{panel + 1}"] = {"name": name, "domain": domain}
        for video, values in rows.groupby("video", sort=False):
            color, dash = LINES[videos.index(video) % len(LINES)]
            against = values["against"].iloc[0]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": f"{video} against {against}" if against else str(video),
                    "x": values["video_frame"].to_numpy(),
                    "y": values["value"].to_numpy(),
                    "yaxis": "y" if panel == 0 else f"y{panel + 1}",
                    "line": {"color": color, "dash": dash, "width": 1.5},
                    "hovertemplate": "%{y:.4g} " + str(rows["unit"].iloc[0]),
                }
            )
    first, *others = axes.values() or [{"name": ""}]
    below: dict[str, Any] = {
        f"yaxis{at + 2}": {
            "title": {"text": axis["name"], "standoff": 18},
            "domain": axis["domain"],
            "gridcolor": "rgba(128,128,128,0.15)",
            "zeroline": False,
        }
        for at, axis in enumerate(others)
    }
    return make_figure(
        traces,
        x={"name": "video frame", "anchor": f"y{panels}" if panels > 1 else "y"},
        y=first,
        height=height or 80 + 150 * panels,
        margin={"l": 64, "r": 12, "t": 30, "b": 42},
        showlegend=True,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        **below,
    )
