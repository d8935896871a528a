"""Route: which blocks a router ran at every step, what another budget would run, and that as a video."""

from typing import Any

import numpy as np
import streamlit as st
from plotly.colors import sequential

from analysis.evidence.answer import QUESTIONS
from analysis.figures.routes import disagreement_by_step
from analysis.figures.style import root_palette
from analysis.figures.tables import disagreement_table
from analysis.runs import Run
from pare.depth.budget import fewest
from workbench import recipes
from workbench.components.copy_button.component import copy_button
from workbench.components.lanes.component import Lanes, lanes
from workbench.pages import data
from workbench.pages.chart import show_chart
from workbench.pages.report_button import report_button
from workbench.pages.route_jobs import show_generation, show_recording
from workbench.pages.route_plan import (
    Decisions,
    RoutePlan,
    bounds,
    cost_table,
    decisions_of,
    route_plan,
    sampler_timesteps,
    turned,
)
from workbench.pages.route_take_out import (
    TABLE,
    planned_command,
    planned_part,
    report_again,
    route_command,
    take_planned,
    take_recorded,
)
from workbench.pages.route_work import recorded_router
from workbench.pages.run_model import model_of, model_words
from workbench.pages.shell import Shell, bind, choose, empty_state, guard, open_shell, unfinished_state
from workbench.pages.text import plain, short_path
from workbench.places import Places
from workbench.plan import tera
from workbench.state import MOST_EDITS, Selection

MEASURE = "python benchmarks/depth.py --model {model} --costs {path}"


def show_headline(run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, places: Places) -> None:
    """What was decided, in one sentence, and the buttons that take the view away."""

    def more() -> dict[str, Any]:
        command = planned_command(run, decisions, planned, selection, places)
        part = planned_part(run, decisions, planned, selection, command=command)
        return {"first": [part], "headline": headline(run, decisions, planned), "command": report_again(command)}

    text, button = st.columns([4, 1], vertical_alignment="top")
    with text:
        st.title(plain(headline(run, decisions, planned)), anchor=False)
        if not decisions.recorded:
            st.markdown(
                "This run has no recorded decisions. Shown is **what an importance router would decide** from its block "
                "norms: the blocks that change their input most at a timestep run first."
            )
    with button, st.container(horizontal=True, horizontal_alignment="right"):
        copy_button("Copy link", None, key="copy_link")
        report_button(run, selection, more=more)


def headline(run: Run, decisions: Decisions, planned: RoutePlan) -> str:
    """One sentence on what runs."""
    blocks = decisions.blocks
    if not decisions.recorded:
        return f"An importance router would run {planned.mean_count:.2f} of {blocks} blocks a step on average"
    mean = decisions.ran.sum(axis=2).mean()
    made = f"The {recorded_router(run)} router ran {mean:.2f} of {blocks} blocks a step"
    found = decisions.variation
    if found is None or np.isnan(found.low):
        return made
    if found.disagreement == 0:
        return f"{made} and decided the same for all {found.samples} samples"
    if not found.varies:
        return f"{made}; whether decisions vary with the content is open"
    return f"{made}; two samples disagree on {found.disagreement:.0%} of the decisions"


def show_controls(run: Run, decisions: Decisions, selection: Selection) -> None:
    """Which sample, what stands beside it, and the budget."""
    blocks, least = decisions.blocks, fewest(decisions.blocks)
    words = lambda one: f"{one} · {run.manifest.samples[one].prompt}"  # noqa: E731
    several = len(decisions.samples) > 1
    if decisions.recorded:
        sample, other, budget = st.columns([3, 3, 4], gap="medium", vertical_alignment="bottom")
    else:
        # With no sample to choose the budget stands above the lanes that it changes.
        budget, sample, other = st.columns([6, 2, 2], gap="medium")
    shown = decisions.samples[decisions.row(selection.sample)]
    if decisions.recorded:
        sample.selectbox(
            "Sample",
            decisions.samples,
            format_func=words,
            **bind("route_sample", shown, lambda now: {"sample": int(now), "edits": ()}),
        )
    if several:
        other.selectbox(
            "Beside it",
            [-1, *(each for each in decisions.samples if each != shown)],
            format_func=lambda one: "the same sample at another budget" if one < 0 else words(one),
            **bind(
                "route_versus", versus_of(decisions, selection), lambda now: {"versus": int(now) if now >= 0 else None}
            ),
        )
    with budget:
        if least < blocks:
            st.slider(
                "Blocks that run: K_min at t = 0 to K_max at t = 1000",
                least,
                blocks,
                help="Eq. 8, rounded down. Decided again from the stored scores; the model does not run. The first and "
                "the last block always run and count.",
                **bind(
                    "route_budget",
                    bounds(run, decisions, selection),
                    lambda now: {"k_min": int(now[0]), "k_max": int(now[1]), "edits": ()},
                ),
            )


