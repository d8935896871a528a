"""The jobs behind the Evidence page: one click measures a question on the open run and its model, its cost first."""

from typing import Any

import streamlit as st

from analysis.evidence.answer import NEEDS_MODEL
from analysis.runs import Run
from workbench.evidence_inputs import (
    SAMPLES,
    SCORERS,
    forwards_of_scores,
    numbers_of_heads,
    videos_of_premise,
)
from workbench.jobs.device import fastest_device
from workbench.jobs.job import Job, State
from workbench.pages.job_view import cancel, show_progress
from workbench.pages.prune_work import find
from workbench.pages.run_model import model_of, unreadable
from workbench.pages.shell import guard, jobs_of
from workbench.pages.text import duration, plain
from workbench.places import Places
from workbench.plan import forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings
from workbench.state import Selection

POLL_SECONDS = 0.7
MOST_SAMPLES = 500
OUT = "evidence"
DRAWS, KINDS = 2, 2


def job_arguments(run: Run, question: str, selection: Selection, places: Places, samples: int) -> dict[str, Any]:
    """The `evidence` job of a question on this run: the selection's thresholds, α and p, the run's own prompts."""
    arguments: dict[str, Any] = {"question": question, "source": str(run.folder.resolve()), "out": OUT}
    names = {"roles": ("tau_s", "tau_t"), "averages": ("tau_s", "tau_t"), "alpha": ("tau_s", "tau_t", "alpha", "ratio")}
    usual = Selection.model_fields
    for name in names.get(question, ()):
        if (value := getattr(selection, name)) != usual[name].default:
            arguments[name] = value
    if question in NEEDS_MODEL:
        arguments |= {"model": model_of(run, places), "prompts": run_prompts(run)[:samples], "samples": samples}
    return arguments


def run_prompts(run: Run) -> list[str]:
    """The run's prompts, each once."""
    return list(dict.fromkeys(sample.prompt for sample in run.manifest.samples if sample.prompt))


def cost_line(run: Run, question: str, places: Places, samples: int) -> str:
    """What a question takes, in one line."""
    if question not in NEEDS_MODEL:
        return "Reads the run alone: a second or two on this machine."
    model = model_of(run, places)
    settings, device = RunSettings.of().filled(model), fastest_device()
    if question == "scores":
        units = forwards = forwards_of_scores(run.geometry, settings, samples, SCORERS)
        guess = plan(model, settings, device=device, forwards=forwards)
        what = f"{forwards:,} forwards on {samples} clean samples"
    else:
        removed = numbers_of_heads(None, run.geometry)
        units = videos_of_premise(samples, removed, DRAWS, KINDS)
        guess = plan(model, settings, device=device, forwards=forwards_per_clip(settings), clips=units)
        what = f"{units} videos of {settings.steps} steps, {samples} prompts"
    line = f"{what} on {device}: {tera(guess['flops'])}, {gibi(guess['memory']['total'])} of memory"
    if (places.workspace / "jobs.sqlite3").is_file():
        each = jobs_of(places).history("evidence", matching={"question": question, "model": model})
        line += "" if each is None else f", about {duration(max(1, each * units))} as last time"
    return line + "."


def show_measure(run: Run, question: str, selection: Selection, places: Places, answered: bool) -> None:
    """The button with its cost, or the job at work."""
    needs_model = question in NEEDS_MODEL
    missing = unreadable(model_of(run, places)) if needs_model else None
    if missing:
        st.markdown(plain(missing))
        st.caption("Without the weights this question cannot be measured here.")
        return
    samples = SAMPLES.get(question, 0)
    prompts = len(run_prompts(run))
    if needs_model:
        if not prompts:
            st.caption("This run has no prompts, so there is nothing to generate from here.")
            return
        most = min(MOST_SAMPLES, prompts)
        samples = int(
            st.number_input("Prompts", 1, most, min(samples, most), key=f"evidence_samples_{question}", width=160)
        )
    arguments = job_arguments(run, question, selection, places, samples)
    job = find(places, "evidence", arguments)
    active = job is not None and job.active

    def watch() -> None:
        now = find(places, "evidence", arguments)
        if active and (now is None or not now.active):
            st.rerun()
        with guard("measuring"):
            _show(run, question, places, arguments, now, samples, answered)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _show(
    run: Run, question: str, places: Places, arguments: dict[str, Any], job: Job | None, samples: int, answered: bool
) -> None:
    if job is not None and (job.active or job.state is not State.DONE):
        show_progress(job)
    if job is not None and job.active:
        st.button(
            "Cancel",
            key=f"cancel-{job.id}",
            on_click=cancel,
            args=(jobs_of(places), job.id),
            disabled=job.state is State.CANCELLING,
        )
        return
    st.markdown(cost_line(run, question, places, samples))
    stopped = job is not None and job.state is not State.DONE
    words = "Go on measuring" if stopped else "Measure again on this run" if answered else "Measure on this run"
    if st.button(words, key=f"measure_{question}", type="secondary" if answered else "primary"):
        if stopped and job is not None:
            jobs_of(places).resume(job.id)
        else:
            jobs_of(places).submit("evidence", arguments)
        st.rerun(scope="app")
