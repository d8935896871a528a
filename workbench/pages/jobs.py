"""Jobs: everything long that this workspace runs or ran, with its cost, progress, log, results, cancel, resume and removal."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from workbench.components.copy_button.component import copy_button
from workbench.jobs.api import Jobs
from workbench.jobs.job import Job, State
from workbench.pages.chart import csv_button
from workbench.pages.generate_panel import PROMPT
from workbench.pages.job_view import job_buttons, show_cost, show_log, show_progress, show_video, state_badge
from workbench.pages.shell import active_jobs, choose, choose_run, guard, jobs_of, open_shell
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.train_watch import latest
from workbench.pages.train_work import STAGES, Entry, training_name
from workbench.places import Places

POLL_SECONDS = 1.0
# Another tab or the command line may add a job at any time.
LOOK_SECONDS = 5.0
SHOWN = 50
BESIDE = ("run", "mask", "router")
"""Arguments that may be called as the model is, or that tell apart jobs of one prompt."""
FILTERS = {"all": "All", "active": "In work", "over": "Finished"}


def summary_of(arguments: Mapping[str, Any], limit: int = 90) -> str:
    """A job's main arguments on one line; beside a model, what else it works with says what it is.

    >>> summary_of({"model": "demo", "prompt": "a red 7", "out": "v.mp4", "device": "cpu"})
    'demo · a red 7'
    >>> summary_of({"model": "demo", "run": "/data/runs/demo", "router": "importance", "prompt": "a red 7"})
    'demo · run demo · router importance · a red 7'
    >>> summary_of({"run": "/data/runs/demo"}), summary_of({"model": "demo", "mask": "/w/.ablations/without-1a.safetensors"})
    ('demo', 'demo · mask without-1a')
    >>> summary_of({"model": "demo", "mask": "/w/jobs/mask-1/artefacts/mask.safetensors"})
    'demo · mask'
    >>> summary_of({"a": "/w/dense.mp4", "b": "/w/routed.mp4"})
    'dense.mp4 · routed.mp4'
    """
    alone = not arguments.get("model")
    words = [
        short if name not in BESIDE or (alone and name == "run") or short == name else f"{name} {short}"
        for name in ("stage", "model", "a", "b", *BESIDE, "prompt", "mode")
        if (short := _short(str(arguments.get(name) or "")))
    ]
    text = " · ".join(words)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _short(text: str) -> str:
    """The last name of a path, without what tells the kind of a file; anything else as it is."""
    return Path(text).name.removesuffix(".safetensors").removesuffix(".json") if Path(text).is_absolute() else text


def title_of(job: Job) -> str:
    """What a job does, in words for Markdown."""
    attempt = f" · attempt {job.attempt}" if job.attempt > 1 else ""
    probe = " · one step only" if job.arguments.get("probe") else ""
    return f"**{job.command}** {plain(summary_of(job.arguments))}{probe}{attempt}"


def show_job(jobs: Jobs, job: Job, places: Places) -> None:
    """One job in a box."""
    with st.container(border=True, key=f"job-{job.id}"):
        words, when, buttons = st.columns([7, 2, 3], vertical_alignment="center")
        words.markdown(f"{state_badge(job.state)} {title_of(job)}")
        when.caption(f"{time.strftime('%d %b %H:%M', time.localtime(job.created))} · {plain(job.device)}")
        with buttons, st.container(horizontal=True, horizontal_alignment="right"):
            job_buttons(jobs, job)
        show_progress(job)
        show_cost(jobs, job)
        with guard("result"):
            show_result(jobs, job, places)
        show_log(jobs, job)


def show_result(jobs: Jobs, job: Job, places: Places) -> None:
    """What there is to see of a job: the last losses of a training, the samples of a run so far, videos, its own page."""
    if job.command == "distill" and job.arguments.get("stage") in STAGES and not job.arguments.get("probe"):
        name = training_name(places, job)
        if name is None:
            return
        line = latest(job, Entry(name, Path(str(job.arguments["out"])) / "training", job))
        if line:
            st.caption(plain(line))
        if st.button("Watch this training", key=f"open-{job.id}", type="tertiary", icon=":material/show_chart:"):
            choose(training=name, training_step=None)
            st.switch_page("workbench/pages/train.py")
        return
    samples = Path(str(job.arguments.get("out") or "")) / "samples"
    if job.command in ("capture", "route") and samples.is_dir():
        count = sum(1 for path in samples.glob("*.safetensors"))
        run = places.name_of(samples.parent)
        st.caption(f"{count} sample{'s' if count != 1 else ''} written.")
        if run is not None and count and st.button("Open this run", key=f"open-{job.id}", type="tertiary"):
            choose_run(run)
            st.switch_page("workbench/pages/heads.py")
    if job.state is State.DONE:
        for path in [each for each in jobs.artefacts(job.id) if each.suffix == ".mp4"][:4]:
            show_video(places, path, f"Video of job {job.id}", width=200)


def jobs_table(jobs: Sequence[Job]) -> pd.DataFrame:
    """One row per job: what it was asked, how far it came, how long it took and what it said last.

    >>> jobs_table([Job("a-1", "generate", {"model": "demo"}, "cpu", State.DONE, done=8, total=8)])["arguments"][0]
    '{"model": "demo"}'
    """
    rows = [
        {
            "job": job.id,
            "command": job.command,
            "arguments": json.dumps(dict(job.arguments), ensure_ascii=False, default=str),
            "state": job.state.value,
            "device": job.device,
            "submitted": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(job.created)),
            "attempt": job.attempt,
            "done": job.done,
            "total": job.total,
            "seconds": job.seconds(),
            "message": job.message,
        }
        for job in jobs
    ]
    return pd.DataFrame(rows)


def show_page(places: Places) -> None:
    title, link = st.columns([4, 1], vertical_alignment="top")
    title.title("Jobs", anchor=False)
    buttons = link.container(horizontal=True, horizontal_alignment="right")
    with buttons:
        copy_button("Copy link", None, key="copy_link")
    if not (places.workspace / "jobs.sqlite3").is_file() or not jobs_of(places).list(limit=1):
        st.markdown(
            "Nothing runs and nothing ran in this workspace. The prompt on the Heads page starts a job, "
            "and so does this command:"
        )
        submit = command_line("generate", "demo", prompt=PROMPT, out="video.mp4").removeprefix("pare ")
        st.code(
            f"{command_line('jobs', 'submit', workspace=short_path(places.workspace))} {submit}",
            language=None,
            wrap_lines=True,
        )
        return
    with buttons:
        csv_button(lambda: jobs_table(jobs_of(places).list()), name="jobs", key="jobs")
    shown = st.radio(
        "Show",
        list(FILTERS),
        format_func=FILTERS.__getitem__,
        horizontal=True,
        key="job_filter",
        label_visibility="collapsed",
    )
    active = active_jobs(places)

    def watch() -> None:
        with guard("jobs"):
            # The sidebar's count belongs to the whole page.
            if bool(active) != bool(active_jobs(places)):
                st.rerun()
            jobs = jobs_of(places)
            listed = [job for job in jobs.list(limit=SHOWN) if shown == "all" or job.active == (shown == "active")]
            if not listed:
                st.markdown("None at the moment.")
            for job in listed:
                with guard(f"job {job.id}"):
                    show_job(jobs, job, places)

    st.fragment(watch, run_every=POLL_SECONDS if active else LOOK_SECONDS)()


shell = open_shell(poll_jobs=False)
with guard("jobs"):
    show_page(shell.places)
