"""Attention for training the demo model quickly on a CPU, equal to diffusers' own processor in exact arithmetic."""

import math

import torch
from torch.nn.functional import scaled_dot_product_attention


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of `x` [batch, tokens, heads, head_dim] in interleaved pairs, as in `WanAttnProcessor`."""
    first, second = x.unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos[..., 0::2], sin[..., 1::2]
    return torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)


class CompactTextProcessor:
    """`WanAttnProcessor` for text that is cut to its first tokens, with the softmax of the full padded length.

    The pipeline pads text to `text_tokens` with zero vectors, which all give the same key and value. A softmax over many equal
    keys is a softmax over one of them with log(count) added to its logit, so the last token kept stands for all padding.
    Attention itself runs in float32 outside autocast: on CPUs the float32 kernel is the faster one.

    Args:
        text_tokens: padded length that the pipeline uses (512 for Wan).
        kept: tokens that the caller keeps; the last of them must be padding.
    """

    _attention_backend = None
    _parallel_config = None

    def __init__(self, text_tokens: int, kept: int):
        bias = torch.zeros(kept)
        bias[-1] = math.log(text_tokens - kept + 1)
        self.bias = bias

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source)
        with torch.autocast(hidden_states.device.type, enabled=False):
            query = attn.norm_q(query.float()).unflatten(2, (attn.heads, -1))
            key = attn.norm_k(key.float()).unflatten(2, (attn.heads, -1))
            value = value.float().unflatten(2, (attn.heads, -1))
            if rotary_emb is not None:
                query, key = rotate(query, *rotary_emb), rotate(key, *rotary_emb)
            bias = None if encoder_hidden_states is None else self.bias.to(query)[None, :]
            mixed = scaled_dot_product_attention(
                query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=bias
            )
        return attn.to_out[1](attn.to_out[0](mixed.transpose(1, 2).flatten(2).type_as(hidden_states)))
