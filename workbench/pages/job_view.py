"""One job on a page: its state, progress with time left, cost, log, and the buttons that cancel, resume and remove it."""

import html
from contextlib import suppress
from pathlib import Path

import streamlit as st

from pare.errors import InputError
from workbench.jobs.api import Jobs
from workbench.jobs.job import Cost, Job, State
from workbench.pages.text import duration, plain
from workbench.places import Places
from workbench.plan import gibi
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


ICONS = {
    State.QUEUED: ":material/schedule:",
    State.RUNNING: ":material/play_arrow:",
    State.CANCELLING: ":material/pending:",
    State.CANCELLED: ":material/cancel:",
    State.DONE: ":material/check_circle:",
    State.FAILED: ":material/error:",
    State.LOST: ":material/link_off:",
}
LOG_LINES = 200


def state_badge(state: State) -> str:
    """A state as a badge: word, icon and colour.

    >>> state_badge(State.DONE)
    ':green-badge[:material/check_circle: done]'
    """
    return f":{COLORS[state]}-badge[{ICONS[state]} {state.value}]"


def progress_line(job: Job) -> str:
    """Units done, time left and the last message, as far as they are known.

    >>> progress_line(Job("a-1", "generate", {}, "cpu", State.RUNNING, done=3, total=8, message="step 3"))
    '3 of 8 · step 3'
    >>> progress_line(Job("a-1", "generate", {}, "cpu", State.QUEUED, position=2))
    'number 2 in the queue of cpu'
    """
    if job.state is State.QUEUED:
        place = (
            f"number {job.position} in the queue of {job.device}" if job.position else f"in the queue of {job.device}"
        )
        return f"{place} · {job.message}" if job.message else place
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


def cost_line(expected: Cost | None, took: float | None, *, finished: bool) -> str:
    """What a job was expected to take, and, once it is over, what it took; nothing where nothing was expected.

    >>> cost_line(Cost(seconds=90, memory=2**30, source="from a probe"), 100.0, finished=True)
    'Expected 1 min 30 s, 1.0 GiB of memory (from a probe); took 1 min 40 s.'
    """
    parts = []
    if expected is not None:
        parts = [duration(max(1.0, expected.seconds))] if expected.seconds is not None else []
        sizes = ((expected.memory, "memory"), (expected.disk, "disk"))
        parts += [f"{gibi(size)} of {what}" for size, what in sizes if size is not None]
    source = (
        f" ({expected.source})" if expected is not None and expected.source and expected.seconds is not None else ""
    )
    words = f"Expected {', '.join(parts)}{source}" if parts else ""
    if words and finished and took is not None and expected is not None and expected.seconds is not None:
        words += f"; took {duration(took)}"
    return words + "." if words else ""


def show_cost(jobs: Jobs, job: Job) -> None:
    """Cost before against cost after, as far as they are known."""
    line = cost_line(jobs.expected(job.id), job.seconds(), finished=job.state is State.DONE)
    if line:
        st.caption(plain(line))


def show_log(jobs: Jobs, job: Job) -> None:
    """The end of what the command wrote, behind a toggle."""
    if st.toggle("Log", key=f"log-{job.id}"):
        st.code(jobs.log(job.id, LOG_LINES) or "The log is empty.", language=None, wrap_lines=True, height=260)
        st.caption(plain(job.id))


def job_buttons(jobs: Jobs, job: Job, *, removes: bool = True) -> None:
    """Cancel while it is active; resume where it was cut off; remove, once asked, where it is over."""
    if job.active:
        waits = job.state is State.CANCELLING
        st.button("Cancel", key=f"cancel-{job.id}", on_click=cancel, args=(jobs, job.id), disabled=waits)
        return
    if job.resumable and st.button("Resume", key=f"resume-{job.id}"):
        resume(jobs, job.id)
        # More than this list may follow it.
        st.rerun()
    if removes:
        # A popover stays open while the list around it is drawn again.
        with st.popover("Remove", type="tertiary", key=f"ask-{job.id}"):
            st.markdown(f"**{plain(job.id)}**: its log and everything it wrote into its own folder go too.")
            st.button("Remove it", key=f"remove-{job.id}", on_click=remove, args=(jobs, job.id))


def cancel(jobs: Jobs, job_id: str) -> None:
    """What a Cancel button does; a job that went away meanwhile needs none."""
    with suppress(InputError):
        jobs.cancel(job_id)


def resume(jobs: Jobs, job_id: str) -> None:
    """What a Resume button does; one that another tab was quicker with is running already."""
    try:
        jobs.resume(job_id)
    except InputError:
        st.toast("This job was resumed or removed meanwhile.", icon=":material/info:")


def remove(jobs: Jobs, job_id: str) -> None:
    """Remove a finished job with its files; one that runs again, or is gone, stays as it is."""
    try:
        jobs.delete(job_id)
    except InputError:
        st.toast("This job was resumed or removed meanwhile.", icon=":material/info:")


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
