"""A prompt, a button, a job, a video: the model answers on the page that shows its heads."""

from pathlib import Path

import streamlit as st

from pare.errors import InputError
from pare.geometry import DEMO
from pare.reference import defaults
from workbench.components.copy_button.component import copy_button
from workbench.jobs.device import fastest_device
from workbench.jobs.job import Job, State
from workbench.pages.data import pipeline_names
from workbench.pages.job_view import cancel, show_progress, show_video
from workbench.pages.same_video import OWN
from workbench.pages.shell import guard, jobs_of
from workbench.pages.text import command_line, duration, plain, readable_names, short_path
from workbench.places import Places
from workbench.plan import forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings

PROMPT = "a red 7 moving up and left, fast"
TITLE = "Generate a video"
POLL_SECONDS = 0.5
USUAL_STEPS, MOST_STEPS = 20, 1000
OF_PAIRS = ("dense.mp4", "masked.mp4", "routed.mp4")
"""What ablation, pruning and routing generate, which stand beside each other there."""


def models(places: Places) -> dict[str, str]:
    """Shown name → MODEL of the commands: the bundled demo, then the pipelines in the named folders and the workspace."""
    found = {"demo": "demo"} if (DEMO / "model_index.json").is_file() else {}
    for name in pipeline_names(places):
        folder = places.find(name)
        if folder != DEMO.resolve():
            found[name] = str(folder)
    return found


def usual_steps(model: str) -> int:
    """The denoising steps that the model's own defaults name; 20 where it has none or cannot be read."""
    try:
        return min(MOST_STEPS, int(defaults(model).get("steps") or USUAL_STEPS))
    except InputError:
        return USUAL_STEPS


def show_folded(places: Places) -> None:
    """The panel folded away until it is asked for, or there is something that it generated."""
    panel = st.expander(
        TITLE,
        expanded=last_generation(places) is not None,
        key="generate_panel",
        on_change="rerun",
        icon=":material/movie:",
    )
    if panel.open:
        with panel:
            show_panel(places)


def show_generate_panel(places: Places) -> None:
    """The panel under its name."""
    st.header(TITLE, anchor=False)
    show_panel(places)


def show_panel(places: Places) -> None:
    """Draw the panel; the last generation of the workspace shows, so that it survives reload and a second tab."""
    choices = models(places)
    if not choices:
        st.markdown("No model to generate with. `make demo` builds the bundled one.")
        return
    # Folded away, the fields are gone with what was in them: they come back with what was asked for last.
    job = last_generation(places)
    last = {} if job is None else job.arguments
    known = next((name for name, model in choices.items() if model == last.get("model")), next(iter(choices)))
    steps_now = int(last.get("steps") or usual_steps(choices[known]))
    with st.form("generate", border=False):
        prompt = st.text_input("Prompt", str(last.get("prompt", PROMPT)), key="prompt", max_chars=500)
        model_column, steps_column, seed_column, button_column = st.columns([3, 2, 2, 3], vertical_alignment="bottom")
        with model_column:
            model = st.selectbox(
                "Model",
                list(choices),
                list(choices).index(known),
                format_func=readable_names(choices),
                key="generate_model",
            )
        with steps_column:
            steps = st.number_input("Steps", 1, MOST_STEPS, min(steps_now, MOST_STEPS), key="generate_steps")
        with seed_column:
            seed = st.number_input("Seed", 0, 2**31 - 1, int(last.get("seed") or 0), key="generate_seed")
        with button_column:
            wanted = st.form_submit_button("Generate", width="stretch")
    if cost := generation_cost(places, choices[known], known, steps_now):
        st.caption(plain(cost))
    if wanted:
        with guard("generate"):
            arguments = {"model": choices[model], "prompt": prompt, "steps": steps, "seed": seed, "out": "video.mp4"}
            jobs_of(places).submit("generate", arguments)
    _show_last(places)


def generation_cost(places: Places, model: str, name: str, steps: int) -> str:
    """What a video of so many steps takes, in one line: operations, memory, and the time that it took before; nothing of a
    model that cannot be read."""
    device = fastest_device()
    try:
        settings = RunSettings.of(steps=steps).filled(model)
        guess = plan(model, settings, device=device, forwards=forwards_per_clip(settings))
    except InputError:
        return ""
    seconds = None
    if (places.workspace / "jobs.sqlite3").is_file():
        seconds = jobs_of(places).history("generate", matching={"model": model})
    took = "" if seconds is None else f", about {duration(max(1, seconds * steps))} as last time"
    return (
        f"{steps} step{'s' if steps != 1 else ''} of {name} on {device}: {tera(guess['flops'])}, "
        f"{gibi(guess['memory']['total'])} of memory{took}."
    )


def last_generation(places: Places) -> Job | None:
    """The newest generation job of the workspace, or None."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return None
    jobs = [
        job
        for job in jobs_of(places).list(command="generate")
        if not job.arguments.get("mask")
        and job.arguments.get("router") in (None, "none")
        and Path(str(job.arguments.get("out"))).name not in OF_PAIRS
    ]
    return max(jobs, key=lambda job: job.created, default=None)


def _show_last(places: Places) -> None:
    job = last_generation(places)
    if job is None:
        return
    active = job.active

    def watch() -> None:
        with guard("generate"):
            now = last_generation(places)
            if now is None:
                return
            if active and not now.active:
                st.rerun()
            _show_generation(places, now)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _show_generation(places: Places, job: Job) -> None:
    prompt = str(job.arguments.get("prompt", ""))
    if job.active:
        show_progress(job)
        st.button(
            "Cancel",
            key=f"cancel-{job.id}",
            on_click=cancel,
            args=(jobs_of(places), job.id),
            disabled=job.state is State.CANCELLING,
        )
        return
    video = next((path for path in jobs_of(places).artefacts(job.id) if path.suffix == ".mp4"), None)
    if video is not None:
        picture, words = st.columns([2, 3])
        with picture:
            show_video(places, video, f"Generated video: {prompt}")
        with words:
            st.markdown(f"“{plain(prompt)}”")
            st.caption(plain(made_with(job)))
            show_progress(job)
            copy_button("Copy as command line", generate_command(job), key="copy_generate_command")
    else:
        st.markdown(f"“{plain(prompt)}”")
        show_progress(job)


def made_with(job: Job) -> str:
    """The settings of a generation, as far as they were asked for.

    >>> made_with(Job("a-1", "generate", {"model": "demo", "steps": 2, "seed": 7}, "cpu", State.DONE))
    'demo, 2 steps, seed 7'
    """
    asked = job.arguments
    model = Path(str(asked.get("model", "demo"))).name
    steps, seed = asked.get("steps"), asked.get("seed")
    return ", ".join(
        [
            model,
            *([f"{steps} step{'s' if steps != 1 else ''}"] if steps else []),
            *([] if seed is None else [f"seed {seed}"]),
        ]
    )


def generate_command(job: Job) -> str:
    """The command line that makes the same video.

    >>> generate_command(Job("a-1", "generate", {"model": "demo", "steps": 2, "router": "none"}, "cpu", State.DONE))
    'pare generate demo --steps 2 --router none --out video.mp4'
    """
    arguments = {name: value for name, value in job.arguments.items() if name not in OWN}
    model = str(arguments.pop("model", "demo"))
    known = model if not Path(model).is_absolute() else short_path(Path(model))
    return command_line("generate", known, **arguments, out="video.mp4")
