"""The intra-slice ratio written out in float64, and what goes into it, seen without a capture: to check captures by."""

from collections.abc import Mapping
from typing import Any

import torch
from diffusers.models.attention_dispatch import AttentionBackendName
from jaxtyping import Float
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode


def brute_force_ratio(
    query: Float[torch.Tensor, "heads tokens head_dim"],
    key: Float[torch.Tensor, "heads tokens head_dim"],
    num_frames: int,
) -> Float[torch.Tensor, "heads"]:
    """Eq. 4 with the softmax written out in float64: tokens x tokens, for short clips only.

    >>> brute_force_ratio(torch.zeros(1, 6, 4), torch.zeros(1, 6, 4), num_frames=3)
    tensor([0.3333], dtype=torch.float64)
    """
    logits = query.double() @ key.double().transpose(1, 2) / query.shape[-1] ** 0.5
    frame = torch.arange(query.shape[1]) // (query.shape[1] // num_frames)
    own = (frame[:, None] == frame[None, :]).to(logits)
    return (logits.softmax(-1) * own).sum(-1).mean(-1)


def queries_and_keys(transformer: Any, inputs: Mapping[str, Any]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What enters the self-attention of every block: queries and keys [heads, tokens, head_dim], without a capture."""
    look = _Look()
    handles, own = [], []
    for block in transformer.blocks:
        handles.append(block.attn1.register_forward_pre_hook(look.enter))
        handles.append(block.attn1.register_forward_hook(look.leave, always_call=True))
        own.append(block.attn1.processor._attention_backend)
        # A backend of its own would pass torch's function by; queries and keys are the same.
        block.attn1.processor._attention_backend = AttentionBackendName.NATIVE
    try:
        with torch.no_grad(), transformer.cache_context("cond"), look:
            transformer(**inputs)
    finally:
        for handle in handles:
            handle.remove()
        for block, backend in zip(transformer.blocks, own, strict=True):
            block.attn1.processor._attention_backend = backend
    return look.seen


class _Look(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._inside = False

    def enter(self, module: torch.nn.Module, args: Any) -> None:
        self._inside = True

    def leave(self, module: torch.nn.Module, args: Any, output: Any) -> None:
        self._inside = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention and self._inside:
            given = dict(zip(("query", "key"), args, strict=False)) | kwargs
            self.seen.append((given["query"][0].detach().cpu(), given["key"][0].detach().cpu()))
        return func(*args, **kwargs)
