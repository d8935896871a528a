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
from workbench.settings import RunSettings


def generate(
    model: str,
    *,
    prompt: str,
    out: str | Path,
    mask: str | Path | None = None,
    progress: Progress = silent,
    load: Callable[..., Any] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Generate one video and write it as an mp4 that carries model, prompt, settings and versions.

    With `mask` the model runs as if what the mask removes gave nothing (`pare.width.masked`): the effect of a cut at the
    dense model's cost. `settings` are the fields of `RunSettings`; `load` stands in for `pare.models.load_pipeline`.
    Progress is reported after every denoising step, and a `Cancelled` raised from it stops there, with nothing written.
    Returns the video's path, the model's identity, the settings and the seconds. With `dry_run` only the plan is
    returned. Raises `InputError` for anything that could not work, before the model is loaded.
    """
    from pare.video import check_video_path, write_video

    if not prompt.strip():
        raise InputError("--prompt", got="nothing", expected="a few words", fix='for example --prompt "a red 7"')
    check_video_path(out)
    run = RunSettings.of(**settings).filled(model)
    chosen = None if mask is None else _read_mask(mask, model)
    images = {name: _read_image(path, name) for name in ("image", "last_image") if (path := getattr(run, name))}

    # Seconds of import, so only once the flags are known to be good.
    import numpy as np
    import torch

    from pare import models
    from pare.width.masked import masked
    from pare.width.surgery import mask_hash

    device = models.check_device(run.device)
    dtype = models.check_dtype(run.dtype, device)
    # What auto came to is part of what made the video.
    run = run.model_copy(update={"device": str(device), "dtype": str(dtype).removeprefix("torch.")})
    if run.dry_run:
        speed = models.measure_speed(device, dtype)
        return plan(model, run, device=str(device), forwards=forwards_per_clip(run), flops_per_second=speed)
    identity = models.model_identity(model)
    steps = run.steps or 0
    progress(0, steps, "loading the model")
    pipe = (load or models.load_pipeline)(model, **run.loading)

    def after_step(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        progress(step + 1, steps, f"step {step + 1} of {steps}")
        return tensors

    progress(0, steps, f"generating {run.frames} video frames")
    start, scheduler = time.perf_counter(), pipe.scheduler
    try:
        models.set_flow_shift(pipe, run.shift or 1.0)
        with nullcontext() if chosen is None else masked(pipe, chosen):
            video = pipe(
                prompt=prompt,
                negative_prompt=run.negative_prompt,
                height=run.height,
                width=run.width,
                num_frames=run.frames,
                num_inference_steps=steps,
                guidance_scale=run.guidance,
                generator=torch.Generator("cpu").manual_seed(run.seed),
                callback_on_step_end=after_step,
                output_type="np",
                **images,
            ).frames[0]
    finally:
        # The pipeline may be shared with the next command, so it is left as it was found, whatever happened.
        pipe.scheduler = scheduler
        pipe.maybe_free_model_hooks()
    seconds = time.perf_counter() - start
    about: dict[str, Any] = {"model": identity, "prompt": prompt, "settings": run.model_dump(exclude={"dry_run"})}
    if mask is not None and chosen is not None:
        about["mask"] = {
            "name": Path(mask).name, "hash": mask_hash(chosen), "settings": chosen.metadata.get("settings"),
        }  # fmt: skip
    frames = np.round(np.clip(video, 0, 1) * 255).astype(np.uint8)
    write_video(frames, out, run.fps or 1.0, {"schema": "pare-video/1", **about, "versions": versions()})
    return {"video": str(out), **about, "seconds": seconds}


def render(result: dict[str, Any]) -> str:
    """The result for people."""
    if result.get("dry_run"):
        return render_plan(result)
    run = result["settings"]
    masked_by = f", masked by {result['mask']['name']}" if "mask" in result else ""
    return (
        f"{result['video']}: {run['frames']} video frames of {run['height']} x {run['width']}, {run['steps']} steps, "
        f"guidance {run['guidance']}, seed {run['seed']}{masked_by}, in {duration(result['seconds'])}"
    )


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
