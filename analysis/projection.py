"""What a head's output becomes in the output projection: the head_dim x head_dim Gram matrix of its weights."""

from typing import Any

import torch
from accelerate.utils import align_module_device
from einops import rearrange
from jaxtyping import Float

from pare.errors import InputError

# Numbers of a head's output that are held in float32 at a time.
CHUNK_CELLS = 1 << 22


def output_weight(attention: Any) -> Float[torch.Tensor, "heads width head_dim"]:
    """W_O of an attention module, one slice per head, in float32: what runs, so with its LoRA adapters.

    Weights that accelerate keeps elsewhere are fetched. Raises InputError for weights that are not loaded.
    """
    layer = attention.to_out[0]
    with torch.no_grad(), align_module_device(getattr(layer, "base_layer", layer)):
        weight = layer.weight.detach()
        if weight.is_meta:
            raise InputError("capture", got="weights that are not loaded", expected="loaded", fix="--offload model")
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        if not getattr(layer, "merged", True) and not layer.disable_adapters:
            for adapter in layer.active_adapters:
                if adapter in layer.lora_A:
                    weight = weight + layer.get_delta_weight(adapter).to(weight)
    return rearrange(weight, "width (head dim) -> head width dim", head=attention.heads)


def projected_energy(
    output: Float[torch.Tensor, "heads tokens head_dim"], weight: Float[torch.Tensor, "heads width head_dim"]
) -> Float[torch.Tensor, "heads"]:
    """‖ṽ_h·W_O^hᵀ‖_F of every head: what it adds to the residual stream before bias and gate, over tokens x width.

    Exact without a tokens x width tensor: ‖ṽWᵀ‖² = ⟨ṽᵀṽ, WᵀW⟩, two head_dim x head_dim matrices.

    >>> output, weight = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), torch.eye(2)[None]
    >>> projected_energy(output, weight)
    tensor([5.])
    """
    weight = weight.to(output.device)
    at_once = max(1, CHUNK_CELLS // output[0].numel())
    energies = []
    for values, matrix in zip(output.split(at_once), weight.split(at_once), strict=True):
        values = values.to(weight.dtype)
        # Autocast would round the matrices.
        with torch.autocast(output.device.type, enabled=False):
            energies.append(((values.mT @ values) * (matrix.mT @ matrix)).sum(dim=(1, 2)))
    return torch.cat(energies).clamp(min=0).sqrt()
