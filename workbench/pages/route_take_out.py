"""The way out of the page for lanes of decisions: a still figure of them, their table, and what makes both."""

import numpy as np
import pandas as pd

from analysis.figures.routes import decision_map
from analysis.figures.tables import decision_table
from analysis.runs import Run
from workbench import recipes
from workbench.pages.chart import take_out
from workbench.pages.route_plan import Decisions, RoutePlan, bounds
from workbench.pages.route_work import recorded_router
from workbench.pages.run_model import model_words
from workbench.pages.text import command_line, short_path
from workbench.places import Places
from workbench.plan import tera
from workbench.report.part import Part
from workbench.state import Selection

OUT, TABLE = "routed", "routes.json"
PLANNED = "Which blocks would run at every timestep, decided again or turned over by hand."
ROUTERS = ("importance", "random", "static", "learned")


def route_command(run: Run, decisions: Decisions, selection: Selection, places: Places) -> str | None:
    """The command line that records decisions like those shown; None where a file decided."""
    router = recorded_router(run) if decisions.recorded else "importance"
    if router not in ROUTERS:
        return None
    low, high = bounds(run, decisions, selection)
    flags = {"prompts": "prompts.txt", "router": router, "k_min": low, "k_max": high, "out": OUT}
    return command_line(
        "route", model_words(run, places), **flags, run=None if decisions.recorded else short_path(run.folder)
    )


def planned_command(
    run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, places: Places
) -> str | None:
    """The command line that records the planned decisions; those turned over by hand go by the table that the page saves."""
    if not planned.changed:
        return route_command(run, decisions, selection, places)
    return command_line("route", model_words(run, places), prompts="prompts.txt", router=TABLE, out=OUT)


def take_recorded(run: Run, decisions: Decisions, sample: int, *, key: str, command: str | None) -> None:
    """ "Take out" of one sample's decisions as they were recorded."""
    row = decisions.row(sample)
    _take(
        decisions.ran[row],
        decisions.scores[row],
        decisions.timesteps,
        key=key,
        alt=f"Which blocks ran at every timestep for sample {sample}, as recorded.",
        python=recipes.decisions(run, row=row, budget=None),
        command=command,
        name=f"{run.folder.name}-routes-{sample}",
    )


def take_planned(
    run: Run,
    decisions: Decisions,
    planned: RoutePlan,
    selection: Selection,
    *,
    command: str | None,
) -> None:
    """ "Take out" of the decisions that would run next."""
    _take(
        planned.ran,
        decisions.scores[decisions.row(selection.sample)],
        decisions.timesteps,
        key="lanes_planned",
        alt=PLANNED,
        python=_planned_python(run, decisions, planned, selection),
        command=command,
        name=f"{run.folder.name}-routes-planned",
    )


def planned_part(
    run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, *, command: str | None
) -> Part:
    """The decisions that would run next, as a part of a report."""
    scores = decisions.scores[decisions.row(selection.sample)]
    low, high = bounds(run, decisions, selection)
    turned = f", {planned.changed} turned over by hand" if planned.changed else ""
    return Part(
        f"Which blocks would run, K from {low} to {high}{turned}",
        f"Decided again from stored scores; the model did not run. Predicted for a video of {planned.steps} steps: "
        f"{planned.mean_count:.2f} of {decisions.blocks} blocks a step, {planned.share:.1%} of the block FLOPs, "
        f"{tera(planned.flops)}.",
        figure=decision_map(planned.ran, scores, decisions.timesteps),
        alt=PLANNED,
        table=decision_table(planned.ran, scores, decisions.timesteps),
        python=_planned_python(run, decisions, planned, selection),
        command=command,
    )


def report_again(command: str | None) -> str | None:
    """The command lines that record decisions like these and report them."""
    return None if command is None else f"{command}\n{command_line('report', OUT, out='report.html')}"


def _planned_python(run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection) -> str:
    steps, blocks = planned.edited.nonzero()
    return recipes.decisions(
        run,
        row=decisions.row(selection.sample) if decisions.recorded else None,
        budget=None if planned.budget is None else bounds(run, decisions, selection),
        edits=[(int(step), int(block)) for step, block in zip(steps, blocks, strict=True)],
    )


def _take(
    ran: np.ndarray,
    scores: np.ndarray,
    timesteps: np.ndarray,
    *,
    key: str,
    alt: str,
    python: str,
    command: str | None,
    name: str,
) -> None:
    def table() -> pd.DataFrame:
        return decision_table(ran, scores, timesteps)

    take_out(
        lambda: decision_map(ran, scores, timesteps),
        key=key,
        alt=alt,
        table=table,
        python=python,
        command=command,
        name=name,
    )
