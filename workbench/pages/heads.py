"""Heads: what every self-attention head does, one of them in detail, videos of the model, and the mask that follows."""

import numpy as np
import streamlit as st

from analysis.aggregate import Cells
from analysis.figures.blocks import residual_map
from analysis.figures.roles import mean_ratio_per_block, roles_per_block
from analysis.figures.tables import role_count_table
from analysis.findings import finding
from analysis.head_view import default_head
from analysis.marks import HeadMarks
from analysis.roles import classify
from analysis.runs import Run
from pare.errors import InputError
from workbench import recipes
from workbench.components.copy_button.component import copy_button
from workbench.pages import data, head_data
from workbench.pages.ablation import Ablation, ablation_of, heads_off, show_ablations, show_button, show_jobs
from workbench.pages.chart import show_chart
from workbench.pages.drawn import drawn
from workbench.pages.generate_panel import show_folded, show_generate_panel
from workbench.pages.head_card import FRAME_LINK, protected_scores, show_head_card
from workbench.pages.head_difference_view import show_difference
from workbench.pages.head_scatter_view import show_scatter
from workbench.pages.head_sets_panel import problem_of, show_pick, show_sets, sources
from workbench.pages.head_views import show_controls, show_grid
from workbench.pages.mask_panel import head_plan, problem_words, removed_heads, show_mask_panel
from workbench.pages.pinned_part import begin_parts, pinned_part
from workbench.pages.report_button import report_button
from workbench.pages.score_data import ranked_by
from workbench.pages.shell import Shell, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import plain
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.state import Selection
from workbench.teacher_videos import Clips


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

    def give(now: Selection) -> None:
        with st.container(horizontal=True, horizontal_alignment="right"):
            copy_button("Copy link", None, key="copy_link")
            copy_button("Copy as command line", recipes.roles_command(run, now), key="copy_roles_command")
            report_button(run, now)

    with buttons:
        pinned_part("pinned_buttons", give)


def show_videos(run: Run, clips: Clips | None, selection: Selection, places: Places) -> None:
    """The model's video of one prompt and seed, with those of its students where there are any, in step with the frame map."""
    if clips is None:
        st.header("Videos", anchor=False)
        st.markdown("No video of this model is here. Generate one below, or capture some:")
        st.code(f"pare capture {run.model_id} --mode trajectory --out RUN", language=None, wrap_lines=True)
        return
    st.header(plain(f"“{clips.prompt}”, seed {clips.seed}"), anchor=False)
    sample = None if selection.sample is None else run.manifest.samples[selection.sample]
    if sample is not None and (sample.prompt, sample.seed) != (clips.prompt, clips.seed):
        st.caption(f"Sample {selection.sample} has no video here; this is another one of the model.")
    show_player(
        places, clips.videos, selection, geometry=run.geometry, link=FRAME_LINK, tallest=210, key="run_video"
    )  # fmt: skip


def show_residual(run: Run, selection: Selection) -> None:
    """How much each block changes its input at each timestep."""
    st.header("Residual per block and timestep", anchor=False)
    values = data.blocks(run, "residual", selection)
    if values is None:
        st.markdown("Not captured in this run.")
        return
    show_chart(
        drawn(residual_map, values.cells(), values.timesteps, samples=values.samples, height=300),
        key="residual_map",
        alt="Relative size of every block's residual at every timestep.",
        table=values.table,
        python=recipes.block_map(run, selection),
        command=recipes.report_command(run, selection),
        name=f"{run.folder.name}-residual",
    )
    st.page_link("workbench/pages/blocks.py", label="Its parts, block by block", icon=":material/view_week:")


def show_roles(run: Run, cells: Cells, selection: Selection) -> None:
    """Roles and mean ratio per block."""
    left, right = st.columns(2, gap="medium")
    with left, guard("roles per block"):
        st.header("Roles per block", anchor=False)
        letters = classify(cells.by_head(), selection.tau_s, selection.tau_t)
        show_chart(
            drawn(roles_per_block, letters, height=260),
            key="roles_per_block",
            alt="Number of spatial, mixed and temporal heads in every block.",
            table=lambda: role_count_table(letters),
            python=recipes.roles_per_block(run, selection),
            command=recipes.roles_command(run, selection),
            name=f"{run.folder.name}-roles",
        )
    with right, guard("mean ratio per block"):
        st.header("Mean ratio per block", anchor=False)
        table = data.ratio_of_blocks(run, selection)
        show_chart(
            drawn(
                mean_ratio_per_block, table, tau_s=selection.tau_s, tau_t=selection.tau_t, uniform=run.uniform, height=260
            ),
            key="mean_ratio_per_block",
            alt="Mean intra-slice ratio of every block's heads, with its 95 % interval over samples.",
            table=table,
            python=recipes.mean_ratio_per_block(run, selection),
            command=recipes.report_command(run, selection),
            name=f"{run.folder.name}-block-ratio",
        )  # fmt: skip


