"""The jobs behind the Train page: which trainings there are, what one will cost, and starting it."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from workbench.distill_plan import sample_bytes
from workbench.jobs.api import Cost
from workbench.jobs.device import fastest_device, memory_free
from workbench.jobs.job import Job, State
from workbench.pages.data import LOOK_SECONDS
from workbench.pages.kept import kept
from workbench.pages.prune_work import find
from workbench.pages.shell import jobs_of
from workbench.pages.text import command_line, duration, short_path
from workbench.places import Places
from workbench.plan import gibi, tera
from workbench.training_choices import STUDENT, Wanted, check_room
from workbench.training_record import Training

STAGES = ("width", "joint", "steps")


@dataclass(frozen=True)
class Entry:
    """A training in the places: its name in a link, its folder, and the job that trains or trained it, if one did."""

    name: str
    folder: Path
    job: Job | None

    @property
    def active(self) -> bool:
        return self.job is not None and self.job.active


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def training_names(places: Places) -> list[str]:
    """Names of all training folders in the places; a new one shows within LOOK_SECONDS."""
    return places.trainings()


def entries(places: Places) -> list[Entry]:
    """All trainings: those in work and waiting first, then the newest."""
    found: dict[str, Entry] = {}
    for job in distillations(places):
        if job.arguments.get("stage") in STAGES and not job.arguments.get("probe"):
            name = training_name(places, job)
            if name is not None and name not in found:
                found[name] = Entry(name, Path(job.arguments["out"]) / "training", job)
    for name in training_names(places):
        found.setdefault(name, Entry(name, places.find(name), None))
    return sorted(found.values(), key=lambda each: (not each.active, -_when(each)))


def distillations(places: Places) -> list[Job]:
    """The `distill` jobs of the workspace, newest first."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return []
    return sorted(jobs_of(places).list(command="distill"), key=lambda job: -job.created)


def training_name(places: Places, job: Job) -> str | None:
    """The `place/relative/path` of a job's training folder, which need not be there yet."""
    try:
        out = Path(str(job.arguments["out"]))
        # Steps like .. would name a folder elsewhere.
        inside = (out.resolve() / "training").relative_to(places.workspace)
    except (KeyError, ValueError):
        return None
    return f"workspace/{inside.as_posix()}"


def open_training(folder: Path) -> Training:
    """The training in a folder, read again when its log has grown. Raises `InputError` for a record that is none."""
    parts = [folder / name for name in ("training.json", "log.jsonl")]
    return _open(str(folder), tuple((part.stat().st_mtime_ns, part.stat().st_size) for part in parts if part.exists()))


@kept(st.cache_resource, max_entries=16)
def _open(folder: str, when: tuple[tuple[int, int], ...]) -> Training:
    return Training.open(folder)


def label(entry: Entry) -> str:
    """A training in one line: stage, what it began with, when, and its state."""
    job = entry.job
    when = time.strftime("%d %b %H:%M", time.localtime(_when(entry)))
    if job is not None:
        return f"{job.arguments['stage']} of {beginning(entry, None)} · {when} · {job.state.value}"
    try:
        training = open_training(entry.folder)
        state = "done" if training.student else f"stopped at step {training.done}"
        return f"{training.stage} of {beginning(entry, training)} · {when} · {state} · {entry.name.split('/')[0]}"
    except ValueError:
        return f"{entry.name} · unreadable"


def beginning(entry: Entry, training: Training | None) -> str:
    """What a training began with: a student by its folder or its job, or the teacher's weights."""
    if entry.job is None:
        return "" if training is None else str(training.about.get("student"))
    student = entry.job.arguments.get("student")
    return _short(str(student)) if student else "the teacher's weights"


def speed(places: Places, stage: str, device: str) -> tuple[float, str] | None:
    """FLOP/s that the probed step of a training reached on this device, and which; of this stage rather than of another."""
    found: list[tuple[bool, float, float, str]] = []
    for job in distillations(places):
        result = job.result or {}
        flops, seconds = result.get("flops_per_step"), result.get("step_seconds")
        if job.state is not State.DONE or job.device != device or not flops or not seconds:
            continue
        probe = bool(result.get("probe"))
        what = "a probe" if probe else "the probe of a training"
        source = f"from {what} of stage {result.get('stage')} here on {time.strftime('%d %b %H:%M', time.localtime(job.created))}"
        found.append((result.get("stage") == stage, job.created, flops / seconds, source))
    if not found:
        return None
    _, _, flops_per_second, source = max(found)
    return flops_per_second, source


def cost_of(places: Places, plan: Mapping[str, Any], device: str) -> Cost:
    """What a planned training is expected to take; the time is None until something was measured here."""
    known = speed(places, plan["stage"], device)
    seconds = None if known is None else (plan["flops_per_device"] + plan["validation_flops"]) / known[0]
    source = "not measured here yet" if known is None else known[1]
    return Cost(seconds=seconds, memory=plan["memory"]["total"], disk=plan["disk"]["total"], source=source)


def room(places: Places, plan: Mapping[str, Any], device: str) -> tuple[int | None, int]:
    """Free bytes of memory (None: not known) and disk. Raises `InputError`, with the knob, where the plan does not fit."""
    there = next(each for each in (places.workspace, *places.workspace.parents) if each.exists())
    memory, disk = memory_free(device), shutil.disk_usage(there).free
    check_room(plan, device, memory, disk)
    return memory, disk


