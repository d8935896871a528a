"""Exact attention statistics under fused kernels: no tokens x tokens tensor is ever built.

A fused attention kernel returns, beside its output, the log-sum-exp of every query's logits. Two of them give the share
of a query's attention that stays in its own frame: r = exp(LSE_frame − LSE_all).
"""

import math
from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int
from torch.nn.attention import SDPBackend
from torch.nn.functional import one_hot, pad

from analysis.xformers_lse import xformers_attention
from pare.errors import InputError

# Rows of logits that the fallback holds at a time; with all heads it stays below CHUNK_CELLS numbers.
CHUNK_ROWS = 256
CHUNK_CELLS = 1 << 25
# Logits inside of frames that are held at a time, no more than the queries are: they stay in a processor's own cache.
FRAME_CELLS = 1 << 18

Heads = Float[torch.Tensor, "batch heads tokens head_dim"]


class Attention(NamedTuple):
    """What one attention call gives: output [batch, heads, queries, head_dim], log-sum-exp [batch, heads, queries]."""

    output: torch.Tensor
    log_sum_exp: torch.Tensor


def fused_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None) -> str | None:
    """The kernel that torch's `scaled_dot_product_attention` takes for these tensors, where it gives a log-sum-exp.

    Tensors [batch, heads, tokens, head_dim]. `flash_cpu`, `flash`, `efficient` or `cudnn`; None where torch would
    compute the softmax itself, which keeps no log-sum-exp.
    """
    if query.device.type not in ("cpu", "cuda") or query.shape[:2] != key.shape[:2]:
        return None
    choice = torch._fused_sdp_choice(query, key, value, None, 0.0, False, scale=scale, enable_gqa=False)
    names = {SDPBackend.CUDNN_ATTENTION.value: "cudnn", SDPBackend.EFFICIENT_ATTENTION.value: "efficient"}
    names[SDPBackend.FLASH_ATTENTION.value] = "flash_cpu" if query.device.type == "cpu" else "flash"
    return names.get(choice)


def run_kernel(
    kernel: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> Attention:
    """Run one of the kernels that `fused_kernel` names, or `xformers`, in its form that also returns the log-sum-exp.

    On the CPU the output is what `scaled_dot_product_attention` gives for the same tensors, bit for bit.
    """
    if kernel == "flash_cpu":
        return Attention(
            *torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, False, scale=scale)
        )
    if kernel == "flash":
        # torch pads head_dim to a multiple of 8 before it calls this kernel, and scales by the true one.
        head_dim = query.shape[-1]
        padded = [pad(each, (0, -head_dim % 8)) for each in (query, key, value)]
        scale = head_dim**-0.5 if scale is None else scale
        output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(*padded, 0.0, False, scale=scale)
        return Attention(output[..., :head_dim], lse)
    if kernel == "efficient":
        output, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, False, scale=scale
        )
        return Attention(output, lse[..., : query.shape[2]])
    if kernel == "cudnn":
        output, lse, *_ = torch.ops.aten._scaled_dot_product_cudnn_attention(
            query, key, value, None, True, 0.0, False, False, scale=scale
        )
        return Attention(output, lse.reshape(query.shape[:3]))
    if kernel == "xformers":
        return Attention(*xformers_attention(query, key, value, scale))
    raise ValueError(f"no kernel {kernel!r}")


def chunked_log_sum_exp(query: torch.Tensor, key: torch.Tensor, scale: float | None = None) -> torch.Tensor:
    """Log-sum-exp of every query's logits [batch, heads, queries] by blocks of query rows: exact, memory linear."""
    return chunked_attention(query, key, key, scale).log_sum_exp


