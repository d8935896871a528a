"""Mean and mean square over tokens, in float32 over chunks, so that no second copy of large activations is made."""

from typing import NamedTuple

import torch
from jaxtyping import Float

CHUNK_CELLS = 1 << 22


class TokenMeans(NamedTuple):
    """Mean and mean square of every column."""

    mean: Float[torch.Tensor, "columns"]
    square: Float[torch.Tensor, "columns"]


def token_means(values: Float[torch.Tensor, "tokens columns"]) -> TokenMeans:
    """The mean and the mean square of every column over all tokens.

    >>> token_means(torch.tensor([[1.0, 0.0], [3.0, 2.0]]))
    TokenMeans(mean=tensor([2., 1.]), square=tensor([5., 2.]))
    """
    tokens, columns = values.shape
    sums = torch.zeros(2, columns, device=values.device)
    for part in values.split(max(1, CHUNK_CELLS // columns)):
        part = part.float()
        sums[0] += part.sum(dim=0)
        sums[1] += part.square().sum(dim=0)
    return TokenMeans(*(sums / tokens))
