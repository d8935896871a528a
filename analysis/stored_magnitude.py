"""The magnitude of heads from the weights on disk, without a model: block by block, layer by layer."""

from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from analysis.scores import Scores
from pare.geometry import Geometry
from pare.progress import Progress, silent
from pare.stored_weights import StoredWeights, open_weights

# The second pair is there only where the model is conditioned on an image.
INPUT_LAYERS = ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj")
OUTPUT_LAYER = "to_out.0"
MODULES = {"self": "attn1", "cross": "attn2"}


def head_squares(weight: torch.Tensor, layer: str, heads: int) -> torch.Tensor:
    """Sum of squares of each head's part of one layer's weight, float64 [heads]; the output layer is cut by columns.

    >>> head_squares(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "to_q", heads=2).tolist()
    [5.0, 25.0]
    """
    pattern = (
        "width (head dim) -> head (dim width)" if layer == OUTPUT_LAYER else "(head dim) width -> head (dim width)"
    )
    return rearrange(weight.double().square(), pattern, head=heads).sum(dim=1)


def stored_magnitude(folder: str | Path, geometry: Geometry, progress: Progress = silent) -> Scores:
    """‖(W_Q, W_K, W_V, W_O)‖_F of every head's slices, as `analysis.scorers.magnitude`, from a transformer's folder.

    Raises InputError for a folder without its weights.
    """
    values = {kind: np.empty((geometry.blocks, geometry.heads)) for kind in MODULES}
    with open_weights(folder) as weights:
        for block in range(geometry.blocks):
            for kind, module in MODULES.items():
                values[kind][block] = _squares(weights, f"blocks.{block}.{module}", geometry.heads).sqrt().numpy()
            progress(block + 1, geometry.blocks, f"magnitude of heads, block {block}")
    return Scores("magnitude", values)


def _squares(weights: StoredWeights, module: str, heads: int) -> torch.Tensor:
    total = torch.zeros(heads, dtype=torch.float64)
    for layer in (*INPUT_LAYERS, OUTPUT_LAYER):
        name = f"{module}.{layer}.weight"
        if not layer.startswith("add_") or weights.has(name):
            total += head_squares(weights.tensor(name), layer, heads)
    return total
