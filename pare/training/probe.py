"""One step of a training, run before it starts and thrown away: how long it takes and how much memory it reached."""

import time
from collections.abc import Callable
from typing import Any

import torch

from pare.training.loop import step_generator
from pare.training.parallel import Parallel


def probe_step(
    model: Any,
    loss: Callable[[Any, int, torch.Generator], Any],
    parallel: Parallel,
    device: torch.device,
    seed: int = 0,
    number: int = 0,
) -> tuple[float, int | None]:
    """Seconds of a forward and backward pass of one batch, and on CUDA the peak bytes, without the optimiser's moments and
    the average, which come later; weights and gradients stay as they were.

    All processes call this together, process i with batch `number` + i. The first pass warms up and is not counted on CUDA.
    """
    own = number + parallel.rank
    seconds = 0.0
    for _ in range(2 if device.type == "cuda" else 1):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        with parallel.alone_until(model, True):
            found = loss(model, own, step_generator(seed, own))
            (found[0] if isinstance(found, tuple) else found).backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        model.zero_grad(set_to_none=True)
    return seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
