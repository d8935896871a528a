"""What a stage will need, before it starts and without weights: memory of a device, work, hours."""

import dataclasses
from typing import Any

from pare import cost
from pare.geometry import Clip, Geometry, latent_frames
from pare.training.plan import Setup, step_flops, training_memory, trajectory_flops
from workbench.distill_settings import DistillSettings
from workbench.plan import BYTES, gibi, tera


def setup_of(stage: Any, run: DistillSettings, processes: int, sharded: bool) -> Setup:
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
        teacher=stage == "steps" or not run.velocities or run.held_out > 0,
        guided=stage == "steps" and (run.guidance or 1) > 1,
    )


def plan_stage(
    stage: Any, model: str, geometry: Geometry, run: DistillSettings, kept: dict[str, Any], processes: int | None
) -> dict[str, Any]:
    """The plan of a stage; `processes` devices hold the models in shards."""
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if run.device.startswith("cuda") else "float32"
    run = run.model_copy(update={"dtype": dtype})
    setup = setup_of(stage, run, processes or 1, processes is not None and processes > 1)
    need = training_memory(geometry, run.clip, kept, setup)
    assert run.train_steps is not None and run.steps is not None
    flops = step_flops(geometry, run.clip, kept, setup) * run.train_steps
    if stage == "steps" and run.trajectories:
        flops += (
            trajectory_flops(geometry, run.clip, run.steps, guided=setup.guided) * run.trajectories / setup.processes
        )
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
        "flops_per_step": step_flops(geometry, run.clip, kept, setup),
        "flops_per_device": flops,
        "train_steps": run.train_steps,
        "samples_per_step": run.batch * run.accumulation * setup.processes,
        "hours_at_400_tflops": flops / 400e12 / 3600,
        "settings": run.model_dump(),
    }


def render_plan(result: dict[str, Any]) -> str:
    """A plan for people."""
    if result["stage"] == "data":
        return f"plan for {result['model']}: {result['samples']} samples, {gibi(result['bytes'])} (nothing was run)"
    memory, clip = result["memory"], result["clip"]
    parts = ", ".join(f"{name} {gibi(size)}" for name, size in memory.items() if name != "total")
    where = f"{result['processes']} devices, models in shards" if result["sharded"] else "one device"
    return "\n".join(
        [
            f"plan for {result['stage']} of {result['model']} on {where}, in {result['dtype']} (nothing was run)",
            f"clip        {clip['height']} x {clip['width']} pixels, {clip['frames']} video frames",
            f"parameters  {result['student_parameters']:,} of {result['teacher_parameters']:,}",
            f"memory      {gibi(memory['total'])} a device: {parts}",
            f"work        {result['train_steps']} steps of {result['samples_per_step']} samples, "
            f"{tera(result['flops_per_step'])} a step and device",
            f"time        {result['hours_at_400_tflops']:,.1f} h at 400 TFLOP/s a device",
        ]
    )


def sample_bytes(geometry: Geometry, clip: Clip) -> int:
    """Bytes of one encoded sample at most: half-precision latents and condition, whole texts and images in float32."""
    cells = clip.height // geometry.vae_spatial * (clip.width // geometry.vae_spatial)
    latents = 2 * geometry.in_channels * latent_frames(geometry, clip.frames) * cells
    image = 4 * geometry.image_tokens * (geometry.image_dim or 0)
    return latents + 4 * geometry.text_tokens * geometry.text_dim + image
