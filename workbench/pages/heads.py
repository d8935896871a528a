"""Heads: what every self-attention head does, one of them in detail, and the mask that follows."""

import numpy as np
import pandas as pd
import streamlit as st

from analysis.aggregate import Cells
from analysis.figures.blocks import residual_map
from analysis.figures.roles import roles_per_block
from analysis.findings import finding
from analysis.roles import classify
from analysis.runs import Run
from workbench.components.copy_button.component import copy_button
from workbench.components.head_grid.component import head_grid
from workbench.pages import data
from workbench.pages.generate_panel import show_generate_panel
from workbench.pages.head_card import PLOT, default_head, protected_scores, show_head_card
from workbench.pages.mask_panel import removed_heads, show_mask_panel
from workbench.pages.shell import Shell, choose, empty_state, guard, open_shell
from workbench.pages.text import command_line, plain, short_path
from workbench.state import Selection


def show_headline(run: Run, cells: Cells, selection: Selection) -> None:
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


def show_grid(
    run: Run, cells: Cells, selection: Selection, cell: tuple[int, int] | None, removed: np.ndarray | None
) -> None:
    """The head grid with its histogram and thresholds; what it sends back becomes the selection."""
    ratio = cells.by_head()
    block, head = np.indices(ratio.shape)
    frame = pd.DataFrame({"block": block.ravel(), "head": head.ravel(), "ratio": np.clip(ratio, 0, 1).ravel()})
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


def show_blocks(run: Run, cells: Cells, selection: Selection) -> None:
    """Roles per block, and how much each block changes its input at each timestep."""
    left, right = st.columns(2, gap="medium")
    with left, guard("roles per block"):
        st.header("Roles per block", anchor=False)
        letters = classify(cells.by_head(), selection.tau_s, selection.tau_t)
        st.plotly_chart(
            roles_per_block(letters, height=280), config=PLOT, key="roles_per_block",
            alt="Number of spatial, mixed and temporal heads in every block.",
        )  # fmt: skip
    with right, guard("block × timestep map"):
        st.header("How much each block changes its input", anchor=False)
        if not {"block/residual_norm", "block/input_norm"} <= set(run.statistics):
            st.markdown("Not captured in this run.")
            return
        relative, timesteps, samples = data.block_residuals(run, selection)
        st.plotly_chart(
            residual_map(relative, timesteps, samples=samples, height=280),
            config=PLOT,
            key="residual_map",
            alt="Relative size of every block's residual at every timestep.",
        )


def show_page(shell: Shell) -> None:
    run, selection, places = shell.run, shell.selection, shell.places
    if run is None:
        empty_state(places, shell.names)
        with guard("generate"):
            show_generate_panel(places)
        return
    with guard("heads"):
        if not run.finished:
            st.title("This run has no finished sample yet", anchor=False)
            st.markdown(
                "Its capture is at work or was stopped. This command, with the flags of its first start, goes on "
                "where it stopped:"
            )
            st.code(command_line("capture", run.model_id, "--resume", out=short_path(run.folder)), language="bash")
            return
        cells = data.cells(run, "self/ratio", selection)
        scores = None
        with guard("importance"):
            scores = protected_scores(run, selection)
        pinned = (selection.block, selection.head)
        cell = (
            default_head(cells.by_head(), scores, selection.tau_t)
            if pinned[0] is None or pinned[1] is None
            else (pinned[0], pinned[1])
        )
        show_headline(run, cells, selection)
        grid, card = st.columns([5, 3], gap="medium")
        with grid:
            with guard("head grid"):
                wanted = st.session_state.get("show_removed", False)
                removed = removed_heads(scores, selection) if wanted and scores is not None else None
                show_grid(run, cells, selection, cell, removed)
            with guard("generate"), st.container(border=True):
                show_generate_panel(places)
        with card:
            with guard("head card"), st.container(key="head_card"):
                if cell is not None:
                    show_head_card(run, cells, scores, selection, cell)
            with guard("mask"), st.container(border=True, key="mask_panel"):
                show_mask_panel(run, scores, selection, places)
        st.divider()
        show_blocks(run, cells, selection)


show_page(open_shell(poll_jobs=False, filters=True))
