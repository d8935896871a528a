"""Heads: what every self-attention head does, one of them in detail, and the mask that follows."""

import numpy as np
import streamlit as st

from analysis.aggregate import Cells
from analysis.figures.blocks import residual_map
from analysis.figures.roles import mean_ratio_per_block, roles_per_block
from analysis.findings import finding
from analysis.marks import HeadMarks
from analysis.roles import classify
from analysis.runs import Run
from analysis.thresholds import suggest_thresholds
from workbench.components.copy_button.component import copy_button
from workbench.components.head_grid.component import head_grid
from workbench.pages import data
from workbench.pages.generate_panel import show_generate_panel
from workbench.pages.grid_frame import grid_frame
from workbench.pages.head_card import FRAME_LINK, PLOT, default_head, protected_scores, show_head_card
from workbench.pages.mask_panel import removed_heads, show_mask_panel
from workbench.pages.shell import Shell, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.state import Selection


def show_headline(run: Run, cells: Cells, marks: HeadMarks | None, selection: Selection) -> None:
    """The finding, and the buttons that take the view away."""
    text, buttons = st.columns([2, 1], vertical_alignment="top")
    with text:
        st.title(
            plain(
                finding(
                    cells.by_head(),
                    cells.by_step(),
                    cells.error_by_step(),
                    tau_s=selection.tau_s,
                    tau_t=selection.tau_t,
                    samples=cells.samples,
                    marked=None if marks is None else marks.any,
                )
            ),
            anchor=False,
        )
    with buttons, st.container(horizontal=True, horizontal_alignment="right"):
        copy_button("Copy link", None, key="copy_link")
        command = command_line(
            "roles", short_path(run.folder), tau_s=selection.tau_s, tau_t=selection.tau_t, branch=selection.branch
        )
        copy_button("Copy as command line", command, key="copy_roles_command")


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


def show_grid(
    run: Run,
    cells: Cells,
    marks: HeadMarks | None,
    selection: Selection,
    cell: tuple[int, int] | None,
    removed: np.ndarray | None,
) -> None:
    """The head grid with its histogram and thresholds; what it sends back becomes the selection."""
    frame = grid_frame(cells.by_head(), marks)
    if removed is not None:
        frame["removed"] = removed.ravel()
    head_grid(
        frame,
        tau_s=selection.tau_s,
        tau_t=selection.tau_t,
        num_frames=run.num_frames,
        pinned=cell,
        key="head_grid",
        on_change=lambda value: choose(tau_s=value.tau_s, tau_t=value.tau_t, block=value.block, head=value.head),
    )


def show_run_video(run: Run, selection: Selection, places: Places) -> None:
    """The video of the chosen sample, else of the first that has one, in step with the frame map; nothing without any."""
    videos = run.videos
    if not videos:
        return
    sample = next(iter(videos)) if selection.sample is None else selection.sample
    if sample not in videos:
        st.markdown(f"Sample {sample} has no video in this run.")
        return
    prompt = run.manifest.samples[sample].prompt
    show_player(
        places,
        {f"sample {sample}" + (f" · {prompt}" if prompt else ""): videos[sample]},
        selection,
        geometry=run.geometry,
        link=FRAME_LINK,
        tallest=210,
        key="run_video",
    )


def show_blocks(run: Run, cells: Cells, selection: Selection) -> None:
    """Roles and mean ratio per block, and how much each block changes its input at each timestep."""
    left, middle, right = st.columns(3, gap="medium")
    with left, guard("roles per block"):
        st.header("Roles per block", anchor=False)
        letters = classify(cells.by_head(), selection.tau_s, selection.tau_t)
        st.plotly_chart(
            roles_per_block(letters, height=280), config=PLOT, key="roles_per_block",
            alt="Number of spatial, mixed and temporal heads in every block.",
        )  # fmt: skip
    with middle, guard("mean ratio per block"):
        st.header("Mean ratio per block", anchor=False)
        st.plotly_chart(
            mean_ratio_per_block(
                data.ratio_of_blocks(run, selection),
                tau_s=selection.tau_s,
                tau_t=selection.tau_t,
                uniform=run.uniform,
                height=280,
            ),
            config=PLOT,
            key="mean_ratio_per_block",
            alt="Mean intra-slice ratio of every block's heads, with its 95 % interval over samples.",
        )
    with right, guard("block × timestep map"):
        st.header("Residual per block", anchor=False)
        values = data.blocks(run, "residual", selection)
        if values is None:
            st.markdown("Not captured in this run.")
            return
        st.plotly_chart(
            residual_map(values.cells(), values.timesteps, samples=values.samples, height=280),
            config=PLOT,
            key="residual_map",
            alt="Relative size of every block's residual at every timestep.",
        )
        st.page_link("workbench/pages/blocks.py", label="Its parts, block by block", icon=":material/view_week:")


def show_page(shell: Shell) -> None:
    run, selection, places = shell.run, shell.selection, shell.places
    if run is None:
        empty_state(places, shell.names)
        with guard("generate"):
            show_generate_panel(places)
        return
    with guard("heads"):
        if not run.finished:
            unfinished_state(run)
            return
        cells = data.cells(run, "self/ratio", selection)
        scores = None
        with guard("importance"):
            scores = protected_scores(run, selection)
        marks = None
        with guard("marks"):
            marks = data.marks(run, selection)
        if selection.block is None or selection.head is None:
            cell = default_head(cells.by_head(), scores, selection.tau_t, selection.block)
        else:
            cell = (selection.block, selection.head)
        show_headline(run, cells, marks, selection)
        grid, card = st.columns([5, 3], gap="medium")
        with grid:
            with guard("head grid"):
                wanted = st.session_state.get("show_removed", False)
                removed = removed_heads(scores, selection) if wanted and scores is not None else None
                show_grid(run, cells, marks, selection, cell, removed)
                show_suggestion(cells.by_head(), selection)
            with guard("video"):
                show_run_video(run, selection, places)
            with guard("generate"), st.container(border=True):
                show_generate_panel(places)
        with card:
            with guard("head card"), st.container(key="head_card"):
                if cell is not None:
                    show_head_card(run, cells, scores, marks, selection, cell)
            with guard("mask"), st.container(border=True, key="mask_panel"):
                show_mask_panel(run, scores, selection, places)
        st.divider()
        show_blocks(run, cells, selection)


show_page(open_shell(poll_jobs=False, filters=True))
