"""Fixed inputs to question a model with: noised clean latents, the velocity they give, and the data loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from analysis.generation import CleanSample, clean_sample, velocity_at
from pare.errors import InputError
from pare.models import set_flow_shift
from pare.progress import Progress, silent


@dataclass(frozen=True, eq=False)
class Probe(CleanSample):
    """One clean sample and the seed of its noise."""

    seed: int


def make_probes(
    pipe: Any,
    prompts: Sequence[str],
    settings: Mapping[str, Any],
    *,
    videos: Sequence[Path] = (),
    progress: Progress = silent,
) -> list[Probe]:
    """One probe per prompt, from latents that the model generates; with `videos`, one per video, encoded by its VAE.

    `settings` is a filled `RunSettings` as a dict; an image-to-video model is conditioned on its `image`, or on each
    video's own first frame. Probe i has seed `settings["seed"] + i`. `progress` is called after every sampler step.
    Raises InputError unless there is one prompt per video (or one for all).
    """
    if not prompts or (videos and len(prompts) not in (1, len(videos))):
        raise InputError("prompts", got=len(prompts), expected="one per video, or one for all", fix="one prompt each")
    number = len(videos) or len(prompts)
    steps = 1 if videos else settings["steps"]
    done = iter(range(1, number * steps + 1))
    probes = []
    own_scheduler = pipe.scheduler
    set_flow_shift(pipe, settings["shift"])
    try:
        for index in range(number):
            seed = settings["seed"] + index
            generator = torch.Generator("cpu").manual_seed(seed)

            def step(message: str, index: int = index) -> None:
                progress(next(done), number * steps, f"sample {index + 1} of {number}, {message}")

            with torch.no_grad():
                video = videos[index] if videos else None
                sample = clean_sample(pipe, prompts[index % len(prompts)], settings, generator, step, video)
            probes.append(Probe(**vars(sample), seed=seed))
    finally:
        pipe.scheduler = own_scheduler
        pipe.maybe_free_model_hooks()
    return probes


def noise_of(probe: Probe, timestep: float) -> Float[torch.Tensor, "1 channels frames height width"]:
    """ε of a probe at a timestep: the same whatever ran before, on every device."""
    state = np.random.SeedSequence([probe.seed % 2**32, round(timestep * 1000)]).generate_state(1)
    generator = torch.Generator("cpu").manual_seed(int(state[0]))
    return torch.randn(probe.clean.shape, generator=generator, dtype=torch.float32).to(probe.clean)


def velocity(
    transformer: Any, probe: Probe, timestep: float, *, step: int = 0, batch: int = 1
) -> Float[torch.Tensor, "batch channels frames height width"]:
    """The velocity at a timestep with the probe's own noise: see `velocity_at`."""
    return velocity_at(transformer, probe, noise_of(probe, timestep), timestep, step=step, batch=batch)


def data_loss(
    transformer: Any, probe: Probe, timestep: float, *, step: int = 0, batch: int = 1
) -> Float[torch.Tensor, "batch"]:
    """The flow-matching loss on clean latents: mean over elements of (v − (ε − x0))² (PARE, Eq. 1), one per sample."""
    found = velocity(transformer, probe, timestep, step=step, batch=batch)
    target = (noise_of(probe, timestep) - probe.clean).to(found.device)
    precise = torch.promote_types(found.dtype, torch.float32)
    return (found.to(precise) - target.to(precise)).square().flatten(1).mean(1)
