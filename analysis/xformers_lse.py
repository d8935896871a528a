"""xformers' attention with its log-sum-exp. xformers is imported when first needed: it is installed on Linux only."""

import torch
from einops import rearrange
from jaxtyping import Float

from pare.errors import InputError


def xformers_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp of one call of `memory_efficient_attention_forward_requires_grad`, which keeps no graph.

    Tensors [batch, heads, tokens, head_dim]; xformers itself has tokens before heads. Raises InputError where it has no
    kernel for them, or returns what cannot be read.
    """
    from xformers.ops import memory_efficient_attention_forward_requires_grad

    tensors = (rearrange(each, "b h t d -> b t h d") for each in (query, key, value))
    try:
        output, lse = memory_efficient_attention_forward_requires_grad(*tensors, scale=scale)
    except NotImplementedError as error:
        raise InputError(
            "attention",
            got=f"xformers without a log-sum-exp for {query.dtype} on {query.device.type}",
            expected="a kernel that returns it",
            fix="--attention native",
        ) from error
    return rearrange(output, "b t h d -> b h t d"), log_sum_exp(lse, query.shape)


def log_sum_exp(lse: torch.Tensor, shape: torch.Size) -> Float[torch.Tensor, "batch heads queries"]:
    """What xformers returns beside its output, without its padding; `shape` is that of the queries, heads before tokens.

    Without a variable-length mask it is [batch, heads, queries], natural logarithms in float32; kernels may round the
    last length up (xformers 0.0.35, `_detect_lse_packed_or_raise` in xformers/ops/fmha/__init__.py).

    >>> log_sum_exp(torch.zeros(1, 2, 32), torch.Size((1, 2, 20, 8))).shape
    torch.Size([1, 2, 20])
    """
    batch, heads, tokens, _ = shape
    if lse.ndim != 3 or lse.shape[:2] != (batch, heads) or lse.shape[2] < tokens:
        raise InputError(
            "attention",
            got=f"a log-sum-exp of shape {list(lse.shape)} from xformers",
            expected=f"[{batch}, {heads}, {tokens} or more]",
            fix="xformers 0.0.35, or --attention native",
        )
    return lse[..., :tokens]
