"""From decisions to videos: recording them, and one prompt and seed dense and routed in the player, as jobs."""

from pathlib import Path
from typing import Any

import streamlit as st

from analysis.evidence.words import counted
from analysis.runs import Run
from workbench.components.copy_button.component import copy_button
from workbench.jobs.job import Job, State
from workbench.pages import route_work as work
from workbench.pages.compare_link import compare_link
from workbench.pages.generate_panel import MOST_STEPS, PROMPT, USUAL_STEPS
from workbench.pages.job_view import cancel, show_progress
from workbench.pages.prune_work import Preview, artefact, find
from workbench.pages.route_plan import Decisions, RoutePlan
from workbench.pages.run_model import model_of, model_words, unreadable
from workbench.pages.shell import guard, jobs_of
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.state import Selection

POLL_SECONDS = 0.7
ITS_OWN = {
    "sample": None,
    "versus": None,
    "first_step": None,
    "last_step": None,
    "k_min": None,
    "k_max": None,
    "edits": (),
}
"""What means something else in the run of a recording, so that its link leaves it open."""


def show_recording(
    run: Run, decisions: Decisions | None, planned: RoutePlan | None, selection: Selection, places: Places
) -> None:
    """For a run without decisions: the command that records them, and the same as a job, its cost first."""
    arguments = work.record_arguments(run, decisions, selection, places)
    job = find(places, "route", arguments)
    active = job is not None and job.active

    def watch() -> None:
        now = find(places, "route", arguments)
        if active and (now is None or not now.active):
            st.rerun()
        with guard("recording"):
            _show_recording(run, planned, selection, places, arguments, now)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _show_recording(
    run: Run,
    planned: RoutePlan | None,
    selection: Selection,
    places: Places,
    arguments: dict[str, Any],
    job: Job | None,
) -> None:
    st.header("Record what a router decides", anchor=False)
    flags = {name: arguments.get(name) for name in ("router", "k_min", "k_max")}
    folder = short_path(run.folder) if "run" in arguments else None
    model = model_words(run, places)
    command = command_line("route", model, prompts="prompts.txt", **flags, run=folder, out=work.RECORDED)
    st.markdown("Decisions are recorded while videos are generated, with one prompt a line:")
    st.code(command, language=None, wrap_lines=True)
    missing = unreadable(model_of(run, places))
    if missing:
        st.markdown(plain(missing))
        st.caption("Where the weights are, the command records them; open its folder with `pare app FOLDER`.")
        return
    if not arguments["prompts"]:
        st.caption("This run has no prompts to generate again, so there is nothing to start from here.")
        return
    opened = work.recorded_run(places, job)
    if opened is not None:
        st.page_link(
            "workbench/pages/route.py",
            label="Open the recorded decisions",
            icon=":material/alt_route:",
            query_params=selection.changed(run=opened, **ITS_OWN).to_query(),
        )
        return
    if job is not None and (job.active or job.state is not State.DONE):
        _show_job(places, job)
    if job is None or not job.active:
        st.markdown(work.record_cost(places, run, arguments, 1.0 if planned is None else planned.share))
        if st.button(
            f"Record on {counted(len(arguments['prompts']), 'prompt')} of this run", key="submit_route", type="primary"
        ):
            jobs_of(places).submit("route", arguments)
            st.rerun(scope="app")


def show_generation(
    run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, places: Places, label: str
) -> None:
    """Dense and routed video of one prompt and seed; while one of their jobs is active, the panel follows it."""
    router = work.router_arguments(run, decisions, planned, selection, places)

    def jobs() -> list[Job | None]:
        preview = _preview(run, decisions, selection, places, router)
        halves = (work.DENSE, router)
        return [find(places, "generate", work.generate_arguments(run, preview, half, places)) for half in halves]

    missing = unreadable(model_of(run, places))
    active = not missing and any(job is not None and job.active for job in jobs())

    def watch() -> None:
        with guard("videos"):
            if active and not any(job is not None and job.active for job in jobs()):
                st.rerun()
            _show_generation(run, decisions, planned, selection, places, router, label, missing)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _preview(
    run: Run, decisions: Decisions, selection: Selection, places: Places, router: dict[str, object]
) -> Preview:
    """What the form says, else what was last generated with these decisions, else the sample's prompt and seed."""
    form = {name: st.session_state.get(f"route_{name}") for name in ("prompt", "seed", "steps")}
    last = work.last_generation(places, run, router)
    if last is None:
        sample = run.manifest.samples[decisions.samples[decisions.row(selection.sample)]]
        steps = run.manifest.settings.get("steps")
        last = Preview(sample.prompt or PROMPT, sample.seed, int(steps or USUAL_STEPS))
    return Preview(
        prompt=form["prompt"] or last.prompt,
        seed=last.seed if form["seed"] is None else form["seed"],
        steps=form["steps"] or last.steps,
    )


