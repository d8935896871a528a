"""Compare: two runs, masks, students or sets of videos side by side, and what differs between them, largest first."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import streamlit as st

from pare.errors import InputError
from workbench.components.copy_button.component import copy_button
from workbench.pages.compare_choice import KINDS, Frame
from workbench.pages.compare_kind import RUNS, shown_kind
from workbench.pages.compare_masks import show_masks
from workbench.pages.compare_runs import show_runs
from workbench.pages.compare_students import show_students
from workbench.pages.compare_videos import show_videos
from workbench.pages.shell import Shell, bind, guard, open_shell
from workbench.places import Places
from workbench.state import Selection

SHOWN: Mapping[str, Callable[[Shell, Frame], None]] = {
    "runs": show_runs,
    "masks": show_masks,
    "students": show_students,
    "videos": show_videos,
}


def show_page(shell: Shell) -> None:
    kind = shown_kind(shell.places, shell.selection)
    shell = replace(shell, selection=shell.selection.changed(kind=kind))
    text, button = st.columns([5, 1], vertical_alignment="top")
    buttons = button.container(horizontal=True, horizontal_alignment="right")
    with buttons:
        copy_button("Copy link", None, key="copy_link")
    kinds, left, right = st.columns([9, 8, 8], gap="medium", vertical_alignment="bottom")
    with kinds:
        st.segmented_control(
            "Compare",
            list(KINDS),
            format_func=lambda one: KINDS[one],
            # A second click on what is chosen takes the choice away; it stays.
            **bind(
                "compare_kind",
                kind,
                lambda now: {"kind": now or kind, "left": None, "right": None, "pair": None, "video_frame": 0},
            ),
        )
    frame = Frame(text, buttons, left, right)
    with guard("comparison"):
        try:
            SHOWN[kind](shell, frame)
        except InputError:
            if not frame.titled:
                frame.title(f"These two {KINDS[kind].lower()} cannot be compared")
            raise


def filtered(selection: Selection) -> bool:
    """Whether branch, steps and sample choose anything."""
    return shown_kind(Places.from_environment(), selection) == RUNS


show_page(open_shell(poll_jobs=False, filters=filtered, page="compare"))
