"""What every page has around it: the open run, the selection, the sidebar, and errors that leave the page alive."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import streamlit as st

from analysis.routes import has_routes
from analysis.runs import Run
from pare.errors import InputError
from workbench.jobs.api import Jobs, open_workspace
from workbench.pages.data import default_run, facts_of, open_run, run_names
from workbench.pages.garbage import spare_modules
from workbench.pages.text import command_line, plain, readable_names, short_path
from workbench.pages.threads import one_blas_thread
from workbench.places import Places
from workbench.state import Selection, current, requested_run, update

STYLE = """<style>
[data-testid="stMainBlockContainer"] { padding: 3.75rem 2.5rem 3rem; max-width: 1600px; }
[data-testid="stMainBlockContainer"] h1 { font-size: 1.2rem; font-weight: 600; line-height: 1.4; padding: 0 0 0.3rem; }
[data-testid="stMainBlockContainer"] h2 { font-size: 1.05rem; font-weight: 600; padding: 0 0 0.4rem; }
.st-key-head_card [data-testid="stMarkdown"] p, .st-key-mask_panel [data-testid="stMarkdown"] p,
.st-key-block_parts [data-testid="stMarkdown"] p { font-size: 0.9rem; }
.st-key-head_ranks table { width: 100%; font-size: 0.8rem; font-variant-numeric: tabular-nums; }
.st-key-head_ranks :is(td, th) { padding: 0.15rem 0.35rem; }
.st-key-head_ranks :is(td, th):not(:nth-child(2)) { white-space: nowrap; }
:is(.st-key-prune_table, [class*="st-key-compare_table"]) table {
  width: 100%; font-size: 0.85rem; font-variant-numeric: tabular-nums;
}
:is(.st-key-prune_table, [class*="st-key-compare_table"]) :is(td, th) { padding: 0.2rem 0.5rem; white-space: nowrap; }
/* Too wide for half a narrow page; a part that scrolls sideways could not be reached by keyboard. */
@container (max-width: 640px) { [class*="st-key-compare_table"] :is(td, th) { white-space: normal; } }
[data-testid="stColumn"]:has([class*="st-key-compare_table"]) { container-type: inline-size; }
[data-testid="stCaptionContainer"] { color: inherit !important; opacity: 0.8; }
[class*="st-key-corner_"] { margin-top: -1.6rem; position: relative; z-index: 1; height: 1.5rem; }
/* Beside a narrow chart's axis, or a player's lines, it would stand on words. */
[class*="st-key-chart_"] { container-type: inline-size; }
@container (max-width: 300px) { [class*="st-key-corner_"] { margin-top: -0.3rem; } }
[class*="st-key-corner_"]:is([class*="_player"], [class*="_video"]) { margin-top: -0.8rem; }
[class*="st-key-corner_"] button { min-height: 1.5rem; padding: 0 0.4rem; font-size: 0.8rem; opacity: 0.75; }
[class*="st-key-corner_"] button:is(:hover, :focus-visible, [aria-expanded="true"]) { opacity: 1; }
:is(.st-key-report, .st-key-mask_safetensors, .st-key-mask_json, .st-key-student_card, .st-key-trained_card,
  .st-key-doctor_again, [class*="st-key-csv_"]) button {
  min-height: 32px; padding: 2px 12px; font-size: 14px;
}
[data-testid="stPopoverBody"] code { font-size: 0.8rem; }
[data-testid="stBaseButton-primary"]:enabled { color: light-dark(#fff, #0e1117); }
/* Streamlit's own grey of a chart's axes and notes has 3.7:1 on white, written on the elements; small text needs 4.5:1. */
.js-plotly-plot :is(.xaxislayer-above, .yaxislayer-above, .xaxislayer-below, .yaxislayer-below, .g-xtitle, .g-ytitle,
  .cbaxis, .cbtitle, .annotation-text-g) text { fill: light-dark(#555867, #c0c4cf) !important; }
video { max-width: 100%; border-radius: 6px; image-rendering: pixelated; display: block; }
</style>"""


@dataclass(frozen=True)
class Shell:
    """One run of a page: where it may read, the names of all runs, the open one (None: none, or unreadable)."""

    places: Places
    names: list[str]
    run: Run | None
    selection: Selection


def choose(**values: Any) -> None:
    """Change the session's selection: what a widget's callback does."""
    selection = st.session_state["shown_selection"].changed(**values)
    st.session_state["shown_selection"] = selection
    update(st.session_state, st.query_params, selection)


@contextmanager
def guard(what: str) -> Iterator[None]:
    """One panel: bad input and failures show as one line (what, got, expected, fix); the rest of the page goes on."""
    try:
        yield
    except InputError as error:
        st.error(plain(error), icon=":material/error:")
    except Exception as error:  # a page stays alive whatever one panel meets; the log has the traceback
        logging.getLogger(__name__).exception("%s failed", what)
        line = InputError(
            what, got=f"{type(error).__name__}: {error}", expected="no failure", fix="see the server's log"
        )
        st.error(plain(line), icon=":material/error:")


PLAYED_KEY = "played_videos"
"""Where a session holds what its page plays: key of a player → label → file. A report carries it."""


def open_shell(
    *, poll_jobs: bool = True, filters: bool | Callable[[Selection], bool] = False, page: str | None = None
) -> Shell:
    """Read the selection, open its run and draw the sidebar; notes on bad values of the link show once.

    `poll_jobs` is off on pages that watch jobs themselves, so that one fragment polls at most;
    `filters` shows what filters the page (or says whether anything does): branch, steps and sample;
    `page` is one of `ACTING`, whose parts of the selection the sidebar names.
    """
    one_blas_thread()
    spare_modules()
    st.html(STYLE)
    places = Places.from_environment()
    names = run_names(places)
    asked = requested_run(st.session_state, st.query_params)
    name = asked if asked in names else default_run(names)
    run: Run | None = None
    with guard("run"):
        run = open_run(places.find(name)) if name else None
    facts = facts_of(run, name, places)
    selection, notes = current(st.session_state, st.query_params, facts)
    st.session_state["shown_selection"] = selection
    st.session_state[PLAYED_KEY] = {}
    for note in notes:
        st.warning("Link: " + plain(note), icon=":material/link_off:")
    with st.sidebar:
        _run_picker(names, name)
        filtered = filters(selection) if callable(filters) else filters
        if run is not None and filtered:
            _filters(run, selection)
        if run is not None and page is not None and (filtered or not callable(filters)):
            st.caption(plain(acting_line(page, selection, run)))
        with guard("jobs"):
            jobs_badge(places, poll=poll_jobs)
    return Shell(places, names, run, selection)


ACTING: Mapping[str, tuple[tuple[str, ...], str]] = {
    "heads": (("branch", "steps", "sample"), "The mask takes branch, τs, τt, α and p, over all samples and steps."),
    "blocks": (
        ("branch", "steps", "sample"),
        "Roles of heads take τs and τt besides; a router is told over all samples and steps.",
    ),
    "prune": (
        ("branch", "steps", "sample"),
        "Steps and sample change the ratios that are shown; the mask takes branch, τs, τt, α and p, over all of them.",
    ),
    "compare": (
        ("branch", "steps", "sample"),
        "They choose the same part of A and of B; roles take τs and τt besides.",
    ),
    "route": (("sample",), "Branch, steps and thresholds change nothing on this page."),
}
"""Page → the parts of the selection that filter it, and what the others do there."""


def acting_line(page: str, selection: Selection, run: Run) -> str:
    """Which parts of the selection filter a page, with their present values, and what the others do there."""
    steps = (
        f"{selection.first_step}–{selection.last_step} of 0–{len(run.timesteps) - 1}"
        if selection.first_step is not None
        else f"all {len(run.timesteps)}"
    )
    samples = len(run.manifest.samples)
    values = {
        "branch": selection.branch or (run.branches[0] if len(run.branches) == 1 else "both"),
        "steps": steps,
        "sample": f"{selection.sample} of {samples}" if selection.sample is not None else f"all {samples}",
    }
    parts, rest = ACTING[page]
    if page == "route" and not has_routes(run):
        return "Nothing of the selection filters this page: without recorded decisions it is the same for every sample."
    return f"This page is filtered by {', '.join(f'{part} ({values[part]})' for part in parts)}. {rest}"


def jobs_of(places: Places) -> Jobs:
    """The jobs of the workspace; the folder is made when first needed."""
    return open_workspace(places.workspace)


def active_jobs(places: Places) -> int:
    """How many jobs are queued or in work; 0 without creating anything where there is no workspace yet."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return 0
    return sum(jobs_of(places).summary().values())


def jobs_badge(places: Places, *, poll: bool) -> None:
    """ "N running" in the sidebar, kept up to date while something is active."""
    count = active_jobs(places)

    def show(now: int) -> None:
        st.badge(f"{now} job{'s' if now > 1 else ''} running", icon=":material/hourglass_top:")

    def watch() -> None:
        now = active_jobs(places)
        if not now:
            st.rerun()
        show(now)

    if count and poll:
        st.fragment(watch, run_every=2.0)()
    elif count:
        show(count)


def bind(
    key: str, value: Any, read: Callable[[Any], dict[str, Any]], by: Callable[..., None] = choose
) -> dict[str, Any]:
    """Arguments that tie a widget to the selection: it shows `value`, and `read` turns a change into fields, which `by`
    chooses.
    """
    st.session_state[key] = value

    def changed() -> None:
        by(**read(st.session_state[key]))

    return {"key": key, "on_change": changed}


def _run_picker(names: list[str], name: str | None) -> None:
    if not names:
        st.caption("No run found")
        return
    index = names.index(name) if name in names else None
    st.session_state["run_picker"] = names[index] if index is not None else None
    st.selectbox(
        "Run",
        names,
        format_func=readable_names(names),
        key="run_picker",
        on_change=lambda: choose_run(st.session_state["run_picker"]),
        help="Runs in data/, in the workspace and in the folders named at start.",
    )


def choose_run(name: str) -> None:
    """Open another run, from a callback: what was chosen of the one before, and may not be in this one, is let go."""
    part = dict.fromkeys(("block", "head", "sample", "branch", "first_step", "last_step", "versus"))
    choose(run=name, **part, edits=())


def _filters(run: Run, selection: Selection) -> None:
    steps, samples = len(run.timesteps), len(run.manifest.samples)
    if len(run.branches) > 1:
        st.selectbox(
            "Branch",
            ["both", *run.branches],
            **bind("branch_filter", selection.branch or "both", lambda now: {"branch": None if now == "both" else now}),
        )
    if steps > 1:
        whole = (0, steps - 1)
        shown = whole if selection.first_step is None else (selection.first_step, selection.last_step)
        st.slider(
            "Steps",
            0,
            steps - 1,
            help="Step 0 is the noisiest: "
            + plain(f"t = {run.timesteps[0]:.0f} at step 0, {run.timesteps[-1]:.0f} at step {steps - 1}."),
            **bind(
                "step_filter",
                shown,
                lambda now: _step_range(None if tuple(now) == whole else now),
            ),
        )
    if samples > 1:
        st.selectbox(
            "Sample",
            range(-1, samples),
            format_func=lambda one: f"all {samples}" if one < 0 else f"{one} · {run.manifest.samples[one].prompt}",
            **bind(
                "sample_filter",
                -1 if selection.sample is None else selection.sample,
                lambda now: {"sample": now if now >= 0 else None},
            ),
        )


def _step_range(steps: tuple[int, int] | None) -> dict[str, int | None]:
    first, last = steps or (None, None)
    return {"first_step": first, "last_step": last}


def empty_state(places: Places, names: list[str]) -> None:
    """What to do when no run is open: choose another, or the command that makes one."""
    if names:
        st.title("This run cannot be opened", anchor=False)
        st.markdown("Choose another one in the sidebar, or capture it again:")
        st.code(
            command_line("capture", "demo", out=short_path(places.workspace / "runs" / "again")),
            language=None,
            wrap_lines=True,
        )
        return
    st.title("No run to look at yet", anchor=False)
    st.markdown(
        "A run is one capture of what a model's heads do. This command makes one from the bundled demo model "
        "on any laptop; it shows here as soon as its first sample is written."
    )
    st.code(
        command_line("capture", "demo", out=short_path(places.workspace / "runs" / "demo")),
        language=None,
        wrap_lines=True,
    )
    st.markdown("To look at captures you have, name their folder: `pare app FOLDER`.")


def unfinished_state(run: Run) -> None:
    """What to do with a run whose capture has not finished a sample."""
    st.title("This run has no finished sample yet", anchor=False)
    st.markdown(
        "Its capture is at work or was stopped. This command, with the flags of its first start, goes on "
        "where it stopped:"
    )
    st.code(
        command_line("capture", run.model_id, "--resume", out=short_path(run.folder)), language=None, wrap_lines=True
    )
