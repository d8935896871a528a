"""What a training step draws: timesteps, noise, dropped texts, and the blocks whose features are compared."""

import torch
from jaxtyping import Float

FEATURE_BLOCKS = 4


def shifted_sigma(uniform: Float[torch.Tensor, "*shape"], shift: int | float) -> Float[torch.Tensor, "*shape"]:
    """σ = s·u / (1 + (s − 1)·u): uniform u, with the shift s of inference.

    >>> shifted_sigma(torch.tensor([0.0, 0.5, 1.0]), 3.0).tolist()
    [0.0, 0.75, 1.0]
    """
    return shift * uniform / (1 + (shift - 1) * uniform)


def noised(
    clean: Float[torch.Tensor, "batch channels frames height width"],
    noise: Float[torch.Tensor, "batch channels frames height width"],
    sigma: Float[torch.Tensor, "batch"],
) -> Float[torch.Tensor, "batch channels frames height width"]:
    """x_t = (1 − σ)·x0 + σ·ε (Eq. 1), σ for every sample.

    >>> noised(torch.zeros(1, 1, 1, 1, 1), torch.ones(1, 1, 1, 1, 1), torch.tensor([0.25])).item()
    0.25
    """
    level = sigma[:, None, None, None, None]
    return (1 - level) * clean + level * noise


def choose_feature_blocks(candidates: list[int], generator: torch.Generator, count: int = FEATURE_BLOCKS) -> list[int]:
    """`count` of the candidate blocks, or all where there are fewer, drawn without repeating; ascending.

    >>> choose_feature_blocks([2, 5], torch.Generator().manual_seed(0))
    [2, 5]
    """
    order = torch.randperm(len(candidates), generator=generator).tolist()
    return sorted(candidates[index] for index in order[:count])
