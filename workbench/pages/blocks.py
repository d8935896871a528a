"""Blocks: how much each block, and each of its parts, changes its input at each timestep; one block in detail."""

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from plotly.colors import sequential

from analysis.block_values import LENSES, PARTS, BlockValues
from analysis.figures.blocks import parts_over_timesteps, residual_map
from analysis.figures.roles import ratio_of_heads
from analysis.figures.style import root_palette
from analysis.figures.tables import head_table, part_table
from analysis.findings import FEW, block_finding
from analysis.roles import LETTERS, ROLES, classify
from analysis.runs import Run
from workbench import recipes
from workbench.components.block_map.component import block_map
from workbench.components.copy_button.component import copy_button
from workbench.components.head_grid.component import head_grid
from workbench.pages import data, head_data
from workbench.pages.ablation import Ablation, ablation_of, block_off, show_ablations, show_button, show_jobs
from workbench.pages.block_router import show_router
from workbench.pages.chart import show_chart, take_out
from workbench.pages.drawn import drawn
from workbench.pages.grid_frame import grid_frame
from workbench.pages.report_button import report_button
from workbench.pages.shell import Shell, bind, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import capture_command, plain
from workbench.places import Places
from workbench.state import Selection


def default_block(values: BlockValues | None) -> int:
    """The block to show before one is chosen: the one with the largest mean; the first where nothing is known."""
    if values is None or not values.samples:
        return 0
    return int(np.nan_to_num(values.by_block()["mean"].to_numpy(), nan=-np.inf).argmax())


def show_headline(run: Run, selection: Selection, values: BlockValues | None) -> None:
    """The finding, and the buttons that take the view away."""
    lens = selection.lens
    text, button = st.columns([4, 1], vertical_alignment="top")
    with text:
        sentence = (
            f"{LENSES[lens].title} was not captured in this run"
            if values is None
            else block_finding(values.by_block(), LENSES[lens].noun, turns=lens == "cosine")
        )
        st.title(plain(sentence), anchor=False)
    with button, st.container(horizontal=True, horizontal_alignment="right"):
        copy_button("Copy link", None, key="copy_link")
        report_button(run, selection)


def show_lenses(lens: str) -> None:
    """The switch of what the map shows."""
    st.segmented_control(
        "Show",
        list(LENSES),
        format_func=lambda name: LENSES[name].title,
        required=True,
        label_visibility="collapsed",
        help="Parts are what self-attention, cross-attention and the feed-forward network add to the residual stream, "
        "gates included, over the norm of the block's input. They can cancel, so they need not sum to the whole.",
        **bind("lens_input", lens, lambda now: {"lens": now or "residual"}),
    )


def show_map(run: Run, selection: Selection, values: BlockValues | None, chosen: int) -> None:
    """The block × timestep map; the block that it sends back becomes the selection."""
    lens = selection.lens
    if values is None:
        st.markdown("Not captured in this run. This command captures it:")
        st.code(capture_command(run), language=None, wrap_lines=True)
        return
    limits = values.limits(turns=lens == "cosine")
    block_map(
        values.cells(),
        values.timesteps,
        by_block=values.by_block(),
        by_step=values.by_step(),
        samples=values.samples,
        title=LENSES[lens].title,
        symbol=LENSES[lens].symbol,
        limits=limits,
        palette=list(sequential.Viridis) if limits[0] else root_palette(),
        chosen=chosen,
        key="block_map",
        on_change=choose_block,
    )
    if values.samples < FEW:
        st.caption(f"Brackets are 95 % intervals over samples; of fewer than {FEW} samples they are too narrow.")
    take_out(
        lambda: residual_map(
            values.cells(), values.timesteps, name=LENSES[lens].symbol, samples=values.samples, limits=limits
        ),
        key="block_map",
        alt=f"{LENSES[lens].title}: {LENSES[lens].symbol} of every block at every timestep.",
        table=values.table,
        python=recipes.block_map(run, selection, lens),
        command=recipes.report_command(run, selection),
        name=f"{run.folder.name}-blocks-{lens}",
    )


def choose_block(block: int) -> None:
    """Another block has other heads, so none of them is pinned yet."""
    choose(block=block, head=None)


