"""One job on a page: its state, progress with time left, and the buttons that cancel and resume it."""

import html
from contextlib import suppress
from pathlib import Path

import streamlit as st

from pare.errors import InputError
from workbench.jobs.api import Jobs
from workbench.jobs.job import Job, State
from workbench.pages.text import duration, plain
from workbench.places import Places
from workbench.server import video_address

COLORS = {
    State.QUEUED: "gray",
    State.RUNNING: "blue",
    State.CANCELLING: "orange",
    State.CANCELLED: "gray",
    State.DONE: "green",
    State.FAILED: "red",
    State.LOST: "red",
}


def progress_line(job: Job) -> str:
    """Units done, time left and the last message, as far as they are known.

    >>> progress_line(Job("a-1", "generate", {}, "cpu", State.RUNNING, done=3, total=8, message="step 3"))
    '3 of 8 · step 3'
    >>> progress_line(Job("a-1", "generate", {}, "cpu", State.QUEUED, position=2))
    'number 2 in the queue of cpu'
    """
    if job.state is State.QUEUED:
        return (
            f"number {job.position} in the queue of {job.device}" if job.position else f"in the queue of {job.device}"
        )
    left = duration(job.eta())
    parts = [
        f"{job.done} of {job.total}" if job.total else "",
        f"{left} left" if left else "",
        job.message,
    ]
    return " · ".join(part for part in parts if part)


def show_progress(job: Job) -> None:
    """The state as a badge with the progress bar of a job in work, or the outcome of a finished one."""
    if job.active:
        st.progress(job.fraction, text=plain(progress_line(job)) or job.state.value)
    elif job.state is State.DONE:
        took = duration(job.seconds())
        st.caption(f"Done in {took}." if took else "Done.")
    elif job.state is State.CANCELLED:
        st.caption("Cancelled" + (f" after {job.done} of {job.total}." if job.total else "."))
    else:
        reason = job.message or "its worker is gone; resume it"
        st.error(f"{job.state.value.capitalize()}: {plain(reason)}", icon=":material/error:")


def cancel(jobs: Jobs, job_id: str) -> None:
    """What a Cancel button does; a job that went away meanwhile needs none."""
    with suppress(InputError):
        jobs.cancel(job_id)


def show_video(places: Places, path: Path, label: str, *, width: int = 320) -> None:
    """Play a video from the server's own route, or through Streamlit where that route is not served."""
    address = video_address(places, path)
    if address is None:
        st.video(str(path), loop=True, muted=True, autoplay=True, alt=label, width=width)
    else:
        st.html(
            f'<video src="{html.escape(address)}" width="{width}" controls loop muted autoplay playsinline '
            f'aria-label="{html.escape(label)}"></video>'
        )
