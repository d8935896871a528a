"""What a distillation is given, checked before any model is loaded: samples, student, run, and the folder to write."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pare import reference
from pare import student as students
from pare.errors import InputError
from pare.geometry import Geometry, read_json
from pare.width.budget import Ratios
from workbench.distill_settings import DIVERGENCE, PAPER_RATES, PAPER_STEPS, DistillSettings

TRAINING, RECORD = "training", "training.json"


def check_target(folder: Path, about: Mapping[str, Any], resume: bool) -> None:
    """InputError where the folder holds something else, another training, or one that nobody said to resume."""
    if not (folder / RECORD).is_file():
        # A training that was stopped at its very start leaves nothing, or an empty folder.
        if folder.parent.is_dir() and {path.name for path in folder.parent.iterdir()} - {TRAINING}:
            raise InputError("--out", got=f"{folder.parent}, not empty", expected="a new folder", fix="another folder")
        return
    if not resume:
        raise InputError("--out", got=f"{folder.parent}, a training", expected="a new folder", fix="--resume")
    there, wanted = read_json(folder / RECORD), json.loads(json.dumps(about))
    names = [name for name in wanted if name not in ("settings", "processes")]
    different = [name for name in names if there.get(name) != wanted[name]]
    own, theirs = wanted["settings"], there.get("settings", {})
    different += [f"settings.{name}" for name in own if own[name] != theirs.get(name)]
    # Another number of processes trains the same as long as a step has as many batches.
    batches = [each["processes"] * each["settings"]["accumulation"] for each in (wanted, there)]
    if batches[0] != batches[1]:
        different.append("processes")
    elif "settings.accumulation" in different:
        different.remove("settings.accumulation")
    if different:
        raise InputError(
            "--resume", got=f"another {', '.join(sorted(different))}", expected="the same words", fix="another --out"
        )


def read_data(
    data: str | Path | None, known: reference.ModelRef, geometry: Geometry, run: DistillSettings
) -> dict[str, Any] | None:
    """What the folder of samples says of itself; None where there is none, in a dry run."""
    if data is None or (run.dry_run and not (Path(data) / "data.json").is_file()):
        return None
    path = Path(data) / "data.json"
    if not path.is_file():
        raise InputError(
            "--data",
            got=f"{data}, without data.json",
            expected="encoded samples",
            fix=f"pare distill data {known.name} …",
        )
    about = read_json(path)
    theirs = about.get("model", {}).get("config_hash")
    if known.kind != "preset" and theirs not in (None, reference.model_identity(known)["config_hash"]):
        raise InputError(
            "--data",
            got=f"samples encoded for {about['model'].get('model_id')}",
            expected=f"samples encoded for {known.name}",
            fix="encode them with this model",
        )
    return about


def samples_of(about: Mapping[str, Any] | None) -> int | None:
    """How many samples a folder of them says it has; None where there is none yet."""
    return None if about is None else len(about.get("captions", ()))


def settle(stage: str, model: str, given: DistillSettings, about: Mapping[str, Any] | None) -> DistillSettings:
    """All settings of a training: as given, else the samples' own size, the model's defaults, and the stage's.

    InputError where validations would look at more samples than are held out: those were trained on.
    """
    for name, asked in (("clips", given.clips), ("roles", given.roles)):
        if given.validate_every and asked > given.held_out:
            raise InputError(
                f"--{name}", got=f"{asked} with --held-out {given.held_out}", expected="at most the samples held out",
                fix=f"--held-out {asked}",
            )  # fmt: skip
    clip = {name: about["clip"][name] for name in ("height", "width", "frames", "fps")} if about else {}
    filled = DistillSettings.of(**(given.model_dump(exclude_unset=True) | clip)).filled(model, videos=True)
    return filled.model_copy(
        update={
            "train_steps": filled.train_steps or PAPER_STEPS[stage],
            "learning_rate": filled.learning_rate or PAPER_RATES[stage],
            "divergence": DIVERGENCE[stage] if filled.divergence is None else filled.divergence,
        }
    )


def student_folder(student: str | Path | None, stage: str, dry_run: bool) -> Path | None:
    """The folder with the student's config.json; None for the teacher's own weights."""
    if student is None:
        if stage == "joint" or dry_run:
            return None
        fix = "pare prune MODEL --mask MASK --out STUDENT" if stage == "width" else "pare distill joint … first"
        raise InputError("--student", got="nothing", expected="a folder with a student", fix=fix)
    path = Path(student).expanduser()
    for folder in (path / "transformer", path):
        if (folder / "config.json").is_file():
            return folder
    if dry_run:
        return None
    raise InputError(
        "--student", got=f"{student}, no student", expected="a folder that pare prune wrote", fix="check it"
    )


def student_counts(
    folder: Path | None, geometry: Geometry, stage: str, ratio: float, student: str | Path | None
) -> dict[str, Any]:
    """How many heads and neurons the student has, as `pare.cost` takes it."""
    if folder is None:
        whole = stage == "joint" and student is None
        return {} if whole and ratio == 0 else dataclasses.asdict(Ratios(ratio=ratio).counts(geometry))
    config = read_json(folder / "config.json")
    own = Geometry.from_config(config)
    if (own.blocks, own.heads, own.head_dim, own.ffn) != (
        geometry.blocks, geometry.heads, geometry.head_dim, geometry.ffn,
    ):  # fmt: skip
        raise InputError(
            "--student", got=f"{name_of(folder)}, of other shapes", expected="a student of MODEL", fix="check it"
        )
    return students.cost_arguments(config)


def block_importance(
    run: str | Path | None, geometry: Geometry, identity: Mapping[str, str | None]
) -> tuple[Any, str | None]:
    """The mean relative change of every block of a run, ‖B(x) − x‖/‖x‖, and the run's name."""
    if run is None:
        return None, None
    import numpy as np

    from analysis.block_values import block_values
    from analysis.runs import Run

    opened = Run.open(run)
    for name in ("config_hash", "weight_hash"):
        theirs, ours = opened.manifest.model.get(name), identity.get(name)
        if theirs and ours and theirs != ours:
            raise InputError(
                "--run",
                got=f"a run of {opened.model_id} ({name.replace('_', ' ')} {theirs[:12]})",
                expected=f"one of {identity['model_id']} ({ours[:12]})",
                fix="use a run of the teacher",
            )
    values = np.nanmean(block_values(opened).cells(), axis=0)
    if len(values) != geometry.blocks or not np.isfinite(values).all():
        raise InputError(
            "--run", got=f"{len(values)} blocks", expected=f"{geometry.blocks} measured ones", fix="a run of this model"
        )
    return values, opened.folder.resolve().name


def name_of(folder: Path) -> str:
    """A student's name: that of its pipeline's folder."""
    return folder.resolve().parent.name if folder.name == "transformer" else folder.resolve().name


def hash_of(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
