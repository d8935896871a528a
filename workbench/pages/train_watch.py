"""A training while it runs and afterwards: its curves, its state with cancel and resume, and the end of its log."""

import streamlit as st

from analysis.figures.training import logged_curve, loss_curves
from pare.errors import InputError
from workbench.jobs.job import Job, State
from workbench.pages.chart import show_chart
from workbench.pages.job_view import job_buttons, show_cost, show_log, show_progress, state_badge
from workbench.pages.shell import guard, jobs_of
from workbench.pages.student_folder import student_buttons
from workbench.pages.text import file_size, plain, short_path
from workbench.pages.train_work import Entry, beginning, open_training
from workbench.pages.train_work import entries as all_entries
from workbench.places import Places
from workbench.training_record import Training

POLL_SECONDS = 2.0
BESIDE = (
    ("learning_rate", "learning rate", True),
    ("gradient_norm", "gradient norm", True),
    ("blocks_run", "blocks that run", False),
)
PYTHON = """from analysis.figures.training import {function}
from workbench.training_record import Training

training = Training.open({folder!r})
{call}.show()"""


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
    student = beginning(entry, training)
    at = f"step {training.done:,} of {training.steps:,}"
    done = (
        "ended at" if training.done >= training.steps and not entry.active else "is at" if entry.active else "stands at"
    )
    now = training.curves["loss"].dropna().tolist() if "loss" in training.curves else []
    fell = f": the loss went from {now[0]:.3g} to {now[-1]:.3g}" if len(now) > 1 else ""
    return f"Stage {training.stage} of {student} {done} {at}{fell}"


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
    n, folder = training.samples_per_step, str(short_path(training.folder))
    call = f"{loss_curves.__name__}(training.curves, training.losses, samples={n}, steps={training.steps})"
    show_chart(
        loss_curves(training.curves, training.losses, samples=n, steps=training.steps, height=330),
        key="train_losses",
        alt="Loss of the training and its parts by step, on a logarithmic axis.",
        table=training.curves,
        python=PYTHON.format(function=loss_curves.__name__, folder=folder, call=call),
        command=f"tensorboard --logdir {folder}",
        name=f"{training.stage}-losses",
    )
    parts = [name for name in training.losses if name != "loss"]
    st.caption(
        f"loss: the weighted sum; {', '.join(parts) or 'no parts'}: before their weights. Every point is the mean over the "
        f"n = {n} samples of one step, not smoothed."
    )
    if training.torn:
        lines = f"{training.torn} line{'s' if training.torn > 1 else ''}"
        st.warning(
            f"{lines} of the log cannot be read and {'are' if training.torn > 1 else 'is'} left out.",
            icon=":material/warning:",
        )
    there = [each for each in BESIDE if each[0] in training.curves and training.curves[each[0]].notna().any()]
    for column, (name, words, log) in zip(st.columns(len(there) or 1), there, strict=False):
        with column:
            call = f"{logged_curve.__name__}(training.curves, {name!r}, {words!r}, log={log})"
            show_chart(
                logged_curve(training.curves, name, words, log=log),
                key=f"train_{name}",
                alt=f"The {words} by training step.",
                table=training.curves[["step", name]],
                python=PYTHON.format(function=logged_curve.__name__, folder=folder, call=call),
                command=None,
                name=f"{training.stage}-{name}",
            )


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


def facts(training: Training) -> list[tuple[str, str]]:
    """What a training was asked, a name and a fact each."""
    about, settings = training.about, training.settings
    found = [
        ("Teacher", str(about["model"].get("model_id"))),
        (
            "Samples",
            f"{about['data'].get('samples')} of {about['data'].get('name')}, {training.samples_per_step} a step",
        ),
        ("Rate", f"{settings.get('learning_rate')}, warm-up {settings.get('warmup')}, seed {settings.get('seed')}"),
    ]
    if training.stage == "joint":
        found.append(("Router", f"{settings.get('router')}, rate {settings.get('router_rate')}"))
    if training.student is not None:
        weights = sum(path.stat().st_size for path in (training.student / "transformer").glob("*.safetensors"))
        found.append(("Student", f"{short_path(training.student)}, {file_size(weights)} of weights"))
    return found


def resume_command(training: Training) -> str:
    """The command line that goes on, but for the paths, which a record does not keep."""
    model = training.about["model"].get("model_id")
    return f"pare distill {training.stage} {model} --data … --student … --out {short_path(training.folder.parent)} --resume"


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
