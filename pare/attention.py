"""Attention of which some heads are gone while its query and key norms still see all of them.

Wan normalises queries and keys across all heads at once, so that cutting a head out changes the scale of those that
stay. Here queries, keys and their norms stay whole, the kept heads are selected behind the norm, and only values and
the output are cut: the same as masking the others, at the cost of the full query and key projections.
"""

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_wan import WanAttention
from einops import rearrange
from torch import nn

from pare.errors import InputError

# diffusers tells image from text tokens by this fixed number of text tokens.
TEXT_TOKENS = 512


class SelectedHeadsProcessor:
    """Wan's attention over the kept heads only, after the norms over all heads."""

    # Set by diffusers: set_attention_backend and enable_parallelism.
    _attention_backend = None
    _parallel_config = None

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The output [batch, tokens, dim]; image tokens, where there are any, come before 512 text tokens."""
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        image = None
        if attn.add_k_proj is not None:
            image, context = context[:, :-TEXT_TOKENS], context[:, -TEXT_TOKENS:]
        query = attn.select(attn.norm_q(attn.to_q(hidden_states)))
        key = attn.select(attn.norm_k(attn.to_k(context)))
        value = _split(attn.to_v(context), attn.heads)
        if rotary_emb is not None:
            query, key = _rotate(query, *rotary_emb), _rotate(key, *rotary_emb)
        parallel = self._parallel_config if encoder_hidden_states is None else None
        output = self._attend(query, key, value, attention_mask, parallel)
        if image is not None:
            image_key = attn.select(attn.norm_added_k(attn.add_k_proj(image)))
            output = output + self._attend(query, image_key, _split(attn.add_v_proj(image), attn.heads), None, None)
        return attn.to_out[1](attn.to_out[0](output))

    def _attend(self, query: Any, key: Any, value: Any, attention_mask: Any, parallel_config: Any) -> torch.Tensor:
        output = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=attention_mask,
            dropout_p=0.0,
            is_causal=False,
            backend=self._attention_backend,
            parallel_config=parallel_config,
        )
        return rearrange(output, "batch tokens head dim -> batch tokens (head dim)").type_as(query)


class SelectedHeadsAttention(WanAttention):
    """Wan's attention with full queries and keys, and values and output of the heads `kept` alone.

    `heads` is how many are kept, `query_heads` how many queries and keys there are. Projections cannot be fused, since
    they differ in width: `fuse_projections` raises `InputError`.
    """

    _default_processor_cls = SelectedHeadsProcessor
    _available_processors = (SelectedHeadsProcessor,)

    def __init__(
        self,
        dim: int,
        heads: int,
        kept: Sequence[int],
        dim_head: int,
        eps: float,
        added_kv_proj_dim: int | None = None,
        cross_attention_dim_head: int | None = None,
    ):
        super().__init__(
            dim=dim,
            heads=heads,
            dim_head=dim_head,
            eps=eps,
            added_kv_proj_dim=added_kv_proj_dim,
            cross_attention_dim_head=cross_attention_dim_head,
            processor=SelectedHeadsProcessor(),
        )
        width = len(kept) * dim_head
        self.heads, self.query_heads = len(kept), heads
        self.to_v = nn.Linear(dim, width)
        self.to_out[0] = nn.Linear(width, dim)
        if added_kv_proj_dim is not None:
            self.add_v_proj = nn.Linear(added_kv_proj_dim, width)
        # A tensor and not a tuple: blocks that keep different heads then share one compiled graph.
        self.register_buffer("kept_heads", torch.tensor(kept, dtype=torch.long), persistent=False)

    def select(self, values: torch.Tensor) -> torch.Tensor:
        """The kept heads of full queries or keys: [batch, tokens, query_heads x head_dim] to [.., heads, head_dim]."""
        return _split(values, self.query_heads).index_select(2, self.kept_heads)

    def fuse_projections(self) -> None:
        """Refused."""
        raise InputError(
            "fuse_projections",
            got="a transformer pruned with qk_norm exact, whose queries and values differ in width",
            expected="one width",
            fix="prune with qk_norm fold or none, or leave the projections apart",
        )


def _split(values: torch.Tensor, heads: int) -> torch.Tensor:
    return rearrange(values, "batch tokens (head dim) -> batch tokens head dim", head=heads)


def _rotate(values: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Rotary embedding of pairs of neighbouring channels, as in Wan's own processor."""
    even, odd = values.unflatten(-1, (-1, 2)).unbind(-1)
    cosine, sine = cosines[..., 0::2], sines[..., 1::2]
    rotated = torch.stack((even * cosine - odd * sine, even * sine + odd * cosine), dim=-1)
    return rotated.flatten(-2).type_as(values)
