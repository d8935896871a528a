"""What a router does with one block: how often it ran it at every timestep, or when an importance router would."""

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st

from analysis.block_runs import block_runs
from analysis.figures.routes import runs_over_timesteps
from analysis.runs import Run
from pare.depth.decision import redecide
from workbench import recipes
from workbench.pages.chart import show_chart
from workbench.pages.data import open_run
from workbench.pages.drawn import drawn
from workbench.pages.kept import kept
from workbench.pages.route_plan import Decisions, bounds, budget_of, decisions_of, routes_stamp
from workbench.pages.route_work import recorded_router
from workbench.state import Selection


def show_router(run: Run, selection: Selection, block: int) -> None:
    """Draw the panel, always over all samples and steps."""
    st.header("Router", anchor=False)
    decisions = decisions_of(run)
    if decisions is None:
        st.markdown("Neither decisions nor block norms were captured in this run.")
        return
    if block in (0, decisions.blocks - 1):
        st.markdown(f"The first and the last block always run, so no router decides on block {block}.")
    elif decisions.recorded:
        _show_recorded(run, decisions, block)
    else:
        st.markdown(would_run(run, decisions, selection, block))
    st.page_link("workbench/pages/route.py", label="All blocks in Route", icon=":material/alt_route:")


def would_run(run: Run, decisions: Decisions, selection: Selection, block: int) -> str:
    """When an importance router would run a block at the selection's budget, in one sentence."""
    low, high = bounds(run, decisions, selection)
    budget = budget_of(run, decisions, selection)
    ran = decisions.ran[0, :, block]
    if budget is not None:
        ran = redecide(decisions.scores[0], budget, timesteps=decisions.timesteps).ran[:, block]
    when = ", ".join(f"{timestep:.0f}" for timestep in decisions.timesteps[ran])
    often = f"at {np.sum(ran)} of {len(ran)} timesteps" + (f": t = {when}" if 0 < np.sum(ran) < len(ran) else "")
    return (
        f"No router was recorded. By this run's block norms an importance router with K from {low} to {high} would run block "
        f"{block} {often}."
    )


@kept(st.cache_data, max_entries=16)
def _runs(folder: str, when: tuple[int, ...], block: int) -> pd.DataFrame:
    return block_runs(open_run(Path(folder)).routes(), block)


def _show_recorded(run: Run, decisions: Decisions, block: int) -> None:
    table = _runs(str(run.folder), routes_stamp(run), block)
    share, count = decisions.ran[:, :, block].mean(), len(decisions.samples)
    st.markdown(
        f"The {recorded_router(run)} router ran block {block} in **{share:.0%}** of the steps of all {count} "
        f"sample{'s' if count != 1 else ''}."
    )
    show_chart(
        drawn(runs_over_timesteps, table),
        key="block_router",
        alt=f"Share of samples in which the router ran block {block}, by timestep, with 95 % intervals.",
        table=table,
        python=recipes.block_runs(run, block),
        command=None,
        name=f"{run.folder.name}-block-{block}-router",
    )