def show_parts(run: Run, selection: Selection, block: int) -> None:
    """The chosen block over the timesteps, the whole and its parts."""
    title, number = st.columns([3, 2], vertical_alignment="center")
    title.header(f"Block {block}", anchor=False)
    number.number_input(
        "Block",
        0,
        run.geometry.blocks - 1,
        label_visibility="collapsed",
        **bind("block_input", block, lambda now: {"block": int(now), "head": None}),
    )
    found = {LENSES[part].title: data.block_over_timesteps(run, part, selection, block) for part in PARTS}
    frames = {name: frame for name, frame in found.items() if frame is not None}
    if frames:
        show_chart(
            drawn(parts_over_timesteps, frames, name="norm / ‖x‖", height=300),
            key="parts_over_timesteps",
            alt=f"How much block {block} and its parts change its input over the timesteps, with 95 % intervals.",
            table=lambda: part_table(frames),
            python=recipes.parts_over_timesteps(run, selection, block, [p for p in PARTS if LENSES[p].title in frames]),
            command=recipes.report_command(run, selection.changed(block=block, head=None)),
            name=f"{run.folder.name}-block-{block}",
        )
    missing = [name for name, frame in found.items() if frame is None]
    if missing:
        st.markdown(f"Not captured in this run: {', '.join(missing).lower()}. This captures all parts:")
        st.code(capture_command(run), language=None, wrap_lines=True)


def show_heads(run: Run, selection: Selection, block: int) -> None:
    """The heads of the chosen block with their roles, and the way to the head grid."""
    cells = data.cells(run, "self/ratio", selection)
    ratio = cells.by_head()
    letters = classify(ratio[block], selection.tau_s, selection.tau_t)
    counts = [f"{int((letters == letter).sum())} {role}" for letter, role in zip(LETTERS, ROLES, strict=True)]
    words, link = st.columns([3, 1], vertical_alignment="center")
    words.header(f"Heads of block {block}: {', '.join(counts)}", anchor=False)
    with link, st.container(horizontal=True, horizontal_alignment="right"):
        st.page_link(
            "workbench/pages/heads.py",
            label=f"Open block {block} in Heads",
            icon=":material/grid_view:",
            query_params=selection.changed(block=block).to_query(),
        )
    marks = data.marks(run, selection)
    frame = grid_frame(ratio, marks)
    head_grid(
        frame[frame["block"] == block],
        tau_s=selection.tau_s,
        tau_t=selection.tau_t,
        num_frames=run.num_frames,
        pinned=None if selection.block is None or selection.head is None else (block, selection.head),
        heads=run.geometry.heads,
        only_block=block,
        key="block_heads",
        on_change=lambda value: choose(block=value.block, head=value.head),
    )
    thresholds: dict[str, Any] = {"tau_s": selection.tau_s, "tau_t": selection.tau_t}

    def table() -> pd.DataFrame:
        every = head_table(cells, **thresholds, marks=marks)
        return every[every["block"] == block]

    take_out(
        lambda: ratio_of_heads(table(), **thresholds, uniform=run.uniform),
        key="block_heads",
        alt=f"Intra-slice ratio of the heads of block {block}, with standard errors.",
        table=table,
        python=recipes.block_heads(run, selection, block),
        command=recipes.roles_command(run, selection, csv="heads.csv"),
        name=f"{run.folder.name}-block-{block}-heads",
    )


def show_ablation(run: Run, places: Places, selection: Selection, block: int) -> Ablation | None:
    """The button that leaves the chosen block out of a video, with its jobs; None for a block that always runs."""
    st.header(f"What block {block} does to a video", anchor=False)
    if block in (0, run.geometry.blocks - 1):
        st.markdown("The first and the last block always run, so a video without this one cannot be made.")
        return None
    clips = None
    with guard("videos"):
        clips = head_data.clips(run, places, selection)
    ablation = ablation_of(run, places, block_off(run, places, block), clips, selection, "ablate_block")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        cost = show_button(run, places, ablation, "Leave this block out", "ablate_block")
    if cost is not None:
        st.caption(cost)
    show_jobs(run, places, ablation, "ablate_block")
    return ablation


def show_page(shell: Shell) -> None:
    run, selection, places = shell.run, shell.selection, shell.places
    if run is None:
        empty_state(places, shell.names)
        return
    with guard("blocks"):
        if not run.finished:
            unfinished_state(run)
            return
        values = data.blocks(run, selection.lens, selection)
        whole = values if selection.lens == "residual" else data.blocks(run, "residual", selection)
        block = default_block(whole) if selection.block is None else selection.block
        show_headline(run, selection, values)
        show_lenses(selection.lens)
        left, right = st.columns([8, 5], gap="medium")
        with left, guard("block map"):
            show_map(run, selection, values, block)
        with right, guard("parts of the block"), st.container(key="block_parts"):
            show_parts(run, selection, block)
        with guard("heads of the block"):
            show_heads(run, selection, block)
        ablation = None
        router, videos = st.columns(2, gap="medium")
        with router, guard("router"):
            show_router(run, selection, block)
        with videos, guard("ablation"):
            ablation = show_ablation(run, places, selection, block)
        with guard("ablation"):
            if ablation is not None:
                show_ablations(run, places, [ablation], selection)


show_page(open_shell(poll_jobs=False, filters=True, page="blocks"))