def show_heads(
    shell: Shell,
    run: Run,
    selection: Selection,
    cells: Cells,
    marks: HeadMarks | None,
    cell: tuple[int, int] | None,
    crossed: np.ndarray | None,
    *,
    follow: bool,
    words: str,
) -> None:
    """The chosen view of all heads."""
    show_controls(run, selection)
    if selection.view == "scatter":
        show_scatter(run, selection, cell)
    elif selection.view == "difference":
        show_difference(shell, run, selection, cell)
    else:
        show_grid(run, cells, marks, selection, cell, crossed, follow=follow, crossed=words)


def show_page(shell: Shell) -> None:
    run, selection, places = shell.run, shell.selection, shell.places
    begin_parts()
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
        scores, marks, clips, found = None, None, None, None
        with guard("importance"):
            scores = protected_scores(run, selection)
        with guard("marks"):
            marks = data.marks(run, selection)
        with guard("videos"):
            clips = head_data.clips(run, places, selection)
        problem: InputError | None = None
        ranked = selection
        try:
            ranked = ranked_by(run, selection, places)
            found = head_plan(run, ranked)
        except InputError as error:
            problem = error
        loaded, unloaded = problem_of(run, selection, places)

        def cell_of(now: Selection) -> tuple[int, int] | None:
            if now.block is None or now.head is None:
                return default_head(cells.by_head(), scores, now.tau_t, now.block)
            return now.block, now.head

        def ablation_of_head(now: Selection, cell: tuple[int, int]) -> Ablation:
            members = np.zeros(cells.by_head().shape, bool)
            members[cell] = True
            off = heads_off(run, places, f"block {cell[0]}, head {cell[1]}", members)
            return ablation_of(run, places, off, clips, now, "ablate_head")

        def show_all(now: Selection) -> None:
            with guard("head grid"):
                follow = wanted and found is not None
                words = "removed" if loaded is None else f"in {loaded.name}"
                show_heads(shell, run, now, cells, marks, cell_of(now), crossed, follow=follow, words=words)

        def show_card(now: Selection) -> None:
            cell = cell_of(now)
            if cell is None:
                return
            with guard("head card"), st.container(key="head_card"):
                show_head_card(run, places, scores, marks, now, cell, linked=clips is not None)
                ablation = ablation_of_head(now, cell)
                with st.container(horizontal=True, vertical_alignment="bottom"):
                    cost = show_button(run, places, ablation, "Ablate this head", "ablate_head")
                    show_pick(now, cell)
                if cost is not None:
                    st.caption(cost)
                show_jobs(run, places, ablation, "ablate_head")

        def show_without(now: Selection) -> None:
            cell = cell_of(now)
            with guard("ablation"):
                of_head = [] if cell is None else [ablation_of_head(now, cell)]
                show_ablations(run, places, [*of_head, *of_set], now)

        wanted = bool(st.session_state.get("show_removed", False)) and loaded is None
        crossed = loaded.array if loaded is not None else removed_heads(found) if wanted else None
        of_set = []
        if loaded is not None:
            off = heads_off(run, places, f"set {loaded.name}", loaded.array)
            of_set = [ablation_of(run, places, off, clips, selection, "ablate_set")]
        show_headline(run, cells, marks, selection)
        grid, card = st.columns([11, 9], gap="medium")
        with grid:
            # What Python holds has to come back to the grid, or it would take a later pin for an old one.
            pinned_part("pinned_grid", show_all)
        with card:
            pinned_part("pinned_card", show_card)
        blocks, videos = st.columns(2, gap="medium")
        with blocks, guard("block × timestep map"):
            show_residual(run, selection)
        with videos, guard("video"):
            show_videos(run, clips, selection, places)
        pinned_part("pinned_ablations", show_without)
        mask, sets = st.columns(2, gap="medium")
        with mask, guard("mask"), st.container(border=True, key="mask_panel"):
            if found is None:
                st.header("Mask of heads", anchor=False)
                st.markdown(problem_words(run, problem))
            else:
                show_mask_panel(run, found, ranked, places)
        with sets:
            with guard("sets of heads"), st.container(border=True, key="head_sets"):
                letters = classify(cells.by_head(), selection.tau_s, selection.tau_t)
                show_sets(run, selection, places, sources(letters, removed_heads(found), selection), loaded)
                if unloaded is not None:
                    st.error(plain(unloaded), icon=":material/error:")
                if loaded is not None:
                    with st.container(horizontal=True, vertical_alignment="bottom"):
                        cost = show_button(run, places, of_set[0], "Ablate these heads", "ablate_set")
                    if cost is not None:
                        st.caption(cost)
                    show_jobs(run, places, of_set[0], "ablate_set")
            with guard("generate"):
                show_folded(places)
        show_roles(run, cells, selection)


show_page(open_shell(poll_jobs=False, filters=True, page="heads"))
