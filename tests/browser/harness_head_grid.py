"""A page with nothing but a head grid, for the browser tests: heads from a seed, the value written below it.

Environment: GRID_BLOCKS, GRID_HEADS, GRID_MARKS=1 (heads not captured, removed and flagged), GRID_DTYPE, GRID_SHADE.
"""

import os

import numpy as np
import pandas as pd
import streamlit as st

from workbench.components.head_grid.cells import FIRST_FRAME_SINK, UNIFORM
from workbench.components.head_grid.component import head_grid
from workbench.components.head_grid.value import HeadGridValue

st.set_page_config(layout="wide")


def example_heads() -> pd.DataFrame:
    blocks, heads = int(os.environ.get("GRID_BLOCKS", "8")), int(os.environ.get("GRID_HEADS", "10"))
    random = np.random.default_rng(7)
    block, head = (axis.ravel() for axis in np.indices((blocks, heads)))
    centre = 2 + 3 * np.sin(np.pi * block / blocks)
    ratio = np.where(random.random(block.size) < 0.7, random.beta(centre, 2.5), random.beta(1.5, 9, block.size))
    frame = pd.DataFrame({"block": block, "head": head, "ratio": ratio.astype(os.environ.get("GRID_DTYPE", "float32"))})
    if os.environ.get("GRID_MARKS"):
        frame.loc[[3, 4, 27], "ratio"] = np.nan
        frame["removed"] = random.random(block.size) < 0.12
        frame["flags"] = np.where(random.random(block.size) < 0.06, FIRST_FRAME_SINK, 0)
        frame.loc[[12, 33], "flags"] = UNIFORM
    return frame


def keep(value: HeadGridValue) -> None:
    st.session_state.value = value
    st.session_state.changes = st.session_state.get("changes", 0) + 1


frame = example_heads()
value = st.session_state.get("value", HeadGridValue(0.7, 0.3))
if st.sidebar.button("Reset"):
    value = st.session_state.value = HeadGridValue(0.7, 0.3)
st.sidebar.button("Run again")
if st.sidebar.toggle("Show", True):
    returned = head_grid(
        frame,
        tau_s=value.tau_s,
        tau_t=value.tau_t,
        num_frames=9,
        pinned=None if value.block is None else (value.block, value.head),
        shade=bool(os.environ.get("GRID_SHADE")),
        on_change=keep,
    )
    st.text(f"returned τs {returned.tau_s} τt {returned.tau_t} block {returned.block} head {returned.head}")
st.text(f"kept τs {value.tau_s} τt {value.tau_t} block {value.block} head {value.head}")
st.text(f"changes {st.session_state.get('changes', 0)}")
