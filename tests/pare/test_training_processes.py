"""Trainings that are killed, and trainings of several processes: the same weights as alone and uninterrupted."""

import json
from itertools import pairwise

import pytest
import torch
from accelerate import Accelerator, DistributedType, FullyShardedDataParallelPlugin

from pare.depth.budget import BudgetSchedule
from pare.depth.routing import RoutingConfig
from pare.errors import Cancelled, InputError
from pare.training import state as states
from pare.training.data import LatentData
from pare.training.few_steps import FewStepDistillation, FewStepSettings, Trajectories, write_trajectories
from pare.training.loop import Diverged, read_log, train
from pare.training.parallel import Parallel, computing
from pare.training.stages import Distillation, StageSettings, frozen, make_router
from pare.training.state import load_state
from pare.training.validation import held_out_errors
from tests.children import die, in_children, processes
from tests.students import student, teacher
from tests.training import CPU, loop, samples

FEW = FewStepSettings(steps=2, grid=4, guidance=3.0, regression_batches=2)


def in_parallel(sharded: bool) -> Parallel:
    """Two CPU processes. Accelerate shards on accelerators only, so that on a CPU it is told that it does."""
    accelerator = Accelerator(cpu=True)
    if sharded:
        accelerator.state.distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
    parallel = Parallel(accelerator)
    assert parallel.count == 2 and parallel.sharded == sharded
    return parallel


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return samples(tmp_path_factory.mktemp("samples") / "data").folder


def joint(data, folder, settings, parallel=None, progress=lambda done, total, message="": None, checkpointing=False):
    """Stage II of a tiny student; returns it."""
    parallel = parallel or Parallel()
    learner = student("t2v", "none").train()
    learner.attach_router(make_router(learner, content="latent"), BudgetSchedule.constant(2))
    learner.enable_routing(RoutingConfig(dense=True))
    if checkpointing:
        learner.enable_gradient_checkpointing()
    master = parallel.place(frozen(teacher("t2v")), compute=torch.float32, trains=False)
    model = parallel.place(learner, compute=torch.float32, trains=True)
    loss = Distillation(master, parallel.whole(model), LatentData(data), StageSettings(), device=CPU)
    rates = lambda name: 10.0 if name.startswith("router.") else 1.0  # noqa: E731
    # A validation that runs the model between two steps must leave no trace.
    held_out = LatentData(data, held_out=1)
    check = held_out_errors(master, held_out, device=CPU, compute=torch.float32, sigmas=(0.5,))
    train(
        model, loss, settings, folder, rates=rates, parallel=parallel, progress=progress,
        validate=check if parallel.sharded else None, validate_every=2,
    )  # fmt: skip
    return parallel.whole(model)


