"""`pare distill`: encode training data, and train a student in PARE's three stages."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from pare import reference
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import Geometry, read_json
from pare.processes import this_process
from pare.progress import Progress, silent
from pare.training.plan import (
    STAGES,
    check_fits,
    check_without_teacher,
    step_flops,
    training_memory,
)
from pare.versions import versions
from workbench.captions import read_captions
from workbench.distill_inputs import (
    RECORD,
    TRAINING,
    block_importance,
    check_target,
    hash_of,
    name_of,
    read_data,
    samples_of,
    settle,
    student_counts,
    student_folder,
)
from workbench.distill_plan import all_trajectories_flops, plan_stage, render_plan, sample_bytes, setup_of
from workbench.distill_settings import DistillSettings
from workbench.plan import duration, gibi

SCHEMA = "pare-training/1"
DEMO_SAMPLES = 2048
# What may differ between a training and its continuation.
FREE = ("checkpoint_every", "log_every", "validate_every", "clips", "roles", "divergence", "device", "dry_run")


def distill(
    stage: str,
    model: str,
    *,
    out: str | Path,
    data: str | Path | None = None,
    student: str | Path | None = None,
    run: str | Path | None = None,
    videos: str | Path | None = None,
    samples: int | None = None,
    ratio: float = 0.3,
    processes: int | None = None,
    resume: bool = False,
    probe: bool = False,
    device: str = "auto",
    validate: Callable[[Any, int], dict[str, Any]] | None = None,
    progress: Progress = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Encode training data (`data`), or train a student of `model` in a stage: `width`, `joint` or `steps`.

    `data` writes the latents and embeddings of `videos`, a folder with captions, into `out` (of the demo model, without
    videos, of `samples` drawn clips). The others train `student`, a folder that `pare prune` or an earlier stage wrote
    (joint without one: the teacher's own weights), on the samples of `data`, and write it to `out` as a diffusers folder;
    `out/training` holds the state, `log.jsonl` and TensorBoard's files, and `resume` goes on from there with the weights
    of an uninterrupted training. `run` gives `joint` the importance of blocks that its router begins with. `settings` are
    the fields of `DistillSettings`. Before it starts, memory and time are told, and what cannot fit is refused. With
    `dry_run` only that is returned; no weights are needed, so that presets do, with the student that `ratio` would leave,
    for `processes` devices in shards. With `probe` one batch runs, forward and backward, to tell what a step takes here, and
    nothing is trained or written. `validate` (student, step) -> numbers is called beside what `held_out` and `clips` ask
    for, every `validate_every` steps. Launched by accelerate, processes train together. Raises `InputError` for anything
    that could not work, before the models are loaded.
    """
    if stage not in (*STAGES, "data"):
        raise InputError("stage", got=stage, expected=f"one of data, {', '.join(STAGES)}", fix="pare distill width …")
    given = DistillSettings.of(**settings, device=device)
    known = reference.resolve(model)
    geometry = reference.model_geometry(known)
    if stage == "data":
        return _encode(model, given.filled(model, videos=True), Path(out), videos, samples, progress)
    if reference.cost_arguments(known):
        raise InputError(
            "MODEL", got=f"{model}, a pruned model", expected="the teacher", fix="--student for the student"
        )
    if processes is not None and not given.dry_run:
        raise InputError("--processes", got=processes, expected="a --dry-run", fix="accelerate launch decides it")
    about = read_data(data, known, geometry, given)
    chosen = settle(stage, model, given, about)
    folder = student_folder(student, stage, chosen.dry_run)
    kept = student_counts(folder, geometry, stage, ratio, student)
    if chosen.dry_run:
        return plan_stage(stage, model, geometry, chosen, kept, processes, samples_of(about))
    if data is None:
        raise InputError(
            "--data", got="nothing", expected="encoded samples", fix=f"pare distill data {model} --out DATA"
        )
    inputs = (kept, folder, Path(data), run)
    return _train(stage, model, known, geometry, chosen, *inputs, Path(out), resume, probe, validate, progress)


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return render_plan(result)
    if result.get("probe"):
        peak = (
            ""
            if result["peak_bytes"] is None
            else f", {gibi(result['peak_bytes'])} of memory at its peak before the optimiser's moments"
        )
        steps = f"{result['train_steps']} steps about {duration(result['total_seconds'])}"
        return f"a step takes {duration(result['step_seconds'])}{peak}; {steps} (nothing was trained)"
    if result["stage"] == "data":
        return f"{result['data']}: {result['samples']} samples, {gibi(result['bytes'])}"
    if "student" not in result:
        return f"process {result['process']} of {result['processes']}: done"
    return "\n".join(
        [
            f"{result['student']}: {result['parameters']:,} parameters, {gibi(result['weight_bytes'])}, "
            f"{result['train_steps']} steps in {duration(result['seconds'])}",
            *result["notes"],
            *(f"{name}: {value:.6g}" for name, value in result["last"].items() if isinstance(value, int | float)),
        ]
    )


