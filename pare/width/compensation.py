"""Bias compensation: what the removed heads and neurons gave on average becomes part of the output bias."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float

from pare.mask import Mask
from pare.width.qk_norm import moment

# Output projection of a block → the units it reads, and the moment of what they give.
OUTPUTS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "attn1.to_out.0": ("self_heads", "self/output"),
        "attn2.to_out.0": ("cross_heads", "cross/output"),
        "ffn.net.2": ("neurons", "ffn/activation"),
    }
)


def mean_outputs(moments: Mapping[str, np.ndarray], mask: Mask) -> dict[str, np.ndarray]:
    """What every unit gives on average, by output projection: [block, head, head_dim], or [block, neuron, 1].

    `moments` are a run's means by name (`OUTPUTS`). Raises `InputError` for one that is missing.

    >>> keep = np.ones((1, 2), bool)
    >>> means = {"self/output": np.ones((1, 2, 4)), "cross/output": np.ones((1, 2, 4)), "ffn/activation": np.ones((1, 2))}
    >>> {name: values.shape for name, values in mean_outputs(means, Mask(keep, keep, keep)).items()}
    {'attn1.to_out.0': (1, 2, 4), 'attn2.to_out.0': (1, 2, 4), 'ffn.net.2': (1, 2, 1)}
    """
    found = {}
    for layer, (part, name) in OUTPUTS.items():
        values = moment(moments, name, getattr(mask, part).shape)
        found[layer] = values[..., np.newaxis] if part == "neurons" else values
    return found


def compensated_bias(
    weight: Float[torch.Tensor, "dim width"],
    bias: Float[torch.Tensor, "dim"],
    keep: np.ndarray,
    means: np.ndarray,
) -> Float[torch.Tensor, "dim"]:
    """b + Σ over removed units of W_u·E[v_u], in the precision of the bias.

    `keep` [unit] says which of them stay, `means` [unit, unit_width] is what each gives on average.

    >>> weight = torch.tensor([[1.0, 10.0], [2.0, 20.0]])
    >>> compensated_bias(weight, torch.zeros(2), np.array([True, False]), np.array([[5.0], [0.5]])).tolist()
    [5.0, 10.0]
    """
    removed = torch.from_numpy(np.flatnonzero(~keep)).to(weight.device)
    if not len(removed):
        return bias.clone()
    # Half precision would lose the sum of thousands of small terms.
    precise = torch.promote_types(weight.dtype, torch.float32)
    columns = rearrange(weight, "dim (unit width) -> dim unit width", unit=len(keep)).index_select(1, removed)
    mean = torch.from_numpy(means).to(weight.device, precise).index_select(0, removed)
    added = torch.einsum("duw,uw->d", columns.to(precise), mean)
    return (bias.to(precise) + added).to(bias.dtype)
