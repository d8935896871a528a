"""The losses of distillation as pure functions: features, the teacher's velocity, the data's, and motion (PARE, section 4).

Every loss is a mean over elements, not a sum: only then are the paper's weights 10 / 6 / 1 / 4 of one order. The teacher's
part is detached inside, so that no gradient can reach it.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Bool, Float

# A token whose feature norm lies further than so many standard deviations from the mean is left out.
OUTLIER_SIGMAS = 3.0


@dataclass(frozen=True)
class LossWeights:
    """w_f, w_t, w_d and w_τ of Eq. 13; a weight of 0 leaves its loss out.

    >>> LossWeights.paper(image_to_video=True)
    LossWeights(feature=10.0, teacher=6.0, data=1.0, temporal=4.0)
    """

    feature: float = 10.0
    teacher: float = 6.0
    data: float = 1.0
    temporal: float = 8.0

    @classmethod
    def paper(cls, *, image_to_video: bool) -> "LossWeights":
        """(10, 6, 1, 4) for image-to-video, (10, 6, 1, 8) for text-to-video."""
        return cls(temporal=4.0 if image_to_video else 8.0)

    def total(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        """w_f·L_feat + w_t·L_TFM + w_d·L_DFM + w_τ·L_temp (Eq. 13), of the parts that there are."""
        weights = asdict(self)
        return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


def velocity_loss(
    velocity: Float[torch.Tensor, "batch channels frames height width"],
    target: Float[torch.Tensor, "batch channels frames height width"],
) -> Float[torch.Tensor, ""]:
    """Mean of (v − sg(target))²: L_TFM with the teacher's velocity as target, L_DFM with ε − x0.

    >>> velocity_loss(torch.ones(1, 1, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1)).item()
    1.0
    """
    return (velocity.float() - target.detach().float()).square().mean()


def temporal_loss(
    velocity: Float[torch.Tensor, "batch channels frames height width"],
    target: Float[torch.Tensor, "batch channels frames height width"],
) -> Float[torch.Tensor, ""]:
    """L_temp: mean of (Δ_F v − sg(Δ_F target))², Δ_F the difference of neighbouring frames; 0 for a single frame.

    >>> temporal_loss(torch.ones(1, 1, 2, 1, 1), torch.zeros(1, 1, 2, 1, 1)).item()
    0.0
    """
    difference = (velocity.float() - target.detach().float()).diff(dim=2)
    return difference.square().mean() if difference.shape[2] else difference.sum()


def kept_tokens(
    student: Float[torch.Tensor, "batch tokens dim"], teacher: Float[torch.Tensor, "batch tokens dim"]
) -> Bool[torch.Tensor, "batch tokens"]:
    """True for the tokens whose norm lies within 3σ of the mean of their sample, in student and teacher both (Eq. 14).

    >>> features = torch.ones(1, 20, 1)
    >>> features[0, 3] = 100
    >>> kept_tokens(torch.ones(1, 20, 1), features).sum().item()
    19
    """
    keep = torch.ones(student.shape[:2], dtype=torch.bool, device=student.device)
    for features in (student.detach(), teacher.detach()):
        norm = features.float().norm(dim=2)
        spread = norm.std(dim=1, correction=0, keepdim=True)
        keep &= (norm - norm.mean(dim=1, keepdim=True)).abs() <= OUTLIER_SIGMAS * spread
    return keep


def feature_loss(
    student: Sequence[Float[torch.Tensor, "batch tokens dim"]],
    teacher: Sequence[Float[torch.Tensor, "batch tokens dim"]],
    active: Sequence[Bool[torch.Tensor, "batch"]] | None = None,
) -> Float[torch.Tensor, ""]:
    """L_feat: over some blocks' outputs, the mean of the mean squared difference of tokens that are no outliers (Eq. 14).

    Args: `student`, `teacher`: one tensor a block; `active`: which samples run that block, others are left out (Eq. 15).
    A block that no sample runs counts 0.

    >>> features = [torch.zeros(1, 4, 2)]
    >>> feature_loss([features[0] + 2], features).item()
    4.0
    """
    total = torch.zeros((), device=student[0].device)
    for index, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        keep = kept_tokens(ours, theirs)
        if active is not None:
            keep &= active[index].to(keep.device)[:, None]
        squared = (ours.float() - theirs.detach().float()).square().mean(dim=2)
        # A product in place of indexing: its shape does not hang on the values.
        total = total + (squared * keep).sum() / keep.sum().clamp(min=1)
    return total / len(student)
