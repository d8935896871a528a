"""The training pool of the demo transformer: normalised latents of drawn clips and the text embeddings of every caption."""

import json
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

from pare.files import replacing
from pare.progress import Progress, silent
from workbench.demo.moving_digits import COLOURS, DIRECTIONS, SPEEDS, Factors, draw_clip
from workbench.demo.settings import DataSettings
from workbench.demo.vae import to_model

SHARD_CLIPS = 512


def every_caption() -> list[str]:
    """The caption of every combination of factors, after "" (the unconditional prompt) at index 0.

    >>> len(every_caption())
    1021
    """
    still = [Factors(digit, colour, None, "still") for digit, colour in product(range(10), COLOURS)]
    moving = [
        Factors(digit, colour, direction, speed)
        for digit, colour, direction, speed in product(range(10), COLOURS, DIRECTIONS, SPEEDS[1:])
    ]
    return ["", *(factors.caption for factors in still + moving)]


@torch.no_grad()
def caption_embeddings(
    tokenizer: PreTrainedTokenizerBase, encoder: UMT5EncoderModel, captions: list[str], kept: int
) -> torch.Tensor:
    """Embeddings [captions, kept, dim] as `WanPipeline.encode_prompt` gives them (zeros after the text), cut to `kept` tokens.

    Raises: ValueError when a caption leaves no padding among the kept tokens.
    """
    tokens = tokenizer(captions, padding="max_length", max_length=kept, return_tensors="pt")
    if bool(tokens.attention_mask[:, -1].any()):
        raise ValueError(f"a caption fills all {kept} kept tokens; keep more")
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    return hidden * tokens.attention_mask[..., None]


@torch.no_grad()
def latent_statistics(vae: AutoencoderKLWan, data: DataSettings, clips: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of every latent channel over training clips."""
    videos = (to_model(draw_clip(data, seed, held_out=False).video[None]) for seed in range(clips))
    latents = torch.cat([vae.encode(video).latent_dist.mode() for video in videos]).double()
    return latents.mean((0, 2, 3, 4)).tolist(), latents.std((0, 2, 3, 4)).tolist()


@torch.no_grad()
def encode_normalised(vae: AutoencoderKLWan, videos: np.ndarray) -> torch.Tensor:
    """Normalised latents [clips, channels, frames, height, width] of uint8 videos, as the transformer reads them."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return (vae.encode(to_model(videos)).latent_dist.mode() - mean) / std


def build_pool(
    vae: AutoencoderKLWan, data: DataSettings, clips: int, held_out: bool, folder: Path, progress: Progress = silent
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents float16 [clips, ...] and caption indices [clips] of seeds 0..clips; finished shards are kept and reused."""
    index = {caption: number for number, caption in enumerate(every_caption())}
    name = "held-out" if held_out else "train"
    folder.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, clips, SHARD_CLIPS):
        path = folder / f"{name}-{first:06d}.safetensors"
        if not path.exists():
            drawn = [draw_clip(data, seed, held_out) for seed in range(first, min(first + SHARD_CLIPS, clips))]
            with torch.autocast("cpu", torch.bfloat16):
                parts = [
                    encode_normalised(vae, np.stack([clip.video for clip in drawn[k : k + 8]]))
                    for k in range(0, len(drawn), 8)
                ]
            captions = torch.tensor([index[clip.factors.caption] for clip in drawn])
            with replacing(path) as temporary:
                save_file(
                    {"latents": torch.cat(parts).half(), "captions": captions},
                    str(temporary),
                    metadata={"data": json.dumps(asdict(data))},
                )
        shards.append(load_file(str(path)))
        progress(min(first + SHARD_CLIPS, clips), clips, f"{name} latents")
    return torch.cat([shard["latents"] for shard in shards]), torch.cat([shard["captions"] for shard in shards])
