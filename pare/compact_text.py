"""Text cut to the tokens it has: the many equal ones that pad it are attended to as one, with the same result.

Wan's pipeline pads every text to 512 tokens with zero vectors, which all give the same key and value. A softmax over many equal
keys is a softmax over one of them with log(count) added to its logit. At 14B padding costs a hundredth of a forward, in the
demo model, whose clips have fewer tokens than the padded text, a third.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from pare.errors import InputError


def used_tokens(text: Float[torch.Tensor, "batch tokens dim"]) -> int:
    """How many tokens to keep, so that in every sample the last one kept and all behind it are equal.

    >>> used_tokens(torch.tensor([[[5.0], [7.0], [0.0], [0.0], [0.0]]]))
    3
    """
    differs = (text != text[:, -1:]).any(dim=2).any(dim=0)
    own = torch.nonzero(differs)
    return min(text.shape[1], int(own[-1]) + 2 if len(own) else 1)


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `x` [batch, tokens, heads, head_dim] in interleaved pairs, as in `WanAttnProcessor`."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)


class CompactTextProcessor:
    """`WanAttnProcessor` for text whose last token stands for `count` equal ones, with the softmax of the full length.

    Attention itself runs in float32 outside autocast: on CPUs the float32 kernel is the faster one. Text-to-video only.
    """

    # Set by diffusers.
    _attention_backend = None
    _parallel_config = None

    def __init__(self, count: int = 1):
        self.count = count

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        with torch.autocast(hidden_states.device.type, enabled=False):
            query = attn.norm_q(query.float()).unflatten(2, (attn.heads, -1))
            key = attn.norm_k(key.float()).unflatten(2, (attn.heads, -1))
            value = value.float().unflatten(2, (attn.heads, -1))
            if rotary_emb is not None:
                query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
            bias = None
            if encoder_hidden_states is not None and self.count > 1:
                bias = torch.zeros(1, key.shape[1], device=key.device)
                bias[:, -1] = math.log(self.count)
            mixed = scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
            )
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2).type_as(hidden_states)))


@contextmanager
def compact_text(transformer: Any) -> Iterator[None]:
    """Inside, forwards of a text-to-video Wan transformer cut the padding off their text; the same in exact arithmetic.

    Self-attention stays as it is. A student pruned with qk_norm exact, whose attention is its own, is left as it is too.
    Raises `InputError` for an image-to-video model, whose attention finds the image by the padded length.
    """
    if transformer.config.image_dim is not None:
        raise InputError(
            "compact text", got="an image-to-video model", expected="a text-to-video one", fix="leave it out"
        )
    stock = {block.attn2: block.attn2.processor for block in transformer.blocks}
    if any(type(processor).__name__ != "WanAttnProcessor" for processor in stock.values()):
        yield
        return
    own = CompactTextProcessor()

    def cut(_: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        text = given["encoder_hidden_states"]
        kept = used_tokens(text)
        own.count = text.shape[1] - kept + 1
        return args, given | {"encoder_hidden_states": text[:, :kept]}

    handle = transformer.register_forward_pre_hook(cut, with_kwargs=True)
    for attention in stock:
        attention.set_processor(own)
    try:
        yield
    finally:
        handle.remove()
        for attention, processor in stock.items():
            attention.set_processor(processor)
