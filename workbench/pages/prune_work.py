"""The jobs behind the Prune page: which mask, videos and student belong to the settings, and what making them costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.runs import Run
from analysis.score_table import is_table
from pare import reference
from pare.errors import InputError
from workbench.jobs.api import Jobs
from workbench.jobs.device import fastest_device
from workbench.jobs.job import Job, State
from workbench.mask_plan import MaskPlan
from workbench.pages.prune_plan import mask_arguments
from workbench.pages.same_video import OWN, clip_settings, decisive
from workbench.pages.shell import jobs_of
from workbench.pages.text import duration, file_size
from workbench.places import Places
from workbench.plan import forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings
from workbench.state import Selection

MASK_FILE, STUDENT_FOLDER = "mask.safetensors", "student"


@dataclass(frozen=True)
class Preview:
    """One prompt, seed and number of steps, generated with and without the mask."""

    prompt: str
    seed: int
    steps: int


def mask_job_arguments(run: Run, selection: Selection) -> dict[str, Any]:
    """The `mask` job of the run at the selection's settings."""
    flags = mask_arguments(selection)
    if is_table(selection.scorer):
        # A job runs in a folder of its own.
        flags["scorer"] = str(Path(selection.scorer).resolve())
    return {"run": str(run.folder.resolve()), "out": MASK_FILE, **flags}


def generate_job_arguments(
    run: Run, preview: Preview, mask: Path | None, *, model: str | None = None
) -> dict[str, Any]:
    """The `generate` job of one half of a preview: dense, or under the mask; `model` if not the run's name."""
    model = model or run.model_id
    return {
        "model": model,
        "prompt": preview.prompt,
        "seed": preview.seed,
        "steps": preview.steps,
        "out": "dense.mp4" if mask is None else "masked.mp4",
        **clip_settings(run, model),
        **({} if mask is None else {"mask": str(mask)}),
    }


def last_preview(places: Places, run: Run, mask: Path) -> Preview | None:
    """What was generated last under this mask, or is on its way, so that it shows again after a reload."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return None
    jobs = [job for job in jobs_of(places).list(command="generate") if job.arguments.get("mask") == str(mask)]
    last = max(jobs, key=lambda job: job.created, default=None)
    if last is None or last.arguments.get("model") != run.model_id:
        return None
    prompt, seed, steps = (last.arguments.get(name) for name in ("prompt", "seed", "steps"))
    return Preview(str(prompt), int(seed), int(steps)) if prompt and isinstance(seed, int) and steps else None


def prune_job_arguments(run: Run, mask: Path) -> dict[str, Any]:
    """The `prune` job that cuts the run's model; the run's moments fold the query/key norms where it has any."""
    folder = {"run": str(run.folder.resolve())} if run.manifest.moments else {}
    return {"model": run.model_id, "mask": str(mask), "out": STUDENT_FOLDER, **folder}


def find(places: Places, command: str, wanted: Mapping[str, Any]) -> Job | None:
    """The newest job that makes exactly this, whichever page asked for it: an active or finished one before others."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return None
    told = decisive if command == "generate" else _without_own
    sought = told(wanted)
    alike = [job for job in jobs_of(places).list(command=command) if told(job.arguments) == sought]
    return max(alike, key=lambda job: (job.active or job.state is State.DONE, job.created), default=None)


def finished_jobs(places: Places, command: str) -> int:
    """How many jobs of a command have ended well."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return 0
    return sum(job.state is State.DONE for job in jobs_of(places).list(command=command))


def _without_own(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in OWN}


def artefact(jobs: Jobs, job: Job | None, ending: str) -> Path | None:
    """The file of a finished job with this ending, while it is there."""
    if job is None or job.state is not State.DONE:
        return None
    return next((path for path in jobs.artefacts(job.id) if path.name.endswith(ending)), None)


def local_model(run: Run) -> str | None:
    """Why the run's model cannot be read on this machine, in one line; None where it can. Nothing is downloaded."""
    try:
        reference.weights_folder(run.model_id)
    except InputError as error:
        return str(error)
    return None


def mask_cost(places: Places, run: Run, planned: MaskPlan) -> str:
    """What making the mask takes, in one line."""
    neurons = planned.settings.neurons
    if neurons == "none" or neurons == "random":
        return "Reads the run alone; a second or two."
    geometry = run.geometry
    weights = 2 * geometry.dim * geometry.ffn * geometry.blocks
    left = _history(places, "mask", {"neurons": neurons}, geometry.blocks)
    return f"Reads {weights / 1e6:,.3g} M feed-forward weights, block by block{left}."


def preview_cost(places: Places, run: Run, steps: int, videos: int, *, model: str | None = None) -> str:
    """What generating so many videos takes, in one line, all at the dense model's cost; `model` if not the run's name."""
    model = model or run.model_id
    settings = RunSettings.of(steps=steps, **clip_settings(run, model)).filled(model)
    device = fastest_device()
    guess = plan(model, settings, device=device, forwards=forwards_per_clip(settings), clips=videos)
    left = _history(places, "generate", {"model": model}, steps * videos)
    count = f"{videos} videos" if videos > 1 else "1 video"
    return f"{count} on {device}: {tera(guess['flops'])}, {gibi(guess['memory']['total'])} of memory{left}."


def student_cost(places: Places, run: Run, planned: MaskPlan) -> str:
    """What cutting the student takes, in one line."""
    folder = reference.weights_folder(run.model_id)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    share = planned.predicted["parameters"] / planned.predicted["dense_parameters"]
    left = _history(places, "prune", {"model": run.model_id}, run.geometry.blocks)
    return f"Reads {file_size(size)} block by block, writes about {file_size(size * share)} of weights{left}."


def _history(places: Places, command: str, matching: Mapping[str, Any], units: int) -> str:
    if not (places.workspace / "jobs.sqlite3").is_file():
        return ""
    seconds = jobs_of(places).history(command, matching=matching)
    return "" if seconds is None else f", about {duration(max(1, seconds * units))} as last time"


def missing_halves(places: Places, run: Run, preview: Preview, mask: Path) -> Sequence[dict[str, Any]]:
    """The jobs of a preview that are neither there nor on their way."""
    wanted = [generate_job_arguments(run, preview, each) for each in (None, mask)]
    found = [find(places, "generate", each) for each in wanted]
    return [
        each
        for each, job in zip(wanted, found, strict=True)
        if job is None or not (job.active or (job.state is State.DONE and artefact(jobs_of(places), job, ".mp4")))
    ]


def errors_of(job: Job | None) -> list[dict[str, float]]:
    """The error of every block that a finished prune measured; none where it did not."""
    found = (job.result or {}).get("errors") if job is not None and job.state is State.DONE else None
    return list(found) if isinstance(found, list) else []


def student_folder(jobs: Jobs, job: Job | None) -> Path | None:
    """The folder of a finished student, while it is there."""
    if job is None or job.state is not State.DONE:
        return None
    folder = jobs.folder(job.id) / "artefacts" / STUDENT_FOLDER
    return folder if folder.is_dir() else None