def tensors(folder):
    return load_state(folder / "state")[0]


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The state of six steps of two batches, uninterrupted and alone."""
    folder = tmp_path_factory.mktemp("whole")
    joint(data, folder, loop(accumulation=2))
    return folder


def test_a_training_that_is_killed_goes_on_to_the_same_bytes(data, whole, tmp_path, monkeypatch):
    def kill_at(step):
        return lambda done, total, message="": die() if done == step else None

    assert in_children(lambda: joint(data, tmp_path, loop(accumulation=2), progress=kill_at(1))) == [-9]
    assert load_state(tmp_path / "state") is None
    assert in_children(lambda: joint(data, tmp_path, loop(accumulation=2), progress=kill_at(3))) == [-9]
    assert load_state(tmp_path / "state")[1]["step"] == 2
    # And in the middle of writing a state.
    saving = states.save_file
    monkeypatch.setattr(states, "save_file", lambda part, path: (saving(part, path), die()))
    assert in_children(lambda: joint(data, tmp_path, loop(accumulation=2))) == [-9]
    monkeypatch.undo()
    assert load_state(tmp_path / "state")[1]["step"] == 2
    joint(data, tmp_path, loop(accumulation=2))
    found, wanted = tensors(tmp_path), tensors(whole)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    kept = [{name: value for name, value in record.items() if name != "seconds"} for record in read_log(tmp_path)]
    assert kept == [{name: value for name, value in record.items() if name != "seconds"} for record in read_log(whole)]


@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "shards"])
def test_two_processes_train_as_one_with_twice_the_accumulation(data, whole, tmp_path, free_port, sharded):
    def work():
        parallel = in_parallel(sharded)
        learner = joint(data, tmp_path, loop(), parallel)
        weights = dict(parallel.gathered(learner.named_parameters()))
        if parallel.leads:
            averages = {name: tensor for name, tensor in tensors(tmp_path).items() if name.startswith("average.")}
            assert all(torch.equal(averages[f"average.{name}"], tensor) for name, tensor in weights.items())
        torch.distributed.destroy_process_group()

    assert in_children(work, processes(2, free_port())) == [0, 0]
    found, wanted = tensors(tmp_path), tensors(whole)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        # Sums of gradients in another order.
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=2e-4), name


def few_steps(data, stored, folder, settings, parallel=None):
    """Stage III of a tiny routed student: two batches of regression, then consistency."""
    parallel = parallel or Parallel()
    learner = student("t2v", "none").train()
    learner.attach_router(frozen(make_router(learner, content="latent")), BudgetSchedule.constant(2))
    learner.enable_routing(RoutingConfig(dense=True))
    master = parallel.place(frozen(teacher("t2v")), compute=torch.float32, trains=False)
    model = parallel.place(learner, compute=torch.float32, trains=True)
    loss = FewStepDistillation(master, parallel.whole(model), LatentData(data), Trajectories(stored), FEW, device=CPU)
    train(model, loss, settings, folder, parallel=parallel)


@pytest.mark.parametrize("sharded", [False, True], ids=["copies", "shards"])
def test_two_processes_learn_few_steps_as_one_with_twice_the_accumulation(data, tmp_path, free_port, sharded):
    stored = tmp_path / "trajectories"
    write_trajectories(stored, frozen(teacher("t2v")), LatentData(data), FEW, 3, {}, device=CPU)

    def work():
        few_steps(data, stored, tmp_path / "two", loop(steps=3), in_parallel(sharded))
        torch.distributed.destroy_process_group()

    assert in_children(work, processes(2, free_port())) == [0, 0]
    few_steps(data, stored, tmp_path / "one", loop(steps=3, accumulation=2))
    found, wanted = tensors(tmp_path / "two"), tensors(tmp_path / "one")
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.allclose(found[name], tensor, rtol=1e-3, atol=2e-4), name


def test_a_router_in_shards_decides_in_float32(data, tmp_path, free_port):
    def routed():
        learner = student("t2v", "none")
        router = make_router(learner, content="latent")
        torch.nn.init.normal_(router.last.weight, generator=torch.Generator().manual_seed(0))
        learner.attach_router(router, BudgetSchedule.constant(2))
        learner.enable_routing(RoutingConfig(dense=True))
        return learner

    batch, sigma = LatentData(data).batch([0]), torch.tensor([0.1375])
    alone = routed()
    wanted = alone.router(1000 * sigma, batch.clean)

    def work():
        parallel, seen = in_parallel(sharded=True), []
        learner = routed()
        learner.router.register_forward_hook(lambda module, given, scores: seen.append(scores))
        model = parallel.place(learner, compute=torch.bfloat16, trains=True)
        with computing(CPU, torch.bfloat16):
            model(**batch.inputs(batch.clean, sigma))
        assert torch.equal(seen[0], wanted)
        torch.distributed.destroy_process_group()

    assert in_children(work, processes(2, free_port())) == [0, 0]


def test_a_state_of_shards_goes_on_alone(data, whole, tmp_path, free_port):
    def work():
        def stop(done, total, message=""):
            if done == 4:
                raise Cancelled

        parallel = in_parallel(sharded=True)
        with pytest.raises(Cancelled):
            joint(data, tmp_path, loop(), parallel, progress=stop)
        torch.distributed.destroy_process_group()

    assert in_children(work, processes(2, free_port())) == [0, 0]
    assert load_state(tmp_path / "state")[1]["step"] == 4
    joint(data, tmp_path, loop(accumulation=2))
    wanted = tensors(whole)
    assert all(torch.allclose(tensor, wanted[name], rtol=1e-3, atol=2e-4) for name, tensor in tensors(tmp_path).items())


def test_cancelling_keeps_the_last_step(data, tmp_path):
    def stop(done, total, message=""):
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        joint(data, tmp_path, loop(), progress=stop)
    assert load_state(tmp_path / "state")[1]["step"] == 3


def test_a_loss_that_runs_away_stops_the_training(tmp_path):
    model = torch.nn.Linear(1, 1)

    def loss(net, number, generator):
        return (net(torch.ones(1, 1)) ** 2).sum() * 0 + torch.tensor(1.0, requires_grad=True) * 10.0 ** max(
            0, number - 5
        )

    with pytest.raises(Diverged, match="times its lowest") as error:
        train(model, loss, loop(steps=50, divergence=20.0), tmp_path)
    assert "\n" not in str(error.value)
    # The mean of ten steps passes 20 at the ninth.
    assert load_state(tmp_path / "state")[1]["step"] == 8


def test_a_cosine_falls_after_the_warm_up():
    from pare.training.loop import rate_factor

    settings = loop(steps=12, warmup=2)
    found = [rate_factor(step, settings) for step in range(12)]
    assert found[:3] == [0.5, 1.0, 1.0] and found[7] == pytest.approx(0.5)
    assert all(later < earlier for earlier, later in pairwise(found[2:]))


def test_tensorboard_has_the_curves(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    model = torch.nn.Linear(2, 1)

    def loss(net, number, generator):
        value = net(torch.randn(4, 2, generator=generator)).square().mean()
        return value, {"part": value / 2}

    train(model, loss, loop(), tmp_path, validate=lambda net, step: {"error": 1.5}, validate_every=3, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [each.step for each in events.Scalars("training/part")] == list(range(1, 7))
    assert [each.step for each in events.Scalars("validation/error")] == [3, 6]


def test_another_schedule_is_another_training(data, tmp_path):
    joint(data, tmp_path, loop(steps=2))
    with pytest.raises(InputError, match="schedule"):
        joint(data, tmp_path, loop(steps=2, schedule="hold"))


def test_a_state_from_before_a_setting_existed_goes_on(tmp_path):
    def loss(net, number, generator):
        return (net(torch.randn(4, 2, generator=generator)) - 1).square().mean()

    def model():
        torch.manual_seed(0)
        return torch.nn.Linear(2, 1)

    def stop(done, total, message=""):
        if done == 4:
            raise Cancelled

    old = {"schedule": "hold", "steps": 8, "checkpoint_every": 4}
    whole = train(model(), loss, loop(**old), tmp_path / "whole")
    with pytest.raises(Cancelled):
        train(model(), loss, loop(**old), tmp_path / "old", progress=stop)
    path = tmp_path / "old" / "state" / "state.json"
    record = json.loads(path.read_text())
    record = {name: record[name] for name in ("step", "settings", "updates")}
    for name in ("schedule", "accumulation", "divergence"):
        del record["settings"][name]
    path.write_text(json.dumps(record))
    resumed = train(model(), loss, loop(**old), tmp_path / "old")
    assert torch.equal(whole.weight, resumed.weight) and torch.equal(whole.bias, resumed.bias)