def chunked_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> Attention:
    """The same by blocks of query rows, for tensors that no fused kernel takes: exact, memory linear in tokens."""
    precise = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    keys, values = key.to(precise), value.to(precise)
    rows = max(1, min(CHUNK_ROWS, CHUNK_CELLS // (math.prod(query.shape[:2]) * key.shape[2])))
    outputs, lses = [], []
    for part in query.split(rows, dim=2):
        logits = part.to(precise) * scale @ keys.mT
        lse = logits.logsumexp(dim=-1)
        outputs.append((logits.sub_(lse[..., None]).exp_() @ values).to(query.dtype))
        lses.append(lse)
    return Attention(torch.cat(outputs, dim=2), torch.cat(lses, dim=2))


def attention_with_lse(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> Attention:
    """Attention and its log-sum-exp by the fused kernel that takes these tensors, else by chunks.

    Tensors [batch, heads, tokens, head_dim].
    """
    kernel = fused_kernel(query, key, value, scale)
    return run_kernel(kernel, query, key, value, scale) if kernel else chunked_attention(query, key, value, scale)


def frame_log_sum_exp(
    query: torch.Tensor, key: torch.Tensor, num_frames: int, scale: float | None = None
) -> Float[torch.Tensor, "batch heads tokens"]:
    """Log-sum-exp of every query's logits over the keys of its own frame; tensors [batch, heads, tokens, head_dim].

    One block-diagonal call: frames become part of the batch, so it costs 1/Fl of a full one.
    """
    frames = [rearrange(each, "b h (f l) d -> (b f) h l d", f=num_frames) for each in (query, key)]
    lse = attention_with_lse(frames[0], frames[1], frames[1], scale).log_sum_exp
    return rearrange(lse, "(b f) h l -> b h (f l)", f=num_frames)


def ratio_from_lse(
    lse_frame: Float[torch.Tensor, "batch heads tokens"], lse_all: Float[torch.Tensor, "batch heads tokens"]
) -> Float[torch.Tensor, "batch heads"]:
    """r = mean over all queries of exp(LSE_frame − LSE_all) (PARE, Eq. 4), at most 1 in spite of rounding."""
    return (lse_frame - lse_all).exp().clamp(max=1).mean(dim=-1)


def own_frame_share(
    query: torch.Tensor, key: torch.Tensor, log_sum_exp: torch.Tensor, num_frames: int, scale: float | None = None
) -> Float[torch.Tensor, "batch heads"]:
    """r from the log-sum-exp of all keys: mean over all queries of Σ exp(logit − LSE_all) over the query's own frame.

    Equal to exp(LSE_frame − LSE_all). On CUDA and in half precision a fused kernel gives LSE_frame. Elsewhere the
    exponentials are summed as they are: none is above 1, so no maximum is sought, and no values are weighted, which is
    half of what a kernel computes. Tensors [batch, heads, tokens, head_dim], `log_sum_exp` [batch, heads, tokens].

    >>> zeros = torch.zeros(1, 1, 6, 8)
    >>> own_frame_share(zeros, zeros, attention_with_lse(zeros, zeros, zeros).log_sum_exp, num_frames=3)
    tensor([[0.3333]])
    """
    if query.device.type == "cuda" or query.dtype.itemsize < 4:
        return ratio_from_lse(frame_log_sum_exp(query, key, num_frames, scale), log_sum_exp)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    length, cells = query.shape[2] // num_frames, min(FRAME_CELLS, query.numel())
    heads, frames, rows = (max(1, cells // each) for each in (length * query.shape[2], length**2, length))
    # One head is a view; several are copied, which pays where frames are small.
    queries, keys, offsets = (each.flatten(0, 1).split(heads) for each in (query, key, -log_sum_exp[..., None]))
    sums = []
    # Autocast would round the logits.
    with torch.autocast(query.device.type, enabled=False):
        for group in zip(queries, keys, offsets, strict=True):
            parts = (rearrange(each, "h (f l) d -> (h f) l d", f=num_frames).split(frames) for each in group)
            for q, k, minus_lse in zip(*parts, strict=True):
                some = zip(q.split(rows, dim=1), minus_lse.split(rows, dim=1), strict=True)
                shares = [torch.baddbmm(lse, own, k.mT, alpha=scale).exp_().sum(dim=(1, 2)) for own, lse in some]
                sums.append(torch.stack(shares).sum(dim=0))
    found = reduce(torch.cat(sums), "(b h f) -> b h", "sum", b=query.shape[0], f=num_frames)
    return (found / query.shape[2]).clamp(max=1)


def mean_entropy(
    query: torch.Tensor, key: torch.Tensor, log_sum_exp: torch.Tensor, scale: float | None = None
) -> Float[torch.Tensor, "batch heads"]:
    """Entropy of attention in nats, mean over all queries, exact: LSE − scale·⟨q, E[k]⟩.

    E[k] is the attention output with the keys as values, so this costs a whole second attention call. Tensors
    [batch, heads, tokens, head_dim], `log_sum_exp` of all queries; E[k] has the precision of the keys.

    >>> zeros = torch.zeros(1, 1, 4, 8)
    >>> mean_entropy(zeros, zeros, attention_with_lse(zeros, zeros, zeros).log_sum_exp)
    tensor([[1.3863]])
    """
    precise = torch.promote_types(query.dtype, torch.float32)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    expected = attention_with_lse(query, key, key, scale).output
    logit = (query.to(precise) * expected.to(precise)).sum(dim=-1) * scale
    return (log_sum_exp - logit).mean(dim=-1)


def intra_slice_ratio(
    query: Float[torch.Tensor, "batch tokens heads head_dim"],
    key: Float[torch.Tensor, "batch tokens heads head_dim"],
    num_frames: int,
    scale: float | None = None,
) -> Float[torch.Tensor, "batch heads"]:
    """Share of attention that stays in the query's own latent frame, exact over all queries (PARE, Eq. 4).

    Queries and keys as they enter attention (after norm and rotary embedding), the tokens of a frame next to each
    other. `scale` multiplies the logits, 1/sqrt(head_dim) unless given. Raises InputError where `num_frames` does not
    divide the tokens.

    >>> zeros = torch.zeros(1, 12, 2, 8)
    >>> intra_slice_ratio(zeros, zeros, num_frames=3)
    tensor([[0.3333, 0.3333]])
    """
    _check_frames(query.shape[1], num_frames)
    query, key = (rearrange(each, "b t h d -> b h t d") for each in (query, key))
    lse_all = attention_with_lse(query, key, key, scale).log_sum_exp
    return own_frame_share(query, key, lse_all, num_frames, scale)


def frame_map(
    query: Float[torch.Tensor, "batch tokens heads head_dim"],
    key: Float[torch.Tensor, "batch tokens heads head_dim"],
    num_frames: int,
    rows: Int[torch.Tensor, "rows"] | None = None,
    scale: float | None = None,
) -> Float[torch.Tensor, "batch heads query_frames key_frames"]:
    """Attention from every query frame to every key frame, float32, each row sums to 1; its diagonal's mean is r.

    The values are one-hot frame indices, so the attention output is the mass per key frame, in the kernel's precision.
    `rows` picks the query tokens to look at (all unless given); a frame without any is NaN. Raises InputError where
    `num_frames` does not divide the tokens.

    >>> zeros = torch.zeros(1, 4, 1, 8)
    >>> frame_map(zeros, zeros, num_frames=2)
    tensor([[[[0.5000, 0.5000],
              [0.5000, 0.5000]]]])
    """
    tokens, head_dim = query.shape[1], query.shape[3]
    _check_frames(tokens, num_frames)
    frame_of = torch.arange(tokens, device=query.device) // (tokens // num_frames)
    if rows is not None:
        query = query[:, rows]
    query, key = (rearrange(each, "b t h d -> b h t d") for each in (query, key))
    membership = one_hot(frame_of, num_frames).to(query.dtype)
    masses = []
    for part in membership.split(head_dim, dim=1):
        # Padded to head_dim: with a narrower V the fused kernels refuse, and torch would build tokens x tokens.
        value = pad(part, (0, head_dim - part.shape[1])).expand(*key.shape[:2], -1, -1)
        masses.append(attention_with_lse(query, key, value, scale).output[..., : part.shape[1]].float())
    mass = torch.cat(masses, dim=-1)
    if rows is None:
        return reduce(mass, "b h (f l) k -> b h f k", "mean", f=num_frames)
    picked = one_hot(frame_of[rows], num_frames).float()
    return torch.einsum("bhrk,rf->bhfk", mass, picked) / picked.sum(dim=0)[:, None]


def _check_frames(tokens: int, num_frames: int) -> None:
    if num_frames < 1 or tokens % num_frames:
        raise InputError(
            "num_frames", got=num_frames, expected=f"a divisor of the {tokens} tokens", fix="give the latent frames"
        )
