"""Stages I and II: the loss against a transcription on the two models, who gets gradients, what is compared, what is not run."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pare.depth.budget import BudgetSchedule
from pare.depth.routing import RoutingConfig
from pare.errors import InputError
from pare.training.data import sample_order
from pare.training.features import block_outputs
from pare.training.loop import read_log, step_generator, train
from pare.training.losses import LossWeights
from pare.training.sampling import choose_feature_blocks, noised, shifted_sigma
from pare.training.stages import Distillation, StageSettings, draw, drop_texts, frozen, make_router
from pare.training.validation import held_out_errors
from pare.training.velocities import Velocities, fixed_draw, write_velocities
from tests.students import BLOCKS, student, teacher
from tests.training import CPU, loop, samples

IMPORTANCE = np.array([3.0, 1.0, 2.0])


def joint(kind: str = "t2v", k: int = 2, **router):
    """A pruned student with a router that runs K of 3 blocks."""
    model = student(kind, "none").train()
    made = make_router(model, **({"content": "latent", "importance": IMPORTANCE} | router))
    model.attach_router(made, BudgetSchedule.constant(k))
    model.enable_routing(RoutingConfig(dense=True))
    return model


@pytest.mark.parametrize("kind", ["t2v", "i2v", "flf2v"])
def test_the_loss_of_a_width_step_is_its_transcription(kind, tmp_path):
    data, learner, master = samples(tmp_path, kind), student(kind, "none"), frozen(teacher(kind))
    stage = StageSettings(batch=2, no_text_share=0.5, feature_blocks=BLOCKS)
    value, parts = Distillation(master, learner, data, stage, device=CPU)(learner, 1, step_generator(0, 1))
    this = draw(data, stage, 1, step_generator(0, 1), CPU)
    inputs = this.batch.inputs(this.noised, this.sigma)
    with torch.no_grad(), block_outputs(learner, range(BLOCKS)) as ours, block_outputs(master, range(BLOCKS)) as theirs:
        v_student, v_teacher = (model(**inputs)[0].double().numpy() for model in (learner, master))
    target = (this.noise - this.batch.clean).double().numpy()
    motion = np.diff(v_student - v_teacher, axis=2)
    features = []
    for block in range(BLOCKS):
        a, b = ours[block].double().numpy(), theirs[block].double().numpy()
        keep = np.ones(a.shape[:2], bool)
        for norm in (np.linalg.norm(a, axis=2), np.linalg.norm(b, axis=2)):
            keep &= abs(norm - norm.mean(1, keepdims=True)) <= 3 * norm.std(1, keepdims=True)
        features.append(((a - b) ** 2).mean(2)[keep].mean())
    expected = {
        "feature": np.mean(features),
        "teacher": ((v_student - v_teacher) ** 2).mean(),
        "data": ((v_student - target) ** 2).mean(),
        "temporal": (motion**2).mean(),
    }
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(expected, rel=1e-4)
    weighed = sum(
        {"feature": 10, "teacher": 6, "data": 1, "temporal": 8}[name] * each for name, each in expected.items()
    )
    assert value.item() == pytest.approx(weighed, rel=1e-4)


def test_gradients_reach_all_of_the_student_and_none_of_the_teacher(tmp_path):
    data, learner, master = samples(tmp_path), student("t2v", "none"), frozen(teacher("t2v"))
    Distillation(master, learner, data, StageSettings(batch=2), device=CPU)(learner, 0, step_generator(0, 0))[
        0
    ].backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())
    assert all(parameter.grad is None for parameter in master.parameters())


def test_the_router_learns_through_the_gate_and_only_there(tmp_path):
    data, master, learner = samples(tmp_path), frozen(teacher("t2v")), joint()
    loss = Distillation(master, learner, data, StageSettings(batch=2), device=CPU)
    loss(learner, 0, step_generator(0, 0))[0].backward()
    bias = learner.router.last.bias.grad
    # Blocks that did not run get a gradient too: all of them were run and gated.
    assert bias is not None and bias.abs().min() > 0
    # With the gate cut off, nothing is left.
    learner.zero_grad()
    handle = learner.router.register_forward_hook(lambda _module, _args, scores: scores.detach())
    loss(learner, 0, step_generator(0, 0))[0].backward()
    handle.remove()
    assert all(parameter.grad is None for parameter in learner.router.parameters())


def test_features_are_compared_only_where_a_block_runs(tmp_path):
    data, master, learner = samples(tmp_path), frozen(teacher("t2v")), joint()
    only = StageSettings(batch=2, weights=LossWeights(10.0, 0.0, 0.0, 0.0), feature_blocks=BLOCKS)
    value, parts = Distillation(master, learner, data, only, device=CPU)(learner, 0, step_generator(0, 0))
    assert learner.routing_summary()[-1].ran.tolist() == [[True, False, True]] * 2
    assert set(parts) == {"feature", "blocks_run"} and parts["blocks_run"].item() == 2
    value.backward()
    # The block that does not run changes nothing that is compared.
    assert not any(p.grad is not None and p.grad.any() for p in learner.blocks[1].parameters())
    assert all(p.grad is not None for p in learner.blocks[2].attn1.parameters())


def test_a_static_ranking_is_a_router_that_stays(tmp_path):
    data, master = samples(tmp_path), frozen(teacher("t2v"))
    learner = joint(content="none", trains=False)
    before = {name: tensor.clone() for name, tensor in learner.router.state_dict().items()}
    train(learner, Distillation(master, learner, data, StageSettings(), device=CPU), loop(), tmp_path / "t")
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.router.state_dict().items())
    ran = learner.routing_summary()[-1].ran
    assert ran.tolist() == [[True, False, True]] * len(ran)


def test_losses_of_weight_nothing_are_not_computed_and_an_unneeded_teacher_does_not_run(tmp_path):
    data, learner = samples(tmp_path), student("t2v", "none")
    alone = StageSettings(weights=LossWeights(0.0, 0.0, 1.0, 0.0))
    _, parts = Distillation(None, learner, data, alone, device=CPU)(learner, 0, step_generator(0, 0))
    assert set(parts) == {"data"}


def test_joint_training_moves_student_and_router_and_recovers(tmp_path):
    data, master, learner = samples(tmp_path, held_out=2), frozen(teacher("t2v")), joint(k=3)
    check = held_out_errors(master, data, device=CPU, compute=torch.float32, sigmas=(0.5,))
    # So small that a student starts close: the part of the teacher must fall by a third.
    focused = StageSettings(batch=4, weights=LossWeights(10.0, 6.0, 0.0, 8.0), no_text_share=0.0)
    train(
        learner, Distillation(master, learner, data, focused, device=CPU), loop(steps=30, ema=0.0, learning_rate=3e-3),
        tmp_path / "t", rates=lambda name: 10.0 if name.startswith("router.") else 1.0, validate=check, validate_every=15,
    )  # fmt: skip
    records = list(read_log(tmp_path / "t"))
    losses = [record["teacher"] for record in records if "loss" in record]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) * 2 / 3
    found = [record["validation"] for record in records if "validation" in record]
    assert len(found) == 2 and found[0]["n"] == 2
    assert found[1]["teacher error at sigma 0.5"] < found[0]["teacher error at sigma 0.5"] * 1.5


def test_checkpointing_gives_the_same_gradients_and_features(tmp_path):
    data, master = samples(tmp_path), frozen(teacher("t2v"))
    found = []
    for checkpointing in (False, True):
        learner = joint()
        if checkpointing:
            learner.enable_gradient_checkpointing()
        loss = Distillation(master, learner, data, StageSettings(batch=2), device=CPU)
        value, _ = loss(learner, 0, step_generator(0, 0))
        value.backward()
        found.append((value.item(), [parameter.grad for parameter in learner.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_bfloat16_forwards_train_float32_weights(tmp_path):
    data, learner = samples(tmp_path), joint()
    master = frozen(teacher("t2v").to(torch.bfloat16))
    loss = Distillation(master, learner, data, StageSettings(batch=2), device=CPU, compute=torch.bfloat16)
    value, _ = loss(learner, 0, step_generator(0, 0))
    value.backward()
    exact, _ = Distillation(frozen(teacher("t2v")), learner, data, StageSettings(batch=2), device=CPU)(
        learner, 0, step_generator(0, 0)
    )
    assert value.dtype == torch.float32 and value.item() == pytest.approx(exact.item(), rel=0.05)
    assert all(
        parameter.grad.dtype == torch.float32 for parameter in learner.parameters() if parameter.grad is not None
    )


@settings(max_examples=20)
@given(u=st.floats(0, 1), shift=st.floats(0.5, 10))
def test_sigma_is_the_samplers_own_shift(u, shift):
    sigma = shifted_sigma(torch.tensor([u], dtype=torch.float64), shift).item()
    assert sigma == pytest.approx(shift * u / (1 + (shift - 1) * u)) and 0 <= sigma <= 1


def test_noise_levels_are_per_sample():
    clean, noise = torch.zeros(2, 1, 1, 1, 1), torch.ones(2, 1, 1, 1, 1)
    assert noised(clean, noise, torch.tensor([0.0, 0.75])).flatten().tolist() == [0.0, 0.75]


def test_texts_are_dropped_by_their_share_and_feature_blocks_drawn_without_repeating():
    text, generator = torch.ones(1000, 2, 3), torch.Generator().manual_seed(0)
    dropped = (drop_texts(text, torch.zeros(2, 3), 0.1, generator) == 0).all(dim=(1, 2)).sum().item()
    assert 70 <= dropped <= 130
    assert torch.equal(drop_texts(text, torch.zeros(2, 3), 0.0, generator), text)
    drawn = [choose_feature_blocks(list(range(10)), generator) for _ in range(200)]
    assert all(len(set(each)) == 4 and each == sorted(each) for each in drawn)
    assert {block for each in drawn for block in each} == set(range(10))


def test_a_router_without_what_it_ranks_by_is_even_and_wrong_importance_is_refused():
    model = student("t2v", "none")
    assert not make_router(model, content="latent").last.bias.any()
    router = make_router(model, content="none", importance=IMPORTANCE)
    assert router.last.bias.argsort(descending=True).tolist() == [0, 2, 1]
    with pytest.raises(InputError, match="importance"):
        make_router(model, content="latent", importance=np.ones(2))


def test_a_router_decides_the_same_in_autocast():
    router = make_router(student("t2v", "none"), content="latent", importance=IMPORTANCE)
    torch.nn.init.normal_(router.last.weight)
    t, latents = torch.tensor([137.5]), torch.randn(1, 4, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        scores = router(t, latents)
    assert torch.equal(scores, router(t, latents))


def test_stored_velocities_are_the_teachers_and_replace_it(tmp_path):
    data, master, learner = samples(tmp_path / "data", held_out=1), frozen(teacher("t2v")), student("t2v", "none")
    write_velocities(tmp_path / "v", master, data, 2, {}, shift=3.0, seed=0, device=CPU)
    stored, weights = Velocities(tmp_path / "v"), LossWeights(0.0, 6.0, 1.0, 8.0)
    stage = StageSettings(batch=2, weights=weights, no_text_share=0.0)
    loss = Distillation(None, learner, data, stage, device=CPU, velocities=stored)
    seen = set()
    for number in range(10):
        _, parts = loss(learner, number, step_generator(0, number))
        # Five samples an epoch, another noise level in every other epoch.
        places = [divmod(place, 5) for place in (2 * number, 2 * number + 1)]
        order = sample_order(5, number, 2, 0)
        drawn = [
            fixed_draw(data.batch([sample]).clean, sample, epoch % 2, 3.0, 0)
            for sample, (epoch, _) in zip(order, places, strict=True)
        ]
        batch, sigma, noise = (
            data.batch(order),
            torch.cat([each[0] for each in drawn]),
            torch.cat([each[1] for each in drawn]),
        )
        inputs = batch.inputs(noised(batch.clean, noise, sigma), sigma)
        with torch.no_grad():
            difference = learner(**inputs)[0] - master(**inputs)[0]
        assert parts["teacher"].item() == pytest.approx(difference.square().mean().item(), rel=2e-2)
        seen |= set(sigma.tolist())
    assert len(seen) == 10
    with pytest.raises(InputError, match="--feature-weight 0"):
        Distillation(None, learner, data, StageSettings(), device=CPU, velocities=stored)
