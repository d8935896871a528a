"""From the settings to a student: the mask's files, masked against dense in the player, and the cut model, as jobs."""

import json
from pathlib import Path
from typing import Any

import streamlit as st

from analysis.figures.masks import error_per_block
from analysis.figures.tables import error_table
from analysis.runs import Run
from pare import mask as masks
from pare.reference import resolve
from workbench import recipes
from workbench.components.copy_button.component import copy_button
from workbench.jobs.job import Job, State
from workbench.mask_plan import MaskPlan
from workbench.pages import prune_work as work
from workbench.pages.chart import show_chart
from workbench.pages.compare_link import compare_link
from workbench.pages.generate_panel import MOST_STEPS, PROMPT, USUAL_STEPS, usual_steps
from workbench.pages.job_view import cancel, show_progress
from workbench.pages.prune_plan import mask_arguments
from workbench.pages.shell import guard, jobs_of
from workbench.pages.student_folder import show_student_folder
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.state import Selection

POLL_SECONDS = 0.7


def show_steps(run: Run, selection: Selection, planned: MaskPlan, places: Places) -> None:
    """Draw mask, preview and student; while one of their jobs is active, they follow it."""
    active = any(job.active for job in _jobs(run, selection, places))

    def watch() -> None:
        with guard("jobs"):
            if active and not any(job.active for job in _jobs(run, selection, places)):
                st.rerun()
            _show(run, selection, planned, places)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _mask_file(run: Run, selection: Selection, places: Places) -> tuple[Job | None, Path | None]:
    job = work.find(places, "mask", work.mask_job_arguments(run, selection))
    return job, None if job is None else work.artefact(jobs_of(places), job, ".safetensors")


def _preview(run: Run, places: Places, mask: Path | None) -> work.Preview:
    """What the form says, else what was last generated under this mask, else the run's first prompt."""
    form = {name: st.session_state.get(f"preview_{name}") for name in ("prompt", "seed", "steps")}
    last = None if mask is None else work.last_preview(places, run, mask)
    if last is None:
        prompt = next((one.prompt for one in run.manifest.samples if one.prompt), PROMPT)
        # A model that is not here would be asked for on the hub.
        last = work.Preview(prompt, 0, USUAL_STEPS if work.local_model(run) else usual_steps(run.model_id))
    return work.Preview(
        prompt=form["prompt"] or last.prompt,
        seed=last.seed if form["seed"] is None else form["seed"],
        steps=form["steps"] or last.steps,
    )


def _jobs(run: Run, selection: Selection, places: Places) -> list[Job]:
    job, mask = _mask_file(run, selection, places)
    found = [job]
    if mask is not None:
        halves = (None, mask)
        now = _preview(run, places, mask)
        found += [work.find(places, "generate", work.generate_job_arguments(run, now, half)) for half in halves]
        found.append(work.find(places, "prune", work.prune_job_arguments(run, mask)))
    return [each for each in found if each is not None]


def _show(run: Run, selection: Selection, planned: MaskPlan, places: Places) -> None:
    missing = work.local_model(run)
    job, mask = _mask_file(run, selection, places)
    left, middle, right = st.columns(3, gap="medium")
    with left, guard("mask"), st.container(border=True, key="mask_step"):
        _show_mask(run, selection, planned, places, job, mask, missing)
    with middle, guard("preview"), st.container(border=True, key="preview_step"):
        _show_preview(run, places, mask, missing)
    with right, guard("student"), st.container(border=True, key="student_step"):
        pruned = _show_student(run, selection, planned, places, mask, missing)
    if mask is not None:
        with guard("videos"):
            _show_videos(run, selection, places, mask)
    if errors := work.errors_of(pruned):
        st.header("Error of the cut per block", anchor=False)
        show_chart(
            error_per_block(errors),
            key="error_per_block",
            alt="Relative error of every cut block, against the dense block and against masking.",
            table=lambda: error_table(errors),
            python=recipes.error_per_block(errors),
            command=prune_command(run),
            name=f"{run.folder.name}-cut-errors",
        )


def _show_mask(
    run: Run,
    selection: Selection,
    planned: MaskPlan,
    places: Places,
    job: Job | None,
    mask: Path | None,
    missing: str | None,
) -> None:
    st.header("1 · Mask", anchor=False)
    needs_weights = planned.settings.neurons not in ("none", "random")
    if mask is not None:
        kept = masks.load(mask).counts()
        st.markdown(
            f"Made: keeps {sum(kept['self_heads'])} self-attention heads, {sum(kept['cross_heads'])} cross-attention "
            f"heads and {sum(kept['neurons']):,} neurons."
        )
        name = f"{Path(run.folder).name}-p{planned.settings.ratio:g}"
        with st.container(horizontal=True):
            st.download_button(
                "Mask (.safetensors)",
                data=mask.read_bytes,
                file_name=f"{name}.safetensors",
                mime="application/octet-stream",
                on_click="ignore",
                key="mask_safetensors",
            )
            st.download_button(
                "JSON",
                data=lambda: json.dumps(masks.to_json(masks.load(mask)), indent=1).encode(),
                file_name=f"{name}.json",
                mime="application/json",
                on_click="ignore",
                key="mask_json",
            )
    elif needs_weights and missing:
        _cannot(missing, 'Neurons "keep all" makes a mask of heads from the run alone.')
    else:
        st.markdown(work.mask_cost(places, run, planned))
        _submit(places, "Make the mask", "mask", work.mask_job_arguments(run, selection), job)
    command = command_line("mask", short_path(run.folder), out=work.MASK_FILE, **mask_arguments(selection))
    copy_button("Copy as command line", command, key="copy_mask_command")


