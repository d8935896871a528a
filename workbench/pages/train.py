"""Train: start a stage of the distillation with its cost first, watch it, stop it, go on, and look at what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from pare.errors import InputError
from pare.geometry import DEMO
from workbench.captions import TABLES, read_captions
from workbench.components.copy_button.component import copy_button
from workbench.jobs.api import Cost
from workbench.jobs.device import fastest_device
from workbench.jobs.job import State
from workbench.pages import train_work as work
from workbench.pages.generate_panel import models
from workbench.pages.job_view import job_buttons, show_progress
from workbench.pages.prune_work import find
from workbench.pages.report_button import give_report, view_link
from workbench.pages.shell import Shell, choose, guard, jobs_of, open_shell
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.train_form import choose_training, samples_of_model, students_of_model
from workbench.pages.train_validation import show_past, show_validations
from workbench.pages.train_watch import show_watch
from workbench.places import Places
from workbench.report.training import training_report
from workbench.state import Selection
from workbench.training_choices import Wanted, plan_training, teachers
from workbench.training_record import Training

VIEWS = ("Watch", "Start")
VIEW = "train_view"
POLL_SECONDS = 1.0
DRAWN = 2048


def show_page(shell: Shell) -> None:
    places = shell.places
    try:
        found = work.entries(places)
    except InputError:
        st.title("The trainings here cannot be listed", anchor=False)
        raise
    if not found:
        st.title("No training yet", anchor=False)
        _start_view(shell)
        return
    names = {entry.name: entry for entry in found}
    shown = shell.selection.training if shell.selection.training in names else found[0].name
    view, picker, link = st.columns([2, 6, 2], vertical_alignment="bottom")
    with view:
        st.session_state.setdefault(VIEW, VIEWS[0])
        chosen = st.radio("View", VIEWS, horizontal=True, key=VIEW, label_visibility="collapsed")
    if chosen == "Start":
        st.title("Start a training", anchor=False)
        _start_view(shell)
        return
    with picker:
        show_past({entry.name: work.label(entry) for entry in found}, shown)
    # Its place is above what it reports.
    buttons = link.container(horizontal=True, horizontal_alignment="right")
    with buttons:
        copy_button("Copy link", None, key="copy_link")
    with guard("training"):
        try:
            training = show_watch(places, names[shown])
        except InputError:
            st.title("This training cannot be read", anchor=False)
            raise
        if training is not None:
            with buttons:
                _report(training, shell.selection, active=names[shown].active)
            show_validations(places, training, shell.selection)


def _report(training: Training, selection: Selection, *, active: bool) -> None:
    """The training as one file, at the validation and the thresholds that are chosen."""
    link = view_link(st.context.url, selection)
    give_report(
        lambda: training_report(
            training,
            at=selection.training_step,
            tau_s=selection.tau_s,
            tau_t=selection.tau_t,
            active=active,
            link=link,
        ),
        name=f"{training.folder.parent.name}-{training.stage}",
        help="One HTML file that opens offline: settings, curves, validations with clips, and versions.",
    )


def _start_view(shell: Shell) -> None:
    """The form on the left, what it will take on the right, the button last."""
    places = shell.places
    found = teachers(models(places))
    if not found:
        st.markdown(
            "There is no teacher to train from. `make demo` builds the bundled model; `pare app FOLDER` opens another."
        )
        return
    form, plan = st.columns([3, 2], gap="large")
    wanted = None
    with form, guard("settings"):
        wanted = choose_training(places, found, shell.run)
    with plan:
        with guard("plan"):
            if wanted is None:
                _missing(places, found)
            else:
                _plan(places, wanted)
        with guard("samples"):
            _encode(places, found, open_first=wanted is None)


def _missing(places: Places, found: Mapping[str, str]) -> None:
    """What the form lacks, with the commands that make it."""
    model = found[st.session_state.get("train_teacher") or next(iter(found))]
    typed = command_model(model)
    st.header("What is missing", anchor=False)
    if not samples_of_model(places, model):
        st.markdown("**Encoded samples**: videos and captions, encoded once. Below as a job, or by this command:")
        out = short_path(places.workspace / "samples")
        flags: dict[str, Any] = {"samples": DRAWN} if model == "demo" else {"videos": "VIDEOS"}
        st.code(command_line("distill", "data", typed, **flags, out=out), language=None, wrap_lines=True)
    if not students_of_model(places, model):
        st.markdown(
            "**A student**: cut one on the Prune page, choose a mask that was made there, or use these commands:"
        )
        run = "data/runs/demo" if model == "demo" else "RUN"
        mask, out = short_path(places.workspace / "mask.safetensors"), short_path(places.workspace / "pruned")
        st.code(
            command_line("mask", run, out=mask) + "\n" + command_line("prune", typed, mask=mask, run=run, out=out),
            language=None,
            wrap_lines=True,
        )
        st.caption("Stage II also begins with the teacher's own weights; stage III takes what an earlier stage wrote.")


def _plan(places: Places, wanted: Wanted) -> None:
    """Parameters, memory, time and disk of what the form says, then the buttons."""
    device = fastest_device()
    st.header(f"What it takes on {device}", anchor=False)
    planned = plan_training(wanted, device)
    cost = work.cost_of(places, planned, device)
    refused, memory, disk = None, None, None
    try:
        memory, disk = work.room(places, planned, device)
    except InputError as error:
        refused = error
    with st.container(key="train_plan"):
        for name, fact in work.plan_rows(planned, cost, memory, disk):
            st.markdown(f"**{name}** {plain(fact)}")
    if refused is not None:
        st.error(plain(refused), icon=":material/error:")
    start, probe = st.columns(2)
    start.button(
        "Start the training",
        key="train_start",
        type="primary",
        width="stretch",
        disabled=refused is not None,
        on_click=_begin,
        args=(places, wanted, cost),
    )
    _probe(places, wanted, probe, disabled=refused is not None)
    st.code(work.command_of(wanted), language=None, wrap_lines=True)


def _begin(places: Places, wanted: Wanted, cost: Cost) -> None:
    """What the start button does: queue, and look at it."""
    with guard("start"):
        name = work.start(places, wanted, cost)
        st.session_state[VIEW] = "Watch"
        choose(training=name, training_step=None)


def _probe(places: Places, wanted: Wanted, column: Any, *, disabled: bool) -> None:
    """One step, run and thrown away, for the time; a job like any other."""
    arguments = work.probe_arguments(wanted)
    job = None if wanted.mask else find(places, "distill", arguments)
    busy = job is not None and job.active
    clicked = column.button(
        "Measure one step",
        key="train_probe",
        width="stretch",
        disabled=disabled or busy or wanted.mask is not None,
        help="Loads teacher and student, runs one batch forward and backward, and trains nothing. A mask has to be cut first.",
    )
    if clicked:
        jobs_of(places).submit("distill", arguments, name="probe")
        st.rerun()
    if job is None or job.state is State.DONE:
        return

    def watch() -> None:
        with guard("probe"):
            now = find(places, "distill", arguments)
            if now is None or (busy and not now.active):
                st.rerun()
                return
            show_progress(now)
            job_buttons(jobs_of(places), now, removes=False)

    st.fragment(watch, run_every=POLL_SECONDS if busy else None)()


def _encode(places: Places, found: Mapping[str, str], *, open_first: bool) -> None:
    """Encoding samples as a job: drawn clips for the demo, a folder of videos for any model."""
    model = found[st.session_state.get("train_teacher") or next(iter(found))]
    with st.expander("Encode samples", expanded=open_first and not samples_of_model(places, model)):
        number, folder = st.columns([2, 3])
        drawn = model == "demo" or model == str(DEMO)
        most = int(number.number_input("Samples at most", 1, 10**7, DRAWN if drawn else 1000, key="train_samples"))
        videos = folder.text_input(
            "Folder of videos with captions",
            key="train_videos",
            placeholder="none: clips are drawn" if drawn else "place/folder",
            help="In the workspace, in data/ or in a folder named at start: captions.csv, captions.jsonl, or a .txt a video.",
        )
        arguments: dict[str, Any] = {"stage": "data", "model": model, "out": "samples", "samples": most}
        if videos:
            arguments["videos"] = str(places.find(videos))
        st.markdown(plain(work.encode_cost(places, model, most)))
        job = find(places, "distill", arguments)
        busy = job is not None and job.active
        if st.button("Encode", key="train_encode", disabled=busy or not (drawn or videos)):
            check_videos(places, arguments.get("videos"))
            jobs_of(places).submit("distill", arguments, name="distill-data")
            st.rerun()
        if job is None:
            return

        def watch() -> None:
            with guard("samples"):
                now = find(places, "distill", arguments)
                if now is None or (busy and not now.active):
                    samples_of_model.clear()
                    st.rerun()
                    return
                show_progress(now)
                job_buttons(jobs_of(places), now, removes=False)

        st.fragment(watch, run_every=POLL_SECONDS if busy else None)()


def check_videos(places: Places, folder: str | None) -> None:
    """Raise `InputError` where a caption is missing, and where a video or the table of captions lies outside of the places."""
    if folder is None:
        return
    # Before any is read: what cannot be read is quoted.
    for path in Path(folder).iterdir():
        if path.name in TABLES or path.suffix == ".txt":
            _check_inside(places, path)
    for video, _ in read_captions(folder):
        _check_inside(places, video)


def _check_inside(places: Places, path: Path) -> None:
    if places.name_of(path) is None:
        raise InputError(
            "folder of videos",
            got=f"{path.name}, which lies elsewhere",
            expected="files in the workspace, in data/ or in a folder named at start",
            fix="copy it in, or start pare app with its folder",
        )


def command_model(model: str) -> str:
    """MODEL as a person here types it."""
    return short_path(Path(model)) if Path(model).is_absolute() else model


shell = open_shell(poll_jobs=False)
with guard("train"):
    show_page(shell)
