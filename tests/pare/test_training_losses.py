"""The losses against float64 transcriptions of their formulas, and who receives their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pare.training.losses import LossWeights, feature_loss, kept_tokens, temporal_loss, velocity_loss


def draw(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def outliers(features: torch.Tensor) -> list[list[bool]]:
    """Row by row, in plain Python: whether a token's norm is more than 3σ from the mean norm of its sample."""
    rows = []
    for sample in features.double().tolist():
        norms = [math.sqrt(sum(value**2 for value in token)) for token in sample]
        mean = sum(norms) / len(norms)
        spread = math.sqrt(sum((norm - mean) ** 2 for norm in norms) / len(norms))
        rows.append([abs(norm - mean) > 3 * spread for norm in norms])
    return rows


def brute_feature(student, teacher, active) -> float:
    total = 0.0
    for block, (ours, theirs) in enumerate(zip(student, teacher, strict=True)):
        out, kept, squares = [outliers(ours), outliers(theirs)], 0, 0.0
        for sample in range(ours.shape[0]):
            if not active[block][sample]:
                continue
            for token in range(ours.shape[1]):
                if out[0][sample][token] or out[1][sample][token]:
                    continue
                pairs = zip(ours[sample, token].double().tolist(), theirs[sample, token].double().tolist(), strict=True)
                squares += sum((a - b) ** 2 for a, b in pairs) / ours.shape[2]
                kept += 1
        total += squares / kept if kept else 0.0
    return total / len(student)


@settings(max_examples=15)
@given(seed=st.integers(0, 1000), spikes=st.integers(0, 2), runs=st.lists(st.booleans(), min_size=4, max_size=4))
def test_feature_loss_is_its_transcription(seed, spikes, runs):
    student = [draw(2, 30, 3, seed=seed + block) for block in range(2)]
    teacher = [draw(2, 30, 3, seed=seed + 10 + block) for block in range(2)]
    for spike in range(spikes):
        student[0][spike, 3 + spike] *= 40
        teacher[1][0, 7] *= 40
    active = [torch.tensor(runs[:2]), torch.tensor(runs[2:])]
    expected = brute_feature(student, teacher, [runs[:2], runs[2:]])
    assert feature_loss(student, teacher, active).item() == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_an_outlier_of_either_side_is_left_out_of_both():
    student, teacher = draw(1, 40, 4), draw(1, 40, 4, seed=1)
    student[0, 5], teacher[0, 9] = 100.0, 100.0
    assert (~kept_tokens(student, teacher)).nonzero()[:, 1].tolist() == [5, 9]


def test_an_outlier_does_not_move_the_features_of_others():
    student, teacher = draw(1, 40, 4), draw(1, 40, 4, seed=1)
    student[0, 5] = 1e4
    student.requires_grad_()
    feature_loss([student], [teacher]).backward()
    assert student.grad is not None and not student.grad[0, 5].any() and student.grad[0, 6].any()


def test_velocity_and_temporal_losses_are_their_transcriptions():
    ours, theirs = draw(2, 3, 4, 2, 2), draw(2, 3, 4, 2, 2, seed=1)
    a, b = ours.double().numpy(), theirs.double().numpy()
    difference = a - b
    assert velocity_loss(ours, theirs).item() == pytest.approx((difference**2).sum() / difference.size, rel=1e-6)
    motion = (a[:, :, 1:] - a[:, :, :-1]) - (b[:, :, 1:] - b[:, :, :-1])
    assert temporal_loss(ours, theirs).item() == pytest.approx((motion**2).sum() / motion.size, rel=1e-6)


def test_motion_of_one_frame_is_nothing_and_an_offset_of_all_frames_is_none():
    one = draw(1, 2, 1, 2, 2).requires_grad_()
    temporal_loss(one, draw(1, 2, 1, 2, 2, seed=1)).backward()
    assert not one.grad.any()
    many = draw(1, 2, 5, 2, 2)
    assert temporal_loss(many + 3, many).item() == pytest.approx(0, abs=1e-10)


def test_the_total_weighs_the_parts_that_there_are():
    parts = {"feature": torch.tensor(1.0), "data": torch.tensor(2.0), "temporal": torch.tensor(3.0)}
    assert LossWeights.paper(image_to_video=False).total(parts).item() == 10 + 2 + 8 * 3
    assert LossWeights.paper(image_to_video=True).total(parts).item() == 10 + 2 + 4 * 3


@pytest.mark.parametrize(
    "loss", [velocity_loss, temporal_loss, lambda a, b: feature_loss([a.flatten(2)], [b.flatten(2)])]
)
def test_no_gradient_reaches_the_teacher(loss):
    ours, theirs = draw(2, 3, 4, 2, 2).requires_grad_(), draw(2, 3, 4, 2, 2, seed=1).requires_grad_()
    loss(ours, theirs).backward()
    assert ours.grad.any() and theirs.grad is None
