"""`pare distill`: encode training data, and train a student in PARE's three stages."""

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from pare import cost, reference
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import Clip, Geometry, read_json
from pare.processes import this_process
from pare.progress import Progress, silent
from pare.training.plan import (
    STAGES,
    Setup,
    check_fits,
    check_without_teacher,
    step_flops,
    training_memory,
    trajectory_flops,
)
from pare.versions import versions
from pare.width.budget import Ratios
from workbench.captions import read_captions
from workbench.distill_settings import PAPER_RATES, PAPER_STEPS, DistillSettings
from workbench.plan import BYTES, duration, gibi, tera

SCHEMA = "pare-training/1"
TRAINING, RECORD = "training", "training.json"
DEMO_SAMPLES = 2048
# What may differ between a training and its continuation.
FREE = ("checkpoint_every", "log_every", "validate_every", "clips", "divergence", "device", "dry_run")


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
    for `processes` devices in shards. `validate` (student, step) -> numbers is called beside what `held_out` and `clips` ask
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
    about = _read_data(data, known, geometry, given)
    clip_settings = {name: about["clip"][name] for name in ("height", "width", "frames", "fps")} if about else {}
    asked = given.model_dump(exclude_unset=True)
    filled = DistillSettings.of(**(asked | clip_settings)).filled(model, videos=True)
    chosen = filled.model_copy(
        update={
            "train_steps": filled.train_steps or PAPER_STEPS[stage],
            "learning_rate": filled.learning_rate or PAPER_RATES[stage],
        }
    )
    folder = _student_folder(student, stage, chosen.dry_run)
    kept = _student_counts(folder, geometry, stage, ratio, student)
    if chosen.dry_run:
        return _plan(stage, model, geometry, chosen, kept, processes)
    if data is None:
        raise InputError(
            "--data", got="nothing", expected="encoded samples", fix=f"pare distill data {model} --out DATA"
        )
    return _train(
        stage, model, known, geometry, chosen, kept, folder, Path(data), run, Path(out), resume, validate, progress
    )


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return _render_plan(result)
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
        size = _sample_bytes(geometry, run.clip)
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
    pipe = models.load_pipeline(model, **run.loading)
    encode_data(
        pipe,
        out,
        clips,
        captions,
        settings=settings,
        identity=identity,
        source=source,
        text_tokens=geometry.text_tokens,
        process=this_process(),
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
    validate: Callable[[Any, int], dict[str, Any]] | None,
    progress: Progress,
) -> dict[str, Any]:
    if run.velocities and stage != "steps":
        check_without_teacher(1.0 if run.feature_weight is None else run.feature_weight, run.no_text_share)
    if run.clips and geometry.image_to_video:
        raise InputError("--clips", got=run.clips, expected="0, for an image-to-video model", fix="leave --clips out")
    weights = reference.weights_folder(known)
    importance, run_name = _importance(importance_run, geometry, reference.model_identity(known))
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
        "student": "the teacher's weights" if source is None else _name(source),
        "student_config": None if source is None else _hash(read_json(source / "config.json")),
        "data": {"name": latents.about["source"]["name"], "samples": len(latents), "hash": _hash(latents.about)},
        "run": run_name,
        "settings": run.model_dump(exclude=set(FREE)),
        "processes": parallel.count,
    }
    folder = out / TRAINING
    if parallel.leads:
        _check_target(folder, about, resume)
    setup = _setup(stage, run, parallel.count, parallel.sharded)
    need = training_memory(geometry, run.clip, kept, setup)
    check_fits(need, models.memory_of(device, free=True), setup, str(device))
    if parallel.leads:
        progress(0, 1, f"expecting {gibi(need.total)} of memory a device; loading the models")
    start = time.perf_counter()
    teacher = distill_train.load_teacher(weights, dtype)
    learner, stored = distill_train.load_student(source or weights)
    notes = distill_train.add_router(learner, run, importance) if stage == "joint" else []
    if parallel.leads and not (folder / RECORD).is_file():
        write_bytes(folder / RECORD, json.dumps(about | {"versions": versions()}, indent=1, sort_keys=True).encode())
    parallel.wait()
    few = {"steps": run.few_steps, "guidance": 1.0} if stage == "steps" else None
    checks = [] if validate is None else [validate]
    if run.clips and run.validate_every:
        from workbench.distill_validation import validation_clips

        captions = (latents.captions[len(latents) - run.held_out :] or latents.captions)[: run.clips]
        sampling = run.model_dump() | ({**few, "first_order": True} if few else {})
        pipe = models.load_pipeline(model, **(run.loading | {"device": str(device), "dtype": "float32"}))
        checks.append(validation_clips(pipe, folder, captions, sampling, compute=dtype, writes=parallel.leads))
    learner, step_seconds = distill_train.train_stage(
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
        progress=progress,
    )
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
        "train_steps": run.train_steps,
        "batch": run.batch * run.accumulation * parallel.count,
        "probed_step_seconds": step_seconds * run.accumulation,
        "seconds": time.perf_counter() - start,
        "last": last,
        "notes": notes,
    }


def _check_target(folder: Path, about: Mapping[str, Any], resume: bool) -> None:
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


def _read_data(
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


def _student_folder(student: str | Path | None, stage: str, dry_run: bool) -> Path | None:
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


def _student_counts(
    folder: Path | None, geometry: Geometry, stage: str, ratio: float, student: str | Path | None
) -> dict[str, Any]:
    """How many heads and neurons the student has, as `pare.cost` takes it."""
    from pare import student as students

    if folder is None:
        whole = stage == "joint" and student is None
        return {} if whole and ratio == 0 else dataclasses.asdict(Ratios(ratio=ratio).counts(geometry))
    config = read_json(folder / "config.json")
    own = Geometry.from_config(config)
    if (own.blocks, own.heads, own.head_dim, own.ffn) != (
        geometry.blocks, geometry.heads, geometry.head_dim, geometry.ffn,
    ):  # fmt: skip
        raise InputError(
            "--student", got=f"{_name(folder)}, of other shapes", expected="a student of MODEL", fix="check it"
        )
    return students.cost_arguments(config)


def _importance(
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


def _setup(stage: Any, run: DistillSettings, processes: int, sharded: bool) -> Setup:
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


def _plan(
    stage: Any, model: str, geometry: Geometry, run: DistillSettings, kept: dict[str, Any], processes: int | None
) -> dict[str, Any]:
    dtype = run.dtype if run.dtype != "auto" else "bfloat16" if run.device.startswith("cuda") else "float32"
    run = run.model_copy(update={"dtype": dtype})
    setup = _setup(stage, run, processes or 1, processes is not None and processes > 1)
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


def _render_plan(result: dict[str, Any]) -> str:
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


def _sample_bytes(geometry: Geometry, clip: Clip) -> int:
    """Bytes of one encoded sample at most: half-precision latents and condition, whole texts and images in float32."""
    from pare.geometry import latent_frames

    cells = clip.height // geometry.vae_spatial * (clip.width // geometry.vae_spatial)
    latents = 2 * geometry.in_channels * latent_frames(geometry, clip.frames) * cells
    image = 4 * geometry.image_tokens * (geometry.image_dim or 0)
    return latents + 4 * geometry.text_tokens * geometry.text_dim + image


def _name(folder: Path) -> str:
    return folder.resolve().parent.name if folder.name == "transformer" else folder.resolve().name


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
