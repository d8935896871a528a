"""The most memory that a call holds on top of what was there before it."""

import os
from collections.abc import Callable
from typing import Any

# torch's profiler announces its start and end on standard error unless told not to.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")


def peak_bytes(call: Callable[[], object], device: Any) -> int:
    """Largest number of bytes that torch's allocator held during the call, less what it held at its start.

    On CUDA this is `max_memory_allocated`. On the CPU torch's profiler reports every allocation and release of the
    allocator, those inside attention kernels included, and the largest running sum is taken: it does not depend on
    load, on other processes or on what the C library keeps for later, as resident memory does. It does not see what
    the matrix library holds outside of torch's allocator, nor Python objects.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((each.start_ns(), each.nbytes()) for each in events if each.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak
