"""Stage III: trajectories, regression and consistency against transcriptions; what four steps of a pipeline then do."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from pare.depth.budget import BudgetSchedule
from pare.depth.routing import RoutingConfig
from pare.errors import InputError
from pare.training.few_steps import (
    FewStepDistillation,
    FewStepSettings,
    Trajectories,
    clean_estimate,
    guided_velocity,
    sample_few_steps,
    sigma_grid,
    teacher_trajectory,
    write_trajectories,
)
from pare.training.loop import read_log, step_generator, train
from pare.training.stages import frozen, make_router
from tests.students import student, teacher
from tests.tiny import tiny_pipeline
from tests.training import CPU, loop, samples

SETTINGS = FewStepSettings(batch=2, shift=3.0, steps=2, grid=4, guidance=3.0, regression_batches=3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples(tmp_path_factory.mktemp("few") / "data")


@pytest.fixture(scope="module")
def master():
    return frozen(teacher("t2v"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory, data, master):
    folder = tmp_path_factory.mktemp("few") / "trajectories"
    write_trajectories(folder, master, data, SETTINGS, 4, {}, device=CPU)
    return Trajectories(folder)


def velocity(model, data, index, states, sigma, text=None):
    batch = data.batch([index])
    with torch.no_grad():
        return model(states, torch.tensor([1000 * sigma]), batch.text if text is None else text, return_dict=False)[0]


def test_a_trajectory_is_guided_euler_on_the_samplers_grid(data, master, stored):
    assert stored.about["sigmas"] == [1.0, 0.75, 0.0] and len(stored) == 4
    sigmas = (1.0, 0.9, 0.75, 0.5, 0.0)
    assert SETTINGS.sigmas == sigmas
    states = stored.tensors(3)["states"].float()
    x = states[:1]
    for now, then in pairwise(sigmas):
        with_text, without = (
            velocity(master, data, 3, x, now, text) for text in (None, data.empty[None])
        )  # fmt: skip
        x = x + (then - now) * (without + 3.0 * (with_text - without))
        if then == 0.75:
            assert torch.allclose(states[1:2], x, atol=5e-3)
    assert torch.allclose(states[2:], x, atol=5e-3)


def test_trajectories_that_are_there_are_kept_and_others_refused(tmp_path, data, master, stored):
    def never(*_, **__):
        raise AssertionError("the teacher ran")

    write_trajectories(stored.folder, never, data, SETTINGS, 4, {}, device=CPU)
    with pytest.raises(InputError, match="guidance"):
        write_trajectories(stored.folder, master, data, FewStepSettings(steps=2, grid=4), 4, {}, device=CPU)


def test_regression_is_its_transcription(data, master, stored):
    learner = student("t2v", "none")
    loss = FewStepDistillation(master, learner, data, stored, SETTINGS, device=CPU)
    found = loss.regression(learner, 1, step_generator(0, 1)).item()
    from pare.training.data import sample_order

    order = sample_order(4, 1, 2, 0)
    points = torch.randint(2, (2,), generator=step_generator(0, 1)).tolist()
    squares = []
    for index, point in zip(order, points, strict=True):
        states, sigma = stored.tensors(index)["states"].float(), (1.0, 0.75)[point]
        here, end = states[point][None], states[-1][None]
        target = (here - end).double() / sigma
        squares.append((velocity(learner, data, index, here, sigma).double() - target).square().mean().item())
    assert found == pytest.approx(np.mean(squares), rel=1e-4)


def test_consistency_is_its_transcription(data, master):
    learner = student("t2v", "none")
    loss = FewStepDistillation(
        master, learner, data, None, FewStepSettings(batch=2, steps=2, grid=4, guidance=3.0), device=CPU
    )
    number = 7
    found = loss.consistency(learner, number, step_generator(0, number)).item()
    generator, grid = step_generator(0, number), SETTINGS.sigmas
    points = torch.randint(4, (2,), generator=generator).tolist()
    batch = data.at(number, 2, 0)
    noise = torch.randn(batch.clean.shape, generator=generator)
    squares = []
    for index, point in enumerate(points):
        now, then, text = grid[point], grid[point + 1], batch.text[index][None]
        x = (1 - now) * batch.clean[index][None] + now * noise[index][None]

        def v(model, states, sigma, given=text):
            with torch.no_grad():
                return model(states, torch.tensor([1000 * sigma]), given, return_dict=False)[0].double()

        empty = data.empty[None]
        guided = v(master, x, now, empty) + 3.0 * (v(master, x, now) - v(master, x, now, empty))
        moved = x.double() + (then - now) * guided
        target = moved - then * v(learner, moved.float(), then)
        squares.append((x.double() - now * v(learner, x, now) - target).square().mean().item())
    assert found == pytest.approx(np.mean(squares), rel=1e-3)


def test_only_the_noisier_point_receives_gradients(data, master):
    learner = student("t2v", "none")
    seen = []

    def model(**inputs):
        seen.append(torch.is_grad_enabled())
        return learner(**inputs)

    loss = FewStepDistillation(master, learner, data, None, FewStepSettings(steps=2, grid=4), device=CPU)
    loss.consistency(model, 0, step_generator(0, 0)).backward()
    assert seen == [False, True]
    assert all(p.grad is None for p in master.parameters()) and all(p.grad is not None for p in learner.parameters())


def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(data, master):
    found = []
    for compute in (torch.float32, torch.bfloat16):
        learner = student("t2v", "none")
        teacher_ = frozen(teacher("t2v").to(compute))
        loss = FewStepDistillation(
            teacher_, learner, data, None, FewStepSettings(steps=2, grid=4), device=CPU, compute=compute
        )
        loss.consistency(learner, 0, step_generator(0, 0)).backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in learner.parameters()]))
    assert torch.nn.functional.cosine_similarity(*found, dim=0) > 0.95


def test_a_perfect_student_has_no_loss_to_learn_from(data):
    """For a velocity field that points to x0 from everywhere, every step agrees with the next."""
    clean = data.batch([0]).clean

    def straight(states, sigma):
        return (states - clean) / sigma[:, None, None, None, None]

    states = teacher_trajectory(straight, torch.randn(clean.shape, generator=step_generator(0, 0)), sigma_grid(4, 3.0))
    for x, sigma in zip(states, sigma_grid(4, 3.0)[:-1], strict=False):
        level = torch.tensor([sigma])
        assert torch.allclose(clean_estimate(x, straight(x, level), level), clean, atol=1e-5)
    assert torch.allclose(states[-1], clean, atol=1e-5)


def test_guidance_of_one_runs_one_branch(data, master):
    batch, calls = data.batch([0]), []

    class Counting:
        dtype = torch.float32

        def __call__(self, **inputs):
            calls.append(1)
            return master(**inputs)

    for guidance, forwards in ((1, 1), (3.0, 2)):
        calls.clear()
        guided_velocity(Counting(), batch, data.empty, batch.clean, torch.tensor([0.5]), guidance, torch.float32)
        assert len(calls) == forwards


def test_it_trains_with_a_frozen_router_first_by_regression_then_by_consistency(tmp_path, data, master, stored):
    learner = student("t2v", "none").train()
    router = make_router(learner, content="latent", importance=np.array([3.0, 1.0, 2.0]))
    learner.attach_router(router, BudgetSchedule.constant(2))
    learner.router.requires_grad_(False)
    learner.enable_routing(RoutingConfig(dense=True))
    before = {name: tensor.clone() for name, tensor in learner.router.state_dict().items()}
    loss = FewStepDistillation(master, learner, data, stored, SETTINGS, device=CPU)
    train(learner, loss, loop(), tmp_path)
    kinds = [sorted({"regression", "consistency"} & set(record)) for record in read_log(tmp_path)]
    assert kinds == [["regression"]] * 3 + [["consistency"]] * 3
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.router.state_dict().items())


def test_regression_learns_the_ends_of_the_trajectories(tmp_path, data, master, stored):
    learner = student("t2v", "none").train()
    settings = FewStepSettings(batch=4, steps=2, grid=4, guidance=3.0, regression_batches=40)
    loss = FewStepDistillation(master, learner, data, stored, settings, device=CPU)
    train(learner, loss, loop(steps=40, learning_rate=3e-3, ema=0.0), tmp_path)
    losses = [record["regression"] for record in read_log(tmp_path)]
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) / 2


def test_a_pipeline_of_first_order_samples_as_we_do():
    """The scheduler of a saved four-step student: UniPC of order 1 without corrector takes Euler steps."""
    pipe = tiny_pipeline()
    pipe.scheduler = type(pipe.scheduler).from_config(
        pipe.scheduler.config, solver_order=1, disable_corrector=[0, 1, 2, 3]
    )
    noise = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    found = pipe(
        "a red 7", height=32, width=32, num_frames=9, num_inference_steps=4, guidance_scale=1.0, latents=noise,
        output_type="latent",
    ).frames  # fmt: skip
    with torch.no_grad():
        text, _ = pipe.encode_prompt("a red 7", do_classifier_free_guidance=False, max_sequence_length=512)
    x = noise
    for sigma, then, t in zip(pipe.scheduler.sigmas, pipe.scheduler.sigmas[1:], pipe.scheduler.timesteps, strict=False):
        with torch.no_grad():
            x = x + (then - sigma) * pipe.transformer(x, t[None], text, return_dict=False)[0]
    assert torch.allclose(found, x, atol=1e-4)
    from pare.training.data import Batch

    ours = sample_few_steps(pipe.transformer, Batch(noise, text), noise, sigma_grid(4, 3.0))
    # Our grid is the ideal one; the scheduler's starts from u = 0.999 and drops fractions of t.
    assert (ours - x).norm() < 0.02 * x.norm()
