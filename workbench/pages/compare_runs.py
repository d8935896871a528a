"""Compare two runs: B − A of every head and block, roles that change, and how the runs were made."""

from contextlib import suppress

import numpy as np
import streamlit as st

from analysis.block_values import LENSES
from analysis.figures.differences import difference_grid as difference_figure
from analysis.figures.differences import difference_per_block
from analysis.roles import classify
from analysis.run_difference import RunDifference
from analysis.run_match import match_runs
from analysis.runs import Run
from pare.errors import InputError
from workbench import compare_recipes
from workbench.compare_words import interval, runs_sentence, samples_words, signed
from workbench.components.difference_grid.component import difference_grid
from workbench.model_card import read_card
from workbench.pages import head_data
from workbench.pages.chart import show_chart, take_out
from workbench.pages.compare_choice import Frame, either, table
from workbench.pages.data import open_run, pipeline_names
from workbench.pages.report_button import view_link
from workbench.pages.shell import Shell, bind, choose, empty_state, guard
from workbench.pages.text import command_line, plain, readable_names, short_path
from workbench.places import Places
from workbench.report.compare_runs import runs_report
from workbench.state import Selection

RATIO, SYMBOL = "self/ratio", "r"
ROWS = 12
"""Heads in the table of what changed; "Take out" has all."""
LISTED = 24
"""Heads named in the list of those that change their role."""


def show_runs(shell: Shell, frame: Frame) -> None:
    """Draw A against B, A being the open run."""
    run, selection, names = shell.run, shell.selection, shell.names
    if run is None or selection.run is None:
        empty_state(shell.places, names)
        return
    others = [name for name in names if name != selection.run]
    if not others:
        frame.title("Two runs are needed; only one is here yet")
        _how_to_capture(run, shell.places)
        return
    name = selection.compared if selection.compared in others else default_other(shell.places, run, others)
    with frame.left:
        st.selectbox(
            "A",
            names,
            format_func=readable_names(names),
            **bind(
                "compare_runs_a",
                selection.run,
                lambda now: (
                    {"run": now, "kind": "runs", "compared": selection.run if now == name else selection.compared}
                    | dict.fromkeys(("block", "head", "sample"))
                ),
            ),
        )
    with frame.right:
        st.selectbox(
            "B",
            others,
            format_func=readable_names(names),
            placeholder="none fits",
            **bind("compare_runs_b", name, lambda now: {"kind": "runs", "compared": now}),
        )
    if name is None:
        frame.title("A second run like this one is needed")
        st.markdown(
            f"{'None of the others here has' if len(others) > 1 else 'The other one here has not'} this run's blocks, heads, "
            "clip length and timesteps, so there is nothing to subtract yet."
        )
        _how_to_capture(run, shell.places)
        return
    try:
        other = open_run(shell.places.find(name))
        found = head_data.difference(run, other, RATIO, selection)
    except InputError as error:
        frame.title("These two runs cannot be subtracted")
        st.error(plain(error), icon=":material/difference:")
        _how_to_capture(run, shell.places)
        return
    frame.title(runs_sentence(found, selection.tau_s, selection.tau_t))
    link = view_link(st.context.url, selection)
    frame.report(lambda: runs_report(run, other, selection, link=link), f"{run.folder.name}-{other.folder.name}")
    if not found.paired:
        st.warning(
            "Not paired: no sample of B has the prompt and seed of one of A. The means of all samples are compared, "
            "and what prompts add to each does not cancel.",
            icon=":material/link_off:",
        )
    grid, changed = st.columns([5, 4], gap="medium")
    with grid, guard("grid of differences"):
        _show_grid(run, other, found, selection)
    with changed, guard("what changed"):
        _show_heads(found, selection)
    left, right = st.columns([5, 4], gap="medium")
    with left, guard("blocks"):
        _show_blocks(run, other, selection)
    with right, guard("how they were made"):
        _show_making(found)


def default_other(places: Places, run: Run, others: list[str]) -> str | None:
    """The first run that can be subtracted from this one, with a common sample if any has; None where none can."""
    fitting = []
    for name in others:
        try:
            other = open_run(places.find(name))
            match = match_runs(run, other)
        except InputError:
            continue
        if match.samples:
            return name
        fitting.append(name)
    return next(iter(fitting), None)


def _show_grid(run: Run, other: Run, found: RunDifference, selection: Selection) -> None:
    pinned = None if selection.block is None or selection.head is None else (selection.block, selection.head)
    difference_grid(
        found,
        title="intra-slice ratio",
        symbol=SYMBOL,
        thresholds=(selection.tau_s, selection.tau_t),
        pinned=pinned,
        key="compare_grid",
        on_change=lambda block, head: choose(block=block, head=head),
    )
    take_out(
        lambda: difference_figure(found),
        key="compare_grid",
        alt="B − A of the intra-slice ratio of every head, by block and head.",
        table=found.table,
        python=compare_recipes.head_differences(run, other, RATIO, selection),
        command=compare_recipes.run_command(run, other, RATIO, selection),
        name=f"{run.folder.name}-difference",
    )


