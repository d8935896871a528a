"""The jobs behind the Evidence page: one click measures a question on the open run and its model, its cost first."""

from dataclasses import dataclass, replace
from typing import Any

import streamlit as st

from analysis.evidence.answer import NEEDS_MODEL, Answer
from analysis.evidence.head_sets import RANDOM
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
from workbench.pages.generate_panel import MOST_STEPS, usual_steps
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


@dataclass(frozen=True)
class Effort:
    """How much a question that runs the model is asked: prompts, steps of each video, draws of random heads, and how many
    heads of every block go at a time (none named: as many as the command takes)."""

    samples: int
    steps: int
    draws: int = DRAWS
    removed: tuple[int, ...] = ()


def effort_of(question: str, model: str, answer: Answer | None) -> Effort:
    """As much as the answer was measured with, else as the command would take."""
    usual = Effort(SAMPLES[question], usual_steps(model))
    if answer is None:
        return usual
    samples = answer.n.get("prompts", answer.n.get("samples", usual.samples))
    steps = answer.settings.get("steps") or usual.steps
    if "sets" not in answer.tables:
        return Effort(samples, steps)
    sets = answer.tables["sets"]
    draws = int((sets["kind"] == RANDOM).sum()) // max(1, sets["removed"].nunique())
    return Effort(samples, steps, draws, tuple(answer.settings.get("removed", ())))


def job_arguments(
    run: Run, question: str, selection: Selection, places: Places, effort: Effort | None
) -> dict[str, Any]:
    """The `evidence` job of a question on this run: the selection's thresholds, α and p, the run's own prompts.

    `effort` is None for a question that reads the run alone; what the command would take anyway is left out.
    """
    arguments: dict[str, Any] = {"question": question, "source": str(run.folder.resolve()), "out": OUT}
    names = {"roles": ("tau_s", "tau_t"), "averages": ("tau_s", "tau_t"), "alpha": ("tau_s", "tau_t", "alpha", "ratio")}
    usual = Selection.model_fields
    for name in names.get(question, ()):
        if (value := getattr(selection, name)) != usual[name].default:
            arguments[name] = value
    if effort is not None:
        model = model_of(run, places)
        arguments |= {"model": model, "prompts": run_prompts(run)[: effort.samples], "samples": effort.samples}
        if effort.steps != usual_steps(model):
            arguments["steps"] = effort.steps
        if question == "premise" and effort.draws != DRAWS:
            arguments["draws"] = effort.draws
        if question == "premise" and _removed(run, effort) != numbers_of_heads(None, run.geometry):
            arguments["remove"] = list(effort.removed)
    return arguments


def _removed(run: Run, effort: Effort) -> tuple[int, ...]:
    return effort.removed or numbers_of_heads(None, run.geometry)


def run_prompts(run: Run) -> list[str]:
    """The run's prompts, each once."""
    return list(dict.fromkeys(sample.prompt for sample in run.manifest.samples if sample.prompt))


def cost_line(run: Run, question: str, places: Places, effort: Effort | None) -> str:
    """What a question takes, in one line."""
    if effort is None:
        return "Reads the run alone: a second or two on this machine."
    model = model_of(run, places)
    matching: dict[str, Any] = {"question": question, "model": model}
    settings, device = RunSettings.of(steps=effort.steps).filled(model), fastest_device()
    if question == "scores":
        units = forwards = forwards_of_scores(run.geometry, settings, effort.samples, SCORERS)
        guess = plan(model, settings, device=device, forwards=forwards)
        what = f"{forwards:,} forwards on {effort.samples} clean samples"
    else:
        units = videos_of_premise(effort.samples, _removed(run, effort), effort.draws, KINDS)
        guess = plan(model, settings, device=device, forwards=forwards_per_clip(settings), clips=units)
        draws = f"{effort.draws} draw{'s' if effort.draws != 1 else ''} of random heads"
        what = f"{units} videos of {settings.steps} steps, {effort.samples} prompts, {draws}"
        matching["steps"] = None if effort.steps == usual_steps(model) else effort.steps
    line = f"{what} on {device}: {tera(guess['flops'])}, {gibi(guess['memory']['total'])} of memory"
    if (places.workspace / "jobs.sqlite3").is_file():
        each = jobs_of(places).history("evidence", matching=matching)
        line += "" if each is None else f", about {duration(max(1, each * units))} as last time"
    return line + "."


def show_measure(run: Run, question: str, selection: Selection, places: Places, answer: Answer | None) -> None:
    """The button with its cost, or the job at work; `answer` is what was measured on this run before."""
    needs_model = question in NEEDS_MODEL
    missing = unreadable(model_of(run, places)) if needs_model else None
    if missing:
        st.markdown(plain(missing))
        st.caption("Without the weights this question cannot be measured here.")
        return
    effort = None
    prompts = len(run_prompts(run))
    if needs_model:
        if not prompts:
            st.caption("This run has no prompts, so there is nothing to generate from here.")
            return
        before = effort_of(question, model_of(run, places), answer)
        most = min(MOST_SAMPLES, prompts)
        with st.container(horizontal=True):
            samples = st.number_input(
                "Prompts", 1, most, min(before.samples, most), key=f"evidence_samples_{question}_{run.hash}", width=160
            )
            steps = st.number_input(
                "Steps", 1, MOST_STEPS, before.steps, key=f"evidence_steps_{question}_{run.hash}", width=160
            )
        effort = replace(before, samples=int(samples), steps=int(steps))
    arguments = job_arguments(run, question, selection, places, effort)
    job = find(places, "evidence", arguments)
    active = job is not None and job.active

    def watch() -> None:
        now = find(places, "evidence", arguments)
        if active and (now is None or not now.active):
            st.rerun()
        with guard("measuring"):
            _show(run, question, places, arguments, now, effort, answered=answer is not None)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _show(
    run: Run,
    question: str,
    places: Places,
    arguments: dict[str, Any],
    job: Job | None,
    effort: Effort | None,
    *,
    answered: bool,
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
    st.markdown(cost_line(run, question, places, effort))
    stopped = job is not None and job.state is not State.DONE
    words = "Go on measuring" if stopped else "Measure again on this run" if answered else "Measure on this run"
    if st.button(words, key=f"measure_{question}", type="secondary" if answered else "primary"):
        if stopped and job is not None:
            jobs_of(places).resume(job.id)
        else:
            jobs_of(places).submit("evidence", arguments)
        st.rerun(scope="app")