def start(places: Places, wanted: Wanted, cost: Cost | None = None) -> str:
    """Queue a training, the cut of its mask before it; the name of the training to watch."""
    jobs = jobs_of(places)
    student = None
    if wanted.mask is not None:
        cut = {"model": wanted.model, "mask": wanted.mask, "out": STUDENT}
        job = find(places, "prune", cut)
        # Jobs of one device run in their order, so the student is there when the training begins.
        ready = job is not None and (job.active or (jobs.folder(job.id) / "artefacts" / STUDENT).is_dir())
        job_id = job.id if job is not None and ready else jobs.submit("prune", cut)
        student = str(jobs.folder(job_id) / "artefacts" / STUDENT)
    job_id = jobs.submit("distill", wanted.arguments(student), name=f"distill-{wanted.stage}", cost=cost)
    return f"workspace/jobs/{job_id}/artefacts/{STUDENT}/training"


def probe_arguments(wanted: Wanted) -> dict[str, Any]:
    """The job that measures one step of the training."""
    return {**wanted.arguments(), "out": "probe", "probe": True}


def command_of(wanted: Wanted, resume: bool = False) -> str:
    """The command line that does the same, paths as a person here would type them."""
    arguments = wanted.arguments(STUDENT if wanted.mask else None)
    stage, model = arguments.pop("stage"), arguments.pop("model")
    words = [stage, _typed(model), *(["--resume"] if resume else [])]
    words += [f"--{name.replace('_', '-')}" for name, value in arguments.items() if value is True]
    flags = {name: _typed(value) for name, value in arguments.items() if not isinstance(value, bool)}
    cut = command_line("prune", _typed(model), mask=_typed(wanted.mask), out=STUDENT) + "\n" if wanted.mask else ""
    return cut + command_line("distill", *words, **(flags | {"out": "trained" if wanted.mask else STUDENT}))


def masks_of(places: Places, model: str) -> dict[str, str]:
    """Label → file of the masks that jobs of this workspace made for a model, newest first."""
    if not (places.workspace / "jobs.sqlite3").is_file():
        return {}
    jobs, found = jobs_of(places), {}
    for job in sorted(jobs.list(command="mask"), key=lambda each: -each.created):
        for path in jobs.artefacts(job.id):
            if path.suffix == ".safetensors":
                ratio = job.arguments.get("ratio")
                how = "a mask" if ratio is None else f"a mask at p = {ratio:g}"
                found[f"{how}, {time.strftime('%d %b %H:%M:%S', time.localtime(job.created))}"] = str(path)
    return found


def encode_cost(places: Places, model: str, samples: int) -> str:
    """What encoding samples takes, in one line."""
    from pare import reference
    from workbench.settings import RunSettings

    size = samples * sample_bytes(reference.model_geometry(model), RunSettings.of().filled(model, videos=True).clip)
    seconds = None
    if (places.workspace / "jobs.sqlite3").is_file():
        seconds = jobs_of(places).history("distill", matching={"stage": "data", "model": model})
    left = "" if seconds is None else f", about {duration(max(1, seconds * samples))} as last time"
    return f"{samples} samples on {fastest_device()}: {gibi(size)} of disk at most{left}."


def plan_rows(plan: Mapping[str, Any], cost: Cost, memory: int | None, disk: int | None) -> list[tuple[str, str]]:
    """A plan for people: a name and a fact each."""
    own, whole = plan["student_parameters"], plan["teacher_parameters"]
    parts = ", ".join(f"{name} {gibi(size)}" for name, size in plan["memory"].items() if name != "total" and size)
    stored = ", ".join(f"{name} {gibi(size)}" for name, size in plan["disk"].items() if name != "total" and size)
    share = plan["flops_per_step"] / (plan["flops_per_device"] + plan["validation_flops"])
    per_step = "" if cost.seconds is None else f", {duration_of(cost.seconds * share)} each"
    checks = f"; validations {tera(plan['validation_flops'])}" if plan["validation_flops"] else ""
    time_words = (
        "not known yet: measure one step" if cost.seconds is None else f"about {duration(max(1, cost.seconds))}"
    )
    source = "" if cost.seconds is None else f" ({cost.source})"
    free = "" if memory is None else f" of {gibi(memory)} free"
    room_left = "" if disk is None else f" of {gibi(disk)} free"
    return [
        ("Parameters", f"{own:,} of the teacher's {whole:,} ({own / whole:.0%})"),
        ("Memory", f"{gibi(plan['memory']['total'])}{free}: {parts}"),
        ("Disk", f"{gibi(plan['disk']['total'])} at most{room_left}: {stored}"),
        (
            "Work",
            f"{plan['train_steps']:,} steps of {plan['samples_per_step']} samples, "
            f"{tera(plan['flops_per_step'])} a step{per_step}{checks}",
        ),
        ("Time", time_words + source),
    ]


def duration_of(seconds: float) -> str:
    """A short time span.

    >>> duration_of(0.034), duration_of(2.5)
    ('34 ms', '2.5 s')
    """
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.3g} s"


def _typed(value: Any) -> Any:
    return short_path(Path(value)) if isinstance(value, str) and Path(value).is_absolute() else value


def _short(path: str) -> str:
    """A student by its folder, and by its job where every folder has the same name.

    >>> _short("/w/jobs/prune-1/artefacts/student"), _short("/models/mine")
    ('prune-1', 'mine')
    """
    parts = Path(path).parts
    return parts[-3] if len(parts) > 3 and parts[-2] == "artefacts" else parts[-1]


def _when(entry: Entry) -> float:
    if entry.job is not None:
        return entry.job.created
    record = entry.folder / "training.json"
    return record.stat().st_mtime if record.exists() else 0.0
