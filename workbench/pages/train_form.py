"""The form of the Train page: stage, student or mask, samples and settings; with `pare distill`'s own defaults."""

from pathlib import Path
from typing import Any

import streamlit as st

from analysis.runs import Run
from pare import cost, reference
from pare.depth.budget import BudgetSchedule, fewest
from pare.geometry import Geometry
from workbench.distill_settings import DistillSettings
from workbench.pages.data import LOOK_SECONDS
from workbench.pages.kept import kept
from workbench.pages.train_work import masks_of
from workbench.places import Places
from workbench.training_choices import CUT, Wanted, fit, is_small, samples_for, students_for, suggested

STAGE_WORDS = {
    "width": "I · width",
    "joint": "II · joint",
    "steps": "III · steps",
}
STAGE_HELP = (
    "I: a pruned student learns from the frozen teacher (Eq. 13). II: the student and its router together (Eq. 15). "
    "III: a student of few sampler steps and no guidance, from trajectories and by consistency."
)
WHOLE = "the teacher's own weights"
WEIGHTS = {"feature": (10.0, 10.0), "teacher": (6.0, 6.0), "data": (1.0, 1.0), "temporal": (8.0, 4.0)}
"""The paper's weights of the losses, text-to-video and image-to-video."""


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def samples_of_model(places: Places, model: str) -> dict[str, int]:
    """`samples_for`, kept for LOOK_SECONDS."""
    return samples_for(places, model)


@kept(st.cache_data, ttl=LOOK_SECONDS, max_entries=8)
def students_of_model(places: Places, model: str) -> dict[str, str]:
    """`students_for`, kept for LOOK_SECONDS."""
    return students_for(places, reference.model_geometry(model))


def choose_training(places: Places, teachers: dict[str, str], run: Run | None) -> Wanted | None:
    """The widgets, and the training that they describe; None while something is missing, which is then said."""
    stage = st.radio(
        "Stage",
        list(STAGE_WORDS),
        format_func=STAGE_WORDS.__getitem__,
        horizontal=True,
        key="train_stage",
        help=STAGE_HELP,
    )
    first, second = st.columns(2)
    teacher = first.selectbox("Teacher", list(teachers), key="train_teacher")
    model = teachers[teacher]
    samples = samples_of_model(places, model)
    # A control that is switched off has a label too pale to read.
    data = None
    if samples:
        words = {name: f"{_last(name)} · {count:,} samples" for name, count in samples.items()}
        data = second.selectbox("Samples", list(words), format_func=words.__getitem__, key="train_data")
    else:
        second.markdown("Samples  \nnone encoded yet")
    student, mask = _student(places, model, stage)
    geometry = reference.model_geometry(model)
    settings = _settings(stage, geometry, samples.get(data or "", 0))
    importance = _importance(stage, run, model, settings)
    if data is None or student == "":
        return None
    folder = str(places.find(data))
    own = None if student is None else str(places.find(student))
    return Wanted(stage, model, folder, own, mask, importance, settings)


def _student(places: Places, model: str, stage: str) -> tuple[str | None, str | None]:
    """(student, mask): a name, None for the teacher's weights, "" where there is nothing to choose."""
    students, masks = students_of_model(places, model), {} if stage == "steps" else masks_of(places, model)
    # What the stage is made for comes first, and is what the form begins with: a mask is as good as a student cut by it.
    ways = [(fit(stage, through), name, f"{_last(name)} · {through}") for name, through in students.items()]
    ways += [(fit(stage, CUT), name, f"cut first by {name}") for name in masks]
    words = {name: shown for _, name, shown in sorted(ways, key=lambda way: way[0])}
    if stage == "joint":
        words[WHOLE] = WHOLE
    if not words:
        st.markdown("Student or mask  \nnone yet")
        return "", None
    chosen = st.selectbox(
        "Student or mask",
        list(words),
        format_func=words.__getitem__,
        key=f"train_student_{stage}",
        help="What pare prune or an earlier stage wrote, or a mask of the Prune page, which is cut first.",
    )
    if chosen in masks:
        return None, masks[chosen]
    return (None if chosen == WHOLE else chosen), None


