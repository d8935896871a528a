"""What a training can be started from here: teachers, encoded samples, students and masks that belong together. No torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pare import mask as masks
from pare import reference
from pare import student as students
from pare.errors import InputError
from pare.geometry import Geometry, read_json
from pare.training.plan import TrainingMemory, check_fits
from workbench.distill_inputs import read_data, samples_of, settle, student_counts, student_folder
from workbench.distill_plan import plan_stage, setup_of
from workbench.distill_settings import DistillSettings
from workbench.places import Places

SAMPLES_SCHEMA = "pare-latents/1"
STUDENT = "student"
"""Name of the folder that a training writes its student to, and of the one that a mask's student is cut to."""
CUT = "pruned"
"""What a student went through that no stage has trained yet."""
SMALL = 100_000_000
"""Parameters of a model for which the paper's rates and steps, made for 14 billion, are of no use."""
SUGGESTED: Mapping[str, Mapping[str, float]] = {
    "width": {"train_steps": 1200, "batch": 2, "learning_rate": 5e-4},
    "joint": {"train_steps": 2400, "batch": 2, "learning_rate": 5e-4, "router_rate": 2.5e-3, "router_share": 0.25},
    "steps": {"train_steps": 400, "batch": 8, "learning_rate": 1e-4},
}
"""For small models; docs/training.md."""


@dataclass(frozen=True)
class Wanted:
    """One training as the form describes it; `student` or `mask` (which is cut first), neither for the teacher's weights."""

    stage: str
    model: str
    data: str
    student: str | None = None
    mask: str | None = None
    run: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self, student: str | None = None) -> dict[str, Any]:
        """The keyword arguments of `distill`; `student` stands for what the mask leaves. Defaults are left out.

        >>> Wanted("width", "demo", "data", "pruned", settings={"batch": 4, "seed": 0}).arguments()
        {'stage': 'width', 'model': 'demo', 'data': 'data', 'out': 'student', 'student': 'pruned', 'batch': 4}
        """
        own = {"student": student or self.student, "run": self.run}
        known = DistillSettings.model_fields
        given = {name: value for name, value in self.settings.items() if value != known[name].default}
        start = {"stage": self.stage, "model": self.model, "data": self.data, "out": STUDENT}
        return start | {name: value for name, value in own.items() if value is not None} | given


def teachers(models: Mapping[str, str]) -> dict[str, str]:
    """Those of these models (shown name → MODEL) that nothing was cut from and no router was trained on."""
    found = {}
    for name, model in models.items():
        try:
            folder = reference.description_folder(model)
            stock = read_json(folder / "transformer" / "config.json").get("_class_name") == "WanTransformer3DModel"
        except InputError:
            continue
        if stock:
            found[name] = model
    return found


def samples_for(places: Places, model: str) -> dict[str, int]:
    """Name → number of the folders of samples that this model encoded, or that do not say who did."""
    own = reference.model_identity(model)["config_hash"]
    found = {}
    for name in places.samples():
        try:
            about = read_json(places.find(name) / "data.json")
        except InputError:
            continue
        theirs = (about.get("model") or {}).get("config_hash")
        if about.get("schema") == SAMPLES_SCHEMA and theirs in (None, own):
            found[name] = samples_of(about) or 0
    return found


def fit(stage: str, through: str) -> int:
    """How far what a student went through is from what a stage begins with: 0 for stage I of a cut student, and so on.

    >>> [fit("width", through) for through in ("pruned", "pruned, width", "pruned, width, joint, steps")]
    [0, 1, 3]
    >>> [fit("steps", through) for through in ("whole", "pruned, width, joint")]
    [2, 0]
    """
    order = ("width", "joint", "steps")
    last = through.split(", ")[-1]
    return abs(order.index(stage) - (1 + order.index(last) if last in order else 0))


def students_for(places: Places, geometry: Geometry) -> dict[str, str]:
    """Name → what it went through, of the pruned or trained students of a model of this geometry."""
    found = {}
    for name in places.pipelines():
        folder = places.find(name) / "transformer"
        try:
            config = read_json(folder / "config.json")
            if config.get("_class_name") != "PareWanTransformer3DModel":
                continue
            student_counts(folder, geometry, "width", 0.0, name)
        except (InputError, KeyError, TypeError):
            continue
        stages = [str(stage.get("stage")) for stage in (config.get("pruning") or {}).get("training", [])]
        cut = [CUT] if students.counts(config) else []
        found[name] = ", ".join(cut + stages) or "whole"
    return found


def check_mask(path: str | Path, model: str) -> masks.Mask:
    """The mask, where it is one of this model. Raises `InputError`."""
    mask = masks.load(path)
    masks.check(mask, reference.model_geometry(model), reference.model_identity(model))
    return mask


def plan_training(wanted: Wanted, device: str) -> dict[str, Any]:
    """What the training needs, as `pare distill --dry-run` says it. Raises `InputError` for what could not work."""
    known = reference.resolve(wanted.model)
    geometry = reference.model_geometry(known)
    given = DistillSettings.of(**wanted.settings, dry_run=True)
    about = read_data(wanted.data, known, geometry, given)
    # As a job has it, so that automatic precision is that of the device.
    settled = settle(wanted.stage, wanted.model, given, about).model_copy(update={"device": device})
    if wanted.mask is not None:
        kept: dict[str, Any] = check_mask(wanted.mask, wanted.model).counts()
    else:
        folder = student_folder(wanted.student, wanted.stage, dry_run=False)
        kept = student_counts(folder, geometry, wanted.stage, 0.0, wanted.student)
    return plan_stage(wanted.stage, wanted.model, geometry, settled, kept, None, samples_of(about))


def check_room(plan: Mapping[str, Any], device: str, memory: int | None, disk: int) -> None:
    """Raise `InputError` that names the knob where free memory (None: not known) or free disk cannot hold a plan."""
    run = DistillSettings.of(**plan["settings"])
    need = TrainingMemory(**{each.name: plan["memory"][each.name] for each in dataclasses.fields(TrainingMemory)})
    if memory is not None:
        check_fits(need, memory, setup_of(plan["stage"], plan["model"], run, 1, False), device)
    if plan["disk"]["total"] > disk:
        gib = 2**30
        raise InputError(
            "disk",
            got=f"a need of {plan['disk']['total'] / gib:.2f} GiB with {disk / gib:.2f} GiB free",
            expected="a training that fits",
            fix="a workspace on a larger disk, --ema 0, or fewer --trajectories",
        )


def is_small(parameters: int) -> bool:
    """Whether the paper's settings are of no use."""
    return parameters < SMALL


def suggested(stage: str, small: bool) -> dict[str, Any]:
    """Steps, batch and rates to begin with: the paper's, or those that suit a model of a few million parameters."""
    from workbench.distill_settings import PAPER_RATES, PAPER_STEPS

    paper = {"train_steps": PAPER_STEPS[stage], "batch": 1, "learning_rate": PAPER_RATES[stage]}
    router = {name: DistillSettings.model_fields[name].default for name in ("router_rate", "router_share")}
    return {**router, **paper, **(SUGGESTED[stage] if small else {})}