def _show_generation(
    run: Run,
    decisions: Decisions,
    planned: RoutePlan,
    selection: Selection,
    places: Places,
    router: dict[str, object],
    label: str,
    missing: str | None,
) -> None:
    st.header("Dense against routed", anchor=False)
    now = _preview(run, decisions, selection, places, router)
    prompt, steps, seed, button = st.columns([5, 2, 2, 3], vertical_alignment="bottom")
    prompt.text_input("Prompt", now.prompt, key="route_prompt", max_chars=500)
    steps.number_input("Steps", 1, MOST_STEPS, now.steps, key="route_steps")
    seed.number_input("Seed", 0, 2**31 - 1, now.seed, key="route_seed")
    if missing:
        st.markdown(plain(missing))
        st.caption("Without the weights nothing can be generated here.")
        return
    now = _preview(run, decisions, selection, places, router)
    wanted = {
        name: work.generate_arguments(run, now, half, places) for name, half in (("dense", work.DENSE), (label, router))
    }
    for name, arguments in wanted.items():
        job = find(places, "generate", arguments)
        if job is not None and (job.active or job.state is not State.DONE):
            st.caption(plain(name))
            _show_job(places, job)
    lacking = work.lacking(places, list(wanted.values()))
    shares = [1.0 if each["router"] == "none" else planned.share for each in lacking]
    words = "this table" if planned.changed else "at this budget"
    with button:
        clicked = st.button(
            f"Generate {words}", key="submit_routed", type="primary", disabled=not lacking, width="stretch"
        )
    if lacking:
        st.markdown(
            work.generate_cost(places, run, now.steps, shares)
            + (" The dense one is made beside it." if len(lacking) == 2 else "")
        )
    if clicked:
        if router["router"] == str(work.table_path(places, planned.table)):
            planned.table.save(work.table_path(places, planned.table))
        for arguments in lacking:
            jobs_of(places).submit("generate", arguments)
        st.rerun(scope="app")
    _show_videos(run, decisions, selection, places, now, wanted)
    _show_command(run, places, now, router)


def _show_videos(
    run: Run,
    decisions: Decisions,
    selection: Selection,
    places: Places,
    now: Preview,
    wanted: dict[str, dict[str, object]],
) -> None:
    """The player, once both are there; with the recorded video where it is of the same prompt, seed and steps."""
    jobs = jobs_of(places) if (places.workspace / "jobs.sqlite3").is_file() else None
    if jobs is None:
        return
    found = {name: artefact(jobs, find(places, "generate", each), ".mp4") for name, each in wanted.items()}
    videos = {name: path for name, path in found.items() if path is not None}
    if len(videos) < len(found):
        return
    index = decisions.samples[decisions.row(selection.sample)]
    sample, recorded = run.manifest.samples[index], run.videos.get(index) if decisions.recorded else None
    alike = (sample.prompt, sample.seed, run.manifest.settings.get("steps")) == (now.prompt, now.seed, now.steps)
    if recorded is not None and alike:
        videos["as recorded"] = recorded
    show_player(places, videos, selection, geometry=run.geometry, key="route_player")
    dense, routed = (videos[name] for name in wanted)
    compare_link(places, selection, "videos", dense, routed, "Measure how they differ")


def _show_command(run: Run, places: Places, now: Preview, router: dict[str, object]) -> None:
    folder = {name: short_path(Path(str(router[name]))) for name in ("run",) if name in router}
    file = {"router": "routes.json"} if str(router["router"]).endswith(".json") else {}
    model = model_words(run, places)
    flags = {"prompt": now.prompt, "steps": now.steps, "seed": now.seed, **router, **folder, **file}
    with st.container(horizontal=True):
        command = command_line("generate", model, **flags, out="routed.mp4")
        copy_button("Copy as command line", command, key="copy_routed_command")


def _show_job(places: Places, job: Job) -> None:
    show_progress(job)
    if job.active:
        st.button(
            "Cancel",
            key=f"cancel-{job.id}",
            on_click=cancel,
            args=(jobs_of(places), job.id),
            disabled=job.state is State.CANCELLING,
        )
