"""The pruned and routed Wan transformer: blocks with their own numbers of heads and neurons, run or skipped by a router."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from diffusers import ModelMixin, WanTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.attention import FeedForward
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.normalization import FP32LayerNorm
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor, WanTransformerBlock
from diffusers.utils import apply_lora_scale
from einops import rearrange
from torch import nn

from pare import student
from pare.attention import SelectedHeadsAttention
from pare.errors import InputError
from pare.lora import CheckedLoraMixin
from pare.routing import RoutingMixin
from pare.student import BlockWidth

# A saved pipeline finds this class again only if ModelMixin stands in the same module.
__all__ = ["ModelMixin", "PareWanTransformer3DModel", "PareWanTransformerBlock"]


# Tokens, context, modulation and rotary embedding: the arguments of a block, in its order.
BlockInputs: TypeAlias = tuple[torch.Tensor, torch.Tensor, torch.Tensor, Any]


class PareWanTransformerBlock(WanTransformerBlock):
    """A stock block with a width of its own: stock attention over fewer heads, a stock network of fewer neurons.

    `kept_self` and `kept_cross` are head indices where queries and keys stay whole (qk_norm exact), else None.
    """

    def __init__(
        self,
        dim: int,
        head_dim: int,
        heads: int,
        width: BlockWidth,
        cross_attn_norm: bool,
        eps: float,
        added_kv_proj_dim: int | None = None,
        kept_self: Sequence[int] | None = None,
        kept_cross: Sequence[int] | None = None,
    ):
        # The stock constructor would make the full width first.
        nn.Module.__init__(self)
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = _attention(dim, head_dim, heads, width.self_heads, kept_self, eps)
        cross = {"added_kv_proj_dim": added_kv_proj_dim, "cross_attention_dim_head": head_dim}
        self.attn2 = _attention(dim, head_dim, heads, width.cross_heads, kept_cross, eps, **cross)
        self.norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True) if cross_attn_norm else nn.Identity()
        self.ffn = FeedForward(dim, inner_dim=width.neurons, activation_fn="gelu-approximate")
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)


# The block caches of diffusers look a block's class up by its exact type.
TransformerBlockRegistry.register(
    model_class=PareWanTransformerBlock,
    metadata=TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None),
)


class PareWanTransformer3DModel(RoutingMixin, CheckedLoraMixin, WanTransformer3DModel):
    """Wan's video transformer with fewer heads and neurons in every block; weights carry the stock names.

    The first arguments are the stock model's, of the base model: `num_attention_heads` and `ffn_dim` are its full
    widths. `self_heads`, `cross_heads` and `neurons` say how many each block has (None: all), `kept_self_heads`,
    `kept_cross_heads` (lists of indices) and `kept_neurons` (bitmaps, see `pare.student`) which of the base model they
    are. `qk_norm_mode` tells how the norm across heads was treated: `none` (cut like the rest), `fold` (a constant in
    its weight makes up for the missing heads) or `exact` (queries, keys and norm are whole). `pruning` is free text
    about where the model comes from. `routing` (k_min, k_max and the settings of a `LearnedRouter`) gives the model a
    router, the submodule `router`, and routes it from the start; see `pare.routing` for the switches. Raises
    `InputError` for widths and indices that contradict each other.

    Without any of these it is the stock model, bit for bit, and loads stock checkpoints unchanged.

    >>> tiny = dict(num_layers=2, num_attention_heads=2, attention_head_dim=12, ffn_dim=32, in_channels=4,
    ...     out_channels=4, text_dim=16, freq_dim=32)
    >>> model = PareWanTransformer3DModel(**tiny, self_heads=[1, 2], kept_self_heads=[[1], [0, 1]])
    >>> [block.attn1.heads for block in model.blocks]
    [1, 2]
    """

    # A stock model that is routed keeps its stock blocks.
    _no_split_modules = ("PareWanTransformerBlock", "WanTransformerBlock")
    _repeated_blocks = ("PareWanTransformerBlock", "WanTransformerBlock")
    # The router is small, and what it decides should not hang on the precision of the weights.
    _skip_layerwise_casting_patterns = (*WanTransformer3DModel._skip_layerwise_casting_patterns, "^router")
    _keep_in_fp32_modules: ClassVar[list[str]] = [*WanTransformer3DModel._keep_in_fp32_modules, "router"]

    @register_to_config
    def __init__(
        self,
        patch_size: Sequence[int] = (1, 2, 2),
        num_attention_heads: int = 40,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int | None = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        ffn_dim: int = 13824,
        num_layers: int = 40,
        cross_attn_norm: bool = True,
        qk_norm: str | None = "rms_norm_across_heads",
        eps: float = 1e-6,
        image_dim: int | None = None,
        added_kv_proj_dim: int | None = None,
        rope_max_seq_len: int = 1024,
        pos_embed_seq_len: int | None = None,
        self_heads: Sequence[int] | None = None,
        cross_heads: Sequence[int] | None = None,
        neurons: Sequence[int] | None = None,
        kept_self_heads: Sequence[Sequence[int]] | None = None,
        kept_cross_heads: Sequence[Sequence[int]] | None = None,
        kept_neurons: Sequence[str] | None = None,
        qk_norm_mode: str = "none",
        pruning: Mapping[str, Any] | None = None,
        routing: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            patch_size=patch_size,
            num_attention_heads=num_attention_heads,
            attention_head_dim=attention_head_dim,
            in_channels=in_channels,
            out_channels=out_channels,
            text_dim=text_dim,
            freq_dim=freq_dim,
            ffn_dim=ffn_dim,
            # The blocks follow below, in their own widths; the full ones would be made in vain.
            num_layers=0,
            cross_attn_norm=cross_attn_norm,
            qk_norm=qk_norm,
            eps=eps,
            image_dim=image_dim,
            added_kv_proj_dim=added_kv_proj_dim,
            rope_max_seq_len=rope_max_seq_len,
            pos_embed_seq_len=pos_embed_seq_len,
        )
        self.register_to_config(num_layers=num_layers)
        if qk_norm_mode not in student.QUERY_KEY_NORMS:
            raise InputError(
                "qk_norm_mode",
                got=qk_norm_mode,
                expected=f"one of {', '.join(student.QUERY_KEY_NORMS)}",
                fix="prune the base model again",
            )
        widths = student.widths(self.config)
        exact = qk_norm_mode == "exact"
        if exact or any(entries is not None for entries in (kept_self_heads, kept_cross_heads, kept_neurons)):
            # Checks them too; without indices the kept heads could not be found behind a full norm.
            student.kept(self.config)
        indices: Mapping[str, Any] = self.config if exact else {}
        dim = num_attention_heads * attention_head_dim
        self.blocks.extend(
            PareWanTransformerBlock(
                dim,
                attention_head_dim,
                num_attention_heads,
                width,
                cross_attn_norm,
                eps,
                added_kv_proj_dim,
                kept_self=_of_block(indices.get("kept_self_heads"), index),
                kept_cross=_of_block(indices.get("kept_cross_heads"), index),
            )
            for index, width in enumerate(widths)
        )
        self._init_routing(routing)

    def fuse_qkv_projections(self) -> None:
        """As the stock model's; raises `InputError` for a model pruned with qk_norm exact, whose widths differ."""
        for module in self.modules():
            if isinstance(module, SelectedHeadsAttention):
                module.fuse_projections()
        super().fuse_qkv_projections()

    @apply_lora_scale("attention_kwargs")
    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor, ...]:
        """The velocity [batch, channels, frames, height, width] of latents of that shape; see the stock model.

        The same operations in the same order as the stock forward, in pieces: embed, blocks, velocity.
        """
        _, _, frames, height, width = hidden_states.shape
        patch_frames, patch_height, patch_width = self.config.patch_size
        grid = (frames // patch_frames, height // patch_height, width // patch_width)
        route = self._route_of(hidden_states, timestep, encoder_hidden_states_image)
        embedded, inputs = self.embed(hidden_states, timestep, encoder_hidden_states, encoder_hidden_states_image)
        tokens = self._run_blocks(*inputs) if route is None else self._run_routed_blocks(route, *inputs)
        velocity = self._velocity(tokens, embedded, grid)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def embed(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_image: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, BlockInputs]:
        """The embedded timestep, and what goes into the first block: tokens, context, modulation, rotary embedding.

        Tokens are [batch, tokens, dim], the context image and then text, the modulation [batch, 6, dim].
        """
        rotary_emb = self.rope(hidden_states)
        patches = self.patch_embedding(hidden_states)
        tokens = rearrange(patches, "batch dim frame y x -> batch (frame y x) dim").contiguous()
        # A timestep per token (two axes) is Wan2.2's; this one line keeps the model the stock one there too.
        per_token = timestep.shape[1] if timestep.ndim == 2 else None
        embedded, modulation, context, image_context = self.condition_embedder(
            timestep.flatten(), encoder_hidden_states, encoder_hidden_states_image, timestep_seq_len=per_token
        )
        if image_context is not None:
            context = torch.concat([image_context, context], dim=1)
        return embedded, (tokens, context, modulation.unflatten(-1, (6, -1)), rotary_emb)

    def _run_blocks(
        self, tokens: torch.Tensor, context: torch.Tensor, modulation: torch.Tensor, rotary_emb: Any
    ) -> torch.Tensor:
        for block in self.blocks:
            tokens = self._run_block(block, tokens, context, modulation, rotary_emb)
        return tokens

    def _run_block(self, block: nn.Module, *inputs: Any) -> torch.Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def _velocity(self, tokens: torch.Tensor, embedded: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        """The velocity of the tokens, put back into frames of height and width."""
        table = self.scale_shift_table.to(embedded.device)
        if embedded.ndim == 3:
            shift, scale = (table.unsqueeze(0) + embedded.unsqueeze(2)).unbind(dim=2)
        else:
            shift, scale = (table + embedded.unsqueeze(1)).chunk(2, dim=1)
        # Where the model is spread over devices, the tokens come from the last one.
        shift, scale = shift.to(tokens.device), scale.to(tokens.device)
        tokens = (self.norm_out(tokens.float()) * (1 + scale) + shift).type_as(tokens)
        frames, height, width = grid
        patch_frames, patch_height, patch_width = self.config.patch_size
        return rearrange(
            self.proj_out(tokens),
            "batch (f y x) (pf py px channel) -> batch channel (f pf) (y py) (x px)",
            f=frames,
            y=height,
            x=width,
            pf=patch_frames,
            py=patch_height,
            px=patch_width,
        )


def _attention(
    dim: int,
    head_dim: int,
    heads: int,
    count: int,
    kept: Sequence[int] | None,
    eps: float,
    added_kv_proj_dim: int | None = None,
    cross_attention_dim_head: int | None = None,
) -> WanAttention:
    cross = {"added_kv_proj_dim": added_kv_proj_dim, "cross_attention_dim_head": cross_attention_dim_head}
    if kept is not None and len(kept) < heads:
        return SelectedHeadsAttention(dim, heads, kept, head_dim, eps, **cross)
    return WanAttention(dim=dim, heads=count, dim_head=head_dim, eps=eps, processor=WanAttnProcessor(), **cross)


def _of_block(entries: Sequence[Sequence[int]] | None, index: int) -> Sequence[int] | None:
    return None if entries is None else entries[index]
