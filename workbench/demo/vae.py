"""The demo model's VAE: a small `AutoencoderKLWan` trained on single frames, then on five-frame cuts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from einops import rearrange

from pare.progress import Progress, silent
from pare.training.loop import LoopSettings, train
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DataSettings, VaeSettings


def to_model(video: np.ndarray) -> torch.Tensor:
    """Pixels uint8 [clips, frames, height, width, 3] as the VAE reads them: float [clips, 3, frames, height, width] in -1..1."""
    return torch.from_numpy(rearrange(video, "clips f h w c -> clips c f h w").astype(np.float32) / 127.5 - 1)


def build_vae(settings: VaeSettings) -> AutoencoderKLWan:
    """The untrained VAE, seeded, its posterior narrow from the start; latent statistics are set once it is trained."""
    torch.manual_seed(settings.seed)
    vae = AutoencoderKLWan(
        base_dim=settings.base_dim,
        z_dim=settings.z_dim,
        dim_mult=list(settings.dim_mult),
        num_res_blocks=settings.num_res_blocks,
        attn_scales=[],
        temperal_downsample=list(settings.temperal_downsample),
        patch_size=settings.patch_size,
        in_channels=3 * settings.patch_size**2,
        out_channels=3 * settings.patch_size**2,
        scale_factor_spatial=settings.patch_size * 2 ** len(settings.temperal_downsample),
        scale_factor_temporal=2 ** sum(settings.temperal_downsample),
        latents_mean=[0.0] * settings.z_dim,
        latents_std=[1.0] * settings.z_dim,
    )
    # Noise as large as the untrained means would hide them from the decoder for hundreds of steps.
    torch.nn.init.zeros_(vae.quant_conv.weight.data[settings.z_dim :])
    torch.nn.init.constant_(vae.quant_conv.bias.data[settings.z_dim :], settings.first_log_variance)
    return vae


def vae_loss(
    data: DataSettings, settings: VaeSettings, cuts: Callable[[int], tuple[int, int]]
) -> Callable[[AutoencoderKLWan, int, torch.Generator], torch.Tensor]:
    """Mean absolute error plus squared error plus a small KL term, on cuts of training clips.

    Args: `cuts`: step -> (video frames of a cut, cuts in the batch).
    """

    def loss(vae: AutoencoderKLWan, step: int, generator: torch.Generator) -> torch.Tensor:
        frames, batch = cuts(step)
        seeds = torch.randint(2**31, (batch,), generator=generator).tolist()
        starts = torch.randint(data.frames - frames + 1, (batch,), generator=generator).tolist()
        clips = [draw_clip(data, seed, held_out=False).video for seed in seeds]
        video = to_model(np.stack([clip[start : start + frames] for clip, start in zip(clips, starts, strict=True)]))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = vae.encode(video).latent_dist
            noise = torch.randn(posterior.mean.shape, generator=generator)
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        error = decoded.float() - video
        return error.abs().mean() + error.square().mean() + settings.kl_weight * posterior.kl().mean()

    return loss


def train_vae(data: DataSettings, settings: VaeSettings, folder: Path, progress: Progress = silent) -> AutoencoderKLWan:
    """The trained VAE, resumed from `folder`: images, then short cuts, then whole clips, without which it drifts in long ones."""
    short = LoopSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        warmup=settings.warmup,
        decay_share=settings.decay_share,
        weight_decay=0.0,
        ema=settings.ema,
        seed=settings.seed,
    )
    whole = replace(
        short, steps=settings.whole_steps, learning_rate=settings.whole_learning_rate, seed=settings.seed + 1
    )

    def short_cuts(step: int) -> tuple[int, int]:
        images = step < settings.image_steps
        return (1, settings.image_batch) if images else (settings.frames, settings.batch)

    vae = build_vae(settings)
    train(vae, vae_loss(data, settings, short_cuts), short, folder / "short", progress=progress)
    train(
        vae,
        vae_loss(data, settings, lambda step: (data.frames, settings.whole_batch)),
        whole,
        folder / "whole",
        progress=progress,
    )
    return vae.eval()


@torch.no_grad()
def reconstruction_psnr(vae: AutoencoderKLWan, data: DataSettings, clips: int = 32) -> float:
    """Mean PSNR in dB of encode and decode over whole held-out clips."""
    values = []
    for seed in range(clips):
        video = to_model(draw_clip(data, seed, held_out=True).video[None])
        decoded = vae.decode(vae.encode(video).latent_dist.mode()).sample.clamp(-1, 1)
        values.append(10 * torch.log10(4 / (decoded - video).square().mean()))
    return float(torch.stack(values).mean())
