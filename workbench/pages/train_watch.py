"""A training while it runs and afterwards: its curves, its state with cancel and resume, and the end of its log."""

import streamlit as st

from pare.errors import InputError
from workbench.jobs.job import Job, State
from workbench.pages.chart import show_part
from workbench.pages.job_view import job_buttons, show_cost, show_log, show_progress, state_badge
from workbench.pages.shell import guard, jobs_of
from workbench.pages.student_folder import student_buttons
from workbench.pages.text import plain
from workbench.pages.train_work import Entry, beginning, open_training
from workbench.pages.train_work import entries as all_entries
from workbench.places import Places
from workbench.report.training import beside_parts, facts, how_far, loss_part, resume_command
from workbench.training_record import Training

POLL_SECONDS = 2.0


def show_watch(places: Places, entry: Entry) -> Training | None:
    """The upper half of the page, which follows a training in work; the training as it was when the page was drawn."""
    drawn = training_of(entry)

    def watch() -> None:
        with guard("training"):
            now = next((each for each in all_entries(places) if each.name == entry.name), entry)
            training = training_of(now)
            news = (training is None) != (drawn is None) or (
                training is not None and drawn is not None and len(training.validations) != len(drawn.validations)
            )
            # What is below belongs to the whole page.
            if entry.active and (not now.active or news):
                st.rerun()
            _show(places, now, training)

    st.fragment(watch, run_every=POLL_SECONDS if entry.active else None)()
    return drawn


def training_of(entry: Entry) -> Training | None:
    """The training on disk; None before its first file. Raises `InputError` for a damaged one."""
    return open_training(entry.folder) if (entry.folder / "training.json").is_file() else None


def headline(entry: Entry, training: Training | None) -> str:
    """One sentence on how far a training is.

    >>> from pathlib import Path
    >>> headline(Entry("a", Path("a"), None), None)
    'This training has not begun'
    """
    if training is None:
        waits = entry.job is not None and entry.job.state is State.QUEUED
        return "This training waits for its turn" if waits else "This training has not begun"
    return how_far(training, beginning(entry, training), active=entry.active)


def _show(places: Places, entry: Entry, training: Training | None) -> None:
    st.title(plain(headline(entry, training)), anchor=False)
    left, right = st.columns([7, 3], gap="medium")
    with left, guard("curves"):
        if training is None or not training.losses:
            st.markdown("The first point of the curves comes with the first logged step.")
        else:
            _curves(training)
    with right, guard("state"):
        _state(places, entry, training)


def _curves(training: Training) -> None:
    losses = loss_part(training)
    show_part(losses, key="train_losses", name=f"{training.stage}-losses")
    st.caption(losses.words)
    if training.torn:
        lines = f"{training.torn} line{'s' if training.torn > 1 else ''}"
        st.warning(
            f"{lines} of the log cannot be read and {'are' if training.torn > 1 else 'is'} left out.",
            icon=":material/warning:",
        )
    beside = beside_parts(training)
    for column, (name, part) in zip(st.columns(len(beside) or 1), beside.items(), strict=False):
        with column:
            show_part(part, key=f"train_{name}", name=f"{training.stage}-{name}")


def _state(places: Places, entry: Entry, training: Training | None) -> None:
    job = entry.job
    if job is not None:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(state_badge(job.state))
            job_buttons(jobs_of(places), job, removes=False)
        show_progress(job)
        show_cost(jobs_of(places), job)
    elif training is not None and training.student is None:
        st.markdown(
            "It was trained outside of this workspace's jobs and is not finished. To go on, the same command with `--resume`:"
        )
        st.code(resume_command(training), language=None, wrap_lines=True)
    if training is not None:
        for name, fact in facts(training):
            st.markdown(f"**{name}** {plain(fact)}")
        if training.student is not None:
            student_buttons(training.student, key="trained")
    if job is not None:
        show_log(jobs_of(places), job)


def latest(job: Job, entry: Entry | None) -> str:
    """The last losses of a training in one line, for the list of jobs; nothing before the first."""
    try:
        training = None if entry is None else training_of(entry)
    except InputError:
        return ""
    if training is None or not training.losses:
        return ""
    row = training.curves.iloc[-1]
    return f"step {int(row['step']):,}: " + ", ".join(
        f"{name} {row[name]:.3g}" for name in training.losses if row[name] == row[name]
    )
