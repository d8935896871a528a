"""Ablation: the same prompt and seed with some heads or a block off, as jobs, beside the dense video on one transport."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import streamlit as st

from analysis.runs import Run
from pare import mask as masks
from pare.depth.table import DecisionTable
from pare.errors import InputError
from workbench.components.copy_button.component import copy_button
from workbench.head_sets import mask_without
from workbench.jobs.job import Job, State
from workbench.pages import prune_work as work
from workbench.pages.compare_link import compare_link
from workbench.pages.generate_panel import MOST_STEPS, PROMPT, USUAL_STEPS, usual_steps
from workbench.pages.job_view import cancel, show_progress
from workbench.pages.route_work import DENSE, table_path
from workbench.pages.run_model import model_of, unreadable
from workbench.pages.shell import PLAYED_KEY, guard, jobs_of
from workbench.pages.text import command_line, plain, short_path
from workbench.pages.videos import show_player
from workbench.places import Places
from workbench.state import Selection
from workbench.teacher_videos import Clips

POLL_SECONDS = 0.7
PLAYER_KEY = "ablation_player"
MASKS_FOLDER = ".ablations"
"""Hidden, so that a head that was off is not offered where masks are compared."""
STEPS_WIDTH = 120
"""Pixels of the steps field beside the button."""


@dataclass(frozen=True, eq=False)
class Off:
    """What is off, in words; the `flag` of `generate` and its `file` that switch it off, and what writes that file."""

    words: str
    flag: Literal["mask", "router"]
    file: Path
    save: Callable[[Path], object]


def heads_off(run: Run, places: Places, words: str, members: np.ndarray) -> Off:
    """These heads [block, head], by a mask with a name of its own for every set and model.

    Saving raises `InputError` where a block would keep none of its heads.
    """
    said = hashlib.sha256(members.tobytes() + str(run.manifest.model.get("config_hash")).encode())
    file = places.workspace / MASKS_FOLDER / f"without-{said.hexdigest()[:16]}.safetensors"
    return Off(words, "mask", file, lambda path: masks.save(mask_without(run, members, {"removed": words}), path))


def block_off(run: Run, places: Places, block: int) -> Off:
    """A whole block at every step, by a decision table of one row; not the first or the last, which always run."""
    ran = np.ones((1, run.geometry.blocks), bool)
    ran[0, block] = False
    table = DecisionTable((500.0,), ran, about={"without": f"block {block}"})
    return Off(f"block {block}", "router", table_path(places, table), table.save)


@dataclass(frozen=True, eq=False)
class Ablation:
    """What is off, and what is generated with and without it, by which model."""

    off: Off
    preview: work.Preview
    model: str

    def jobs(self, run: Run) -> list[dict[str, Any]]:
        """The arguments of both `generate` jobs, dense first."""
        off = self.off
        if off.flag == "mask":
            masked = (None, off.file)
            return [work.generate_job_arguments(run, self.preview, each, model=self.model) for each in masked]
        dense = work.generate_job_arguments(run, self.preview, None, model=self.model)
        # A model's own router would leave out other blocks as well.
        return [{**dense, **DENSE}, {**dense, "out": "routed.mp4", "router": str(off.file)}]


def ablation_of(run: Run, places: Places, off: Off, clips: Clips | None, selection: Selection, key: str) -> Ablation:
    """The ablation with the prompt and seed that the page shows, else with the run's own first ones.

    Its steps are those of the field beside the button `key`, else of the last ablation of the same, else the usual.
    """
    model = model_of(run, places)
    usual = USUAL_STEPS if unreadable(model) else usual_steps(model)
    sample = run.manifest.samples[selection.sample or 0] if run.manifest.samples else None
    if clips is not None:
        preview = work.Preview(clips.prompt, clips.seed, usual)
    elif sample is not None and sample.prompt:
        preview = work.Preview(sample.prompt, sample.seed, usual)
    else:
        preview = work.Preview(PROMPT, 0, usual)
    ablation = Ablation(off, preview, model)
    steps = st.session_state.get(_steps_key(key)) or _last_steps(places, off, model) or usual
    return replace(ablation, preview=replace(preview, steps=steps))


def _steps_key(key: str) -> str:
    return f"{key}_steps"


def _problem_key(key: str) -> str:
    return f"{key}_problem"


def _last_steps(places: Places, off: Off, model: str) -> int | None:
    """The steps of the model's last ablation of the same, whatever its prompt, so that it shows again after a reload."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return None
    wanted = {off.flag: str(off.file), "model": model}
    alike = (job for job in jobs_of(places).list(command="generate") if wanted.items() <= job.arguments.items())
    last = max(alike, key=lambda job: job.created, default=None)
    steps = None if last is None else last.arguments.get("steps")
    return steps if isinstance(steps, int) else None


def missing_jobs(run: Run, places: Places, ablation: Ablation) -> list[dict[str, Any]]:
    """The jobs that are neither done nor on their way."""
    return [each for each in ablation.jobs(run) if not _settled(places, work.find(places, "generate", each))]