def _show_preview(run: Run, places: Places, mask: Path | None, missing: str | None) -> None:
    st.header("2 · Masked against dense", anchor=False)
    now = _preview(run, places, mask)
    st.text_input("Prompt", now.prompt, key="preview_prompt", max_chars=500)
    steps, seed = st.columns(2)
    steps.number_input("Steps", 1, MOST_STEPS, now.steps, key="preview_steps")
    seed.number_input("Seed", 0, 2**31 - 1, now.seed, key="preview_seed")
    if missing:
        _cannot(missing, "Without the weights nothing can be generated here.")
        return
    if mask is None:
        st.markdown(work.preview_cost(places, run, now.steps, 2) + " Make the mask first.")
        st.button("Generate both", key="submit_preview", disabled=True)
        return
    now = _preview(run, places, mask)
    lacking = work.missing_halves(places, run, now, mask)
    wanted = [work.generate_job_arguments(run, now, half) for half in (None, mask)]
    found = [work.find(places, "generate", each) for each in wanted]
    for job, name in zip(found, ("dense", "masked"), strict=True):
        if job is not None and (job.active or job.state is not State.DONE):
            st.caption(name)
            _show_job(places, job)
    if lacking:
        st.markdown(work.preview_cost(places, run, now.steps, len(lacking)))
        if st.button("Generate both" if len(lacking) == 2 else "Generate the other", key="submit_preview"):
            for arguments in lacking:
                jobs_of(places).submit("generate", arguments)
            st.rerun(scope="app")
    elif all(job is not None and job.state is State.DONE for job in found):
        st.markdown("Both videos are below, frame by frame in step.")


def _show_student(
    run: Run, selection: Selection, planned: MaskPlan, places: Places, mask: Path | None, missing: str | None
) -> Job | None:
    st.header("3 · Student", anchor=False)
    if missing:
        _cannot(missing, "Where the weights are, `pare prune MODEL --mask MASK --out DIR` cuts them.")
        return None
    cost = work.student_cost(places, run, planned)
    if mask is None:
        st.markdown(cost + " Make the mask first.")
        st.button("Cut the student", key="submit_prune", disabled=True)
        return None
    arguments = work.prune_job_arguments(run, mask)
    job = work.find(places, "prune", arguments)
    folder = work.student_folder(jobs_of(places), job)
    if folder is None:
        st.markdown(cost)
        _submit(places, "Cut the student", "prune", arguments, job)
    elif job is not None and job.result is not None:
        parameters, dense = job.result.get("parameters"), job.result.get("dense_parameters")
        if parameters and dense:
            st.markdown(f"Made: {parameters:,} of {dense:,} parameters ({parameters / dense:.0%}). Its folder:")
        show_student_folder(folder, key="student")
        for note in job.result.get("notes") or []:
            st.caption(plain(note))
    copy_button("Copy as command line", prune_command(run), key="copy_prune_command")
    teacher = resolve(run.model_id).path
    if folder is not None and teacher is not None:
        compare_link(places, selection, "students", teacher, folder, "Compare it with the teacher")
    return job


def prune_command(run: Run) -> str:
    """The command line that cuts the run's model, once the mask is there."""
    moments = short_path(run.folder) if run.manifest.moments else None
    return command_line("prune", run.model_id, mask=work.MASK_FILE, out=work.STUDENT_FOLDER, run=moments)


def _show_videos(run: Run, selection: Selection, places: Places, mask: Path) -> None:
    """The player, once both videos are there."""
    now, jobs = _preview(run, places, mask), jobs_of(places)
    found = {
        name: work.artefact(jobs, work.find(places, "generate", work.generate_job_arguments(run, now, half)), ".mp4")
        for name, half in (("dense", None), ("masked", mask))
    }
    videos = {name: path for name, path in found.items() if path is not None}
    if len(videos) == len(found):
        st.header("Masked against dense", anchor=False)
        show_player(places, videos, selection, geometry=run.geometry, key="preview_player")
        compare_link(places, selection, "videos", videos["dense"], videos["masked"], "Measure how they differ")


def _cannot(reason: str, instead: str) -> None:
    st.markdown(plain(reason))
    st.caption(instead)


def _submit(places: Places, label: str, command: str, arguments: dict[str, Any], job: Job | None) -> None:
    """The button that starts a job, or the job that it started."""
    if job is not None and (job.active or job.state is not State.DONE):
        _show_job(places, job)
    if (job is None or not job.active) and st.button(label, key=f"submit_{command}", type="primary"):
        jobs_of(places).submit(command, arguments)
        st.rerun(scope="app")


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
