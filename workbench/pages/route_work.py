"""The jobs behind the Route page: recording decisions, a video dense and routed, and what they cost."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.runs import Run
from pare.depth.table import DecisionTable
from workbench.jobs.device import fastest_device
from workbench.jobs.job import Job, State
from workbench.pages.data import run_names
from workbench.pages.prune_work import Preview, artefact, find
from workbench.pages.route_plan import Decisions, RoutePlan, bounds
from workbench.pages.run_model import model_of
from workbench.pages.same_video import clip_settings
from workbench.pages.shell import jobs_of
from workbench.pages.text import duration, file_size
from workbench.places import Places
from workbench.plan import forwards_per_clip, gibi, plan, tera
from workbench.settings import RunSettings
from workbench.state import Selection

RECORDED = "routed"
"""Name of the run that a recording job writes."""
MOST_PROMPTS = 4


def record_arguments(run: Run, decisions: Decisions | None, selection: Selection, places: Places) -> dict[str, Any]:
    """The `route` job that records decisions: the run's first prompts, by importance from this run where it can.

    A run without block norms leaves the router to the command: a student's own, else the demo's importance.
    """
    prompts = list(dict.fromkeys(sample.prompt for sample in run.manifest.samples if sample.prompt))[:MOST_PROMPTS]
    arguments: dict[str, Any] = {"model": model_of(run, places), "out": RECORDED, "prompts": prompts}
    if decisions is not None and not decisions.recorded:
        low, high = bounds(run, decisions, selection)
        arguments |= {"router": "importance", "run": str(run.folder.resolve()), "k_min": low, "k_max": high}
    return arguments


def recorded_run(places: Places, job: Job | None) -> str | None:
    """The name under which pages open the run that a finished recording wrote."""
    if job is None or job.state is not State.DONE:
        return None
    folder = jobs_of(places).folder(job.id) / "artefacts" / RECORDED
    name = places.name_of(folder) if (folder / "run.json").is_file() else None
    if name is not None and name not in run_names(places):
        # The link to it opens it at once.
        run_names.clear()
    return name


def table_path(places: Places, table: DecisionTable) -> Path:
    """Where a decision table of this content is kept: the same decisions are the same file, so a job is found again."""
    content = {"timesteps": list(table.timesteps), "ran": table.ran.astype(int).tolist()}
    scores = b"" if table.scores is None else table.scores.tobytes()
    digest = hashlib.sha256(json.dumps(content).encode() + scores).hexdigest()
    return places.workspace / "routes" / f"{digest[:16]}.json"


def router_arguments(
    run: Run, decisions: Decisions, planned: RoutePlan, selection: Selection, places: Places
) -> dict[str, Any]:
    """How `generate` is told to decide as planned.

    A router that looks at the content decides itself, at the planned budget; anything else, and anything edited by
    hand, is a decision table.
    """
    if not planned.edited.any() and decide_again(run, decisions, planned):
        low, high = bounds(run, decisions, selection)
        if not decisions.recorded:
            return {"router": "importance", "run": str(run.folder.resolve()), "k_min": low, "k_max": high}
        return {"router": "learned", "k_min": low, "k_max": high}
    return {"router": str(table_path(places, planned.table))}


def decide_again(run: Run, decisions: Decisions, planned: RoutePlan) -> bool:
    """Whether the router itself can be asked at the planned budget, rather than a table of what it said."""
    if not decisions.recorded:
        return True
    return recorded_router(run) == "learned" and planned.budget is not None


def recorded_router(run: Run) -> str:
    """The router that made the decisions of a run."""
    return str((run.manifest.settings.get("routing") or {}).get("router", "unknown"))


def generate_arguments(run: Run, preview: Preview, router: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """The `generate` job of one half: dense (`router` none), or routed."""
    model = model_of(run, places)
    return {
        "model": model,
        "prompt": preview.prompt,
        "seed": preview.seed,
        "steps": preview.steps,
        "out": "dense.mp4" if router.get("router") == "none" else "routed.mp4",
        **clip_settings(run, model),
        **router,
    }


DENSE = {"router": "none"}


def last_generation(places: Places, run: Run, router: Mapping[str, Any]) -> Preview | None:
    """What was generated last with these decisions, or is on its way, so that it shows again after a reload."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return None
    alike = [
        job
        for job in jobs_of(places).list(command="generate")
        if job.arguments.get("model") == model_of(run, places)
        and all(job.arguments.get(name) == router.get(name) for name in ("router", "k_min", "k_max", "run"))
    ]
    last = max(alike, key=lambda job: job.created, default=None)
    if last is None:
        return None
    prompt, seed, steps = (last.arguments.get(name) for name in ("prompt", "seed", "steps"))
    return Preview(str(prompt), int(seed), int(steps)) if prompt and isinstance(seed, int) and steps else None


def lacking(places: Places, wanted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of these `generate` jobs that are neither there nor on their way."""
    missing = []
    for arguments in wanted:
        job = find(places, "generate", arguments)
        there = job is not None and (job.active or artefact(jobs_of(places), job, ".mp4") is not None)
        if not there:
            missing.append(dict(arguments))
    return missing


def record_cost(places: Places, run: Run, arguments: Mapping[str, Any], share: float) -> str:
    """What recording takes, in one line."""
    model = model_of(run, places)
    settings = RunSettings.of().filled(model)
    clips = len(arguments["prompts"]) or 1
    guess = plan(
        model, settings, device=fastest_device(), forwards=forwards_per_clip(settings), clips=clips, share=share
    )
    block_values = 3 * 4 * (settings.steps or 0) * 2 * run.geometry.blocks * clips
    left = _history(places, "route", run, (settings.steps or 0) * clips)
    return (
        f"{clips} videos of {settings.steps} steps on {fastest_device()}: {tera(guess['flops'])}, "
        f"{gibi(guess['memory']['total'])} of memory, {file_size(block_values)} of statistics beside the videos{left}."
    )


def generate_cost(places: Places, run: Run, steps: int, shares: Sequence[float]) -> str:
    """What generating one video per share of blocks takes, in one line."""
    model = model_of(run, places)
    settings = RunSettings.of(steps=steps, **clip_settings(run, model)).filled(model)
    device = fastest_device()
    guesses = [
        plan(model, settings, device=device, forwards=forwards_per_clip(settings), share=share) for share in shares
    ]
    left = _history(places, "generate", run, steps * len(shares))
    count = f"{len(shares)} videos" if len(shares) > 1 else "1 video"
    work, memory = sum(each["flops"] for each in guesses), max(each["memory"]["total"] for each in guesses)
    return f"{count} on {device}: {tera(work)}, {gibi(memory)} of memory{left}."


def _history(places: Places, command: str, run: Run, units: int) -> str:
    if not (places.workspace / "jobs.sqlite3").is_file():
        return ""
    seconds = jobs_of(places).history(command, matching={"model": model_of(run, places)})
    return "" if seconds is None else f", about {duration(max(1, seconds * units))} as last time"
