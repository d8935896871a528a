"""Flow matching for the demo transformer: predict ε − x0 from (1 − σ)·x0 + σ·ε, with the text dropped now and then for guidance."""

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel

from pare.compact_text import CompactTextProcessor
from pare.progress import Progress, silent
from pare.training.loop import LoopSettings, train
from workbench.demo.settings import DemoSettings, FlowSettings


def build_transformer(settings: DemoSettings) -> WanTransformer3DModel:
    """The untrained transformer, seeded; query and key norm weights start high so that heads can become sharp early."""
    shape = asdict(settings.transformer)
    query_key_norm, text_query_key_norm = shape.pop("query_key_norm"), shape.pop("text_query_key_norm")
    torch.manual_seed(settings.flow.seed)
    transformer = WanTransformer3DModel(
        in_channels=settings.vae.z_dim, out_channels=settings.vae.z_dim, text_dim=settings.text.dim, **shape
    )
    for block in transformer.blocks:
        for norm in (block.attn1.norm_q, block.attn1.norm_k):
            torch.nn.init.constant_(norm.weight, query_key_norm)
        for norm in (block.attn2.norm_q, block.attn2.norm_k):
            torch.nn.init.constant_(norm.weight, text_query_key_norm)
    torch.nn.init.zeros_(transformer.proj_out.weight)
    return transformer


def is_block_matrix(name: str) -> bool:
    """Whether a parameter of the transformer is a weight matrix inside a block.

    >>> is_block_matrix("blocks.0.attn1.to_q.weight"), is_block_matrix("blocks.0.attn1.norm_q.weight")
    (True, False)
    """
    return name.startswith("blocks.") and name.endswith(".weight") and "norm" not in name


def shifted_sigma(uniform: torch.Tensor, shift: float) -> torch.Tensor:
    """σ = s·u / (1 + (s − 1)·u), Wan's flow shift.

    >>> shifted_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist()
    [0.0, 0.75, 1.0]
    """
    return shift * uniform / (1 + (shift - 1) * uniform)


def flow_error(
    transformer: WanTransformer3DModel,
    clean: torch.Tensor,
    text: torch.Tensor,
    sigma: torch.Tensor,
    noise: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error of the velocity ε − x0 for every clip [clips] (Eq. 1)."""
    level = sigma.view(-1, 1, 1, 1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = transformer((1 - level) * clean + level * noise, 1000 * sigma, text, return_dict=False)[0]
    return (velocity.float() - (noise - clean)).square().mean((1, 2, 3, 4))


def flow_loss(
    latents: torch.Tensor, captions: torch.Tensor, embeddings: torch.Tensor, settings: FlowSettings
) -> Callable[..., torch.Tensor]:
    """The loss of a step: clips, σ (logit-normal, shifted), noise and dropped texts come from the step's generator."""

    def loss(transformer: WanTransformer3DModel, step: int, generator: torch.Generator) -> torch.Tensor:
        chosen = torch.randint(len(latents), (settings.batch,), generator=generator)
        sigma = shifted_sigma(torch.randn(settings.batch, generator=generator).sigmoid(), settings.shift)
        dropped = torch.rand(settings.batch, generator=generator) < settings.no_text_share
        text = embeddings[torch.where(dropped, 0, captions[chosen])]
        clean = latents[chosen].float()
        return flow_error(transformer, clean, text, sigma, torch.randn(clean.shape, generator=generator)).mean()

    return loss


def held_out_error(
    latents: torch.Tensor, captions: torch.Tensor, embeddings: torch.Tensor, sigmas: tuple[float, ...] = (0.2, 0.5, 0.8)
) -> Callable[[WanTransformer3DModel, int], dict[str, Any]]:
    """A validation that gives the flow error at fixed σ and noise on held-out clips, with n."""

    @torch.no_grad()
    def validate(transformer: WanTransformer3DModel, step: int) -> dict[str, Any]:
        result: dict[str, Any] = {"n": len(latents)}
        for sigma in sigmas:
            generator = torch.Generator().manual_seed(0)
            errors = []
            for clean, caption in zip(latents.float().split(16), captions.split(16), strict=True):
                noise = torch.randn(clean.shape, generator=generator)
                levels = torch.full((len(clean),), sigma)
                errors.append(flow_error(transformer, clean, embeddings[caption], levels, noise))
            result[f"error at sigma {sigma}"] = round(float(torch.cat(errors).mean()), 5)
        return result

    return validate


def train_transformer(
    settings: DemoSettings,
    pool: tuple[torch.Tensor, torch.Tensor],
    held_out: tuple[torch.Tensor, torch.Tensor],
    embeddings: torch.Tensor,
    folder: Path,
    progress: Progress = silent,
) -> WanTransformer3DModel:
    """The trained transformer with averaged weights and diffusers' own attention processor, resumed from `folder`.

    Args: `pool` and `held_out`: latents and caption indices; `embeddings` [captions, kept tokens, dim].
    """
    flow = settings.flow
    transformer = build_transformer(settings)
    stock = dict(transformer.attn_processors)
    transformer.set_attn_processor(CompactTextProcessor(settings.text.text_tokens - flow.kept_text_tokens + 1))
    loop = LoopSettings(
        steps=flow.steps,
        learning_rate=flow.learning_rate,
        warmup=flow.warmup,
        decay_share=flow.decay_share,
        weight_decay=flow.weight_decay,
        ema=flow.ema,
        checkpoint_every=flow.checkpoint_every,
        seed=flow.seed,
        matrix_rate=flow.matrix_rate,
    )
    compiled = flow.compile and shutil.which("c++") is not None
    for block in transformer.blocks if compiled else ():
        block.compile()
    train(
        transformer,
        flow_loss(*pool, embeddings, flow),
        loop,
        folder,
        rates=lambda name: flow.norm_rate if "norm_q" in name or "norm_k" in name else 1.0,
        by_muon=is_block_matrix,
        validate=held_out_error(*held_out, embeddings),
        validate_every=flow.validate_every,
        progress=progress,
    )
    for block in transformer.blocks:
        block._compiled_call_impl = None
    transformer.set_attn_processor(stock)
    return transformer.eval()
