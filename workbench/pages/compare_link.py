"""The way from what a page has made to its comparison; the selection goes along."""

from pathlib import Path

import streamlit as st

from workbench.places import Places
from workbench.state import Selection


def compare_link(places: Places, selection: Selection, kind: str, a: Path, b: Path, label: str) -> None:
    """A link to the Compare page with `a` as A and `b` as B (`kind`: students or videos); none outside the places."""
    left, right = places.name_of(a), places.name_of(b)
    if left is None or right is None:
        return
    st.page_link(
        "workbench/pages/compare.py",
        label=label,
        icon=":material/compare:",
        query_params=selection.changed(kind=kind, left=left, right=right, pair=None).to_query(),
    )
