"""What can be compared, as found in the places, and the two boxes that choose A and B."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from workbench.pages.data import LOOK_SECONDS
from workbench.pages.kept import Kept, kept
from workbench.pages.report_button import give_report
from workbench.pages.shell import Shell, bind
from workbench.pages.text import plain, readable_names
from workbench.places import Places
from workbench.report.part import Report

KINDS = {"runs": "Runs", "masks": "Masks", "students": "Students", "videos": "Videos"}


@dataclass
class Frame:
    """Where a comparison puts its headline, its two choices, and the buttons that give it away."""

    text: DeltaGenerator
    buttons: DeltaGenerator
    left: DeltaGenerator
    right: DeltaGenerator
    titled: bool = False

    def title(self, words: str) -> None:
        """The one sentence on top."""
        self.titled = True
        with self.text:
            st.title(plain(words), anchor=False)

    def report(self, make: Callable[[], Report], name: str) -> None:
        """The button of its report, made by `make` at the click."""
        with self.buttons:
            give_report(
                make,
                name=name,
                help="One HTML file that opens offline: what is compared, tables, figures, videos, settings, versions.",
            )


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def mask_names(places: Places) -> list[str]:
    """Names of all masks in the places."""
    return places.masks()


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def evaluation_names(places: Places) -> list[str]:
    """Names of all evaluations in the places."""
    return places.evaluations()


def found_names(read: Kept[[Places], list[str]], places: Places, *asked: str | None) -> list[str]:
    """What a cached `read` finds in the places; read anew where a link asks for something there that is newer."""
    names = read(places)
    if any(name is not None and name not in names and name in places for name in asked):
        read.clear()
        names = read(places)
    return names


def two_of(names: Sequence[str], left: str | None, right: str | None) -> tuple[str, str]:
    """A and B among at least two names: as chosen where that is still there, else the first ones; never the same.

    >>> two_of(["x", "y", "z"], None, "z"), two_of(["x", "y"], "y", "y"), two_of(["x", "y"], "gone", "x")
    (('x', 'z'), ('y', 'x'), ('y', 'x'))
    """
    a = left if left is not None and left in names else next(name for name in names if name != right)
    b = right if right is not None and right in names and right != a else next(name for name in names if name != a)
    return a, b


def choose_two(shell: Shell, frame: Frame, names: Sequence[str]) -> tuple[str, str]:
    """Draw both boxes for masks, students or videos; returns the names that are chosen."""
    kind = shell.selection.kind or ""
    for side, asked in (("a", shell.selection.left), ("b", shell.selection.right)):
        if asked is not None and asked not in names:
            st.warning(
                f"Link: {side}={plain(asked)} is none of the {KINDS[kind].lower()} found", icon=":material/link_off:"
            )
    a, b = two_of(names, shell.selection.left, shell.selection.right)

    def choice(side: str) -> Callable[[str], dict[str, Any]]:
        def read(now: str) -> dict[str, Any]:
            chosen = {"left": a, "right": b, side: now}
            # Taking the other one's place gives it this one's.
            if chosen["left"] == chosen["right"]:
                chosen = {"left": b, "right": a}
            # The link says of which kind they are, whatever the page would open with elsewhere.
            return chosen | {"kind": kind, "pair": None, "video_frame": 0}

        return read

    for box, label, name, field in ((frame.left, "A", a, "left"), (frame.right, "B", b, "right")):
        with box:
            st.selectbox(
                label,
                names,
                format_func=readable_names(names),
                **bind(f"compare_{kind}_{field}", name, choice(field)),
            )
    return a, b


def nothing_to_compare(frame: Frame, what: str, found: Sequence[str], commands: Sequence[str]) -> None:
    """The state with fewer than two: what is there, and the commands that make another."""
    frame.title(f"Two {what} are needed; {'none is' if not found else 'only one is'} here yet")
    if found:
        st.markdown(f"Found: **{plain(found[0])}**.")
    st.markdown("Looked for in data/, in the workspace and in the folders named at start. This makes one:")
    st.code("\n".join(commands), language=None, wrap_lines=True)


def table(rows: Sequence[Sequence[object]], headings: Sequence[str], *, key: str, left: int = 1) -> None:
    """A small table of words; the first `left` columns are aligned to the left, the others to the right."""
    align = [":--" if column < left else "--:" for column in range(len(headings))]
    lines = [" | ".join(map(str, row)) for row in (headings, align, *rows)]
    with st.container(key=f"compare_table_{key}"):
        st.markdown("\n".join(f"| {line} |" for line in lines))


def either(of_a: object, of_b: object) -> tuple[str, str]:
    """Two values as table cells, strong where they differ; numbers in six figures, truth in words.

    >>> either(0.1 + 0.2, None)
    ('**0\\\\.3**', '**–**')
    >>> either(True, True)
    ('yes', 'yes')
    """
    truth = {True: "yes", False: "no"}
    words = [
        truth[one] if isinstance(one, bool) else f"{one:.6g}" if isinstance(one, float) else one for one in (of_a, of_b)
    ]
    cells = ["–" if one is None else plain(one) for one in words]
    return (cells[0], cells[1]) if of_a == of_b else (f"**{cells[0]}**", f"**{cells[1]}**")
