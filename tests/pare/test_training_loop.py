"""The loop: the same weights after a kill, the last good state after a NaN, the schedule and the average as documented."""

import pytest
import torch
from torch import nn

from pare.errors import Cancelled, InputError
from pare.training.loop import Diverged, LoopSettings, averaged, rate_factor, read_log, train
from pare.training.state import load_state


class Killed(Exception):
    """Stands for a process that ends without warning."""


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))


def loss(net: nn.Module, step: int, generator: torch.Generator) -> torch.Tensor:
    x = torch.randn(16, 4, generator=generator)
    return (net(x) - x.sum(1, keepdim=True)).square().mean()


def settings(**changes) -> LoopSettings:
    return LoopSettings(**{"steps": 20, "learning_rate": 1e-2, "warmup": 3, "checkpoint_every": 4, "seed": 5} | changes)


def killed_at(step: int):
    def report(done: int, total: int, message: str = "") -> None:
        if done == step:
            raise Killed

    return report


@pytest.mark.parametrize("matrices", [(), ("0.weight",), ("0.weight", "2.weight")])
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, matrices):
    chosen = {"by_muon": lambda name: name in matrices}
    whole = train(model(), loss, settings(), tmp_path / "whole", **chosen)
    for stop in (6, 11, 15):
        with pytest.raises(Killed):
            train(model(), loss, settings(), tmp_path / "killed", progress=killed_at(stop), **chosen)
    resumed = train(model(), loss, settings(), tmp_path / "killed", **chosen)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    whole_state, resumed_state = load_state(tmp_path / "whole/state")[0], load_state(tmp_path / "killed/state")[0]
    assert all(torch.equal(whole_state[name], resumed_state[name]) for name in whole_state)


