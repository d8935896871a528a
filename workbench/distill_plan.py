"""What a stage will need, before it starts and without weights: memory of a device, work, hours."""

import dataclasses
import math
from typing import Any

from pare import cost
from pare.geometry import Clip, Geometry, latent_frames
from pare.training.plan import FLOAT32, SIGMAS, Setup, grid_of, step_flops, training_memory, trajectory_flops
from workbench.distill_settings import DistillSettings
from workbench.plan import BYTES, encoder_bytes, gibi, tera


def setup_of(stage: Any, model: str, run: DistillSettings, processes: int, sharded: bool) -> Setup:
    """How a stage runs, as `pare.training.plan` counts it."""
    return Setup(
        stage,
        processes=processes,
        sharded=sharded,
        compute_bytes=BYTES[run.dtype],
        checkpointing=run.checkpointing,
        batch=run.batch,
        accumulation=run.accumulation,
        average=run.ema > 0,
        feature_blocks=0 if run.feature_weight == 0 or stage == "steps" else run.feature_blocks,
        teacher=stage == "steps" or not run.velocities or run.held_out > 0 or run.roles > 0,
        guided=stage == "steps" and (run.guidance or 1) > 1,
        regression=regression_share(run) if stage == "steps" else 0.0,
        clips=(encoder_bytes(model) or 0) if run.clips and run.validate_every else None,
    )


def all_trajectories_flops(geometry: Geometry, run: DistillSettings, setup: Setup) -> float:
    """Operations of the teacher for the trajectories that stage III regresses on."""
    assert run.steps is not None
    grid = grid_of(run.steps, run.few_steps)
    return run.trajectories * trajectory_flops(geometry, run.clip, grid, guided=setup.guided)


def regression_share(run: DistillSettings) -> float:
    """The share of stage III's steps that regress on stored trajectories.

    >>> regression_share(DistillSettings(train_steps=10, regression_steps=4, trajectories=2))
    0.4
    """
    assert run.train_steps is not None
    return regression_steps(run) / run.train_steps


def regression_steps(run: DistillSettings) -> int:
    """How many of stage III's steps regress: as asked, else half of them; none without trajectories."""
    assert run.train_steps is not None
    asked = run.train_steps // 2 if run.regression_steps is None else run.regression_steps
    return min(asked, run.train_steps) if run.trajectories else 0


def training_disk(
    stage: Any, geometry: Geometry, run: DistillSettings, kept: dict[str, Any], samples: int | None
) -> dict[str, int]:
    """Bytes that a training writes at most: `student` in float32, `state` (weights, average, AdamW's moments) twice, while one
    replaces the other, and what is stored of the teacher: `trajectories` or `velocities` (of so many samples)."""
    own = cost.parameters(geometry, **kept).total * FLOAT32
    disk = {"student": own, "state": 2 * own * (4 if run.ema else 3)}
    clip = 2 * geometry.out_channels * latent_values(geometry, run.clip)
    if stage == "steps" and run.trajectories:
        disk["trajectories"] = run.trajectories * (run.few_steps + 1) * clip
    elif stage != "steps" and run.velocities:
        disk["velocities"] = run.velocities * (samples or 0) * clip
    return disk


def validation_flops(stage: Any, geometry: Geometry, run: DistillSettings, kept: dict[str, Any]) -> float:
    """Operations of all validations of a training: errors and roles at every noise level, clips by the sampler, the teacher's
    clips and roles once. Decoding is not in it."""
    if not run.validate_every:
        return 0.0
    assert run.train_steps is not None and run.steps is not None
    student, teacher = cost.flops(geometry, run.clip, **kept).total, cost.flops(geometry, run.clip).total
    sampled = run.steps * (2 if (run.guidance or 1) > 1 else 1)
    own = run.few_steps if stage == "steps" else sampled
    each = run.clips * own * student + len(SIGMAS) * (run.held_out * (student + teacher) + run.roles * student)
    once = run.clips * sampled * teacher + len(SIGMAS) * run.roles * teacher
    return math.ceil(run.train_steps / run.validate_every) * each + once


