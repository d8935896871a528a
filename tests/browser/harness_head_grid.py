"""A page with nothing but a head grid, for the browser tests: heads from the Parquet file GRID_FRAME, value below."""

import os

import pandas as pd
import streamlit as st

from workbench.components.head_grid.component import head_grid
from workbench.components.head_grid.value import HeadGridValue

DEFAULT = HeadGridValue(0.7, 0.3)


def keep(value: HeadGridValue) -> None:
    st.session_state.value = value
    st.session_state.changes = st.session_state.get("changes", 0) + 1


st.set_page_config(page_title="Head grid", layout="wide")
if st.sidebar.button("Reset"):
    st.session_state.value = DEFAULT
value = st.session_state.get("value", DEFAULT)
st.sidebar.button("Run again")
if st.sidebar.toggle("Show", True):
    returned = head_grid(
        pd.read_parquet(os.environ["GRID_FRAME"]),
        tau_s=value.tau_s,
        tau_t=value.tau_t,
        num_frames=9,
        pinned=None if value.block is None else (value.block, value.head),
        on_change=keep,
    )
    st.text(f"returned {returned}")
st.text(f"kept {value} after {st.session_state.get('changes', 0)} changes")
