"""`pare generate`: one video from a prompt, with everything that made it written inside."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pare import mask as masks
from pare import reference
from pare.errors import InputError
from pare.progress import Progress, silent
from pare.versions import versions
from workbench.plan import duration, forwards_per_clip, plan, render_plan
from workbench.routing import choose_routing, planned_share, routed, summary
from workbench.routing_settings import RoutingSettings
from workbench.settings import RunSettings


def generate(
    model: str,
    *,
    prompt: str,
    out: str | Path,
    mask: str | Path | None = None,
    router: str | Path | None = None,
    k_min: float | None = None,
    k_max: float | None = None,
    share: float | None = None,
    seconds: float | None = None,
    costs: str | Path | None = None,
    run: str | Path | None = None,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Generate one video and write it as an mp4 that carries model, prompt, settings and versions.

    With `mask` the model runs as if what the mask removes gave nothing (`pare.width.masked`): the effect of a cut at the
    dense model's cost. `router`, its budget and `run` are the fields of `RoutingSettings`: a part of the blocks runs at
    every step; a student with a router of its own is routed without them, `none` runs all blocks. `settings` are the
    fields of `RunSettings`; `load` stands in for `pare.models.load_pipeline`. Progress is reported after every denoising
    step, and a `Cancelled` raised from it stops there, with nothing written. Returns the video's path, the model's
    identity, the settings and the seconds, and what was decided. With `dry_run` only the plan is returned. Raises
    `InputError` for anything that could not work, before the model is loaded.
    """
    from pare.video import check_video_path, write_video

    if not prompt.strip():
        raise InputError("--prompt", got="nothing", expected="a few words", fix='for example --prompt "a red 7"')
    check_video_path(out)
    filled = RunSettings.of(**settings).filled(model)
    words = RoutingSettings.of(
        router=router, k_min=k_min, k_max=k_max, share=share, seconds=seconds, costs=costs, run=run
    )
    routing = choose_routing(model, words, filled)
    chosen = None if mask is None else _read_mask(mask, model)
    images = {name: _read_image(path, name) for name in ("image", "last_image") if (path := getattr(filled, name))}

    # Seconds of import, so only once the flags are known to be good.
    import numpy as np
    import torch

    from pare import models
    from pare.width.masked import masked
    from pare.width.surgery import mask_hash

    device = models.check_device(filled.device)
    dtype = models.check_dtype(filled.dtype, device)
    # What auto came to is part of what made the video.
    filled = filled.model_copy(update={"device": str(device), "dtype": str(dtype).removeprefix("torch.")})
    if filled.dry_run:
        speed = models.measure_speed(device, dtype)
        forwards, part = forwards_per_clip(filled), planned_share(model, routing, filled)
        return plan(model, filled, device=str(device), forwards=forwards, flops_per_second=speed, share=part)
    identity = models.model_identity(model)
    steps = filled.steps or 0
    progress(0, steps, "loading the model")
    pipe = (load or models.load_pipeline)(model, **filled.loading)

    def after_step(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress(step + 1, steps, f"step {step + 1} of {steps}")
        return tensors

    progress(0, steps, f"generating {filled.frames} video frames")
    start, scheduler = time.perf_counter(), pipe.scheduler
    try:
        models.set_flow_shift(pipe, filled.shift or 1.0)
        with routed(pipe, routing, filled.seed), nullcontext() if chosen is None else masked(pipe, chosen):
            video = pipe(
                prompt=prompt,
                negative_prompt=filled.negative_prompt,
                height=filled.height,
                width=filled.width,
                num_frames=filled.frames,
                num_inference_steps=steps,
                guidance_scale=filled.guidance,
                generator=torch.Generator("cpu").manual_seed(filled.seed),
                callback_on_step_end=after_step,
                output_type="np",
                **images,
            ).frames[0]
            decided = summary(pipe, routing)
    finally:
        # The pipeline may be shared with the next command, so it is left as it was found, whatever happened.
        pipe.scheduler = scheduler
        pipe.maybe_free_model_hooks()
    elapsed = time.perf_counter() - start
    about: dict[str, Any] = {"model": identity, "prompt": prompt, "settings": filled.model_dump(exclude={"dry_run"})}
    if mask is not None and chosen is not None:
        about["mask"] = {
            "name": Path(mask).name, "hash": mask_hash(chosen), "settings": chosen.metadata.get("settings"),
        }  # fmt: skip
    if decided is not None:
        # How long the router took belongs to the result, not to what made the video.
        about["routing"] = {name: value for name, value in decided.items() if name != "router_milliseconds"}
    frames = np.round(np.clip(video, 0, 1) * 255).astype(np.uint8)
    write_video(frames, out, filled.fps or 1.0, {"schema": "pare-video/1", **about, "versions": versions()})
    if decided is not None:
        about["routing"] = decided
    return {"video": str(out), **about, "seconds": elapsed}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return render_plan(result)
    run = result["settings"]
    masked_by = f", masked by {result['mask']['name']}" if "mask" in result else ""
    how = masked_by + _routed_by(result.get("routing"))
    return (
        f"{result['video']}: {run['frames']} video frames of {run['height']} x {run['width']}, {run['steps']} steps, "
        f"guidance {run['guidance']}, seed {run['seed']}{how}, in {duration(result['seconds'])}"
    )


def _routed_by(routing: dict[str, Any] | None) -> str:
    if routing is None or "mean_blocks" not in routing:
        return ""
    return f", {routing['mean_blocks']:.1f} of {routing['blocks']} blocks a step by {routing['router']}"


def _read_mask(path: str | Path, model: str) -> masks.Mask:
    known = reference.resolve(model)
    chosen = masks.load(path)
    masks.check(chosen, reference.model_geometry(known), reference.model_identity(known))
    return chosen


def _read_image(path: str, name: str) -> Any:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(Path(path).expanduser()) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(
            "--" + name.replace("_", "-"),
            got=f"{path}, which cannot be read",
            expected="an image file",
            fix="use PNG or JPEG",
        ) from error
