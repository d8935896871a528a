"""`pare capture`: measure every head and block of a model, and write a run."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pare.errors import InputError
from pare.geometry import DEMO
from pare.progress import Progress, silent
from workbench.plan import check_fits, duration, expectation, forwards_per_clip, gibi, plan, render_plan
from workbench.settings import RunSettings

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")
DEMO_PROMPTS = DEMO.parent / "prompts" / "held-out.txt"


def capture(
    model: str,
    *,
    out: str | Path,
    mode: Literal["calibration", "trajectory"] = "calibration",
    prompts: str | Path | Sequence[str] | None = None,
    videos: str | Path | None = None,
    samples: int | None = None,
    statistics: str = "all",
    maps_steps: int = 5,
    max_disk: float = 10.0,
    resume: bool = False,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure a model sample by sample and write the run folder `out`.

    `calibration` measures at 10 timesteps of latents that the model generated (or of `videos`, a folder, encoded by the
    model's own VAE, each conditioned on its own first frame where the model takes one); `trajectory` along real
    generations, both guidance branches apart, and keeps the videos. `prompts` is a file with one prompt a line, or the
    prompts themselves; `samples` of them are used, from the start again where there are fewer. `statistics` are names
    of `analysis.catalogue` with commas between, or `all` (that are cheap), `basic` (ratios, value norms and block
    residuals), `rows`, `maps`, `parts`, `moments`; NAME:N measures it in N of the samples only. Frame maps are kept of
    every sample and `maps_steps` steps unless told otherwise.
    With `resume` the samples that are missing are measured and the run ends with the same bytes.
    Started by `accelerate launch` as several processes, each measures its share of the samples, and the run is the same
    (on a CPU with as many threads each, since matrix products may round differently otherwise).
    `settings` are the fields of `RunSettings`; `load` stands in for `pare.models.load_pipeline`. With `dry_run` only
    the plan is returned; otherwise it is told first, and refused where memory, free disk or `max_disk` GiB are less.
    Raises `InputError` for anything that could not work, before the model is loaded.
    """
    from analysis import recording
    from analysis.capture_spec import CaptureSpec, disk_bytes
    from analysis.importance import run_roles
    from analysis.roles import TAU_S, TAU_T, role_counts
    from analysis.run_writer import check_target
    from pare import models
    from pare.geometry import latent_frames, tokens_per_frame
    from pare.processes import this_process

    run = RunSettings.of(**settings).filled(model, videos=videos is not None)
    lines, films = read_prompts(prompts, model, videos=bool(videos)), _videos(videos)
    # What a capture costs does not depend on what the prompts say.
    planned = [""] if run.dry_run and samples and not films else []
    recording.check_inputs(mode, lines or planned, samples, films)
    spec = CaptureSpec.parse(statistics, maps_steps)
    process = this_process()
    if process.leads:
        # What the others find there may already be what the leading process has just begun.
        check_target(Path(out), resume=resume)
    device = models.device_of(run.device, process)
    dtype = models.check_dtype(run.dtype, device)
    # What auto came to is part of what made the run.
    run = run.model_copy(update={"device": str(device), "dtype": str(dtype).removeprefix("torch.")})
    geometry = models.model_geometry(model)
    count = len(films) or samples or len(lines)
    steps, branches = recording.BINS, recording.branches(mode, run.guidance)
    if mode == "trajectory":
        steps = run.steps or 0
    described = spec.describe(
        geometry,
        steps=steps,
        branches=branches,
        samples=count,
        num_frames=latent_frames(geometry, run.clip.frames),
        tokens_per_frame=tokens_per_frame(geometry, run.clip.height, run.clip.width),
    )
    forwards = forwards_per_clip(run) if mode == "trajectory" else steps + (1 if films else forwards_per_clip(run))
    expected = plan(
        model,
        run,
        device=str(device),
        forwards=forwards,
        clips=count,
        flops_per_second=models.measure_speed(device, dtype),
        disk_bytes=disk_bytes(described, spec.describe_moments(geometry), count),
    )
    if run.dry_run:
        return expected
    identity = models.model_identity(model)
    if process.leads:
        check_room(expected, run, out, device=device, max_disk=max_disk, warm=load is not None, progress=progress)
    progress(0, 1, "loading the model")
    pipe = (load or models.load_pipeline)(model, **run.loading)
    start = time.perf_counter()
    manifest = recording.plan(
        pipe,
        model=identity,
        geometry=geometry,
        mode=mode,
        # Which of several equal devices it was is not part of what made the run.
        settings=run.model_dump() | {"device": device.type},
        prompts=lines,
        samples=samples,
        videos=films,
        spec=spec,
    )
    written = recording.record(pipe, manifest, out, videos=films, resume=resume, process=process, progress=progress)
    if not process.leads:
        return {"run": str(out), "process": process.rank, "processes": process.count}
    return {
        "run": str(out),
        "model": identity,
        "mode": mode,
        "samples": len(written.finished),
        "steps": len(written.timesteps),
        "branches": list(written.branches),
        "blocks": geometry.blocks,
        "heads": geometry.heads,
        "statistics": list(written.statistics),
        "attention": manifest.attention,
        "tau_s": TAU_S,
        "tau_t": TAU_T,
        "roles": role_counts(run_roles(written, TAU_S, TAU_T)) if "self/ratio" in written.statistics else None,
        "uniform_ratio": written.uniform,
        "videos": len(written.videos),
        "bytes": sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file()),
        "seconds": time.perf_counter() - start,
    }


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return render_plan(result)
    measured = (
        f"{result['run']}: {result['samples']} samples x {result['steps']} timesteps, "
        f"{' and '.join(result['branches'])}, {result['blocks']} blocks x {result['heads']} heads; "
        f"{gibi(result['bytes'])} in {duration(result['seconds'])}\n"
        f"attention: {result['attention']['backend']}, log-sum-exp from {result['attention']['log_sum_exp']}"
    )
    if result["roles"] is None:
        return measured
    roles = ", ".join(f"{count} {role}" for role, count in result["roles"].items())
    return (
        f"{measured}\nheads: {roles} (tau_s {result['tau_s']}, tau_t {result['tau_t']}; uniform attention would have "
        f"{result['uniform_ratio']:.3f})"
    )


