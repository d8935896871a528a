"""All heads at once: which view of them, and the grid of roles in either order."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.aggregate import Cells
from analysis.figures.heads import head_grid as figure_of_heads
from analysis.figures.roles import ratio_histogram
from analysis.figures.tables import head_table, histogram_table
from analysis.head_metrics import METRICS, known_metrics
from analysis.marks import HeadMarks
from analysis.roles import classify
from analysis.runs import Run
from analysis.thresholds import suggest_thresholds
from workbench import recipes
from workbench.components.head_grid.cells import by_ratio
from workbench.components.head_grid.component import head_grid
from workbench.pages.chart import Chart, take_out_each
from workbench.pages.grid_frame import grid_frame
from workbench.pages.pinned_part import choose_in, choose_pinned
from workbench.pages.prune_settings import MASK_LINK
from workbench.pages.shell import bind, choose
from workbench.state import Selection

VIEW_WORDS = {"grid": "Grid", "scatter": "Scatter", "difference": "B − A"}
ORDER_WORDS = {"number": "by number", "ratio": "by ratio"}
choose_view = partial(choose_in, "pinned_grid", "pinned_buttons", "pinned_ablations")
"""Choose what the view of all heads alone shows; what links to the selection comes with it."""


def show_controls(run: Run, selection: Selection) -> None:
    """Which view, and what it shows."""
    view, beside = st.columns([3, 2], gap="small", vertical_alignment="center")
    with view:
        st.segmented_control(
            "Show heads as",
            list(VIEW_WORDS),
            format_func=VIEW_WORDS.__getitem__,
            required=True,
            label_visibility="collapsed",
            **bind("view_input", selection.view, lambda now: {"view": now or "grid"}, choose_view),
        )
    if selection.view == "grid":
        with beside:
            st.selectbox(
                "Order of heads",
                list(ORDER_WORDS),
                format_func=lambda name: f"Heads {ORDER_WORDS[name]}",
                label_visibility="collapsed",
                **bind("order_input", selection.order, lambda now: {"order": now}, choose_view),
            )
    elif selection.view == "scatter":
        known = known_metrics(run)
        chosen = (("x", "Across", known), ("y", "Upwards", known), ("color", "Colour", ["role", *known]))
        for place, (name, words, options) in zip(st.columns(3, gap="small"), chosen, strict=True):
            with place:
                choose_metric(words, name, getattr(selection, name), options)


def choose_metric(words: str, name: str, now: str, options: list[str]) -> None:
    """A box that chooses a metric for a field of the selection."""
    st.selectbox(
        words,
        options,
        format_func=lambda one: METRICS[one].title if one in METRICS else one,
        **bind(f"{name}_input", now if now in options else options[0], lambda chosen: {name: chosen}, choose_view),
    )


def show_grid(
    run: Run,
    cells: Cells,
    marks: HeadMarks | None,
    selection: Selection,
    cell: tuple[int, int] | None,
    removed: np.ndarray | None,
    *,
    follow: bool,
    crossed: str,
) -> None:
    """The head grid with its histogram and thresholds; what it sends back becomes the selection.

    `removed` heads [block, head] are crossed, which says that they are what `crossed` says; with `follow` those that the
    mask's sliders count just now.
    """
    ratio = cells.by_head()
    frame = grid_frame(ratio, marks)
    if removed is not None:
        frame["removed"] = removed.ravel()
    head_grid(
        frame,
        tau_s=selection.tau_s,
        tau_t=selection.tau_t,
        num_frames=run.num_frames,
        pinned=cell,
        order=by_ratio(ratio) if selection.order == "ratio" else None,
        link=MASK_LINK,
        follow=("removed",) if follow else (),
        crossed=crossed,
        key="head_grid",
        on_change=lambda value: choose_pinned(tau_s=value.tau_s, tau_t=value.tau_t, block=value.block, head=value.head),
    )
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    command = recipes.roles_command(run, selection)
    with st.container(horizontal=True, vertical_alignment="center", key="grid_corners"):
        show_suggestion(ratio, selection)

        def table() -> pd.DataFrame:
            return head_table(cells, **thresholds, marks=marks)

        grid = Chart(
            lambda: figure_of_heads(table(), **thresholds),
            key="head_grid",
            alt="Role of every self-attention head by block.",
            table=table,
            python=recipes.head_grid(run, selection),
            command=command,
            name=f"{run.folder.name}-heads",
        )
        histogram = Chart(
            lambda: ratio_histogram(ratio, **thresholds, uniform=run.uniform),
            key="ratio_histogram",
            alt="Histogram of the intra-slice ratios of all heads, with both thresholds.",
            table=lambda: histogram_table(ratio, **thresholds),
            python=recipes.ratio_histogram(run, selection),
            command=command,
            name=f"{run.folder.name}-ratios",
        )
        take_out_each({"Take out grid": grid, "Take out histogram": histogram})


def show_suggestion(ratio: np.ndarray, selection: Selection) -> None:
    """A button that moves the thresholds into the gaps of the histogram, where that changes a head's role."""
    tau_s, tau_t = suggest_thresholds(ratio)
    wanted = {name: value for name, value in (("tau_s", tau_s), ("tau_t", tau_t)) if value is not None}
    changed = selection.changed(**wanted)
    if not changed.tau_t < changed.tau_s:
        return
    before, after = (classify(ratio, each.tau_s, each.tau_t) for each in (selection, changed))
    if (before == after).all():
        return
    names = [f"{symbol} {wanted[name]:g}" for name, symbol in (("tau_s", "τs"), ("tau_t", "τt")) if name in wanted]
    st.button(
        f"Set {' and '.join(names)}, where the histogram has gaps",
        key="use_gaps",
        type="tertiary",
        icon=":material/align_horizontal_center:",
        on_click=choose,
        kwargs=wanted,
    )
