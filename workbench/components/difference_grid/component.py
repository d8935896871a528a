"""The grid of B − A on a Streamlit page: a click or Enter chooses a head, everything else stays in the browser."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.evidence.words import counted
from analysis.figures.differences import DIVERGING, diverging_limit
from analysis.roles import LETTERS, classify
from analysis.run_difference import RunDifference
from workbench.components.columns import arrow
from workbench.components.head_grid.value import HeadGridValue, parse_value
from workbench.components.source import source

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

SCRIPTS = ("canvas.js", "cells.js", "difference_grid/draw.js", "difference_grid/difference_grid.js")


def difference_grid(
    found: RunDifference,
    *,
    title: str,
    symbol: str,
    thresholds: tuple[float, float] | None = None,
    pinned: tuple[int, int] | None = None,
    key: str = "difference_grid",
    on_change: Callable[[int, int], None] | None = None,
) -> None:
    """Show B − A of every head on a scale centred at 0; heads that a run does not have are hatched, never zero.

    Args:
        found: a difference over [block, head].
        title: what is subtracted, for screen readers; `symbol` stands beside the colour scale.
        thresholds: (τs, τt) where the statistic is the intra-slice ratio: heads whose role changes are outlined.
        pinned: the highlighted (block, head). Python holds it: pass it in, store what `on_change` brings.
        on_change: called with the block and head that a click or Enter chose, before the page runs again.
    """
    blocks, heads = found.difference.shape

    def changed() -> None:
        import streamlit as st

        cell = parse_cell(st.session_state.get(key), blocks, heads)
        if cell is not None and on_change is not None:
            on_change(*cell)

    _renderer()(
        key=key,
        data={
            "cells": arrow(cells(found, thresholds)),
            "blocks": blocks,
            "heads": heads,
            "limit": diverging_limit(found.difference),
            "palette": list(DIVERGING),
            "title": title,
            "symbol": symbol,
            "legend": legend(found, thresholds is not None),
            "pinned": None if pinned is None else list(pinned),
        },
        on_cell_change=changed,
    )


def cells(found: RunDifference, thresholds: tuple[float, float] | None) -> dict[str, np.ndarray]:
    """One row per head in the order block · heads + head: means, B − A with its interval, n, roles (1 to 3) and absence."""
    roles = {"roleA": found.mean_a, "roleB": found.mean_b}
    codes = {name: np.zeros(mean.shape, np.int8) for name, mean in roles.items()}
    if thresholds is not None:
        for name, mean in roles.items():
            letters = classify(mean, *thresholds)
            for code, letter in enumerate(LETTERS, start=1):
                codes[name][letters == letter] = code
    numbers = {
        "a": found.mean_a, "b": found.mean_b, "difference": found.difference, "low": found.low, "high": found.high,
    }  # fmt: skip
    flags = {"clear": found.clear, "absentA": found.absent_a, "absentB": found.absent_b}
    columns: dict[str, Any] = {name: values.astype(np.float32) for name, values in numbers.items()}
    columns |= {"n": found.n.astype(np.int32), **codes} | {name: flag.astype(np.int8) for name, flag in flags.items()}
    return {name: values.ravel() for name, values in columns.items()}


def legend(found: RunDifference, roles: bool) -> str:
    """What the marks of the cells mean, those that occur."""
    parts = ["bold or a sign: the interval leaves 0 out"] if np.isfinite(found.low).any() else []
    parts += ["outlined: another role"] if roles else []
    for side, absent in (("A", found.absent_a), ("B", found.absent_b)):
        if absent.any():
            parts.append(f"hatched: absent in {side} ({counted(int(absent.sum()), 'head')})")
    return " · ".join(parts)


def parse_cell(raw: Any, blocks: int, heads: int) -> tuple[int, int] | None:
    """The (block, head) that a browser's message names, None for anything that is none. It is not trusted.

    >>> [parse_cell({"cell": cell}, 8, 10) for cell in ([3, 7], [8, 0], [1], "37", [True, 1])]
    [(3, 7), None, None, None, None]
    """
    value = parse_value(raw, blocks, heads, HeadGridValue(1.0, 0.0))
    return None if value.block is None or value.head is None else (value.block, value.head)


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.difference_grid",
        html=source("difference_grid/difference_grid.html"),
        css=source("cells.css", "difference_grid/difference_grid.css"),
        js=source(*SCRIPTS),
    )
