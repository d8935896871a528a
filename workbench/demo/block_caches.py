"""Caches of steps as the equal-compute baseline of routing: how much they execute, and the threshold for a share."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import FirstBlockCacheConfig, MagCacheConfig

CACHES = ("first block cache", "mag cache")


def cache_config(kind: str, threshold: float, steps: int, ratios: Sequence[float]) -> Any:
    """The cache at this threshold; `ratios` [steps] are those of `magnitude_ratios`, which MagCache needs."""
    if kind == "first block cache":
        return FirstBlockCacheConfig(threshold=threshold)
    return MagCacheConfig(threshold=threshold, num_inference_steps=steps, mag_ratios=list(ratios))


@contextmanager
def cached(transformer: Any, config: Any) -> Iterator[None]:
    """With the cache inside the block (None: without), as it was found afterwards."""
    if config is None:
        yield
        return
    transformer.enable_cache(config)
    try:
        yield
    finally:
        transformer.disable_cache()


@contextmanager
def executions(transformer: Any) -> Iterator[list[int]]:
    """Counts, in a list of one number, how many blocks really ran, whatever routes and caches decided."""
    count = [0]

    def ran(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        count[0] += 1

    handles = [block.ffn.register_forward_pre_hook(ran) for block in transformer.blocks]
    try:
        yield count
    finally:
        for handle in handles:
            handle.remove()


def magnitude_ratios(transformer: Any, generate: Callable[[], object]) -> list[float]:
    """Per step of a dense generation: mean over tokens of ‖r_t‖ / ‖r_(t−1)‖, r what all blocks add; the first is 1.

    Ma et al., MagCache (2025). Branches are averaged.
    """
    before: list[torch.Tensor] = []
    residuals: list[torch.Tensor] = []
    handles = [
        transformer.blocks[0].register_forward_pre_hook(lambda module, args: before.append(args[0])),
        transformer.blocks[-1].register_forward_hook(
            lambda module, args, output: residuals.append((output - before.pop()).float().norm(dim=-1))
        ),
    ]
    timesteps: list[float] = []
    found: list[list[float]] = []
    counting = transformer.register_forward_pre_hook(
        lambda module, args, kwargs: timesteps.append(float(kwargs["timestep"].max())), with_kwargs=True
    )
    try:
        generate()
    finally:
        for handle in (*handles, counting):
            handle.remove()
    per_step = timesteps.count(timesteps[0])
    for index in range(0, len(residuals), per_step):
        now, past = residuals[index : index + per_step], residuals[max(index - per_step, 0) : index]
        ratios = [float((a / b.clamp(min=1e-8)).mean()) for a, b in zip(now, past, strict=True)] if past else [1.0]
        found.append(ratios)
    return [sum(each) / len(each) for each in found]


def threshold_for(
    share: float, executed: Callable[[float], float], *, low: float = 1e-4, high: float = 10.0, rounds: int = 8
) -> tuple[float, float]:
    """(threshold, share executed) nearest to `share` that bisection finds; `executed` falls with the threshold.

    >>> threshold, found = threshold_for(0.5, lambda t: 1 / (1 + t))
    >>> round(threshold, 1), round(found, 1)
    (1.0, 0.5)
    """
    tried: list[tuple[float, float]] = []
    for _ in range(rounds):
        middle = math.sqrt(low * high)
        tried.append((middle, executed(middle)))
        low, high = (middle, high) if tried[-1][1] > share else (low, middle)
    return min(tried, key=lambda each: abs(each[1] - share))
