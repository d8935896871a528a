"""The mask's sliders on a Streamlit page: scores go to the browser once, p and α come back as they are released."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

from workbench.components.columns import arrow
from workbench.components.mask_sliders.value import parse_mask
from workbench.components.source import source
from workbench.live_mask import LiveMask

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer

# One browser module: shared parts, roles as the head grid has them, the mask's own functions, then the element itself.
SCRIPTS = (
    "canvas.js", "echo.js", "page_link.js", "cells.js", "head_grid/model.js",
    "mask_sliders/model.js", "mask_sliders/mask_sliders.js",
)  # fmt: skip


def mask_sliders(
    live: LiveMask,
    *,
    ratio: float,
    alpha: float,
    thresholds: tuple[float, float],
    ratio_range: tuple[float, float],
    alpha_range: tuple[float, float],
    choose_ratio: bool = True,
    link: str | None = None,
    key: str = "mask_sliders",
    on_change: Callable[[dict[str, float]], None] | None = None,
) -> None:
    """Show p and α as sliders, and what the mask keeps, removes and costs, which follows them in the browser.

    Nothing is sent while a slider moves; its release sends one message. Python holds the settings: store what
    `on_change` brings, and the next run passes that in.

    Args:
        live: scores and costs, from `workbench.live_mask.live_mask`.
        ratio, alpha, thresholds: p, the protection α, and (τs, τt).
        ratio_range, alpha_range: the lowest and highest that may be chosen.
        choose_ratio: whether p is chosen here; else it only shows what another setting gives.
        link: name shared with a head grid of the same page: its thresholds are followed while they move, and it crosses
            what the mask removes.
        on_change: called with the changed `ratio` and `alpha` before the page runs again.
    """

    def changed() -> None:
        import streamlit as st

        found = parse_mask(st.session_state.get(key), ratio_range, alpha_range)
        if not choose_ratio:
            found.pop("ratio", None)
        if found and on_change is not None:
            on_change(found)

    _renderer()(
        key=key,
        data={
            "table": arrow(live.columns),
            "columns": list(live.columns),
            "blocks": live.blocks,
            "heads": live.heads,
            "floor": live.floor,
            "neurons": live.neurons,
            "multiple": live.multiple,
            "allocation": live.allocation,
            "pruneNeurons": live.prune_neurons,
            "protects": live.protects,
            "costs": live.costs,
            "ratio": ratio,
            "alpha": alpha,
            "thresholds": list(thresholds),
            "ratioRange": list(ratio_range),
            "alphaRange": list(alpha_range),
            "ratioStep": 0.01,
            "alphaStep": 0.05,
            "asked": choose_ratio,
            "link": link,
        },
        on_mask_change=changed,
    )


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    return st.components.v2.component(
        "pare-workbench.mask_sliders",
        html=source("mask_sliders/mask_sliders.html"),
        css=source("mask_sliders/mask_sliders.css"),
        js=source(*SCRIPTS),
    )