def test_more_steps_asked_while_the_rate_holds_equal_asking_from_the_start(tmp_path):
    whole = train(model(), loss, settings(steps=40), tmp_path / "whole")
    with pytest.raises(Killed):
        train(model(), loss, settings(steps=20), tmp_path / "longer", progress=killed_at(13))
    longer = train(model(), loss, settings(steps=40), tmp_path / "longer")
    for a, b in zip(whole.state_dict().values(), longer.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_other_settings_is_refused_in_one_line(tmp_path):
    train(model(), loss, settings(), tmp_path)
    with pytest.raises(InputError, match="learning_rate") as error:
        train(model(), loss, settings(learning_rate=2e-2), tmp_path)
    assert "\n" not in str(error.value)


def test_divergence_keeps_the_last_good_state(tmp_path):
    def bad(net, step, generator):
        return loss(net, step, generator) * (float("nan") if step == 10 else 1.0)

    with pytest.raises(Diverged, match="step 10"):
        train(model(), bad, settings(), tmp_path)
    tensors, record = load_state(tmp_path / "state")
    assert record["step"] == 8
    assert all(torch.isfinite(tensor).all() for tensor in tensors.values())


def test_muon_moves_a_matrix_in_all_its_directions_alike(tmp_path):
    net = model()
    before = net[0].weight.detach().clone()
    one = settings(steps=1, warmup=1, decay_share=0.0, weight_decay=0.0, ema=0.0)
    train(net, loss, one, tmp_path, by_muon=lambda name: name == "0.weight")
    moved = torch.linalg.svdvals(net[0].weight.detach() - before)
    # Orthogonal up to the five Newton-Schulz steps, at AdamW's size: 0.2 · sqrt(longer side) · rate.
    assert torch.allclose(moved, torch.full_like(moved, 0.2 * 8**0.5 * 1e-2), rtol=0.5)


def test_the_loss_falls_and_is_logged_with_validation(tmp_path):
    train(model(), loss, settings(steps=200), tmp_path, validate=lambda net, step: {"n": 1}, validate_every=100)
    records = list(read_log(tmp_path))
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < losses[0] / 2
    assert [record["step"] for record in records if "validation" in record] == [100, 200]


def test_schedule_rises_holds_and_falls():
    s = settings(steps=100, warmup=10, decay_share=0.5)
    factors = [rate_factor(step, s) for step in range(100)]
    assert factors[:10] == pytest.approx([(k + 1) / 10 for k in range(10)])
    assert all(factor == 1.0 for factor in factors[10:50])
    assert factors[-1] == pytest.approx(1 / 50)


def test_groups_with_their_own_rate_move_by_it(tmp_path):
    slow = train(
        model(),
        loss,
        settings(steps=1, warmup=0, ema=0.0),
        tmp_path / "a",
        rates=lambda name: 0.0 if "0." in name else 1.0,
    )
    start = model()
    assert torch.equal(slow[0].weight, start[0].weight)
    assert not torch.equal(slow[2].weight, start[2].weight)


def test_what_rests_learns_in_its_share_of_the_steps_and_a_resume_within_the_rest_is_exact(tmp_path):
    seen = {}

    def look(net, step):
        seen[step] = (net[0].weight.clone(), net[2].weight.clone())
        return {}

    given = {"rests": lambda name: "0." in name, "validate": look, "validate_every": 2}
    chosen = settings(steps=12, warmup=0, ema=0.0, learning_share=0.5, weight_decay=0.1)
    whole = train(model(), loss, chosen, tmp_path / "whole", **given)
    assert not torch.equal(seen[2][0], seen[4][0]) and not torch.equal(seen[4][0], seen[6][0])
    for step in (8, 10, 12):
        assert torch.equal(seen[6][0], seen[step][0]) and not torch.equal(seen[step - 2][1], seen[step][1])

    def stop(done, total, message=""):
        if done == 9:
            raise Cancelled

    with pytest.raises(Cancelled):
        train(model(), loss, chosen, tmp_path / "cut", progress=stop, **given)
    resumed = train(model(), loss, chosen, tmp_path / "cut", **given)
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_part_that_gets_gradients_only_later_resumes_exactly_too(tmp_path):
    def late(net, step, generator):
        x = torch.randn(16, 4, generator=generator)
        hidden = net[0](x).detach() if step < 9 else net[0](x)
        return (net[2](net[1](hidden)) - x.sum(1, keepdim=True)).square().mean()

    whole = train(model(), late, settings(), tmp_path / "whole")
    for stop in (6, 14):
        with pytest.raises(Killed):
            train(model(), late, settings(), tmp_path / "killed", progress=killed_at(stop))
    resumed = train(model(), late, settings(), tmp_path / "killed")
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_training_cancelled_within_a_validation_goes_on_with_the_same_weights_and_makes_up_for_it(tmp_path):
    seen = []

    def weigh(net, step):
        return {"n": 1, "weight": net[0].weight[0, 0].item()}

    def validate(net, step):
        seen.append(step)
        if step == 8 and seen.count(8) == 1:
            raise Cancelled
        return weigh(net, step)

    whole = train(model(), loss, settings(steps=12), tmp_path / "whole", validate=weigh, validate_every=4)
    own = settings(steps=12, checkpoint_every=100)
    with pytest.raises(Cancelled):
        train(model(), loss, own, tmp_path / "cut", validate=validate, validate_every=4)
    # No state was due, and nothing is lost.
    assert load_state(tmp_path / "cut" / "state")[1]["step"] == 8
    resumed = train(model(), loss, own, tmp_path / "cut", validate=validate, validate_every=4)
    assert seen == [4, 8, 8, 12]
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    found = [[each for each in read_log(tmp_path / name) if "validation" in each] for name in ("whole", "cut")]
    assert found[0] == found[1] and len(found[0]) == 3


def test_an_interruption_while_weights_are_put_back_loses_none_of_them():
    net = model()
    before = {name: each.detach().clone() for name, each in net.named_parameters()}
    weights = averaged(net, {name: torch.zeros_like(each) for name, each in before.items()})
    with weights:
        assert not any(each.any() for each in net.parameters())
    with torch.no_grad():
        # As if one had not been put back.
        net[2].weight.zero_()
    weights.put_back()
    assert all(torch.equal(each, before[name]) for name, each in net.named_parameters())


def test_a_torn_line_of_the_log_is_left_behind(tmp_path):
    with pytest.raises(Killed):
        train(model(), loss, settings(log_every=1), tmp_path, progress=killed_at(10))
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 10, "lo')
    train(model(), loss, settings(log_every=1), tmp_path)
    records = list(read_log(tmp_path))
    assert [record["step"] for record in records] == list(range(1, 21))
    rates = [record["learning_rate"] for record in records]
    assert rates == [1e-2 * rate_factor(step, settings()) for step in range(20)]
