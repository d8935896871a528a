"""What a capture must not break, checked on a model as it is loaded here: bits, hooks, cost, and the ratio itself."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import torch

from analysis.attention_calls import backend_of
from analysis.brute_force import brute_force_ratio, queries_and_keys
from analysis.capture import CaptureSpec, Recorder, capture
from analysis.places import Places
from pare.geometry import Geometry

Capture: TypeAlias = Callable[..., AbstractContextManager[Recorder]]
Inputs: TypeAlias = Mapping[str, Any]

RATIO = CaptureSpec(("self/ratio",), moments=False)
# What exact ratios may cost from so many tokens on; below, fixed costs rule and the number is shown only.
LIMIT, FROM_TOKENS = 1.05, 8000
# Largest error of a ratio: half precision rounds the logits before they are summed.
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5, torch.bfloat16: 1e-3, torch.float16: 1e-3}
TIMESTEP = 500.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: whether it holds, in words with its numbers, and the numbers."""

    name: str
    ok: bool
    text: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def random_inputs(
    transformer: Any,
    geometry: Geometry,
    latent: tuple[int, int, int],
    device: torch.device | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Keyword arguments of one forward on noise: `latent` is frames, height and width in latent cells.

    `device` is where the forward runs, the weights' own unless given.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    device, dtype = device or next(transformer.parameters()).device, transformer.dtype

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    inputs = {
        "hidden_states": noise(1, geometry.in_channels, *latent),
        "timestep": torch.tensor([TIMESTEP], device=device),
        "encoder_hidden_states": noise(1, geometry.text_tokens, geometry.text_dim),
        "return_dict": False,
    }
    if geometry.image_dim is not None:
        # Models with a position embedding of images take the first and the last one, one row each.
        images = 1 if geometry.pos_embed_tokens is None else geometry.pos_embed_tokens // geometry.image_tokens
        inputs["encoder_hidden_states_image"] = noise(images, geometry.image_tokens, geometry.image_dim)
    return inputs


def check_bits(transformer: Any, inputs: Inputs, measure: Capture = capture) -> Check:
    """Whether the output with everything captured is the output without, bit for bit."""
    plain, again = _forward(transformer, inputs), _forward(transformer, inputs)
    with measure(transformer, CaptureSpec()) as recorder:
        captured = _forward(transformer, inputs)
    differing = int((plain != captured).sum())
    numbers = {
        "values": plain.numel(),
        "differing": differing,
        "largest_difference": float((plain.double() - captured.double()).abs().max()),
        "forwards_measured": len(recorder.take()),
        "repeatable": torch.equal(plain, again),
    }
    if not numbers["repeatable"]:
        return Check(
            "identity", False, "two plain forwards of the same input differ: the model is not repeatable", numbers
        )
    if numbers["forwards_measured"] != 1:
        return Check("identity", False, f"{numbers['forwards_measured']} forwards were measured instead of 1", numbers)
    if not torch.equal(plain, captured):
        text = f"{differing:,} of {plain.numel():,} output values differ, by up to {numbers['largest_difference']:.2g}"
        return Check("identity", False, text, numbers)
    return Check("identity", True, f"output with and without capture: the same {plain.numel():,} values", numbers)


def check_hooks(transformer: Any, inputs: Inputs, measure: Capture = capture) -> Check:
    """Whether nothing stays on the model after a normal end, an exception inside a forward, and Ctrl-C."""
    before = hooks_of(transformer)
    with measure(transformer, CaptureSpec()):
        _forward(transformer, inputs)
    for error in (RuntimeError, KeyboardInterrupt):
        try:
            with measure(transformer, CaptureSpec()), _failing(transformer.blocks[-1], error):
                _forward(transformer, inputs)
        except error:
            pass
    left = sorted(hooks_of(transformer) - before)
    numbers = {"left": len(left), "where": left[:10], "before": len(before)}
    after = "after a normal end, an exception and Ctrl-C"
    if left:
        return Check("hooks", False, f"{len(left)} left {after}, the first on {left[0]}", numbers)
    return Check("hooks", True, f"0 left {after}", numbers)


def check_ratio(transformer: Any, inputs: Inputs, num_frames: int, measure: Capture = capture) -> Check:
    """Whether the captured ratios of all heads are those of a softmax written out in float64, on a short clip."""
    with measure(transformer, RATIO) as recorder:
        _forward(transformer, inputs)
    captured = recorder.take()[0].arrays["self/ratio"][Places(transformer.config).kept["self"]]
    expected = np.concatenate([
        brute_force_ratio(query, key, num_frames).numpy() for query, key in queries_and_keys(transformer, inputs)
    ])  # fmt: skip
    error = float(np.abs(captured - expected).max())
    allowed = TOLERANCE[transformer.dtype]
    tokens = _tokens(transformer, inputs)
    numbers = {
        "heads": expected.size,
        "tokens": tokens,
        "frames": num_frames,
        "largest_error": error,
        "allowed": allowed,
        "smallest": float(expected.min()),
        "largest": float(expected.max()),
    }
    # NaN is not within the tolerance either.
    ok = error <= allowed
    text = (
        f"{expected.size} heads against float64 on {tokens} tokens, {num_frames} frames: off by at most {error:.1e} "
        f"({allowed:.0e} allowed; ratios {expected.min():.3f} to {expected.max():.3f})"
    )
    return Check("ratio", ok, text, numbers)


def check_overhead(
    transformer: Any, inputs: Inputs, *, seconds: float = 20.0, most: int = 15, measure: Capture = capture
) -> Check:
    """Time of a forward with exact ratios, and with everything, over a plain one: medians of forwards taken in turn.

    As many turns as fit into `seconds`, 3 to `most`. It fails where even the lower quartile of the ratios' cost is
    above the limit, which holds from 8,000 tokens on.
    """
    ways = {"plain": None, "ratios": RATIO, "everything": CaptureSpec()}
    # The first turn warms up and is not counted.
    once = [_seconds(transformer, inputs, spec, measure) for spec in ways.values()]
    turns = max(3, min(most, int(seconds / sum(once))))
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(turns):
        for name, spec in ways.items():
            times[name].append(_seconds(transformer, inputs, spec, measure))
    tokens = _tokens(transformer, inputs)
    over = {name: _over(times[name], times["plain"]) for name in ("ratios", "everything")}
    held = tokens >= FROM_TOKENS
    numbers = {
        "n": turns,
        "tokens": tokens,
        "seconds": statistics.median(times["plain"]),
        "ratios_percent": 100 * (statistics.median(over["ratios"]) - 1),
        "everything_percent": 100 * (statistics.median(over["everything"]) - 1),
        "limit_percent": 100 * (LIMIT - 1) if held else None,
    }
    ok = not held or float(np.quantile(over["ratios"], 0.25)) <= LIMIT
    text = (
        f"exact ratios {numbers['ratios_percent']:+.1f} %, everything {numbers['everything_percent']:+.1f} % of a "
        f"forward of {numbers['seconds']:.3g} s (median of {turns}, {tokens:,} tokens; "
        + (f"limit for ratios {LIMIT - 1:.0%})" if held else f"no limit below {FROM_TOKENS:,} tokens)")
    )
    return Check("overhead", ok, text, numbers)


def check_backend(transformer: Any, inputs: Inputs, measure: Capture = capture) -> Check:
    """Which attention backend and kernel run here, and whether the log-sum-exp comes from the forward's own call."""
    backend = backend_of(transformer.blocks[0].attn1.processor).value
    with measure(transformer, RATIO) as recorder:
        for _ in range(2):
            # Where torch's own flags are looked at once per shape, the second forward shows what stays.
            first = recorder.extra_calls
            _forward(transformer, inputs)
    kernels, extra = sorted(recorder.kernels), recorder.extra_calls - first
    numbers = {"backend": backend, "kernels": kernels, "extra_calls_per_forward": extra}
    source = "log-sum-exp from the forward's own call" if not extra else f"{extra} extra attention calls a forward"
    if kernels == ["chunked"]:
        source = "no fused kernel with a log-sum-exp: computed by chunks, a second attention"
    text = f"{backend}, kernel {' and '.join(kernels) or 'none'}; {source}"
    return Check("backend", bool(kernels), text, numbers)


def check_memory(need: int, free: int, device: str) -> Check:
    """Whether what a forward needs, in bytes, is free.

    >>> check_memory(2**29, 2**31, "cpu").text
    'needs 512.0 MiB, 2.0 GiB free on cpu: fits'
    """
    fits = need <= free
    verdict = "fits" if fits else "does not fit; try --offload model, fewer frames or a smaller size"
    text = f"needs {_size(need)}, {_size(free)} free on {device}: {verdict}"
    return Check("memory", fits, text, {"need": need, "free": free})


def hooks_of(model: torch.nn.Module) -> set[str]:
    """Everything that hooks, wraps or watches a forward of the model, one line each."""
    found = {f"torch function mode {number}" for number in range(torch._C._len_torch_function_stack())}
    for name, module in model.named_modules():
        where = name or type(model).__name__
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
            found |= {f"{where} ({kind.strip('_')} {key})" for key in getattr(module, kind)}
        if "forward" in vars(module):
            found.add(f"{where} (own forward)")
        registry = getattr(module, "_diffusers_hook", None)
        if registry is not None:
            found |= {f"{where} (diffusers hook {key})" for key in registry.hooks}
    return found


@contextmanager
def _failing(module: torch.nn.Module, error: type[BaseException]) -> Iterator[None]:
    def fail(*_: Any) -> None:
        raise error("stopped by the check")

    handle = module.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def _forward(transformer: Any, inputs: Inputs) -> torch.Tensor:
    with torch.no_grad(), transformer.cache_context("cond"):
        output: torch.Tensor = transformer(**inputs)[0]
    return output.cpu()


def _seconds(transformer: Any, inputs: Inputs, spec: CaptureSpec | None, measure: Capture) -> float:
    if spec is None:
        start = time.perf_counter()
        # The output comes to the processor's memory, which waits for the device.
        _forward(transformer, inputs)
        return time.perf_counter() - start
    with measure(transformer, spec):
        return _seconds(transformer, inputs, None, measure)


def _over(times: Sequence[float], plain: Sequence[float]) -> list[float]:
    return [mine / theirs for mine, theirs in zip(times, plain, strict=True)]


def _tokens(transformer: Any, inputs: Inputs) -> int:
    cells = inputs["hidden_states"].shape[2:]
    return math.prod(length // size for length, size in zip(cells, transformer.config.patch_size, strict=True))


def _size(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.1f} MiB"
