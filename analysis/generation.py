"""What a capture runs: the pipeline itself, or its VAE on a real video, and what the transformer was handed."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import load_image

from pare.errors import InputError
from pare.video import read_video


def generate(
    pipe: Any,
    prompt: str,
    settings: Mapping[str, Any],
    generator: torch.Generator,
    output_type: str,
    step: Callable[[str], None],
) -> Any:
    """Run the pipeline with these settings; `step` is told of every sampler step. What `output_type` names, batch 1."""

    def report(pipe: Any, number: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        step(f"step {number + 1} of {settings['steps']}")
        return values

    images = {name: load_image(settings[name]) for name in ("image", "last_image") if settings.get(name)}
    return pipe(
        prompt=prompt,
        negative_prompt=settings.get("negative_prompt"),
        height=settings["height"],
        width=settings["width"],
        num_frames=settings["frames"],
        num_inference_steps=settings["steps"],
        guidance_scale=settings["guidance"],
        generator=generator,
        output_type=output_type,
        callback_on_step_end=report,
        **images,
    ).frames


def encode(pipe: Any, path: Path, clip: Mapping[str, Any]) -> torch.Tensor:
    """A video as clean latents [1, channels, frames, height, width], normalised as the transformer sees them."""
    frames, _, _ = read_video(path)
    if len(frames) < clip["frames"]:
        raise InputError(
            str(path),
            got=f"{len(frames)} video frames",
            expected=f"at least {clip['frames']}",
            fix="longer videos or a smaller --frames",
        )
    pixels = torch.from_numpy(frames[: clip["frames"]]).permute(0, 3, 1, 2).float() / 127.5 - 1
    pixels = torch.nn.functional.interpolate(pixels, (clip["height"], clip["width"]), mode="bilinear", antialias=True)
    vae, device = pipe.vae, pipe._execution_device
    latents = vae.encode(pixels.transpose(0, 1)[None].to(device, vae.dtype)).latent_dist.mode().float()
    mean, std = (
        torch.tensor(values, device=device)[None, :, None, None, None]
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents - mean) / std


@contextmanager
def first_inputs(transformer: torch.nn.Module) -> Iterator[dict[str, Any]]:
    """What the pipeline hands to the transformer first (the conditional branch): embeddings, image condition."""
    seen: dict[str, Any] = {}

    def look(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.update(kwargs)

    handle = transformer.register_forward_pre_hook(look, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()