def check_room(
    expected: dict[str, Any],
    run: RunSettings,
    out: str | Path,
    *,
    device: Any,
    max_disk: float,
    warm: bool,
    progress: Progress,
) -> None:
    """Refuses a plan that this machine cannot hold, and otherwise reports what it expects.

    `warm`: a worker may hold this very model already; then only a model larger than the machine is refused.
    """
    from pare import models

    check_fits(
        expected,
        memory=models.memory_of(device, free=not warm) if run.offload == "none" else None,
        disk=shutil.disk_usage(nearest(Path(out))).free,
        max_disk=max_disk,
    )
    progress(0, 1, f"expecting {expectation(expected)}")


def nearest(path: Path) -> Path:
    """The folder itself or its nearest parent that exists."""
    return next(each for each in (path.resolve(), *path.resolve().parents) if each.exists())


def read_prompts(prompts: str | Path | Sequence[str] | None, model: str, *, videos: bool = False) -> list[str]:
    """The prompts of a file, one a line, or those given; those of the demo model unless given, and none for videos."""
    if prompts is None:
        if videos or model != "demo" or not DEMO_PROMPTS.is_file():
            return []
        prompts = DEMO_PROMPTS
    if not isinstance(prompts, str | Path):
        return [line.strip() for line in prompts if line.strip()]
    path = Path(prompts).expanduser()
    if not path.is_file():
        raise InputError("--prompts", got=f"{prompts}, no such file", expected="a text file", fix="one prompt per line")
    try:
        lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise InputError(
            "--prompts", got=f"{prompts}, not UTF-8", expected="a text file", fix="save as UTF-8"
        ) from error
    if not lines:
        raise InputError("--prompts", got=f"{prompts}, an empty file", expected="one prompt per line", fix="add some")
    return lines


def _videos(folder: str | Path | None) -> list[Path]:
    if folder is None:
        return []
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(
            "--videos", got=f"{folder}, no such folder", expected="a folder of videos", fix="check the path"
        )
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in VIDEOS)
    if not found:
        raise InputError(
            "--videos", got=f"{folder}, no video in it", expected=f"files {', '.join(VIDEOS)}", fix="add some"
        )
    return found