def _settings(stage: str, geometry: Geometry, samples: int) -> dict[str, Any]:
    """What a researcher sets; names are those of `DistillSettings`."""
    start = suggested(stage, is_small(cost.parameters(geometry).total))
    found: dict[str, Any] = {}
    steps, batch, turns = st.columns(3)
    found["train_steps"] = steps.number_input(
        "Training steps", 1, 10**6, start["train_steps"], key=f"train_steps_{stage}"
    )
    found["batch"] = batch.number_input(
        "Batch", 1, 4096, start["batch"], key=f"train_batch_{stage}", help=_help("batch")
    )
    found["accumulation"] = turns.number_input(
        "Accumulation", 1, 4096, 1, key="train_accumulation", help=_help("accumulation")
    )
    rate, warmup, seed = st.columns(3)
    found["learning_rate"] = rate.number_input(
        "Learning rate", 1e-8, 1.0, start["learning_rate"], format="%.1e", step=1e-5, key=f"train_rate_{stage}"
    )
    usual = min(DistillSettings.model_fields["warmup"].default, found["train_steps"] // 4)
    found["warmup"] = warmup.number_input(
        "Warm-up steps", 0, 10**6, usual, key=f"train_warmup_{stage}_{found['train_steps']}", help=_help("warmup")
    )
    found["seed"] = seed.number_input("Seed", 0, 2**31 - 1, 0, key="train_seed")
    if stage == "joint":
        found |= _router(geometry, start)
    if stage == "steps":
        found |= _few_steps()
    else:
        with st.expander("Weights of the losses"):
            found |= _weights(geometry)
    with st.expander("Validation"):
        found |= _validation(geometry, found["train_steps"], samples)
    with st.expander("Memory and averaging"):
        found |= _memory()
    return found


def _weights(geometry: Geometry) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, (name, paper) in zip(st.columns(4), WEIGHTS.items(), strict=True):
        usual = paper[int(geometry.image_to_video)]
        value = column.number_input(
            f"L {name}", 0.0, 1e4, usual, key=f"train_weight_{name}", help=_help(f"{name}_weight")
        )
        # What is the paper's is left out, so that the command says what differs.
        found[f"{name}_weight"] = None if value == usual else value
    return found


def _router(geometry: Geometry, start: dict[str, Any]) -> dict[str, Any]:
    router, rate, share, budget = st.columns([3, 2, 2, 4])
    words = {"learned": "timestep and content", "timestep": "timestep alone", "static": "a static ranking"}
    chosen = router.selectbox("Router decides by", list(words), format_func=words.__getitem__, key="train_router")
    found: dict[str, Any] = {"router": chosen}
    found["router_rate"] = rate.number_input(
        "Router's rate", 1e-8, 1.0, start["router_rate"], format="%.1e", step=1e-4, key="train_router_rate"
    )
    found["router_share"] = share.number_input(
        "… in the first",
        0.01,
        1.0,
        start["router_share"],
        step=0.05,
        key="train_router_share",
        help=_help("router_share"),
    )
    paper, least = BudgetSchedule.paper(geometry.blocks), fewest(geometry.blocks)
    usual = (max(least, round(paper.k_min)), min(geometry.blocks, round(paper.k_max)))
    if least < geometry.blocks:
        low, high = budget.slider(
            "K_min at t = 0 to K_max at t = 1000", least, geometry.blocks, usual, key="train_budget", help="Eq. 8."
        )
        if (low, high) != usual:
            found |= {"k_min": float(low), "k_max": float(high)}
    return found


def _few_steps() -> dict[str, Any]:
    few, paths, regression = st.columns(3)
    usual = {name: DistillSettings.model_fields[name].default for name in ("few_steps", "trajectories")}
    found = {
        "few_steps": few.number_input(
            "Sampler steps", 1, 100, usual["few_steps"], key="train_few", help=_help("few_steps")
        ),
        "trajectories": paths.number_input(
            "Teacher trajectories", 0, 10**6, usual["trajectories"], key="train_paths", help=_help("trajectories")
        ),
    }
    half = regression.number_input("Steps on them", 0, 10**6, None, key="train_regression", placeholder="half of all")
    return found if half is None else found | {"regression_steps": half}


def _validation(geometry: Geometry, train_steps: int, samples: int) -> dict[str, Any]:
    every, held, clips, roles = st.columns(4)
    most = max(0, samples - 1)
    known = {name: _help(name) for name in ("validate_every", "held_out", "clips", "roles")}
    start, still, usual = max(1, train_steps // 4), geometry.image_to_video, min(8, most // 4)
    return {
        # About fifty points on a curve, at most one a step.
        "log_every": max(1, min(DistillSettings.model_fields["log_every"].default, train_steps // 50)),
        "validate_every": every.number_input(
            "Every … steps", 0, 10**6, start, key=f"train_every_{train_steps}", help=known["validate_every"]
        ),
        "held_out": held.number_input("Held-out samples", 0, most, usual, key="train_held", help=known["held_out"]),
        "clips": clips.number_input(
            "Clips", 0, 8, 0 if still else min(2, usual), key="train_clips", disabled=still, help=known["clips"]
        ),
        "roles": roles.number_input(
            "Samples for roles", 0, max(1, samples), min(4, usual), key="train_roles", help=known["roles"]
        ),
    }


def _memory() -> dict[str, Any]:
    ema, save, checkpointing = st.columns([2, 2, 3], vertical_alignment="bottom")
    fields = DistillSettings.model_fields
    return {
        "ema": ema.number_input(
            "EMA", 0.0, 0.99999, fields["ema"].default, format="%.5f", key="train_ema", help=_help("ema")
        ),
        "checkpoint_every": save.number_input(
            "State every … steps", 1, 10**6, fields["checkpoint_every"].default, key="train_save"
        ),
        "checkpointing": checkpointing.toggle(
            "Gradient checkpointing", key="train_checkpointing", help=_help("checkpointing")
        ),
    }


def _importance(stage: str, run: Run | None, model: str, settings: dict[str, Any]) -> str | None:
    """The open run, where it is one of the teacher, for the router's start."""
    if stage != "joint" or run is None or "block/residual_norm" not in run.manifest.statistics:
        return None
    own, theirs = reference.model_identity(model)["config_hash"], run.manifest.model.get("config_hash")
    if own != theirs or not run.complete:
        return None
    begin = st.toggle(
        f"The router begins with the importance of blocks in {run.folder.name}",
        settings["router"] == "static",
        key="train_run",
    )
    return str(run.folder.resolve()) if begin else None


def _help(name: str) -> str | None:
    return DistillSettings.model_fields[name].description


def _last(name: str) -> str:
    """A folder's name without what all of them share.

    >>> _last("workspace/jobs/prune-1/artefacts/student"), _last("captures/mine")
    ('prune-1', 'captures/mine')
    """
    parts = Path(name).parts
    return parts[2] if parts[:2] == ("workspace", "jobs") and len(parts) > 3 else name
