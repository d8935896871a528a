"""Parameters, floating-point operations and memory of a dense, pruned or routed Wan model, from its geometry alone."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pare.errors import InputError
from pare.geometry import Clip, Geometry, tokens

# A count that holds in every block, or one per block; None keeps all.
Counts: TypeAlias = int | Sequence[int] | None
# How many blocks run, or for each block whether it runs; None runs all.
Blocks: TypeAlias = int | Sequence[bool] | None


@dataclass(frozen=True)
class BlockParameters:
    """Parameters of one block: self-attention, cross-attention, feed-forward, norms and modulation."""

    attn1: int
    attn2: int
    ffn: int
    other: int

    @property
    def total(self) -> int:
        """All parameters of the block."""
        return self.attn1 + self.attn2 + self.ffn + self.other


@dataclass(frozen=True)
class Parameters:
    """Parameters of a transformer; the per-head and per-neuron numbers are what removing one of them saves."""

    total: int
    in_blocks: int
    outside: int
    active: int
    attn1: int
    attn2: int
    ffn: int
    per_self_head: int
    per_cross_head: int
    per_neuron: int


@dataclass(frozen=True)
class Flops:
    """Floating-point operations of the blocks in one forward of one clip, 2 per multiply-add."""

    self_projections: float
    self_core: float
    cross_projections: float
    cross_core: float
    ffn: float

    @property
    def total(self) -> float:
        """All operations of the blocks."""
        return sum(dataclasses.astuple(self))

    @property
    def self_core_share(self) -> float:
        """Share of the scores and weighted sums of self-attention, the part that grows with tokens squared."""
        return self.self_core / self.total


@dataclass(frozen=True)
class Memory:
    """Bytes that one forward needs: the weights, and the largest activations that live at the same time."""

    weights: int
    activations: int

    @property
    def total(self) -> int:
        """Weights and activations together."""
        return self.weights + self.activations


def block_parameters(
    geometry: Geometry,
    *,
    self_heads: int | None = None,
    cross_heads: int | None = None,
    neurons: int | None = None,
    whole_query_key: bool = False,
) -> BlockParameters:
    """Parameters of one block that keeps this many heads and neurons (default: all).

    Attention over h of H heads, width s = h x head_dim, residual width d: queries, keys and values 3(ds + s), output
    sd + d, query and key norms 2s; cross-attention to an image adds keys and values 2(as + s) and a norm s for the
    added width a. Feed-forward over n neurons: 2dn + n + d. With `whole_query_key` (a student whose query/key norm is
    exact) queries, keys and their norms have width d whatever s is. Raises `InputError` for a count that the model
    lacks.

    >>> from pare.geometry import PRESETS
    >>> block_parameters(PRESETS["wan2.1-t2v-14b"].geometry).total
    351394304
    """
    dim = geometry.dim
    self_width = _kept(self_heads, geometry.heads, "self_heads") * geometry.head_dim
    cross_width = _kept(cross_heads, geometry.heads, "cross_heads") * geometry.head_dim
    kept_neurons = _kept(neurons, geometry.ffn, "neurons")
    added = geometry.added_kv_proj_dim
    self_qk, cross_qk = (dim, dim) if whole_query_key else (self_width, cross_width)
    image = 0 if added is None else (added + 1) * (cross_qk + cross_width) + cross_qk
    norm2 = 2 * dim if geometry.cross_attn_norm else 0
    return BlockParameters(
        attn1=_attention_parameters(dim, self_width, self_qk),
        attn2=_attention_parameters(dim, cross_width, cross_qk) + image,
        ffn=2 * dim * kept_neurons + kept_neurons + dim,
        other=norm2 + 6 * dim,
    )


def parameters(
    geometry: Geometry,
    *,
    self_heads: Counts = None,
    cross_heads: Counts = None,
    neurons: Counts = None,
    blocks_run: Blocks = None,
    whole_query_key: bool = False,
) -> Parameters:
    """Parameters of a transformer whose blocks keep these counts (one for all blocks, or one per block).

    `active` counts only the blocks that run in a step (`blocks_run`: how many, or for each block whether); everything
    else is what is stored. `attn1`, `attn2` and `ffn` are sums over blocks.

    >>> from pare.geometry import PRESETS
    >>> parameters(PRESETS["wan2.1-t2v-1.3b"].geometry).total
    1418996800
    """
    blocks = [
        block_parameters(geometry, self_heads=own, cross_heads=cross, neurons=ffn, whole_query_key=whole_query_key)
        for own, cross, ffn in _per_block(geometry, self_heads, cross_heads, neurons)
    ]
    dense = block_parameters(geometry)
    fewer_neurons = block_parameters(geometry, neurons=geometry.ffn - 1)
    in_blocks = sum(block.total for block in blocks)
    outside = _outside_parameters(geometry)
    return Parameters(
        total=in_blocks + outside,
        in_blocks=in_blocks,
        outside=outside,
        active=round(
            sum(share * block.total for share, block in zip(_shares(geometry, blocks_run), blocks, strict=True))
        ),
        attn1=sum(block.attn1 for block in blocks),
        attn2=sum(block.attn2 for block in blocks),
        ffn=sum(block.ffn for block in blocks),
        per_self_head=dense.attn1 - block_parameters(geometry, self_heads=geometry.heads - 1).attn1,
        per_cross_head=dense.attn2 - block_parameters(geometry, cross_heads=geometry.heads - 1).attn2,
        per_neuron=dense.ffn - fewer_neurons.ffn,
    )


def flops(
    geometry: Geometry,
    clip: Clip,
    text_tokens: int | None = None,
    *,
    self_heads: Counts = None,
    cross_heads: Counts = None,
    neurons: Counts = None,
    blocks_run: Blocks = None,
    whole_query_key: bool = False,
) -> Flops:
    """Operations of one forward of one clip, all blocks together; guidance runs two forwards per step.

    Per dense block, with L tokens, T text tokens and width d: 8Ld² + 4L²d (self) + 4Ld² + 4Td² + 4LTd (cross)
    + 4L·d·ffn; an image adds 4Iad + 4LId for its I tokens. Pruned widths replace the d that they remove, but for
    queries and keys with `whole_query_key`. What lies outside of the blocks, 0.005 % of the work of Wan2.1-14B, is
    `outside_flops`. A number of blocks to run, where widths differ, stands for that many blocks of mean cost.

    >>> from pare.geometry import PRESETS
    >>> round(flops(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81)).total / 1e12, 1)
    1678.3
    """
    length, dim, head_dim = tokens(geometry, clip), geometry.dim, geometry.head_dim
    text = geometry.text_tokens if text_tokens is None else text_tokens
    image, added = (0, 0) if geometry.added_kv_proj_dim is None else (geometry.image_tokens, geometry.added_kv_proj_dim)
    kept = _per_block(geometry, self_heads, cross_heads, neurons)
    sums = [0.0] * 5
    for share, (own, cross, ffn) in zip(_shares(geometry, blocks_run), kept, strict=True):
        self_width, cross_width = own * head_dim, cross * head_dim
        self_qk, cross_qk = (dim, dim) if whole_query_key else (self_width, cross_width)
        block = (
            4 * length * dim * (self_qk + self_width),
            4 * length * length * self_width,
            2 * (length * dim + text * dim + image * added) * (cross_qk + cross_width),
            4 * length * (text + image) * cross_width,
            4 * length * dim * ffn,
        )
        sums = [so_far + share * part for so_far, part in zip(sums, block, strict=True)]
    return Flops(*sums)


def outside_flops(geometry: Geometry, clip: Clip, text_tokens: int | None = None) -> int:
    """Operations of one forward outside of the blocks: embeddings of patches, timestep, text and image, and the output.

    With C patch cells of c_in and c_out channels: 2LdC(c_in + c_out) + 2(f + 7d)d for timestep features f +
    2Td(t + d) for text of width t + 2Ia(a + d) for an image of width a.

    >>> from pare.geometry import PRESETS
    >>> round(outside_flops(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81)) / 1e9)
    92
    """
    length, dim = tokens(geometry, clip), geometry.dim
    text = geometry.text_tokens if text_tokens is None else text_tokens
    cells = math.prod(geometry.patch)
    patches = 2 * length * dim * cells * (geometry.in_channels + geometry.out_channels)
    time = 2 * (geometry.freq_dim + 7 * dim) * dim
    image = (
        0 if geometry.image_dim is None else 2 * geometry.image_tokens * geometry.image_dim * (geometry.image_dim + dim)
    )
    return patches + time + 2 * text * dim * (geometry.text_dim + dim) + image


def memory(
    geometry: Geometry,
    clip: Clip,
    *,
    bytes_per_value: int,
    self_heads: Counts = None,
    cross_heads: Counts = None,
    neurons: Counts = None,
    whole_query_key: bool = False,
) -> Memory:
    """Memory of one forward of one clip through the transformer, an estimate for planning.

    The activations are the largest set that lives at once inside a block: the residual stream with a float32 copy of
    it and of its normed form; beside them either queries, keys, values, what rotating them takes and the output
    (9 x width), or the neurons and their input, twice each; and the text (and image) tokens twice. Counted on small
    models, a forward takes 70 to 98 % of this. Attention is fused, so nothing grows with tokens squared. Text encoder
    and VAE are not included.

    >>> from pare.geometry import PRESETS
    >>> need = memory(PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81), bytes_per_value=2)
    >>> round(need.weights / 2**30, 1)
    26.6
    """
    length, dim = tokens(geometry, clip), geometry.dim
    stored = parameters(
        geometry, self_heads=self_heads, cross_heads=cross_heads, neurons=neurons, whole_query_key=whole_query_key
    ).total
    widest = max(
        max(9 * own * geometry.head_dim, 6 * cross * geometry.head_dim, 2 * ffn + 2 * dim)
        for own, cross, ffn in _per_block(geometry, self_heads, cross_heads, neurons)
    )
    context = geometry.text_tokens + (geometry.image_tokens if geometry.added_kv_proj_dim is not None else 0)
    activations = (
        length * (dim * (bytes_per_value + 8) + widest * bytes_per_value) + 2 * context * dim * bytes_per_value
    )
    return Memory(weights=stored * bytes_per_value, activations=activations)


def _attention_parameters(dim: int, width: int, query_key_width: int) -> int:
    query_key, value = 2 * (dim + 1) * query_key_width, (dim + 1) * width
    return query_key + value + (width * dim + dim) + 2 * query_key_width


def _outside_parameters(geometry: Geometry) -> int:
    dim = geometry.dim
    cells = math.prod(geometry.patch)
    patch_embedding = geometry.in_channels * cells * dim + dim
    time = geometry.freq_dim * dim + dim + dim * dim + dim + dim * 6 * dim + 6 * dim
    text = geometry.text_dim * dim + dim + dim * dim + dim
    image = 0
    if geometry.image_dim is not None:
        width = geometry.image_dim
        image = 2 * width + width * width + width + width * dim + dim + 2 * dim
        image += (geometry.pos_embed_tokens or 0) * width
    output = dim * geometry.out_channels * cells + geometry.out_channels * cells + 2 * dim
    return patch_embedding + time + text + image + output


def _kept(count: int | None, available: int, name: str) -> int:
    if count is None:
        return available
    if not 0 <= count <= available:
        raise InputError(name, got=count, expected=f"a whole number from 0 to {available}", fix="keep fewer or all")
    return int(count)


def _per_block(
    geometry: Geometry, self_heads: Counts = None, cross_heads: Counts = None, neurons: Counts = None
) -> list[tuple[int, int, int]]:
    """(self heads, cross heads, neurons) of every block."""
    columns = []
    for name, counts, available in (
        ("self_heads", self_heads, geometry.heads),
        ("cross_heads", cross_heads, geometry.heads),
        ("neurons", neurons, geometry.ffn),
    ):
        column = [counts] * geometry.blocks if counts is None or isinstance(counts, int) else list(counts)
        _check_length(geometry, name, column)
        columns.append([_kept(count, available, name) for count in column])
    return list(zip(*columns, strict=True))


def _shares(geometry: Geometry, blocks_run: Blocks) -> list[float]:
    """How often every block runs: 1 or 0, or one common share when only their number is known."""
    if blocks_run is None:
        return [1.0] * geometry.blocks
    if isinstance(blocks_run, int):
        return [_kept(blocks_run, geometry.blocks, "blocks_run") / geometry.blocks] * geometry.blocks
    _check_length(geometry, "blocks_run", blocks_run)
    return [float(bool(runs)) for runs in blocks_run]


def _check_length(geometry: Geometry, name: str, values: Sequence) -> None:
    if len(values) != geometry.blocks:
        raise InputError(
            name, got=f"{len(values)} values", expected=f"one per block ({geometry.blocks})", fix="give one per block"
        )