def start(run: Run, places: Places, ablation: Ablation) -> None:
    """Write what switches it off, and submit what is missing. Raises `InputError` as `heads_off` does."""
    off = ablation.off
    if not off.file.is_file():
        off.save(off.file)
    for arguments in missing_jobs(run, places, ablation):
        jobs_of(places).submit("generate", arguments)


def start_or_say(run: Run, places: Places, ablation: Ablation, key: str) -> None:
    """What the button `key` does: a reason why not shows once below it."""
    try:
        start(run, places, ablation)
    except InputError as error:
        st.session_state[_problem_key(key)] = plain(error)


def show_button(run: Run, places: Places, ablation: Ablation, label: str, key: str) -> str | None:
    """The button with its steps, and in words what it costs or what is in the way; no button once both videos are there."""
    reason = unreadable(ablation.model)
    if reason is not None:
        return plain(f"Ablating needs the model: {reason}")
    lacking = missing_jobs(run, places, ablation)
    if lacking:
        st.button(
            label,
            key=key,
            icon=":material/visibility_off:",
            help=f"Generates “{plain(ablation.preview.prompt)}”, seed {ablation.preview.seed}, without "
            f"{plain(ablation.off.words)}.",
            on_click=start_or_say,
            args=(run, places, ablation, key),
        )
    st.number_input("Steps", 1, MOST_STEPS, ablation.preview.steps, key=_steps_key(key), width=STEPS_WIDTH)
    if not lacking:
        there = not any(job is not None and job.active for job in _found(run, places, ablation))
        return "Generated: it shows below." if there else None
    cost = work.preview_cost(places, run, ablation.preview.steps, len(lacking), model=ablation.model)
    return plain(f"{label}: {cost}")


def show_jobs(run: Run, places: Places, ablation: Ablation, key: str) -> None:
    """Progress of the jobs that were asked for by the button `key`, or how they ended without a video; the page runs again
    once they have.
    """
    if problem := st.session_state.pop(_problem_key(key), None):
        st.error(problem, icon=":material/error:")
    if work.find(places, "generate", ablation.jobs(run)[1]) is None:
        return
    active = any(job is not None and job.active for job in _found(run, places, ablation))

    def watch() -> None:
        with guard("ablation"):
            found = _found(run, places, ablation)
            if active and not any(job is not None and job.active for job in found):
                st.rerun()
            for name, job in zip(("dense", f"without {ablation.off.words}"), found, strict=True):
                if job is not None and _video(places, job) is None:
                    _show_job(places, job, name, key)

    st.fragment(watch, run_every=POLL_SECONDS if active else None)()


def show_ablations(run: Run, places: Places, ablations: Sequence[Ablation], selection: Selection) -> None:
    """The dense video beside those of these ablations that are there; nothing before any."""
    videos: dict[str, Path] = {}
    shown = []
    for ablation in ablations:
        dense, without = (_video(places, job) for job in _found(run, places, ablation))
        if dense is not None and without is not None:
            # Two ablations may have been generated with other steps each, so from another dense video.
            same = dense == videos.setdefault("dense", dense)
            videos |= {f"without {ablation.off.words}": without}
            videos |= {} if same else {f"dense, {ablation.preview.steps} steps": dense}
            shown.append((ablation, dense, without))
    if not shown:
        st.session_state[PLAYED_KEY].pop(PLAYER_KEY, None)
        return
    st.header(plain(f"Without {' and '.join(each.off.words for each, *_ in shown)}"), anchor=False)
    show_player(places, videos, selection, geometry=run.geometry, tallest=230, key=PLAYER_KEY)
    last, dense, without = shown[-1]
    command = command_line(
        "generate",
        short_path(Path(last.model)) if Path(last.model).is_absolute() else last.model,
        prompt=last.preview.prompt,
        seed=last.preview.seed,
        steps=last.preview.steps,
        out="without.mp4",
        **{last.off.flag: short_path(last.off.file)},
    )
    with st.container(horizontal=True):
        copy_button("Copy as command line", command, key="copy_ablation_command")
        compare_link(places, selection, "videos", dense, without, "Measure how they differ")


def _show_job(places: Places, job: Job, name: str, key: str) -> None:
    st.caption(plain(name))
    show_progress(job)
    if job.active:
        st.button(
            "Cancel",
            key=f"cancel-{key}-{job.id}",
            on_click=cancel,
            args=(jobs_of(places), job.id),
            disabled=job.state is State.CANCELLING,
        )


def _found(run: Run, places: Places, ablation: Ablation) -> list[Job | None]:
    return [work.find(places, "generate", arguments) for arguments in ablation.jobs(run)]


def _video(places: Places, job: Job | None) -> Path | None:
    return None if job is None else work.artefact(jobs_of(places), job, ".mp4")


def _settled(places: Places, job: Job | None) -> bool:
    """Whether a job is at work, or done with its video still there."""
    return job is not None and (job.active or _video(places, job) is not None)
