"""Parts of a page that a newly pinned head, or another view, draws again alone: everything else stays as it is."""

from collections.abc import Callable, Iterable

import streamlit as st

from workbench.pages.shell import choose
from workbench.state import Selection

PARTS_KEY = "pinned_parts"


def begin_parts() -> None:
    """Forget the parts of the page before: what a whole run of a page begins with."""
    st.session_state[PARTS_KEY] = {}


def pinned_part(key: str, draw: Callable[[Selection], None]) -> None:
    """Draw a part from the session's selection, again whenever `choose_pinned` pins another head or `choose_in` names it.

    All other widgets in it change more than itself, so they run the whole page.
    """
    drawn = False

    def show() -> None:
        nonlocal drawn
        if drawn and not st.session_state[PARTS_KEY][key]:
            st.rerun()
        drawn = True
        st.session_state[PARTS_KEY][key] = False
        draw(st.session_state["shown_selection"])

    st.session_state[PARTS_KEY][key] = False
    st.fragment(show, key=key)()


def choose_pinned(**values: object) -> None:
    """Change the selection from a callback; where that pins another head and no more, only the parts that show it run."""
    before: Selection = st.session_state["shown_selection"]
    choose(**values)
    after: Selection = st.session_state["shown_selection"]
    if after == before.changed(block=after.block, head=after.head):
        _draw_again(st.session_state[PARTS_KEY])


def choose_in(*keys: str, **values: object) -> None:
    """Change what only these parts show, from a callback: only they run."""
    choose(**values)
    _draw_again(key for key in st.session_state[PARTS_KEY] if key in keys)


def _draw_again(keys: Iterable[str]) -> None:
    if again := list(keys):
        st.session_state[PARTS_KEY] |= dict.fromkeys(again, True)
        st.rerun(again)
