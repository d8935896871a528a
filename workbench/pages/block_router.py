"""What a router does with one block: how often it ran it at every timestep, or when an importance router would."""

import streamlit as st

from analysis.block_runs import block_runs
from analysis.figures.routes import runs_over_timesteps
from analysis.runs import Run
from workbench import recipes
from workbench.pages.chart import show_chart
from workbench.pages.drawn import drawn
from workbench.pages.route_plan import Decisions, bounds, decisions_of
from workbench.pages.route_work import recorded_router
from workbench.state import Selection


def show_router(run: Run, selection: Selection, block: int) -> None:
    """Draw the panel; over all samples and steps, as a router decides for each of them."""
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
        low, high = bounds(run, decisions, selection)
        st.markdown(would_run(decisions, block, low, high))
    st.page_link("workbench/pages/route.py", label="All blocks in Route", icon=":material/alt_route:")


def would_run(decisions: Decisions, block: int, low: int, high: int) -> str:
    """When an importance router would run a block, in one sentence."""
    ran = decisions.ran[0, :, block]
    when = ", ".join(f"{timestep:.0f}" for timestep in decisions.timesteps[ran])
    often = f"at {int(ran.sum())} of {len(ran)} timesteps" + (f": t = {when}" if 0 < ran.sum() < len(ran) else "")
    return (
        f"No router was recorded. By this run's block norms an importance router with K from {low} to {high} would run block "
        f"{block} {often}."
    )


def _show_recorded(run: Run, decisions: Decisions, block: int) -> None:
    table = block_runs(run.routes(), block)
    share = float((table["ran"] * table["n"]).sum() / table["n"].sum())
    count = len(decisions.samples)
    st.markdown(
        f"The {recorded_router(run)} router ran block {block} in **{share:.0%}** of the steps of {count} "
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
