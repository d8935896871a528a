"""All heads as B − A of two runs, the open one being A; a click pins one."""

import numpy as np
import streamlit as st

from analysis.figures.differences import difference_grid as figure_of_difference
from analysis.head_metrics import METRICS, known_metrics
from analysis.runs import Run
from workbench import compare_recipes
from workbench.components.difference_grid.component import difference_grid
from workbench.pages import head_data
from workbench.pages.chart import take_out
from workbench.pages.data import open_run
from workbench.pages.head_views import choose_metric, choose_view
from workbench.pages.pinned_part import choose_pinned
from workbench.pages.run_model import model_words
from workbench.pages.shell import Shell, bind
from workbench.pages.text import command_line, plain, readable_names, short_path
from workbench.places import Places
from workbench.state import Selection

DIFFERED = tuple(name for name, metric in METRICS.items() if len(metric.needs) == 1 and "spread" not in name)
"""Metrics that are one statistic, so that two runs of it can be subtracted."""


def another_command(run: Run, places: Places) -> str:
    """The command line that captures a run which this one can be subtracted from: of the same clip, steps and guidance,
    with seeds that this one has not. Prompts of another model than the demo are those of a file to name.
    """
    made, model = run.manifest.settings, model_words(run, places)
    flags = {**run.manifest.clip, **{name: made.get(name) for name in ("steps", "guidance", "shift")}}
    # Sample i is made with seed + i.
    seed = 1 + max((sample.seed for sample in run.manifest.samples), default=0)
    out = short_path(places.workspace / "runs" / f"{run.folder.name}-seed-{seed}")
    prompts = None if model == "demo" else "prompts.txt"
    count = len(run.finished)
    return command_line(
        "capture", model, mode=run.manifest.mode, prompts=prompts, samples=count, seed=seed, **flags, out=out
    )


def show_difference(shell: Shell, run: Run, selection: Selection, cell: tuple[int, int] | None) -> None:
    """B − A of a statistic of all heads, with intervals over prompts; a click pins the head."""
    others = head_data.comparable(run, shell.places, [name for name in shell.names if name != selection.run])
    if selection.compared in shell.names and selection.compared not in others:
        # What was asked for is shown with the reason why not.
        others = [*others, selection.compared]
    if not others:
        st.markdown(
            "No other run here has this one's blocks, heads, clip length and timesteps, so there is nothing to subtract it "
            "from. This captures one of other noise; a student's, where its folder stands for the model:"
        )
        st.code(another_command(run, shell.places), language=None, wrap_lines=True)
        return
    known = [name for name in known_metrics(run) if name in DIFFERED]
    other, what = st.columns([3, 2])
    with other:
        name = selection.compared if selection.compared in others else others[0]
        st.selectbox(
            "Run B, the open one being A",
            others,
            format_func=readable_names(others),
            **bind("other_run", name, lambda now: {"compared": now}, choose_view),
        )
    with what:
        metric = selection.x if selection.x in known else known[0]
        choose_metric("Metric", "x", metric, known)
    statistic = METRICS[metric].needs[0]
    against = open_run(shell.places.find(name))
    found = head_data.difference(run, against, statistic, selection)
    thresholds = (selection.tau_s, selection.tau_t) if metric == "ratio" else None
    difference_grid(
        found,
        title=METRICS[metric].title,
        symbol=METRICS[metric].symbol,
        thresholds=thresholds,
        pinned=cell,
        key="head_difference",
        on_change=lambda block, head: choose_pinned(block=block, head=head),
    )
    clear, chance = int(found.clear.sum()), found.expected_by_chance
    prompts = f"{found.prompts} prompt{'s' if found.prompts != 1 else ''}"
    how = f"paired over {prompts}" if found.paired else f"unpaired, {prompts} at least"
    certainty = (
        f"{clear} of {int(np.isfinite(found.low).sum())} heads differ beyond their 95 % interval, {chance:.1f} by chance alone"
        if np.isfinite(found.low).any()
        else "no interval below two prompts"
    )
    st.markdown(plain(f"{certainty}; {how}."))
    take_out(
        lambda: figure_of_difference(found),
        key="head_difference",
        alt=f"B − A of {METRICS[metric].title} for every head.",
        table=found.table,
        python=compare_recipes.head_differences(run, against, statistic, selection),
        command=compare_recipes.run_command(run, against, statistic, selection),
        name=f"{run.folder.name}-difference-{metric}",
    )
