"""Lanes of blocks by step on a Streamlit page, what each block changed above them; a click or Enter turns a cell over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from pare.errors import InputError
from workbench.components.columns import arrow
from workbench.components.source import source

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

SCRIPTS = ("canvas.js", "cells.js", "lanes/draw.js", "lanes/lanes.js")


@dataclass(frozen=True, eq=False)
class Lanes:
    """Decisions [step, block]: `ran`, `scores`, `distance` to the flip (NaN: none), and which `differ` or are `edited`.

    `change` [step, block] is how much every block changed its input, NaN where it was not measured; None: no map.
    """

    ran: np.ndarray
    scores: np.ndarray
    distance: np.ndarray
    timesteps: np.ndarray
    differ: np.ndarray
    edited: np.ndarray
    change: np.ndarray | None = None

    def check(self) -> None:
        """Raise `InputError` unless all have one shape."""
        there = (self.ran, self.scores, self.distance, self.differ, self.edited, self.change)
        shapes = {each.shape for each in there if each is not None}
        if shapes != {(len(self.timesteps), self.ran.shape[-1])}:
            raise InputError("lanes", got=sorted(shapes), expected="[step, block] of one shape", fix="one run's arrays")


def lanes(
    shown: Lanes,
    *,
    title: str,
    score_limits: tuple[float, float],
    score_palette: list[str],
    change_limits: tuple[float, float] = (0.0, 1.0),
    change_palette: list[str] | None = None,
    editable: bool = False,
    key: str = "lanes",
    on_change: Callable[[int, int], None] | None = None,
) -> None:
    """Show decisions as lanes, filled where a block ran and hollow where it was skipped, the score as shade.

    Args:
        title: what is shown, for screen readers.
        score_limits, change_limits: values at both ends of the palettes, evenly spaced colours.
        editable: whether a cell may be turned over; the first and the last block never.
        on_change: called with step and block of a cell that a click or Enter turned over, before the page runs again.
            Python holds the decisions: change them, pass them in.
    """
    shown.check()
    steps, blocks = shown.ran.shape
    # Noise falls from left to right, as on the map of blocks.
    order = np.argsort(-np.asarray(shown.timesteps, float), kind="stable")

    def changed() -> None:
        import streamlit as st

        cell = parse_cell(st.session_state.get(key), steps, blocks)
        if cell is not None and editable and on_change is not None:
            on_change(int(order[cell[0]]), cell[1])

    columns = {"ran": shown.ran, "score": shown.scores, "distance": shown.distance}
    columns |= {"differs": shown.differ, "edited": shown.edited}
    if shown.change is not None:
        columns["change"] = shown.change
    _renderer()(
        key=key,
        data={
            "cells": arrow({name: np.asarray(each, np.float32)[order].ravel() for name, each in columns.items()}),
            "blocks": blocks,
            "timesteps": [float(shown.timesteps[step]) for step in order],
            "title": title,
            "scoreLimits": list(score_limits),
            "scorePalette": score_palette,
            "changeLimits": list(change_limits),
            "changePalette": change_palette,
            "editable": editable,
        },
        on_cell_change=changed,
    )


def parse_cell(raw: Any, steps: int, blocks: int) -> tuple[int, int] | None:
    """The cell (step, block) that a browser's message names, None for anything else. The browser is not trusted.

    >>> [parse_cell({"cell": cell}, steps=4, blocks=8) for cell in ([3, 6], [3, 7], [4, 1], [0, 0], "3", [1.5, 2])]
    [(3, 6), None, None, None, None, None]
    """
    cell = raw.get("cell") if hasattr(raw, "get") else None
    if not isinstance(cell, list | tuple) or len(cell) != 2:
        return None
    if any(isinstance(each, bool) or not isinstance(each, int | float) or each != each // 1 for each in cell):
        return None
    step, block = int(cell[0]), int(cell[1])
    return (step, block) if 0 <= step < steps and 0 < block < blocks - 1 else None


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.lanes",
        html=source("lanes/lanes.html"),
        css=source("cells.css", "lanes/lanes.css"),
        js=source(*SCRIPTS),
    )
