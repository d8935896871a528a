"""Runs: the captures in data/, in the workspace and in the named folders; one click opens one."""

import pandas as pd
import streamlit as st

from analysis.runs import Run
from pare.errors import InputError
from workbench.components.copy_button.component import copy_button
from workbench.pages import data
from workbench.pages.chart import csv_button
from workbench.pages.shell import choose_run, empty_state, guard, open_shell
from workbench.pages.student_folder import folder_size
from workbench.pages.text import file_size, plain
from workbench.places import Places

WIDTHS = [4, 3, 2, 2, 2, 2, 2]
HEADINGS = ("Run", "Model", "Mode", "Samples", "Steps", "Size", "")


def show_run(name: str, run: Run, *, is_open: bool) -> None:
    """One line: what was captured, and the button that opens it."""
    columns = st.columns(WIDTHS, vertical_alignment="center")
    done, planned = len(run.finished), len(run.manifest.samples)
    geometry = run.geometry
    columns[0].markdown(f"**{plain(name)}**")
    captured, whole = data.captured_heads(run), geometry.blocks * geometry.heads
    heads = f"{geometry.blocks} × {geometry.heads} heads" + (
        f", {captured} captured" if captured not in (None, whole) else ""
    )
    columns[1].markdown(f"{plain(run.model_id)}  \n{heads}")
    columns[2].markdown(run.manifest.mode)
    columns[3].markdown(f"{done}" if run.complete else f"{done} of {planned}")
    columns[4].markdown(str(len(run.timesteps)))
    columns[5].markdown(file_size(folder_size(run.folder)))
    if columns[6].button("Opened" if is_open else "Open", key=f"open-{name}", disabled=is_open, width="stretch"):
        choose_run(name)
        st.switch_page("workbench/pages/heads.py")


def runs_table(places: Places, names: list[str]) -> pd.DataFrame:
    """One row per run that can be read: what was captured of which model, how much of it is there, and its hash."""
    rows = []
    for name in names:
        try:
            run = data.open_run(places.find(name))
        except InputError:
            continue
        rows.append(
            {
                "run": name,
                "model": run.model_id,
                "blocks": run.geometry.blocks,
                "heads": run.geometry.heads,
                "captured_heads": data.captured_heads(run),
                "mode": run.manifest.mode,
                "samples": len(run.finished),
                "planned": len(run.manifest.samples),
                "steps": len(run.timesteps),
                "bytes": folder_size(run.folder),
                "hash": run.hash,
            }
        )
    return pd.DataFrame(rows)


def show_page(places: Places, names: list[str], opened: str | None) -> None:
    if not names:
        empty_state(places, names)
        return
    title, link = st.columns([4, 1], vertical_alignment="top")
    title.title("Runs", anchor=False)
    with link, st.container(horizontal=True, horizontal_alignment="right"):
        csv_button(lambda: runs_table(places, names), name="runs", key="runs")
        copy_button("Copy link", None, key="copy_link")
    for column, heading in zip(st.columns(WIDTHS), HEADINGS, strict=True):
        column.caption(heading)
    for name in names:
        try:
            run = data.open_run(places.find(name))
        except InputError as error:
            st.error(f"**{plain(name)}** {plain(error)}", icon=":material/error:")
            continue
        with guard(name):
            show_run(name, run, is_open=name == opened)


shell = open_shell()
with guard("runs"):
    show_page(shell.places, shell.names, shell.selection.run)
