"""The frame map on a Streamlit page: it marks the latent frame that a linked player shows, and a click seeks there."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from pare.errors import InputError
from workbench.components.columns import arrow
from workbench.components.source import source

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

SCRIPTS = ("canvas.js", "cells.js", "page_link.js", "frame_link.js", "frame_map/draw.js", "frame_map/frame_map.js")


def frame_map(
    values: np.ndarray,
    *,
    title: str,
    palette: list[str],
    frame: int | None = None,
    link: str | None = None,
    key: str = "frame_map",
) -> None:
    """Show `values` [frame_q, frame_k], rows summing to 1: query frames down, key frames across, colours from 0.

    Args:
        title: what is shown, for screen readers.
        palette: evenly spaced colours from 0 to the largest share.
        frame: the latent frame that is marked at first; a linked player moves the mark without the server.
        link: name shared with a player of the same page; a click or Enter sends it to the query frame.

    Raises:
        InputError: values that are no square map.

    >>> frame_map(np.eye(3), title="Block 0, head 1", palette=["#000000", "#ffffff"])
    """
    values = np.asarray(values, np.float32)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or not len(values):
        raise InputError("frame map", got=list(values.shape), expected="[frame_q, frame_k]", fix="pass one head's map")
    finite = values[np.isfinite(values)]
    _renderer()(
        key=key,
        data={
            "cells": arrow({"value": values.ravel()}),
            "frames": len(values),
            "high": float(finite.max()) if len(finite) else 1.0,
            "title": title,
            "palette": palette,
            "frame": None if frame is None else min(max(frame, 0), len(values) - 1),
            "link": link,
        },
    )


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.frame_map",
        html=source("frame_map/frame_map.html"),
        css=source("cells.css", "frame_map/frame_map.css"),
        js=source(*SCRIPTS),
    )
