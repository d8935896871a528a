"""Tiny students of tiny Wan transformers, and what goes into them; every block keeps other heads and neurons."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from pare.mask import Mask
from pare.transformer import PareWanTransformer3DModel
from pare.width.cut_error import Probe
from pare.width.surgery import prune
from tests.tiny import HEAD_DIM, HEADS, IMAGE_DIM, LATENT_CHANNELS, TEXT_DIM, VAE_TEMPORAL, tiny_transformer

BLOCKS, FFN, IMAGE_TOKENS = 3, 32, 17
IMAGE = {
    "in_channels": 2 * LATENT_CHANNELS + VAE_TEMPORAL,
    "image_dim": IMAGE_DIM,
    "added_kv_proj_dim": HEADS * HEAD_DIM,
}
# Text to video, image to video, first and last frame to video.
KINDS: dict[str, dict[str, Any]] = {
    "t2v": {},
    "i2v": IMAGE,
    "flf2v": {**IMAGE, "pos_embed_seq_len": 2 * IMAGE_TOKENS},
}


def teacher(kind: str, seed: int = 0, **config: Any) -> Any:
    """A stock transformer whose heads differ in scale, as trained ones do, and whose norms have weights of their own."""
    model = tiny_transformer(seed, num_layers=BLOCKS, **(KINDS[kind] | config))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".norm_" in name:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            elif any(f".{layer}." in name for layer in ("to_q", "to_k", "add_k_proj")):
                scale = torch.exp(torch.randn(HEADS, generator=generator)).repeat_interleave(HEAD_DIM)
                parameter.mul_(scale if parameter.ndim == 1 else scale[:, None])
    return model


def random_mask(seed: int = 0, blocks: int = BLOCKS, heads: int = HEADS, ffn: int = FFN) -> Mask:
    """Keeps another number of heads and neurons in every block."""
    draw = np.random.default_rng(seed)

    def rows(units: int, counts: tuple[int, ...]) -> np.ndarray:
        return np.stack([draw.permutation(np.arange(units) < counts[block % len(counts)]) for block in range(blocks)])

    return Mask(rows(heads, (2, 3, 1)), rows(heads, (3, 1, 2)), rows(ffn, (ffn // 2, ffn // 4, 3 * ffn // 4)))


def full_mask(blocks: int = BLOCKS, heads: int = HEADS, ffn: int = FFN) -> Mask:
    """Keeps everything."""
    return Mask(np.ones((blocks, heads), bool), np.ones((blocks, heads), bool), np.ones((blocks, ffn), bool))


def inputs(kind: str, seed: int = 0, batch: int = 1, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments of a forward: 2 latent frames of 3 x 2 tokens, 512 text tokens."""
    generator = torch.Generator().manual_seed(seed)
    config = KINDS[kind]
    channels = config.get("in_channels", LATENT_CHANNELS)
    given: dict[str, Any] = {
        "hidden_states": torch.randn(batch, channels, 2, 6, 4, generator=generator).to(dtype),
        "timestep": torch.tensor([500.0, 900.0, 20.0])[:batch],
        "encoder_hidden_states": torch.randn(batch, 512, TEXT_DIM, generator=generator).to(dtype),
    }
    if config:
        images = batch * (2 if "pos_embed_seq_len" in config else 1)
        given["encoder_hidden_states_image"] = torch.randn(images, IMAGE_TOKENS, IMAGE_DIM, generator=generator).to(
            dtype
        )
    return given


def probe(kind: str, seed: int = 0) -> Probe:
    """The same as the probe of the error of a cut."""
    return Probe(**inputs(kind, seed))


@torch.no_grad()
def velocity(model: Any, given: Mapping[str, Any]) -> torch.Tensor:
    """The model's output."""
    return model(**given, return_dict=False)[0]


def measured_moments(model: Any, given: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The moments of a run of one forward, taken by plain hooks in float64."""
    found: dict[str, list[np.ndarray]] = {}
    with _watching(model, found):
        velocity(model, given)
    return {name: np.stack(rows) for name, rows in found.items()}


def student(kind: str, how: str, seed: int = 0) -> PareWanTransformer3DModel:
    """A student of `teacher(kind)`: `dense` keeps all, `fold`, `exact` and `none` treat the query/key norm so."""
    model = teacher(kind)
    if how == "dense":
        return prune(model, full_mask(), qk_norm="none")
    moments = measured_moments(model, inputs(kind, 7)) if how == "fold" else None
    return prune(model, random_mask(seed), moments, qk_norm=how)  # type: ignore[arg-type]


@contextmanager
def _watching(model: Any, found: dict[str, list[np.ndarray]]) -> Iterator[None]:
    def per_head(values: torch.Tensor) -> torch.Tensor:
        return values.double().reshape(-1, HEADS, HEAD_DIM)

    def square(name: str) -> Any:
        def hook(_module: Any, args: Any) -> None:
            found.setdefault(name, []).append(per_head(args[0]).square().mean((0, 2)).numpy())

        return hook

    def mean(name: str, heads: bool) -> Any:
        def hook(_module: Any, args: Any) -> None:
            values = per_head(args[0]) if heads else args[0].double().flatten(0, -2)
            found.setdefault(name, []).append(values.mean(0).numpy())

        return hook

    handles = []
    for block in model.blocks:
        for part, attention in (("self", block.attn1), ("cross", block.attn2)):
            for name, norm in (("query", "norm_q"), ("key", "norm_k"), ("added_key", "norm_added_k")):
                if (module := getattr(attention, norm, None)) is not None:
                    handles.append(module.register_forward_pre_hook(square(f"{part}/{name}_square")))
            handles.append(attention.to_out[0].register_forward_pre_hook(mean(f"{part}/output", True)))
        handles.append(block.ffn.net[2].register_forward_pre_hook(mean("ffn/activation", False)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
