"""The measuring of two sets of videos as a job: PSNR, SSIM and flow between them, and every metric where scores are missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from analysis.score_comparison import sorted_by_effect
from workbench.jobs.job import Job, State
from workbench.pages.job_view import cancel, show_progress
from workbench.pages.prune_work import find
from workbench.pages.shell import guard, jobs_of
from workbench.pages.text import duration
from workbench.places import Places

POLL_SECONDS = 0.7
BOTH = {"psnr": "PSNR", "ssim": "SSIM", "flow_error": "flow end-point error"}
"""Metrics of two videos of one prompt and seed."""


@dataclass(frozen=True)
class JobTables:
    """What a finished `compare` said: metrics of each side by effect, metrics between both, and its rows per pair."""

    each: pd.DataFrame
    both: pd.DataFrame
    videos: Sequence[Mapping[str, Any]]


def arguments_of(folders: tuple[Path, ...]) -> dict[str, str]:
    """The `compare` job of two folders."""
    return dict(zip(("a", "b"), map(str, folders), strict=True))


def job_of(places: Places, folders: tuple[Path, ...]) -> Job | None:
    """The newest job that compares these two, if any."""
    return find(places, "compare", arguments_of(folders))


def tables_of(job: Job | None) -> JobTables | None:
    """The stored result of a finished job; None without one."""
    if job is None or job.state is not State.DONE or not job.result:
        return None
    lines = job.result.get("metrics") or []
    both = pd.DataFrame(
        [line for line in lines if line.get("of") == "both"], columns=["title", "unit", "n", "mean", "low", "high"]
    )
    for name in ("mean", "low", "high"):
        both[name] = pd.to_numeric(both[name], errors="coerce").astype(float)
    each = sorted_by_effect([line for line in lines if line.get("of") == "each"])
    return JobTables(each, both, job.result.get("videos") or [])


def measured_pairs(pairs: pd.DataFrame, tables: JobTables) -> pd.DataFrame:
    """The pairs with what the job measured of them in the place of what was stored before."""
    rows = [
        {"prompt": row["prompt"], "seed": row["seed"], **(row.get("both") or {})}
        | {f"{name}_{side}": value for side in ("a", "b") for name, value in (row.get(side) or {}).items()}
        for row in tables.videos
        if row.get("paired")
    ]
    if not rows:
        return pairs
    found = pd.DataFrame(rows)
    kept = [name for name in pairs.columns if name in ("prompt", "seed") or name not in found.columns]
    return pairs[kept].merge(found, on=["prompt", "seed"], how="left")


def show_measuring(places: Places, folders: tuple[Path, ...], pairs: int, *, scored: bool) -> None:
    """The button that starts the job, its progress while it works, nothing once its result is shown."""
    job = job_of(places, folders)
    active = job is not None and job.active

    def watch() -> None:
        with guard("job"):
            now = job_of(places, folders)
            if active and not (now is not None and now.active):
                st.rerun()
            _show(places, folders, now, pairs, scored)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def _show(places: Places, folders: tuple[Path, ...], job: Job | None, pairs: int, scored: bool) -> None:
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
    if job is not None and job.state is State.DONE:
        return
    seconds = None
    if (places.workspace / "jobs.sqlite3").is_file():
        seconds = jobs_of(places).history("compare")
    time = "" if seconds is None else f", about {duration(max(1, seconds * pairs))} as last time"
    what = "PSNR, SSIM and flow error between the two" if scored else "every metric of both and between the two"
    st.markdown(f"A job measures {what}: it reads {pairs} pair{'s' if pairs != 1 else ''} of videos{time}.")
    if st.button("Measure the pairs", key="submit_compare", type="primary"):
        jobs_of(places).submit("compare", arguments_of(folders))
        st.rerun(scope="app")
