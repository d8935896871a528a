"""Jobs: everything long that this workspace runs or ran, with progress, log, cancel and resume."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from workbench.jobs.api import Jobs
from workbench.jobs.job import Job, State
from workbench.pages.generate_panel import PROMPT
from workbench.pages.job_view import COLORS, cancel, show_progress, show_video
from workbench.pages.shell import active_jobs, guard, jobs_of, open_shell
from workbench.pages.text import command_line, plain, short_path
from workbench.places import Places

POLL_SECONDS = 1.0
SHOWN = 50


def summary_of(arguments: Mapping[str, Any], limit: int = 90) -> str:
    """A job's main arguments on one line.

    >>> summary_of({"model": "demo", "prompt": "a red 7", "out": "v.mp4", "device": "cpu"})
    'demo · a red 7'
    """
    words = [
        Path(text).name if Path(text).is_absolute() else text
        for name in ("model", "run", "prompt", "mode")
        if (text := str(arguments.get(name) or ""))
    ]
    text = " · ".join(words)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def show_job(jobs: Jobs, job: Job, places: Places) -> None:
    """One job in a box."""
    with st.container(border=True):
        words, when, buttons = st.columns([7, 2, 2], vertical_alignment="center")
        with words:
            attempt = f" · attempt {job.attempt}" if job.attempt > 1 else ""
            st.markdown(
                f":{COLORS[job.state]}-badge[{job.state.value}] **{job.command}** {plain(summary_of(job.arguments))}{attempt}"
            )
        when.caption(time.strftime("%d %b %H:%M", time.localtime(job.created)))
        with buttons, st.container(horizontal=True, horizontal_alignment="right"):
            if job.active:
                st.button(
                    "Cancel",
                    key=f"cancel-{job.id}",
                    on_click=cancel,
                    args=(jobs, job.id),
                    disabled=job.state is State.CANCELLING,
                )
            elif job.resumable and st.button("Resume", key=f"resume-{job.id}"):
                jobs.resume(job.id)
                st.rerun(scope="app")
        show_progress(job)
        if job.state is State.DONE:
            for path in jobs.artefacts(job.id):
                if path.suffix == ".mp4":
                    show_video(places, path, f"Video of job {job.id}", width=200)
        if st.toggle("Log", key=f"log-{job.id}"):
            st.code(jobs.log(job.id) or "The log is empty.", language=None, wrap_lines=True)
            st.caption(plain(job.id))


def show_page(places: Places) -> None:
    st.title("Jobs", anchor=False)
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
    active = active_jobs(places)

    def watch() -> None:
        with guard("jobs"):
            if active and not active_jobs(places):
                st.rerun()
            jobs = jobs_of(places)
            for job in jobs.list(limit=SHOWN):
                with guard(f"job {job.id}"):
                    show_job(jobs, job, places)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


shell = open_shell(poll_jobs=False)
with guard("jobs"):
    show_page(shell.places)