def _encode(
    model: str, run: DistillSettings, out: Path, videos: str | Path | None, samples: int | None, progress: Progress
) -> dict[str, Any]:
    if videos is None and model != "demo" and not (run.dry_run and samples):
        raise InputError("--videos", got="nothing", expected="a folder of videos with captions", fix="--videos FOLDER")
    pairs = None if videos is None else read_captions(videos)[:samples]
    count = samples or DEMO_SAMPLES if pairs is None else len(pairs)
    geometry = reference.model_geometry(model)
    if run.dry_run:
        size = sample_bytes(geometry, run.clip)
        return {"dry_run": True, "stage": "data", "model": model, "samples": count, "bytes": count * size}
    from pare import models
    from workbench.distill_data import demo_clips, encode_data, video_clips

    identity, settings = models.model_identity(model), run.model_dump()
    if pairs is None:
        clips, captions = demo_clips(count, settings)
        source: dict[str, Any] = {"name": "moving digits", "samples": count}
    else:
        clips, captions = video_clips([video for video, _ in pairs], settings), [caption for _, caption in pairs]
        source = {"name": Path(str(videos)).resolve().name, "files": [video.name for video, _ in pairs]}
    progress(0, count, "loading the model")
    process = this_process()
    device = models.device_of(run.device, process)
    pipe = models.load_pipeline(model, **(run.loading | {"device": str(device)}), transformer=False)
    encode_data(
        pipe,
        out,
        clips,
        captions,
        settings=settings,
        identity=identity,
        source=source,
        geometry=geometry,
        process=process,
        progress=progress,
    )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"stage": "data", "data": str(out), "model": identity, "samples": count, "bytes": size}


