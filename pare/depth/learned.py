"""The learned router: one small network that scores all blocks from the timestep and the content."""

import math
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Real
from torch import nn

from pare.errors import InputError

CONTENTS = ("latent", "image", "none")
FREQUENCIES, HIDDEN = 256, 512


class LearnedRouter(nn.Module):
    """Scores r = MLP([SinEmb(t); e_c]), three layers with SiLU (PARE, Eq. 9).

    The content e_c is `latent`: mean, spread and spread of the temporal difference of every latent channel, normalised;
    `image`: the class token of the image encoder, of `content_width` values; `none`: a timestep-only router. The last
    layer starts at zero, so that an untrained router ranks by its bias alone (`set_importance`).

    >>> router = LearnedRouter(blocks=8, channels=16)
    >>> router(torch.tensor([500.0]), torch.randn(1, 16, 5, 4, 4)).tolist()
    [[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]]
    """

    on_host = False
    name = "learned"

    def __init__(
        self,
        blocks: int,
        *,
        content: str = "latent",
        channels: int = 16,
        content_width: int = 1280,
        frequencies: int = FREQUENCIES,
        hidden: int = HIDDEN,
    ):
        super().__init__()
        if content not in CONTENTS:
            raise InputError("router content", got=content, expected="latent, image or none", fix="content: latent")
        self.blocks, self.content, self.channels, self.frequencies = blocks, content, channels, frequencies
        width = {"latent": 3 * channels, "image": content_width, "none": 0}[content]
        self.content_norm = nn.LayerNorm(width) if content == "latent" else None
        self.first = nn.Linear(frequencies + width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, blocks)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def set_importance(self, importance: Float[torch.Tensor, "blocks"]) -> None:
        """Start from the standardised importance of blocks (mean 0, spread 1) as the bias of the last layer."""
        values = importance.double()
        if len(values) != self.blocks or not torch.isfinite(values).all():
            raise InputError(
                "importance", got=f"{len(values)} values", expected=f"{self.blocks} finite ones", fix="one per block"
            )
        spread = values.std(correction=0)
        with torch.no_grad():
            self.last.bias.copy_((values - values.mean()) / spread.clamp(min=1e-12))

    def forward(
        self,
        timestep: Real[torch.Tensor, "batch"],
        latents: Float[torch.Tensor, "batch channels frames height width"],
        image: Float[torch.Tensor, "batch image_width"] | None = None,
    ) -> Float[torch.Tensor, "batch blocks"]:
        """Scores [batch, blocks], float32. Raises InputError where the content that it was made for is missing."""
        parts = [sinusoidal(timestep, self.frequencies)]
        if self.content == "latent":
            assert self.content_norm is not None
            statistics = latent_statistics(latents[:, : self.channels])
            parts.append(self.content_norm(statistics.to(self.content_norm.weight.dtype)).float())
        elif self.content == "image":
            if image is None:
                raise InputError(
                    "router",
                    got="no image",
                    expected="the class token it was trained on",
                    fix="an image-to-video model",
                )
            parts.append(image.float())
        values = torch.cat(parts, dim=1).to(self.first.weight.dtype)
        # Scores decide by their order, which a training in autocast should not coarsen.
        with torch.autocast(values.device.type, enabled=False):
            values = nn.functional.silu(self.first(values))
            values = nn.functional.silu(self.second(values))
            return self.last(values).float()

    def settings(self) -> dict[str, Any]:
        """What `LearnedRouter` needs to be made again, less the number of blocks."""
        found: dict[str, Any] = {"content": self.content, "frequencies": self.frequencies}
        found["hidden"] = self.first.out_features
        if self.content == "latent":
            found["channels"] = self.channels
        if self.content == "image":
            found["content_width"] = self.first.in_features - self.frequencies
        return found


def sinusoidal(timestep: Real[torch.Tensor, "batch"], width: int) -> Float[torch.Tensor, "batch width"]:
    """cos and sin of t at width/2 frequencies from 1 down to 1/10000, as diffusion transformers embed t; float32.

    >>> sinusoidal(torch.tensor([0.0]), 4).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
    """
    half = width // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angles = timestep.float()[:, None] * torch.exp(-math.log(10000.0) * exponent)[None]
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


def latent_statistics(
    latents: Float[torch.Tensor, "batch channels frames height width"],
) -> Float[torch.Tensor, "batch 3*channels"]:
    """Per channel: mean, standard deviation, and that of the difference of neighbouring frames (0 for one frame).

    >>> latent_statistics(torch.ones(1, 2, 3, 4, 4)).tolist()
    [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    """
    values = rearrange(latents.float(), "batch channels frames height width -> batch channels frames (height width)")
    flat = values.flatten(2)
    motion = values.diff(dim=2).flatten(2)
    spread = motion.std(dim=2, correction=0) if motion.shape[2] else torch.zeros_like(flat[..., 0])
    return torch.cat([flat.mean(dim=2), flat.std(dim=2, correction=0), spread], dim=1)
