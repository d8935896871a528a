"""Prune: which heads and neurons go, what that saves, and the way to a mask, a preview and a student."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.figures.heads import head_grid as figure_of_heads
from analysis.figures.masks import flips_over_alpha, kept_heads, kept_per_block
from analysis.figures.tables import flip_table, head_table, kept_head_table, kept_table
from analysis.runs import Run
from pare.errors import InputError
from workbench import recipes
from workbench.components.copy_button.component import copy_button
from workbench.components.head_grid.cells import FLIPPED
from workbench.components.head_grid.component import head_grid
from workbench.mask_plan import MaskPlan
from workbench.pages import data
from workbench.pages.chart import show_chart, take_out
from workbench.pages.drawn import drawn
from workbench.pages.grid_frame import grid_frame
from workbench.pages.mask_panel import problem_words
from workbench.pages.prune_plan import head_score_values, headline, mask_arguments, planned
from workbench.pages.prune_settings import MASK_LINK, show_settings
from workbench.pages.prune_steps import show_steps
from workbench.pages.report_button import report_button
from workbench.pages.score_data import ranked_by, scorers_of
from workbench.pages.shell import Shell, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import command_line, plain, short_path
from workbench.report.cut import Cut
from workbench.state import Selection


def show_headline(run: Run, selection: Selection, found: MaskPlan | None, link: Selection) -> None:
    """What the mask keeps, and the buttons that take the view away; `link` names the scorer as a link does."""
    text, buttons = st.columns([2, 1], vertical_alignment="top")
    with text:
        st.title(plain("No mask at these settings" if found is None else headline(run, found)), anchor=False)
    with buttons, st.container(horizontal=True, horizontal_alignment="right"):
        copy_button("Copy link", None, key="copy_link")
        copy_button("Copy as command line", mask_command(run, selection), key="copy_plan_command")
        report_button(
            run,
            link,
            cut=lambda: None if found is None else Cut.of_plan(found, mask_arguments(selection), run.geometry),
        )


def mask_command(run: Run, selection: Selection) -> str:
    """The command line that counts what this page shows, and writes nothing."""
    return command_line("mask", short_path(run.folder), "--dry-run", **mask_arguments(selection))


def show_grid(run: Run, selection: Selection, found: MaskPlan | None) -> None:
    """Self-attention heads: removed ones crossed, those that α alone decides outlined."""
    if "self/ratio" not in run.statistics:
        st.markdown("This run has no ratios, so no roles: nothing is protected, and there is no grid of roles.")
        return
    frame = grid_frame(data.cells(run, "self/ratio", selection).by_head(), None)
    if found is not None and found.self_heads is not None:
        frame["removed"] = ~found.self_heads.ravel()
        flips = found.flips
        if flips is not None:
            frame["flags"] = (FLIPPED * flips).ravel()
    head_grid(
        frame,
        tau_s=selection.tau_s,
        tau_t=selection.tau_t,
        num_frames=run.num_frames,
        pinned=None if selection.block is None or selection.head is None else (selection.block, selection.head),
        link=MASK_LINK,
        follow=("removed", "flipped"),
        key="prune_grid",
        on_change=lambda value: choose(tau_s=value.tau_s, tau_t=value.tau_t, block=value.block, head=value.head),
    )
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}
    removed = None if found is None or found.self_heads is None else ~found.self_heads

    def table() -> pd.DataFrame:
        marks = data.marks(run, selection) if removed is None else None
        return head_table(data.cells(run, "self/ratio", selection), **thresholds, marks=marks, removed=removed)

    take_out(
        lambda: figure_of_heads(table(), **thresholds),
        key="prune_grid",
        alt="Role of every self-attention head; the heads that the mask removes are crossed.",
        table=table,
        python=recipes.head_grid(run, selection, mask=None if removed is None else mask_arguments(selection)),
        command=mask_command(run, selection),
        name=f"{run.folder.name}-pruned-heads",
    )


def show_blocks(run: Run, selection: Selection, found: MaskPlan) -> None:
    """What stays in every block, the cross-attention heads, and how many picks depend on α."""
    geometry, mask, stem = run.geometry, mask_arguments(selection), run.folder.name
    command = mask_command(run, selection)
    left, middle, right = st.columns(3, gap="medium")
    with left, guard("kept per block"):
        st.header("Kept in every block", anchor=False)
        sizes = {"self_heads": geometry.heads, "cross_heads": geometry.heads, "neurons": geometry.ffn}
        counts = found.counts.per_block(geometry.blocks)
        show_chart(
            drawn(kept_per_block, counts, sizes),
            key="kept_per_block",
            alt="Share of self-attention heads, cross-attention heads and neurons that stay in every block.",
            table=lambda: kept_table(counts, sizes),
            python=recipes.kept_per_block(run, mask),
            command=command,
            name=f"{stem}-kept",
        )
    with middle, guard("cross-attention heads"):
        st.header("Cross-attention heads", anchor=False)
        if found.cross_heads is not None:
            keep, scores = found.cross_heads, np.asarray(head_score_values(run, selection).values["cross"])
            show_chart(
                drawn(kept_heads, keep, scores),
                key="cross_heads",
                alt="Scores of all cross-attention heads by block; removed heads are crossed.",
                table=lambda: kept_head_table(keep, scores),
                python=recipes.cross_heads(run, mask),
                command=command,
                name=f"{stem}-cross-heads",
            )
    with right, guard("flips by α"):
        st.header("Self-attention picks that α changes", anchor=False)
        study = found.study
        if study is None:
            st.markdown("Without ratios there are no roles, so α changes nothing.")
        else:
            show_chart(
                drawn(flips_over_alpha, study, found.settings.protection),
                key="flips_over_alpha",
                alt="Number of self-attention heads kept or removed otherwise than without protection, by α.",
                table=lambda: flip_table(study),
                python=recipes.flips_over_alpha(run, mask),
                command=command_line("mask", "alpha", short_path(run.folder), **{**mask, "alpha": None}),
                name=f"{stem}-flips",
            )


def show_page(shell: Shell) -> None:
    run, selection = shell.run, shell.selection
    if run is None:
        empty_state(shell.places, shell.names)
        return
    with guard("prune"):
        if not run.finished:
            unfinished_state(run)
            return
        found, problem, link = None, None, selection
        try:
            selection = ranked_by(run, selection, shell.places)
            found = planned(run, selection)
        except InputError as error:
            problem = error
        show_headline(run, selection, found, link)
        grid, settings = st.columns([5, 3], gap="medium")
        with grid, guard("head grid"):
            show_grid(run, selection, found)
        with settings:
            with guard("settings"), st.container(key="prune_settings"):
                show_settings(run, selection, found, scorer=link.scorer, scorers=scorers_of(run, shell.places))
            if problem is not None:
                st.error(problem_words(run, problem), icon=":material/error:")
        if found is None:
            return
        show_blocks(run, selection, found)
        with guard("steps"):
            show_steps(run, selection, found, shell.places)
        if selection.sample is not None or selection.first_step is not None:
            st.caption("The mask uses all samples and steps; these two filters change only the ratios that are shown.")


show_page(open_shell(poll_jobs=False, filters=True, page="prune"))