def _train(
    stage: Any,
    model: str,
    known: reference.ModelRef,
    geometry: Geometry,
    run: DistillSettings,
    kept: dict[str, Any],
    source: Path | None,
    data: Path,
    importance_run: str | Path | None,
    out: Path,
    resume: bool,
    probe: bool,
    validate: Callable[[Any, int], dict[str, Any]] | None,
    progress: Progress,
) -> dict[str, Any]:
    if run.velocities and stage != "steps":
        check_without_teacher(1.0 if run.feature_weight is None else run.feature_weight, run.no_text_share)
    if run.clips and geometry.image_to_video:
        raise InputError("--clips", got=run.clips, expected="0, for an image-to-video model", fix="leave --clips out")
    weights = reference.weights_folder(known)
    importance, run_name = block_importance(importance_run, geometry, reference.model_identity(known))
    process = this_process()

    # Seconds of import, so only once the words are known to be good.
    from accelerate import Accelerator, InitProcessGroupKwargs

    from pare import models
    from pare.training.data import LatentData
    from pare.training.parallel import Parallel
    from workbench import distill_save, distill_train

    device = models.check_device(run.device)
    launched = process.count > 1 or os.environ.get("ACCELERATE_USE_FSDP") == "true"
    parallel = Parallel()
    if launched:
        # One process may have a trajectory more to sample than another, which takes minutes at 14B.
        patient = InitProcessGroupKwargs(timeout=timedelta(hours=12))
        parallel = Parallel(Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=[patient]))
    if launched:
        device = parallel.accelerator.device
    dtype = models.check_dtype(run.dtype, device)
    run = run.model_copy(update={"dtype": str(dtype).removeprefix("torch.")})
    identity = reference.model_identity(known)
    latents = LatentData(data, held_out=run.held_out)
    about = {
        "schema": SCHEMA,
        "stage": stage,
        "model": identity,
        "student": "the teacher's weights" if source is None else name_of(source),
        "student_config": None if source is None else hash_of(read_json(source / "config.json")),
        "data": {"name": latents.about["source"]["name"], "samples": len(latents), "hash": hash_of(latents.about)},
        "run": run_name,
        "settings": run.model_dump(exclude=set(FREE)),
        "processes": parallel.count,
    }
    folder = out / TRAINING
    if parallel.leads and not probe:
        check_target(folder, about, resume)
    setup = setup_of(stage, model, run, parallel.count, parallel.sharded)
    need = training_memory(geometry, run.clip, kept, setup)
    check_fits(need, models.memory_of(device, free=True), setup, str(device))
    if parallel.leads:
        progress(0, 1, f"expecting {gibi(need.total)} of memory a device; loading the models")
    start = time.perf_counter()
    teacher = distill_train.load_teacher(weights, dtype)
    learner, stored = distill_train.load_student(source or weights)
    notes = distill_train.add_router(learner, run, importance) if stage == "joint" else []
    if parallel.leads and not probe and not (folder / RECORD).is_file():
        write_bytes(folder / RECORD, json.dumps(about | {"versions": versions()}, indent=1, sort_keys=True).encode())
    parallel.wait()
    few = {"steps": run.few_steps, "guidance": 1.0} if stage == "steps" else None
    checks = [] if validate is None else [validate]
    if run.clips and run.validate_every and not probe:
        from workbench.distill_validation import validation_clips

        captions = latents.captions[len(latents) - run.held_out :][: run.clips]
        sampling = run.model_dump() | ({**few, "first_order": True} if few else {})
        pipe = models.load_pipeline(model, **(run.loading | {"device": str(device)}))
        checks.append(
            validation_clips(
                pipe,
                folder,
                captions,
                sampling,
                teacher_settings=run.model_dump(),
                compute=dtype,
                writes=parallel.leads,
                report=distill_train.reporting(progress, run),
            )
        )
    with distill_train.shortened_text(teacher, learner, device=device, parallel=parallel):
        learner, batch_seconds, peak = distill_train.train_stage(
            stage,
            teacher,
            learner,
            latents,
            run,
            folder,
            parallel=parallel,
            process=process,
            device=device,
            about={"model": identity, "data": about["data"]},
            validate=checks,
            probe_only=probe,
            progress=progress,
        )
    # What a later plan takes its time from; a probe alone has no trajectories to regress on.
    timed = replace(setup, regression=0.0) if probe else setup
    step_seconds, flops_per_step = batch_seconds * run.accumulation, step_flops(geometry, run.clip, kept, timed)
    probed = {
        "step_seconds": step_seconds,
        "flops_per_step": flops_per_step,
        "peak_bytes": peak,
        "train_steps": run.train_steps,
    }
    if probe:
        assert run.train_steps is not None
        whole = run.train_steps * step_flops(geometry, run.clip, kept, setup)
        if stage == "steps":
            whole += all_trajectories_flops(geometry, run, setup) / parallel.count
        probed["total_seconds"] = step_seconds * whole / flops_per_step
    if probe:
        return {"stage": stage, "probe": True, "model": identity, **probed}
    base = source.parent if source is not None and (source.parent / "model_index.json").is_file() else known.path
    size = distill_save.save_student(
        learner,
        out,
        dtype=stored,
        base=base,
        about=about | {"versions": versions()},
        parallel=parallel,
        defaults=few,
    )
    if not parallel.leads:
        return {"stage": stage, "process": parallel.rank, "processes": parallel.count}
    from pare.training.loop import read_log

    last = [record for record in read_log(folder) if "loss" in record][-1]
    return {
        "stage": stage,
        "student": str(out),
        "model": identity,
        "parameters": sum(each.numel() for each in learner.parameters()),
        "weight_bytes": size,
        **probed,
        "batch": run.batch * run.accumulation * parallel.count,
        "seconds": time.perf_counter() - start,
        "last": last,
        "notes": notes,
    }
