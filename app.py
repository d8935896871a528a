"""The workbench: its pages and their order. `streamlit run app.py` works; `pare app` adds the routes for videos."""

from pathlib import Path

import streamlit as st

ICON = Path(__file__).resolve().parent / "workbench" / "icon.svg"

st.set_page_config(page_title="PARE Workbench", page_icon=ICON, layout="wide")
st.logo(ICON, size="large")
st.navigation(
    [
        st.Page("workbench/pages/heads.py", title="Heads", icon=":material/grid_view:", default=True),
        st.Page("workbench/pages/blocks.py", title="Blocks", icon=":material/view_week:"),
        st.Page("workbench/pages/prune.py", title="Prune", icon=":material/content_cut:"),
        st.Page("workbench/pages/route.py", title="Route", icon=":material/alt_route:"),
        st.Page("workbench/pages/train.py", title="Train", icon=":material/model_training:"),
        st.Page("workbench/pages/compare.py", title="Compare", icon=":material/compare:"),
        st.Page("workbench/pages/evidence.py", title="Evidence", icon=":material/fact_check:"),
        st.Page("workbench/pages/runs.py", title="Runs", icon=":material/folder_open:"),
        st.Page("workbench/pages/jobs.py", title="Jobs", icon=":material/hourglass_top:"),
        st.Page("workbench/pages/doctor.py", title="Doctor", icon=":material/stethoscope:"),
    ]
).run()