def versus_of(decisions: Decisions, selection: Selection) -> int:
    """The other sample beside the shown one; -1 for none."""
    shown = decisions.samples[decisions.row(selection.sample)]
    known = selection.versus in decisions.samples and selection.versus != shown
    return selection.versus if known and selection.versus is not None else -1


def change_of(run: Run, decisions: Decisions, sample: int | None) -> np.ndarray | None:
    """How much every block changed its input [step, block], NaN where it did not run; None where it was not measured."""
    part = Selection(sample=sample if decisions.recorded else None)
    values = data.blocks(run, "residual", part)
    if values is None:
        return None
    order = np.argsort(-values.timesteps, kind="stable")
    cells, timesteps = values.cells()[order], values.timesteps[order]
    same = timesteps.shape == decisions.timesteps.shape and np.allclose(timesteps, decisions.timesteps)
    return cells if same else None


def show_lanes(run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, places: Places) -> None:
    """One or two sets of lanes on the same axes, differences outlined."""
    row, versus = decisions.row(selection.sample), versus_of(decisions, selection)
    command = route_command(run, decisions, selection, places)
    sample = decisions.samples[row]
    none = np.zeros(planned.ran.shape, bool)
    middle = decisions.scores[:, :, 1:-1]
    score_limits = (float(middle.min()), float(middle.max())) if middle.size else (0.0, 1.0)
    changes = {each: change_of(run, decisions, each) for each in {sample, versus} if each >= 0}
    known = [each[np.isfinite(each)] for each in changes.values() if each is not None and np.isfinite(each).any()]
    style: dict[str, Any] = {
        "score_limits": score_limits,
        "score_palette": list(sequential.Cividis),
        "change_limits": (0.0, max((float(each.max()) for each in known), default=1.0)),
        "change_palette": root_palette(),
    }

    def show_recorded(which: int, differ: np.ndarray, key: str) -> None:
        at = decisions.row(which)
        shown = Lanes(
            decisions.ran[at], decisions.scores[at], decisions.distance[at], decisions.timesteps, differ, none,
            changes[which],
        )  # fmt: skip
        lanes(shown, title=f"Decisions of sample {which}", key=key, **style)
        take_recorded(run, decisions, which, key=key, command=command)

    def show_planned(differ: np.ndarray) -> None:
        shown = Lanes(
            planned.ran, decisions.scores[row], planned.distance, decisions.timesteps, differ, planned.edited,
            changes[sample],
        )  # fmt: skip
        lanes(
            shown,
            title=f"Planned decisions for sample {sample}",
            editable=len(selection.edits) < MOST_EDITS,
            key="lanes_planned",
            on_change=lambda step, block: choose(edits=turned(st.session_state["shown_selection"].edits, step, block)),
            **style,
        )
        take_planned(run, decisions, planned, selection, command=command)

    if not decisions.recorded:
        st.header(plain(planned_words(run, decisions, planned, selection)), anchor=False)
        show_planned(none)
        return
    other = planned.ran if versus < 0 else decisions.ran[decisions.row(versus)]
    differ = decisions.ran[row] != other
    left, right = st.columns(2, gap="medium")
    with left, guard("lanes"):
        st.header(plain(f"Sample {sample}, as recorded"), anchor=False)
        st.caption(plain(run.manifest.samples[sample].prompt))
        show_recorded(sample, differ, "lanes_recorded")
    with right, guard("lanes beside it"):
        if versus < 0:
            st.header(plain(planned_words(run, decisions, planned, selection)), anchor=False)
            st.caption(plain(f"{int(differ.sum())} of {differ.size} decisions differ"))
            show_planned(differ)
        else:
            st.header(plain(f"Sample {versus}, as recorded"), anchor=False)
            st.caption(
                plain(f"{run.manifest.samples[versus].prompt} ({int(differ.sum())} of {differ.size} decisions differ)")
            )
            show_recorded(versus, differ, "lanes_versus")


def planned_words(run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection) -> str:
    """What the planned decisions are."""
    low, high = bounds(run, decisions, selection)
    made = "The recorded budget" if decisions.recorded and planned.budget is None else f"K from {low} to {high}"
    if planned.changed:
        made += f", {planned.changed} turned over by hand"
    return made


