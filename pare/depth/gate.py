"""The gate that multiplies a block's change: hard in the forward pass, with the sigmoid's gradient in the backward pass."""

import numpy as np
import torch
from jaxtyping import Bool, Float

from pare.depth.decision import choose_blocks


def hard_top_k(scores: Float[torch.Tensor, "batch blocks"], counts: np.ndarray) -> Bool[torch.Tensor, "batch blocks"]:
    """True for the K blocks of every sample that run: the first, the last, the best others (Eq. 10); K = counts [batch].

    A tie goes to the lower index; scores that are not numbers raise InputError. Decided on the host, one transfer each
    way.

    >>> hard_top_k(torch.tensor([[0.0, 1.0, 2.0, 0.0]]), np.array([3])).tolist()
    [[True, False, True, True]]
    """
    chosen = choose_blocks(scores.detach().double().cpu().numpy(), np.asarray(counts))
    return torch.from_numpy(chosen).to(scores.device)


def straight_through(
    scores: Float[torch.Tensor, "batch blocks"], mask: Bool[torch.Tensor, "batch blocks"]
) -> Float[torch.Tensor, "batch blocks"]:
    """m = m_hard + sigmoid(r) − stopgrad(sigmoid(r)): the hard mask exactly, with the sigmoid's gradient (Eq. 11).

    >>> scores = torch.tensor([[0.0, 2.0]], requires_grad=True)
    >>> straight_through(scores, torch.tensor([[True, False]])).sum().backward()
    >>> scores.grad[0, 0].item()
    0.25
    """
    soft = torch.sigmoid(scores)
    # In this order the two halves cancel without rounding.
    return mask.to(soft) + (soft - soft.detach())


def relative_scores(scores: Float[torch.Tensor, "batch blocks"]) -> Float[torch.Tensor, "batch blocks"]:
    """r − mean(r) over the blocks that are decided on; the first and the last, which always run, as constants.

    A decision is one of order, which a rise of all scores leaves as it is. As Eq. 11 is written such a rise is what most
    of the gradient asks for, since a block that opens lowers the loss, and it goes on until every sigmoid is flat; with
    these in place of r it has no gradient, and decisions change more often.

    >>> scores = torch.tensor([[5.0, 1.0, 3.0, 9.0]], requires_grad=True)
    >>> relative_scores(scores).tolist()
    [[5.0, -1.0, 1.0, 9.0]]
    >>> torch.sigmoid(relative_scores(scores))[0, 1].backward()
    >>> one, other = scores.grad[0, 1:3].tolist()
    >>> one > 0, one == -other
    (True, True)
    """
    free = scores[:, 1:-1]
    if not free.shape[1]:
        return scores.detach()
    return torch.cat([scores[:, :1].detach(), free - free.mean(dim=1, keepdim=True), scores[:, -1:].detach()], dim=1)


def gated_residual(
    before: Float[torch.Tensor, "batch tokens width"],
    after: Float[torch.Tensor, "batch tokens width"],
    gate: Float[torch.Tensor, "batch"],
) -> Float[torch.Tensor, "batch tokens width"]:
    """m·B(x) + (1 − m)·x for every sample (Eq. 12): B(x) where its gate is 1, x where it is 0, exactly.

    ∂/∂m = ⟨g, B(x) − x⟩ for the gradient g of the result.

    >>> x, block = torch.ones(2, 1, 1), torch.full((2, 1, 1), 3.0)
    >>> gated_residual(x, block, torch.tensor([1.0, 0.0])).flatten().tolist()
    [3.0, 1.0]
    """
    m = gate.to(before.dtype)[:, None, None]
    return m * after + (1 - m) * before
