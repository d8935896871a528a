"""Blocks: how much each block, and each of its parts, changes its input at each timestep; one block in detail."""

import numpy as np
import streamlit as st
from plotly.colors import sequential

from analysis.block_values import LENSES, PARTS, BlockValues
from analysis.figures.blocks import parts_over_timesteps
from analysis.findings import block_finding
from analysis.roles import LETTERS, ROLES, classify
from analysis.runs import Run
from workbench.components.block_map.component import block_map
from workbench.components.copy_button.component import copy_button
from workbench.components.head_grid.component import head_grid
from workbench.pages import data
from workbench.pages.grid_frame import grid_frame
from workbench.pages.head_card import PLOT
from workbench.pages.shell import Shell, bind, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import capture_command, plain
from workbench.state import Selection

NOUNS = {"self": "Self-attention", "cross": "Cross-attention", "ffn": "The feed-forward network"}


def default_block(values: BlockValues | None) -> int:
    """The block to show before one is chosen: the one with the largest mean; the first where nothing is known."""
    if values is None or not values.samples:
        return 0
    return int(np.nan_to_num(values.by_block()["mean"].to_numpy(), nan=-np.inf).argmax())


def scale_limits(lens: str, values: BlockValues) -> tuple[float, float]:
    """Ends of the colour scale: norms from 0, cosines from just below the lowest (most lie near 1) up to 1."""
    cells = values.cells()
    if lens == "cosine":
        return (float(np.floor(np.nanmin(cells) * 10) / 10) if np.isfinite(cells).any() else -1.0), 1.0
    return 0.0, float(np.nanmax(cells)) if np.isfinite(cells).any() else 1.0


def show_headline(lens: str, values: BlockValues | None) -> None:
    """The finding, and the button that takes the view away."""
    text, button = st.columns([4, 1], vertical_alignment="top")
    with text:
        sentence = (
            f"{LENSES[lens].title} was not captured in this run"
            if values is None
            else block_finding(values.by_block(), NOUNS.get(lens), turns=lens == "cosine")
        )
        st.title(plain(sentence), anchor=False)
    with button, st.container(horizontal=True, horizontal_alignment="right"):
        copy_button("Copy link", None, key="copy_link")


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


def show_map(run: Run, lens: str, values: BlockValues | None, chosen: int) -> None:
    """The block × timestep map; the block that it sends back becomes the selection."""
    if values is None:
        st.markdown("Not captured in this run. This command captures it:")
        st.code(capture_command(run), language=None, wrap_lines=True)
        return
    block_map(
        values.cells(),
        values.timesteps,
        by_block=values.by_block(),
        by_step=values.by_step(),
        samples=values.samples,
        title=LENSES[lens].title,
        symbol=LENSES[lens].symbol,
        limits=scale_limits(lens, values),
        palette=list(sequential.Viridis),
        chosen=chosen,
        key="block_map",
        on_change=choose_block,
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
    found = {LENSES[part].title: data.blocks(run, part, selection) for part in PARTS}
    frames = {name: values.of_block(block) for name, values in found.items() if values is not None}
    if frames:
        st.plotly_chart(
            parts_over_timesteps(frames, name="norm / ‖x‖", height=300),
            config=PLOT,
            key="parts_over_timesteps",
            alt=f"How much block {block} and its parts change its input over the timesteps, with 95 % intervals.",
        )
    missing = [name for name, values in found.items() if values is None]
    if missing:
        st.markdown(f"Not captured in this run: {', '.join(missing).lower()}. This captures all parts:")
        st.code(capture_command(run), language=None, wrap_lines=True)


def show_heads(run: Run, selection: Selection, block: int) -> None:
    """The heads of the chosen block with their roles, and the way to the head grid."""
    ratio = data.cells(run, "self/ratio", selection).by_head()
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
    frame = grid_frame(ratio, data.marks(run, selection))
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


def show_page(shell: Shell) -> None:
    run, selection = shell.run, shell.selection
    if run is None:
        empty_state(shell.places, shell.names)
        return
    with guard("blocks"):
        if not run.finished:
            unfinished_state(run)
            return
        values = data.blocks(run, selection.lens, selection)
        whole = values if selection.lens == "residual" else data.blocks(run, "residual", selection)
        block = default_block(whole) if selection.block is None else selection.block
        show_headline(selection.lens, values)
        show_lenses(selection.lens)
        left, right = st.columns([8, 5], gap="medium")
        with left, guard("block map"):
            show_map(run, selection.lens, values, block)
        with right, guard("parts of the block"), st.container(key="block_parts"):
            show_parts(run, selection, block)
        with guard("heads of the block"):
            show_heads(run, selection, block)


show_page(open_shell(filters=True))