def plan_stage(
    stage: Any,
    model: str,
    geometry: Geometry,
    run: DistillSettings,
    kept: dict[str, Any],
    processes: int | None,
    samples: int | None = None,
) -> dict[str, Any]:
    """The plan of a stage; `processes` devices hold the models in shards, `samples` are those of the data."""
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if run.device.startswith("cuda") else "float32"
    run = run.model_copy(update={"dtype": dtype})
    setup = setup_of(stage, model, run, processes or 1, processes is not None and processes > 1)
    need = training_memory(geometry, run.clip, kept, setup)
    assert run.train_steps is not None and run.steps is not None
    flops = step_flops(geometry, run.clip, kept, setup) * run.train_steps
    if stage == "steps" and run.trajectories:
        flops += all_trajectories_flops(geometry, run, setup) / setup.processes
    disk = training_disk(stage, geometry, run, kept, samples)
    return {
        "dry_run": True,
        "stage": stage,
        "model": model,
        "dtype": dtype,
        "processes": setup.processes,
        "sharded": setup.sharded,
        "clip": dataclasses.asdict(run.clip),
        "teacher_parameters": cost.parameters(geometry).total,
        "student_parameters": cost.parameters(geometry, **kept).total,
        "memory": dataclasses.asdict(need) | {"total": need.total},
        "disk": disk | {"total": sum(disk.values())},
        "flops_per_step": step_flops(geometry, run.clip, kept, setup),
        "flops_per_device": flops,
        "validation_flops": validation_flops(stage, geometry, run, kept),
        "train_steps": run.train_steps,
        "samples_per_step": run.batch * run.accumulation * setup.processes,
        "hours_at_400_tflops": flops / 400e12 / 3600,
        "settings": run.model_dump(),
    }


def render_plan(result: dict[str, Any]) -> str:
    """A plan for people."""
    if result["stage"] == "data":
        return f"plan for {result['model']}: {result['samples']} samples, {gibi(result['bytes'])} (nothing was run)"
    memory, disk, clip = result["memory"], result["disk"], result["clip"]
    parts = ", ".join(
        f"{name} {gibi(size)}" for name, size in memory.items() if name != "total" and (size or name != "clips")
    )
    checks = f", {tera(result['validation_flops'])} in validations" if result["validation_flops"] else ""
    where = f"{result['processes']} devices, models in shards" if result["sharded"] else "one device"
    return "\n".join(
        [
            f"plan for {result['stage']} of {result['model']} on {where}, in {result['dtype']} (nothing was run)",
            f"clip        {clip['height']} x {clip['width']} pixels, {clip['frames']} video frames",
            f"parameters  {result['student_parameters']:,} of {result['teacher_parameters']:,}",
            f"memory      {gibi(memory['total'])} a device: {parts}",
            f"disk        {gibi(disk['total'])} at most: "
            + ", ".join(f"{name} {gibi(size)}" for name, size in disk.items() if name != "total"),
            f"work        {result['train_steps']} steps of {result['samples_per_step']} samples, "
            f"{tera(result['flops_per_step'])} a step and device{checks}",
            f"time        {result['hours_at_400_tflops']:,.1f} h at 400 TFLOP/s a device",
        ]
    )


def sample_bytes(geometry: Geometry, clip: Clip) -> int:
    """Bytes of one encoded sample at most: half-precision latents and condition, whole texts and images in float32."""
    latents = 2 * geometry.in_channels * latent_values(geometry, clip)
    image = 4 * geometry.image_tokens * (geometry.image_dim or 0)
    return latents + 4 * geometry.text_tokens * geometry.text_dim + image


def latent_values(geometry: Geometry, clip: Clip) -> int:
    """Values of one channel of a clip's latents: frames, rows and columns.

    >>> from pare.geometry import PRESETS
    >>> latent_values(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81))
    131040
    """
    cells = clip.height // geometry.vae_spatial * (clip.width // geometry.vae_spatial)
    return latent_frames(geometry, clip.frames) * cells
