"""How many threads the app's process multiplies matrices with."""

import streamlit as st
from threadpoolctl import threadpool_limits


@st.cache_resource(show_spinner=False)
def one_blas_thread() -> None:
    """One thread for NumPy's products, once per process: those of a page are small, and further threads spin between them.

    With two threads the processor time of a bootstrap interval is two to three times as long.
    """
    threadpool_limits(limits=1, user_api="blas")
