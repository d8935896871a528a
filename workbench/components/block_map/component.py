"""The block × timestep map on a Streamlit page, with its marginal means; a click or Enter chooses a block."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from workbench.components.columns import arrow
from workbench.components.source import source

if TYPE_CHECKING:
    import pyarrow as pa
    from streamlit.components.v2.types import ComponentRenderer

SCRIPTS = ("canvas.js", "cells.js", "block_map/draw.js", "block_map/block_map.js")


def block_map(
    values: np.ndarray,
    timesteps: np.ndarray,
    *,
    by_block: pd.DataFrame,
    by_step: pd.DataFrame,
    samples: int,
    title: str,
    symbol: str,
    limits: tuple[float, float],
    palette: list[str],
    chosen: int | None = None,
    key: str = "block_map",
    on_change: Callable[[int], None] | None = None,
) -> None:
    """Show `values` [step, block] with the mean of every block to the right and of every timestep above.

    Args:
        timesteps: t of every step, in the order of `values`; drawn from the largest on the left.
        by_block, by_step: means with their intervals, one row per block or step: columns `mean`, `low`, `high`, `n`.
        samples: n behind every cell.
        title: what is shown, for screen readers; `symbol` stands beside the colour scale.
        limits: values at both ends of `palette`, evenly spaced colours.
        chosen: the highlighted block. Python holds it: pass it in, store what `on_change` brings.
        on_change: called with the block that a click or Enter chose, before the page runs again.
    """
    blocks = values.shape[1]
    order = np.argsort(-np.asarray(timesteps, float), kind="stable")

    def changed() -> None:
        import streamlit as st

        block = parse_block(st.session_state.get(key), blocks)
        if block is not None and on_change is not None:
            on_change(block)

    _renderer()(
        key=key,
        data={
            "cells": arrow({"value": np.asarray(values, np.float32)[order].ravel()}),
            "byBlock": _marginal(by_block),
            "byStep": _marginal(by_step.iloc[order]),
            "blocks": blocks,
            "timesteps": [float(timesteps[step]) for step in order],
            "samples": samples,
            "title": title,
            "symbol": symbol,
            "limits": list(limits),
            "marginalLimits": list(marginal_limits(by_block, by_step, limits[0])),
            "palette": palette,
            "chosen": chosen,
        },
        on_block_change=changed,
    )


def parse_block(raw: Any, blocks: int) -> int | None:
    """The block that a browser's message names, None for anything that is none. The browser's side is not trusted.

    >>> parse_block({"block": 3}, blocks=8), parse_block({"block": 8}, blocks=8), parse_block({"block": "3"}, blocks=8)
    (3, None, None)
    """
    block = raw.get("block") if hasattr(raw, "get") else None
    if isinstance(block, bool) or not isinstance(block, int | float) or not float(block).is_integer():
        return None
    return int(block) if 0 <= block < blocks else None


def marginal_limits(by_block: pd.DataFrame, by_step: pd.DataFrame, low: float) -> tuple[float, float]:
    """Ends of the axis of both marginals: from `low` to the largest interval's end.

    >>> frame = pd.DataFrame({"mean": [0.2, 0.4], "low": [0.1, np.nan], "high": [0.3, np.nan]})
    >>> marginal_limits(frame, frame, low=0.0)
    (0.0, 0.4)
    """
    ends = pd.concat([frame[["mean", "high"]].stack() for frame in (by_block, by_step)]).dropna()
    return low, float(ends.max()) if len(ends) else low + 1.0


def _marginal(frame: pd.DataFrame) -> pa.Table:
    return arrow({name: frame[name].to_numpy(np.float32) for name in ("mean", "low", "high", "n")})


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.block_map",
        html=source("block_map/block_map.html"),
        css=source("cells.css"),
        js=source(*SCRIPTS),
    )
