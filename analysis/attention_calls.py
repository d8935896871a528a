"""The attention calls inside a model's attention modules: by which backend they run, and their log-sum-exp beside them.

The log-sum-exp comes from the kernel that the forward itself uses. Where the form of that kernel which returns it gives
other output bits, or cannot be differentiated through, the model keeps its own call and capture pays for a second one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry, dispatch_attention_fn
from einops import rearrange
from torch.nn.functional import scaled_dot_product_attention

from analysis.attention import Attention, chunked_log_sum_exp, fused_kernel, run_kernel

OWN_CALL = "the forward's own call"
SECOND_CALL = "a second call: the kernel that gives it has other output bits than the forward's own"
NATIVE_CALL = "one extra native call per attention module"
CHUNKS = "a second computation in chunks, since no fused kernel takes these tensors"


@dataclass(frozen=True)
class AttentionCall:
    """One call: tensors [batch, heads, tokens, head_dim], and `own`, which computes what the model itself would."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float | None
    plain: bool
    xformers: bool
    own: Callable[[], torch.Tensor]


def attention_call(function: Callable[..., torch.Tensor], xformers: bool, *args: Any, **kwargs: Any) -> AttentionCall:
    """What `scaled_dot_product_attention` was called with; with `xformers` it stands for a call of that backend."""
    query, key, value, mask, dropout, causal, scale = _arguments(*args, **kwargs)
    plain = mask is None and dropout == 0.0 and not causal
    if xformers:

        def own() -> torch.Tensor:
            tensors = (rearrange(each, "b h t d -> b t h d") for each in (query, key, value))
            output = dispatch_attention_fn(
                *tensors, mask, dropout, causal, scale, backend=AttentionBackendName.XFORMERS
            )
            return rearrange(output, "b t h d -> b h t d")

        return AttentionCall(query, key, value, scale, plain, True, own)
    device = query.device.type
    if torch.is_autocast_enabled(device) and query.dtype != torch.float64:
        # Autocast would cast inside the call that the kernel takes the place of.
        query, key, value = (each.to(torch.get_autocast_dtype(device)) for each in (query, key, value))
    return AttentionCall(query, key, value, scale, plain, False, lambda: function(*args, **kwargs))


class LogSumExps:
    """Runs self-attention calls together with their log-sum-exp; counts the calls that the model did not ask for."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()
        self.extra_calls = 0
        self._same: dict[tuple[Any, ...], bool] = {}

    def attend(self, call: AttentionCall) -> Attention:
        """Output, the model's own bits, and log-sum-exp [batch, heads, queries] of all keys."""
        query, key, value, scale = call.query, call.key, call.value, call.scale
        kernel = "xformers" if call.xformers else fused_kernel(query, key, value, scale)
        self.kernels.add(kernel or "chunked")
        if kernel is None:
            with torch.no_grad():
                return Attention(call.own(), chunked_log_sum_exp(query, key, scale))
        graph = torch.is_grad_enabled() and any(each.requires_grad for each in (query, key, value))
        if kernel == "xformers" and graph:
            # Its form that returns the log-sum-exp keeps no graph.
            self.extra_calls += 1
            with torch.no_grad():
                lse = run_kernel(kernel, query, key, value, scale).log_sum_exp
            return Attention(call.own(), lse)
        found = run_kernel(kernel, query, key, value, scale)
        if kernel == "flash_cpu":
            # torch calls this very operator.
            return found
        # Elsewhere other flags may be set, or another kernel chosen: look once per shape.
        shape = (kernel, query.device, query.dtype, query.shape, key.shape, torch.is_grad_enabled())
        if self._same.get(shape, False):
            return found
        own = call.own()
        self._same[shape] = torch.equal(found.output, own)
        self.extra_calls += 1
        return Attention(own, found.log_sum_exp)

    @property
    def same_bits(self) -> bool:
        """Whether every kernel that was compared gives the bits of the model's own call."""
        return all(self._same.values())


def backend_of(processor: Any) -> AttentionBackendName:
    """The attention backend of diffusers that a processor's calls go to."""
    chosen = getattr(processor, "_attention_backend", None)
    return AttentionBackendName(chosen) if chosen else _AttentionBackendRegistry.get_active_backend()[0]


@contextmanager
def native_backend(processor: Any) -> Iterator[None]:
    """Have a processor call torch's own function for a while."""
    chosen = processor._attention_backend
    processor._attention_backend = AttentionBackendName.NATIVE
    try:
        yield
    finally:
        processor._attention_backend = chosen


def describe_attention(
    transformer: Any, *, heads: int, head_dim: int, tokens: int, device: torch.device
) -> dict[str, Any]:
    """How attention is computed and its log-sum-exp had, for a run's manifest; off the CPU one call is tried for it."""
    backend = backend_of(transformer.blocks[0].attn1.processor)
    xformers = backend is AttentionBackendName.XFORMERS
    on_cpu = device.type == "cpu"
    # What torch's CPU kernel is does not depend on the length.
    shape = (1, heads, 64 if on_cpu else tokens, head_dim)
    generator = torch.Generator(device).manual_seed(0)
    dtype = transformer.dtype
    query, key, value = (torch.randn(shape, generator=generator, device=device, dtype=dtype) for _ in range(3))
    kernel = "xformers" if xformers else fused_kernel(query, key, value)
    if not xformers and "native" not in backend.value:
        source = NATIVE_CALL
    elif kernel is None:
        source = CHUNKS
    else:
        tried = LogSumExps()
        with torch.no_grad():
            tried.attend(attention_call(scaled_dot_product_attention, xformers, query, key, value))
        source = OWN_CALL if tried.same_bits else SECOND_CALL
    return {
        "backend": backend.value,
        "kernel": kernel or "chunked",
        "log_sum_exp": source,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _arguments(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, float, bool, float | None]:
    return query, key, value, attn_mask, dropout_p, is_causal, scale
