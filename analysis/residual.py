"""How a block changes the residual stream: norms and cosine of what goes in and what comes out."""

from typing import NamedTuple

import torch
from jaxtyping import Float

# Numbers that are held in float32 at a time.
CHUNK_CELLS = 1 << 22
# So few rows are summed by one thread: the number of threads changes no bit, and so not the number of processes.
CHUNK_ROWS = 1 << 14


class Change(NamedTuple):
    """‖y − x‖_F, ‖x‖_F and ⟨x, y⟩ / (‖x‖·‖y‖) over tokens x width."""

    residual_norm: Float[torch.Tensor, ""]
    input_norm: Float[torch.Tensor, ""]
    cosine: Float[torch.Tensor, ""]


def change(
    before: Float[torch.Tensor, "batch tokens width"], after: Float[torch.Tensor, "batch tokens width"]
) -> Change:
    """What lies between two states of the residual stream, summed in float32 over chunks of tokens.

    >>> change(torch.tensor([[[3.0, 0.0]]]), torch.tensor([[[3.0, 4.0]]]))
    Change(residual_norm=tensor(4.), input_norm=tensor(3.), cosine=tensor(0.6000))
    """
    rows = max(1, min(CHUNK_ROWS, CHUNK_CELLS // before.shape[-1]))
    sums = torch.zeros(4, device=after.device)
    chunks = (each.flatten(0, 1).split(rows) for each in (before, after))
    for x, y in zip(*chunks, strict=True):
        x, y = x.to(after.device).float(), y.float()
        by_token = torch.stack([each.sum(dim=1) for each in ((y - x).square(), x.square(), y.square(), x * y)])
        sums += by_token.sum(dim=1)
    residual, own, other = sums[:3].sqrt()
    return Change(residual, own, sums[3] / (own * other))
