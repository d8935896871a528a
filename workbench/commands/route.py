"""`pare route`: generate videos with a part of the blocks at every step, and write the decisions as a run."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pare.progress import Progress, silent
from workbench.commands.capture import check_room, read_prompts
from workbench.plan import duration, forwards_per_clip, gibi, plan, render_plan
from workbench.routing import choose_routing, planned_share, routed
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings

# What the map above the lanes of a route needs, and no more: how much every block that ran changed its input.
BLOCK = "block/residual_norm,block/input_norm,block/cosine"


def route(
    model: str,
    *,
    out: str | Path,
    prompts: str | Path | Sequence[str] | None = None,
    samples: int | None = None,
    router: str | Path | None = None,
    k_min: float | None = None,
    k_max: float | None = None,
    share: float | None = None,
    seconds: float | None = None,
    costs: str | Path | None = None,
    run: str | Path | None = None,
    statistics: str = "block",
    max_disk: float = 10.0,
    resume: bool = False,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Generate a video per sample, routed, and write the run `out`: videos, block norms, and `routes.parquet`.

    `prompts` is a file with one prompt a line, or the prompts themselves; `samples` of them are used, from the start
    again where there are fewer. `router`, its budget and `run` are the fields of `RoutingSettings`; without a router a
    student's own decides, else block importance. `statistics` is what is measured beside: `block`, or words of
    `capture`. With `resume` the samples that are missing are made and the run ends with the same bytes.
    `settings` are the fields of `RunSettings`; `load` stands in for `pare.models.load_pipeline`. With `dry_run` only the
    plan is returned. Raises `InputError` for anything that could not work, before the model is loaded.
    """
    from analysis import recording
    from analysis.capture_spec import CaptureSpec, disk_bytes
    from analysis.route_variation import route_variation
    from analysis.routes import route_array
    from analysis.run_writer import check_target
    from pare import models
    from pare.geometry import latent_frames, tokens_per_frame
    from pare.processes import this_process

    filled = RunSettings.of(**settings).filled(model)
    lines = read_prompts(prompts, model)
    recording.check_inputs("trajectory", lines or ([""] if filled.dry_run and samples else []), samples, [])
    words = RoutingSettings.of(
        router=router, k_min=k_min, k_max=k_max, share=share, seconds=seconds, costs=costs, run=run
    )
    # A model without a router of its own, and no word about one, is routed by importance.
    choice = choose_routing(model, words, filled) or choose_routing(model, default_router(model), filled)
    assert choice is not None
    spec = CaptureSpec.parse(BLOCK if statistics == "block" else statistics)
    process = this_process()
    if process.leads:
        check_target(Path(out), resume=resume)
    device = models.check_device(filled.device)
    dtype = models.check_dtype(filled.dtype, device)
    filled = filled.model_copy(update={"device": str(device), "dtype": str(dtype).removeprefix("torch.")})
    geometry, count = models.model_geometry(model), samples or len(lines)
    described = spec.describe(
        geometry,
        steps=filled.steps or 0,
        branches=recording.branches("trajectory", filled.guidance),
        samples=count,
        num_frames=latent_frames(geometry, filled.clip.frames),
        tokens_per_frame=tokens_per_frame(geometry, filled.clip.height, filled.clip.width),
    )
    expected = plan(
        model,
        filled,
        device=str(device),
        forwards=forwards_per_clip(filled),
        clips=count,
        flops_per_second=models.measure_speed(device, dtype),
        disk_bytes=disk_bytes(described, spec.describe_moments(geometry), count),
        share=planned_share(model, choice, filled),
    )
    if filled.dry_run:
        return expected
    identity = models.model_identity(model)
    if process.leads:
        check_room(expected, filled, out, device=device, max_disk=max_disk, warm=load is not None, progress=progress)
    progress(0, 1, "loading the model")
    pipe = (load or models.load_pipeline)(model, **filled.loading)
    start = time.perf_counter()
    manifest = recording.plan(
        pipe,
        model=identity,
        geometry=geometry,
        mode="trajectory",
        settings=filled.model_dump() | {"device": device.type, "routing": choice.about},
        prompts=lines,
        samples=samples,
        spec=spec,
    )
    written = recording.record(
        pipe,
        manifest,
        out,
        resume=resume,
        process=process,
        around=lambda sample: routed(pipe, choice, sample.seed),
        progress=progress,
    )
    if not process.leads:
        return {"run": str(out), "process": process.rank, "processes": process.count}
    result: dict[str, Any] = {
        "run": str(out),
        "model": identity,
        "samples": len(written.finished),
        "steps": len(written.timesteps),
        "blocks": geometry.blocks,
        "routing": choice.about,
        "videos": len(written.videos),
        "bytes": sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file()),
        "seconds": time.perf_counter() - start,
    }
    if choice.router == "none":
        return result | {"mean_blocks": float(geometry.blocks), "variation": None}
    decided = written.routes()
    ran, variation = route_array(decided, "ran"), route_variation(decided)
    return result | {
        "mean_blocks": float(ran.sum(axis=2).mean()),
        "asked": float(decided["asked"].mean()),
        "achieved": float(decided["achieved"].mean()),
        "variation": {name: getattr(variation, name) for name in ("disagreement", "low", "high", "ceiling", "samples")},
    }


def default_router(model: str) -> RoutingSettings:
    """What routes a model where nothing is said: its own router, else block importance."""
    from workbench.routing import own_routing

    return RoutingSettings.of(router="importance" if own_routing(model) is None else "learned")


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return render_plan(result)
    if "process" in result:
        return f"{result['run']}: process {result['process']} of {result['processes']} is done"
    made = (
        f"{result['run']}: {result['samples']} samples x {result['steps']} steps by {result['routing']['router']}, "
        f"{result['mean_blocks']:.2f} of {result['blocks']} blocks a step; {gibi(result['bytes'])} in "
        f"{duration(result['seconds'])}"
    )
    variation = result["variation"]
    if variation is None or variation["samples"] < 2:
        return made
    return (
        f"{made}\ntwo samples at the same step disagree on {variation['disagreement']:.1%} of the blocks "
        f"[{variation['low']:.1%}, {variation['high']:.1%}], n = {variation['samples']} "
        f"(blocks drawn at random: {variation['ceiling']:.1%})"
    )