def _show_heads(found: RunDifference, selection: Selection) -> None:
    st.header("What changed, largest first", anchor=False)
    frame = found.table()
    if frame.empty:
        st.markdown("No head has a ratio in both runs.")
        return
    rows = []
    for row in frame.head(ROWS).itertuples():
        before, after = classify(np.array([row.a, row.b]), selection.tau_s, selection.tau_t)
        role = before if before == after else f"**{before} to {after}**"
        star = " \\*" if row.clear else ""
        change = f"{signed(row.difference)}{star}"
        rows.append(
            (f"{row.block} · {row.head}", f"{row.a:.3f}", f"{row.b:.3f}", change, interval(row.low, row.high), role)
        )
    table(rows, ("head", "A", "B", "B − A", "95 %", "role"), key="heads")
    more = len(frame) - len(rows)
    words = f"Block · head; S spatial, M mixed, T temporal; {samples_words(found)}. \\* the interval leaves 0 out."
    st.caption(words + (f" {more} more heads under Take out." if more > 0 else ""))
    changes = found.role_changes(selection.tau_s, selection.tau_t)
    if len(changes):
        names = [f"{row.block} · {row.head} {row.role_a} to {row.role_b}" for row in changes.head(LISTED).itertuples()]
        rest = f" and {len(changes) - LISTED} more" if len(changes) > LISTED else ""
        st.markdown(f"**Other role at τs {selection.tau_s:g}, τt {selection.tau_t:g}:** {', '.join(names)}{rest}.")
    else:
        st.markdown(f"No head changes its role at τs {selection.tau_s:g}, τt {selection.tau_t:g}.")


def _show_blocks(run: Run, other: Run, selection: Selection) -> None:
    both = set(run.statistics) & set(other.statistics)
    known = [lens for lens, each in LENSES.items() if set(each.needs) <= both]
    st.header("What changed in the blocks", anchor=False)
    if not known:
        st.markdown("The norms of blocks were not captured in both runs.")
        return
    lens = selection.lens if selection.lens in known else known[0]
    st.segmented_control(
        "Part of the block",
        known,
        format_func=lambda one: LENSES[one].title,
        label_visibility="collapsed",
        **bind("compare_lens", lens, lambda now: {"lens": now or lens}),
    )
    found, symbol = head_data.difference(run, other, lens, selection), LENSES[lens].symbol
    show_chart(
        difference_per_block(found, name=f"B − A of {symbol}"),
        key="compare_blocks",
        alt=f"B − A of {LENSES[lens].title.lower()}, {symbol}, in every block, with 95 % intervals around 0.",
        table=found.table,
        python=compare_recipes.block_differences(run, other, lens, selection, f"B − A of {symbol}"),
        command=compare_recipes.run_command(run, other, lens, selection),
        name=f"{run.folder.name}-difference-{lens}",
    )
    rows = [
        (row.block, f"{row.a:.3f}", f"{row.b:.3f}", signed(row.difference) + (" \\*" if row.clear else ""),
         interval(row.low, row.high), row.n)
        for row in found.table().head(6).itertuples()
    ]  # fmt: skip
    table(rows, ("block", "A", "B", "B − A", "95 %", "n"), key="blocks")


def _show_making(found: RunDifference) -> None:
    st.header("How they were made", anchor=False)
    differs = found.match.differs
    if not differs:
        st.markdown("With the same model and settings; only the samples may differ.")
        return
    rows = []
    for name, values in differs.items():
        words = [str(one)[:12] if name.endswith("hash") else one for one in values]
        rows.append((name.replace("_", " "), *either(*words)))
    table(rows, ("differs", "A", "B"), key="making", left=3)


def _how_to_capture(run: Run, places: Places) -> None:
    """The command that captures another model, or this one otherwise, so that it can be subtracted."""
    settings = run.manifest.settings
    flags = {"mode": run.manifest.mode, "samples": len(run.manifest.samples), "seed": settings.get("seed")}
    if run.manifest.mode == "trajectory":
        flags |= {name: settings.get(name) for name in ("steps", "guidance", "shift")}
    out = short_path(places.workspace / "runs" / "b")
    student = student_of(places, run) or "STUDENT"
    which = "its folder in the place of STUDENT" if student == "STUDENT" else "here the first that was found"
    st.markdown(
        "A run that can be subtracted has the same blocks and heads, clip length and timesteps, for example that of a "
        f"student ({which}); with the same prompts and seed its samples are paired:"
    )
    st.download_button(
        "The prompts of A (PROMPTS.txt)",
        data=lambda: "".join(f"{sample.prompt}\n" for sample in run.manifest.samples).encode(),
        file_name="PROMPTS.txt",
        mime="text/plain",
        on_click="ignore",
        key="compare_prompts",
    )
    st.code(command_line("capture", student, prompts="PROMPTS.txt", **flags, out=out), language=None, wrap_lines=True)


def student_of(places: Places, run: Run) -> str | None:
    """The first pruned model in the places that has the run's blocks and heads, as a person here types it."""
    wanted = (run.geometry.blocks, run.geometry.heads)
    for name in pipeline_names(places):
        folder = places.find(name)
        with suppress(InputError, OSError):
            card = read_card(folder)
            if card.pruned and (card.geometry.blocks, card.geometry.heads) == wanted:
                return short_path(folder)
    return None
