"""What the collector of cyclic garbage goes through after every run of a page."""

import gc
import sys

import streamlit as st


def spare_modules() -> None:
    """Take what the loaded modules hold out of the collector's sight, whenever more of them are loaded.

    Streamlit collects after every run of a script, and goes through everything that lives: about a million objects of
    plotly, pandas and others, which never become garbage, for a tenth of a second.
    """
    _spare(len(sys.modules))


@st.cache_resource(show_spinner=False)
def _spare(modules: int) -> None:
    gc.collect()
    gc.freeze()
