"""Compare two masks: what each keeps, where they decide otherwise, their settings and sizes side by side."""

from pathlib import Path

import streamlit as st

from analysis.figures.differences import agreement_table, flip_table, flips_per_block, mask_agreement
from pare import mask as masks
from pare.errors import InputError
from pare.mask import Mask
from workbench import compare_recipes
from workbench.compare_tables import MASK_COLUMNS, mask_settings, mask_sizes
from workbench.compare_words import masks_sentence
from workbench.pages.chart import show_chart
from workbench.pages.compare_choice import Frame, choose_two, either, mask_names, nothing_to_compare, table
from workbench.pages.report_button import view_link
from workbench.pages.shell import Shell, guard
from workbench.pages.text import command_line, plain, short_path
from workbench.report.compare_masks import masks_report

HEADS = {"self_heads": "Self-attention heads", "cross_heads": "Cross-attention heads"}


def show_masks(shell: Shell, frame: Frame) -> None:
    """Draw mask A against mask B."""
    names = mask_names(shell.places)
    if len(names) < 2:
        nothing_to_compare(frame, "masks", names, [_command(shell)])
        return
    paths = tuple(shell.places.find(name) for name in choose_two(shell, frame, names))
    a, b = (masks.load(path) for path in paths)
    try:
        found = masks.diff(a, b)
    except InputError:
        frame.title("These two masks are of different models")
        raise
    frame.title(masks_sentence(found))
    link = view_link(st.context.url, shell.selection)
    frame.report(lambda: masks_report(*paths, run=shell.run, link=link), f"{paths[0].stem}-{paths[1].stem}")
    left, right = st.columns([5, 4], gap="medium")
    with left:
        for part, name in HEADS.items():
            with guard(name):
                _show_heads(a, b, part, name, paths)
    with right:
        with guard("sizes"):
            st.header("Kept by each", anchor=False)
            table(mask_sizes(a, b, found, shell.run), MASK_COLUMNS, key="sizes")
            st.caption(
                "Parameters and FLOPs per forward: as each mask predicts them, else for the model and clip of the open run."
            )
        with guard("settings"):
            st.header("Settings", anchor=False)
            rows = [(plain(name), *either(*values)) for name, values in mask_settings(a, b).items()]
            table(rows or [("all", "unknown", "unknown")], ("setting", "A", "B"), key="settings", left=3)
        with guard("flips"):
            st.header("Decided otherwise in every block", anchor=False)
            show_chart(
                flips_per_block(a, b),
                key="mask_flips",
                alt="Number of heads in every block that one of the two masks alone keeps.",
                table=lambda: flip_table(a, b),
                python=compare_recipes.mask_flips(*paths),
                command=_diff_command(paths),
                name="mask-flips",
            )


def _show_heads(a: Mask, b: Mask, part: str, name: str, paths: tuple[Path, ...]) -> None:
    st.header(name, anchor=False)
    show_chart(
        mask_agreement(a, b, part),
        key=f"agreement_{part}",
        alt=f"{name} by block and head: kept by both masks, by A alone, by B alone, or removed by both.",
        table=lambda: agreement_table(a, b, part),
        python=compare_recipes.mask_agreement(paths[0], paths[1], part),
        command=_diff_command(paths),
        name=f"mask-agreement-{part.replace('_', '-')}",
    )


def _diff_command(paths: tuple[Path, ...]) -> str:
    return command_line("mask", "diff", *(short_path(path) for path in paths))


def _command(shell: Shell) -> str:
    run = "RUN" if shell.run is None else short_path(shell.run.folder)
    return command_line("mask", run, out=short_path(shell.places.workspace / "masks" / "mask.safetensors"))
