"""What a capture runs: the pipeline itself, or its VAE on a real video, and the transformer on what they gave."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import WanImageToVideoPipeline
from diffusers.utils import load_image
from einops import rearrange
from jaxtyping import Float, UInt8
from PIL import Image

from analysis.film import read_clip


@dataclass(frozen=True, eq=False)
class CleanSample:
    """Clean latents x0 and what conditions the model beside them.

    `condition` holds the channels that follow the noised latents, none for text-to-video; `embeddings` the keyword
    arguments of the transformer's forward.
    """

    clean: Float[torch.Tensor, "1 channels frames height width"]
    condition: Float[torch.Tensor, "1 more frames height width"]
    embeddings: Mapping[str, torch.Tensor]


def generate(
    pipe: Any,
    prompt: str,
    settings: Mapping[str, Any],
    generator: torch.Generator,
    output_type: str,
    step: Callable[[str], None],
) -> Any:
    """Run the pipeline with these settings; `step` is told of every sampler step. What `output_type` names, batch 1.

    `image` and `last_image` of the settings are paths or pictures.
    """

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


def clean_sample(
    pipe: Any,
    prompt: str,
    settings: Mapping[str, Any],
    generator: torch.Generator,
    step: Callable[[str], None],
    video: Path | None = None,
) -> CleanSample:
    """Clean latents that the model generates from the prompt, or those of a video, encoded by its VAE.

    An image-to-video model is conditioned on the video's own first frame (and last one, where it was trained for two);
    images of the settings are for generated latents. `generator` is drawn from once, for the noise of the generation.
    """
    frames = None
    if video is not None:
        frames = read_clip(video, **{name: settings[name] for name in ("height", "width", "frames", "fps")})
        # One step is run for its embeddings only.
        settings = {**settings, "steps": 1, "guidance": 1.0, **_own_images(pipe, frames)}
    with first_inputs(pipe.transformer) as inputs:
        clean = generate(pipe, prompt, settings, generator, "latent", step)
    if frames is not None:
        clean = encode(pipe, frames)
    embeddings = {name: inputs[name] for name in inputs if name.startswith("encoder_hidden_states")}
    kept = {name: value for name, value in embeddings.items() if value is not None}
    return CleanSample(clean, inputs["hidden_states"][:, clean.shape[1] :], kept)


def encode(pipe: Any, frames: UInt8[np.ndarray, "frames height width 3"]) -> torch.Tensor:
    """Video frames as clean latents [1, channels, frames, height, width], normalised as the transformer sees them."""
    vae, device = pipe.vae, pipe._execution_device
    pixels = rearrange(torch.from_numpy(frames), "f h w c -> 1 c f h w").float() / 127.5 - 1
    latents = vae.encode(pixels.to(device, vae.dtype)).latent_dist.mode().float()
    mean, std = (
        torch.tensor(values, device=device)[None, :, None, None, None]
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (latents - mean) / std


def velocity_at(
    transformer: Any, sample: CleanSample, noise: torch.Tensor, timestep: float, *, step: int = 0, batch: int = 1
) -> Float[torch.Tensor, "batch channels frames height width"]:
    """The velocity at x_t = (1 − σ)·x0 + σ·ε, σ = t/1000 (PARE, section 1), conditional branch, `batch` times the same.

    The forward is announced as denoising step `step`.
    """
    sigma = timestep / 1000
    noised = ((1 - sigma) * sample.clean + sigma * noise).to(sample.condition)
    hidden_states = torch.cat([noised, sample.condition], dim=1)
    with transformer.cache_context("cond", step_index=step, sigma=sigma):
        return transformer(
            hidden_states=hidden_states.expand(batch, *hidden_states.shape[1:]),
            timestep=torch.full((batch,), timestep, device=hidden_states.device),
            return_dict=False,
            # Models trained for two images have a row for each.
            **{name: value.repeat(batch, 1, 1) for name, value in sample.embeddings.items()},
        )[0]


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


def _own_images(pipe: Any, frames: np.ndarray) -> dict[str, Image.Image | None]:
    if not isinstance(pipe, WanImageToVideoPipeline):
        return {"image": None, "last_image": None}
    last = pipe.transformer.config.pos_embed_seq_len is not None
    return {"image": Image.fromarray(frames[0]), "last_image": Image.fromarray(frames[-1]) if last else None}