def show_prediction(run: Run, decisions: Decisions, planned: RoutePlan, shell: Shell) -> None:
    """What the planned decisions cost, and the way to take them along or back."""
    st.header("Predicted for a video", anchor=False)
    counted = f"{planned.mean_count:.2f} of {decisions.blocks} blocks a step over {planned.steps} steps: "
    counted += f"**{planned.share:.1%}** of the block FLOPs, {tera(planned.flops)}"
    st.markdown(counted + ("." if planned.seconds is None else f", about **{planned.seconds:.3g} s**."))
    if (planned.steps_at != 1).any():
        nearest, over_columns = ", ".join(map(str, planned.steps_at)), planned.ran.sum(axis=1).mean()
        gaps = np.diff(sampler_timesteps(run, decisions))
        uneven = "" if np.allclose(gaps, gaps[:1]) else "unevenly spaced "
        st.caption(
            f"{planned.mean_count:.2f} blocks a step over the video's {planned.steps} {uneven}steps; the columns are the run's "
            f"{len(planned.ran)} timesteps, whose mean is {over_columns:.2f}. Of the video's steps {nearest} are nearest to "
            "them, from left to right."
        )
    if planned.seconds is None:
        st.caption("Seconds need a cost table of this machine in the workspace:")
        path = short_path(shell.places.workspace / "costs.json")
        st.code(MEASURE.format(model=model_words(run, shell.places), path=path), language=None, wrap_lines=True)
    with st.container(horizontal=True):
        st.download_button(
            "Decision table (.json)",
            data=planned.table.to_json,
            file_name=TABLE,
            mime="application/json",
            on_click="ignore",
            key="table_json",
        )
        if shell.selection.edits:
            st.button("Undo the edits", key="undo_edits", on_click=lambda: choose(edits=()))
        if planned.budget is not None and decisions.recorded:
            st.button(
                "Back to the recorded budget",
                key="undo_budget",
                on_click=lambda: choose(k_min=None, k_max=None, edits=()),
            )


def show_variation(run: Run, decisions: Decisions, selection: Selection, command: str | None) -> None:
    """How much decisions vary with the content at a fixed timestep, with interval and n."""
    st.header("Do decisions follow the content?", anchor=False)
    found = decisions.variation
    if found is None:
        st.markdown(
            "No router was recorded. The importance router shown knows the timestep alone and decides the same for every "
            "prompt; how far other decisions could follow the content, as each sample's own block norms say, is on Evidence."
        )
        st.page_link(
            "workbench/pages/evidence.py",
            label=QUESTIONS["routes"],
            icon=":material/fact_check:",
            query_params=selection.changed(question="routes").to_query(),
        )
        return
    if found.samples < 2:
        st.markdown("One sample says nothing about that; record two or more.")
        return
    interval = "" if np.isnan(found.low) else f" [{found.low:.1%}, {found.high:.1%}]"
    st.markdown(
        f"At the same timestep two samples disagree on **{found.disagreement:.1%}**{interval} of the blocks that are not "
        f"always on, n = {found.samples} samples; blocks drawn at random would on {found.ceiling:.1%}."
        + (" Zero: a router of the timestep alone, whatever it is given." if found.disagreement == 0 else "")
    )
    show_chart(
        disagreement_by_step(found),
        key="disagreement",
        alt="Chance that two samples decide differently on a block, by timestep, against blocks drawn at random.",
        table=lambda: disagreement_table(found),
        python=recipes.disagreement(run),
        command=command,
        name=f"{run.folder.name}-disagreement",
    )


def show_page(shell: Shell) -> None:
    run, selection = shell.run, shell.selection
    if run is None:
        empty_state(shell.places, shell.names)
        return
    with guard("route"):
        if not run.finished:
            unfinished_state(run)
            return
        decisions = decisions_of(run)
        if decisions is None:
            st.title("This run has neither decisions nor block norms", anchor=False)
            show_recording(run, None, None, selection, shell.places)
            return
        planned = route_plan(run, decisions, selection, model_of(run, shell.places), cost_table(shell.places, run))
        show_headline(run, decisions, planned, selection, shell.places)
        show_controls(run, decisions, selection)
        if decisions.recorded:
            with guard("lanes"):
                show_lanes(run, decisions, planned, selection, shell.places)
            left, right = st.columns(2, gap="medium")
        else:
            lane_column, right = st.columns([3, 2], gap="medium")
            with lane_column, guard("lanes"):
                show_lanes(run, decisions, planned, selection, shell.places)
            left = right
        with left, guard("prediction"):
            show_prediction(run, decisions, planned, shell)
        with right:
            with guard("variation"):
                show_variation(run, decisions, selection, route_command(run, decisions, selection, shell.places))
            if not decisions.recorded:
                with guard("recording"):
                    show_recording(run, decisions, planned, selection, shell.places)
        label = planned_words(run, decisions, planned, selection)
        with guard("videos"):
            show_generation(run, decisions, planned, selection, shell.places, label)


show_page(open_shell(poll_jobs=False, page="route"))
