"""Small trainings: random samples on disk, and settings under which a step takes milliseconds."""

from pathlib import Path
from typing import Any

import torch

from pare.training.data import LatentData, write_samples
from pare.training.loop import LoopSettings
from tests.students import IMAGE_TOKENS, KINDS
from tests.tiny import IMAGE_DIM, LATENT_CHANNELS, TEXT_DIM

CPU = torch.device("cpu")
TEXT_TOKENS = {"t2v": 12, "i2v": 512, "flf2v": 512}


def samples(folder: Path, kind: str = "t2v", count: int = 6, held_out: int = 0) -> LatentData:
    """Random samples for the models of `tests.students`: 3 latent frames of 3 x 2 tokens."""

    def encode(index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        parts = {
            "latents": torch.randn(LATENT_CHANNELS, 3, 6, 4, generator=generator),
            "text": torch.randn(3 + index % 4, TEXT_DIM, generator=generator),
        }
        if KINDS[kind]:
            more = KINDS[kind]["in_channels"] - LATENT_CHANNELS
            images = 2 if kind == "flf2v" else 1
            parts["image"] = torch.randn(images, IMAGE_TOKENS, IMAGE_DIM, generator=generator)
            parts["condition"] = torch.randn(more, 3, 6, 4, generator=generator)
        return parts

    about = {"text_tokens": TEXT_TOKENS[kind], "source": {"name": "random"}}
    write_samples(
        folder, ["a red 7"] * count, encode, about, empty=lambda: torch.full((2, TEXT_DIM), 0.1), shard_samples=4
    )
    return LatentData(folder, held_out=held_out)


def loop(**changes: Any) -> LoopSettings:
    """Six steps of a cosine, logged every step."""
    given = {
        "steps": 6,
        "learning_rate": 1e-3,
        "warmup": 2,
        "checkpoint_every": 2,
        "log_every": 1,
        "schedule": "cosine",
    }
    return LoopSettings(**(given | changes))
