"""The head grid on a Streamlit page: arrays go to the browser once, small values come back as they are chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from analysis.roles import check_thresholds
from pare.errors import InputError
from workbench.components.columns import arrow
from workbench.components.head_grid.cells import as_drawn, column_of, dense_cells, drawn_cells, grid_shape
from workbench.components.head_grid.value import HeadGridValue, parse_value, whole_message
from workbench.components.source import source

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

# One browser module, in this order: pure functions, drawing, then the element itself.
SCRIPTS = (
    "canvas.js", "page_link.js",
    "head_grid/model.js", "head_grid/cell_layer.js", "head_grid/draw.js", "head_grid/head_grid.js",
)  # fmt: skip


def head_grid(
    frame: pd.DataFrame,
    *,
    tau_s: float,
    tau_t: float,
    num_frames: int,
    uniform: float | None = None,
    pinned: tuple[int, int] | None = None,
    blocks: int | None = None,
    heads: int | None = None,
    delta: float = 0.02,
    shade: bool = False,
    only_block: int | None = None,
    order: np.ndarray | None = None,
    link: str | None = None,
    follow: tuple[str, ...] = (),
    crossed: str = "removed",
    key: str = "head_grid",
    on_change: Callable[[HeadGridValue], None] | None = None,
) -> HeadGridValue:
    """Show every head's role by block and head, with the histogram of ratios and both thresholds as handles.

    Python holds the selection: pass it in, store what `on_change` brings, and the next run passes that in. Nothing
    is sent while a handle moves; its release, or the pin of a head, sends one message.

    Args:
        frame: one row per head; columns `block`, `head` (zero-based), `ratio` (intra-slice ratio r in 0..1, NaN where
            not captured), optionally `removed` (bool, crossed) and `flags` (cells.UNIFORM, cells.FIRST_FRAME_SINK,
            cells.FLIPPED by α, or their sum, outlined). Heads without a row show as not captured.
        tau_s, tau_t: spatial where r > tau_s, temporal where r < tau_t, mixed between.
        num_frames: latent frames Fl of the run.
        uniform: ratio of uniform attention, marked on the histogram; 1/Fl unless given.
        pinned: the highlighted (block, head).
        blocks, heads: size of the grid; by default what `frame` names.
        delta: heads whose role would flip if a threshold moved by at most this much are counted.
        shade: stronger colour the further a ratio lies inside its role.
        only_block: show the heads of this block alone, as one row without the histogram; `frame` holds only them.
        order: heads of each block in the order to show them [block, head]; by number unless given (`cells.by_ratio`).
        link: name shared with the mask's sliders of the same page, which follow the thresholds while they move.
        follow: what follows those sliders: `removed`, `flipped` or both; else it stays as `frame` has it.
        crossed: what a head that is crossed is called.
        key: Streamlit key, unique on the page.
        on_change: called with the new value before the page runs again.

    Returns:
        The value of this run: the arguments, or what the browser sent just now.

    Raises:
        InputError: a column is missing, a head appears twice, or a number is out of its range.

    >>> frame = pd.DataFrame({"block": [0, 0], "head": [0, 1], "ratio": [0.95, 0.11]})
    >>> head_grid(frame, tau_s=0.7, tau_t=0.3, num_frames=9, pinned=(0, 1))
    HeadGridValue(tau_s=0.7, tau_t=0.3, block=0, head=1)
    """
    check_thresholds(tau_s, tau_t)
    if num_frames < 1:
        raise InputError("num_frames", got=num_frames, expected="at least 1", fix="pass the run's latent frames")
    # The browser counts rows from the first one shown.
    first = only_block or 0
    frame = frame.assign(block=frame["block"] - first) if first else frame
    shape = grid_shape(frame, 1 if only_block is not None else blocks, heads)
    # The browser counts columns; which head stands in one is the order's business.
    columns = as_drawn(*shape, order)
    cell = None if pinned is None else column_of(columns, pinned[0] - first, pinned[1])
    current = parse_value({"cell": cell}, *shape, HeadGridValue(tau_s, tau_t))

    def value_of(raw: object) -> HeadGridValue:
        value = parse_value(whole_message(raw), *shape, current)
        if value.block is None or value.head is None:
            return value
        return replace(value, block=value.block + first, head=int(columns[value.block, value.head]))

    def changed() -> None:
        import streamlit as st

        if on_change is not None:
            on_change(value_of(st.session_state.get(key)))

    result = _renderer()(
        key=key,
        data={
            "cells": arrow(drawn_cells(dense_cells(frame, *shape), columns)),
            "blocks": shape[0],
            "heads": shape[1],
            "thresholds": [current.tau_s, current.tau_t],
            "pinned": None if current.block is None else [current.block, current.head],
            "numFrames": num_frames,
            "uniform": 1 / num_frames if uniform is None else uniform,
            "delta": delta,
            "shade": shade,
            "firstBlock": first,
            "rowOnly": only_block is not None,
            "ordered": order is not None,
            "link": link,
            "follow": list(follow),
            "crossed": crossed,
        },
        on_thresholds_change=changed,
        on_cell_change=changed,
    )
    return value_of(result)


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.head_grid",
        html=source("head_grid/head_grid.html"),
        css=source("head_grid/head_grid.css"),
        js=source(*SCRIPTS),
    )
