"""Gates: a closed head is zeroed columns of W_O, open gates are the model itself, nothing stays behind."""

import copy
import doctest
import importlib

import numpy as np
import pytest
import torch

from analysis.capture import capture
from pare.errors import InputError
from pare.gates import Gates, apply_gate, gate_shapes, gated
from pare.passes import ForwardPass, each_pass
from tests.analysis.test_capture import hooks_of, image_transformer, inputs
from tests.double import Double
from tests.tiny import BLOCKS, FFN, HEAD_DIM, HEADS, tiny_image_pipeline, tiny_pipeline, tiny_transformer

MODELS = {"text": (tiny_transformer, {}), "image": (image_transformer, {"channels": 10, "image": True})}
PARTS = {"self_heads": "attn1", "cross_heads": "attn2", "neurons": "ffn"}


def layer_of(block, part):
    return block.ffn.net[2] if part == "neurons" else getattr(block, PARTS[part]).to_out[0]


def width_of(part):
    return 1 if part == "neurons" else HEAD_DIM


def units_of(part):
    return FFN if part == "neurons" else HEADS


def random_factors(seed=0, low=0.0):
    generator = torch.Generator().manual_seed(seed)
    return {part: low + torch.rand(BLOCKS, units_of(part), generator=generator).double() for part in PARTS}


def run(model, given):
    with torch.no_grad():
        return model(**given)[0]


def with_scaled_columns(model, factors):
    """The reference: the same factors multiplied into the weights of a copy."""
    model = copy.deepcopy(model)
    for part, values in factors.items():
        for block, row in zip(model.blocks, values, strict=True):
            layer_of(block, part).weight.data *= row.repeat_interleave(width_of(part)).to(layer_of(block, part).weight)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_factors_equal_scaled_columns(kind):
    make, how = MODELS[kind]
    model, given = make().double(), inputs(torch.float64, **how)
    for factors in (random_factors(), {part: (values > 0.5) for part, values in random_factors(1).items()}):
        with gated(model, Gates(**factors)):
            found = run(model, given)
        expected = run(with_scaled_columns(model, {part: values.double() for part, values in factors.items()}), given)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        assert (found - run(model, given)).norm() > 0.01 * found.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", MODELS)
def test_open_gates_are_the_model_bit_for_bit(kind, dtype):
    make, how = MODELS[kind]
    model, given = make().to(dtype), inputs(dtype, **how)
    plain = run(model, given)
    ones = {part: torch.ones(BLOCKS, units_of(part)) for part in PARTS}
    kept = {part: np.ones((BLOCKS, units_of(part)), bool) for part in PARTS}
    means = {"self_means": torch.randn(BLOCKS, HEADS, HEAD_DIM), "neuron_means": torch.randn(BLOCKS, FFN)}
    for gates in (Gates(), Gates(**ones), Gates(**kept), Gates(**ones, **means), lambda this: None):
        with gated(model, gates):
            assert torch.equal(run(model, given), plain)
    assert torch.equal(run(model, given), plain)


@pytest.mark.parametrize("part", PARTS)
def test_a_closed_gate_with_a_mean_puts_the_mean_there(part):
    model, given = tiny_transformer().double(), inputs(torch.float64)
    shape = (BLOCKS, FFN) if part == "neurons" else (BLOCKS, HEADS, HEAD_DIM)
    mean = torch.randn(shape, generator=torch.Generator().manual_seed(3)).double()
    factor = torch.ones(BLOCKS, units_of(part)).double()
    factor[0, 1], factor[1, 2] = 0.0, 0.25
    name = {"self_heads": "self_means", "cross_heads": "cross_means", "neurons": "neuron_means"}[part]
    with gated(model, Gates(**{part: factor, name: mean})):
        found = run(model, given)
    reference = with_scaled_columns(model, {part: factor})
    for index, block in enumerate(reference.blocks):
        constant = ((1 - factor[index])[:, None] * mean[index].reshape(units_of(part), -1)).flatten()
        layer = layer_of(model.blocks[index], part)
        layer_of(block, part).bias.data += layer.weight.data @ constant
    torch.testing.assert_close(found, run(reference, given), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_match_finite_differences(kind):
    make, how = MODELS[kind]
    model, given = make().double(), inputs(torch.float64, **how)
    factors = {part: values.requires_grad_() for part, values in random_factors(2, low=0.5).items()}

    def loss(values):
        with Double(), gated(model, Gates(**values)):
            return model(**given)[0].square().mean()

    gradients = dict(zip(factors, torch.autograd.grad(loss(factors), list(factors.values())), strict=True))
    step = 1e-4
    for part in PARTS:
        for block, unit in ((0, 0), (1, units_of(part) - 1)):
            ends = []
            for sign in (-1, 1):
                moved = {name: values.detach().clone() for name, values in factors.items()}
                moved[part][block, unit] += sign * step
                with torch.no_grad():
                    ends.append(loss(moved).item())
            slope = (ends[1] - ends[0]) / (2 * step)
            assert gradients[part][block, unit].item() == pytest.approx(slope, rel=1e-5, abs=1e-10)


def test_checkpointing_gives_the_same_gradients_and_refuses_gates_that_change_by_pass():
    model, given = tiny_transformer().double(), inputs(torch.float64)
    found = []
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        switch()
        factor = torch.full((BLOCKS, HEADS), 0.7, dtype=torch.float64, requires_grad=True)
        with gated(model.train(), Gates(self_heads=factor)):
            found.append(torch.autograd.grad(model(**given)[0].square().mean(), factor)[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-14)
    before = hooks_of(model)
    with (
        pytest.raises(InputError, match="checkpointing"),
        gated(model, lambda this: Gates(self_heads=torch.ones(BLOCKS, HEADS))),
    ):
        model(**given)
    assert hooks_of(model) == before


def test_a_batch_axis_gives_every_sample_its_own_gates():
    model, given = tiny_transformer().double(), inputs(torch.float64)
    two = {name: torch.cat([value, value]) if torch.is_tensor(value) else value for name, value in given.items()}
    factors = torch.rand(2, BLOCKS, HEADS).double()
    with gated(model, Gates(self_heads=factors)):
        both = run(model, two)
        with pytest.raises(InputError, match="2 samples"):
            run(model, given)
    for row in range(2):
        with gated(model, Gates(self_heads=factors[row])):
            torch.testing.assert_close(both[row : row + 1], run(model, given), rtol=1e-9, atol=1e-11)


def test_nested_gates_multiply():
    model, given = tiny_transformer().double(), inputs(torch.float64)
    outer, inner = random_factors(4), random_factors(5)
    product = {part: outer[part] * inner[part] for part in PARTS}
    with gated(model, Gates(**outer)), gated(model, lambda this: Gates(**inner)), gated(model, lambda this: None):
        found = run(model, given)
    with gated(model, Gates(**product)):
        torch.testing.assert_close(found, run(model, given), rtol=1e-10, atol=1e-12)


def test_blocks_of_different_width_take_one_entry_each():
    model, given = tiny_transformer().double(), inputs(torch.float64)
    values = [None, torch.tensor([1.0, 0.0, 1.0, 0.5])]
    whole = torch.tensor([[1.0] * HEADS, [1.0, 0.0, 1.0, 0.5]])
    with gated(model, Gates(cross_heads=values)):
        found = run(model, given)
    with gated(model, Gates(cross_heads=whole)):
        assert torch.equal(found, run(model, given))


@pytest.mark.parametrize("how", ["fused", "lora", "autocast"])
def test_other_ways_to_run_a_model(how):
    model, given = tiny_transformer(), inputs()
    if how == "lora":
        from peft import LoraConfig

        model.add_adapter(LoraConfig(r=2, target_modules=["to_out.0", "ffn.net.2", "to_q"], init_lora_weights=False))
    elif how == "fused":
        model.fuse_qkv_projections()
    factors = {part: values > 0.4 for part, values in random_factors(6).items()}
    reference = copy.deepcopy(model)
    for part in PARTS:
        for block, row in zip(reference.blocks, factors[part], strict=True):
            layer, columns = layer_of(block, part), row.repeat_interleave(width_of(part))
            base = layer.base_layer if how == "lora" else layer
            base.weight.data *= columns
            if how == "lora":
                layer.lora_A["default"].weight.data *= columns
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        plain = run(model, given)
        with gated(model, Gates(**{part: torch.ones(BLOCKS, units_of(part)) for part in PARTS})):
            assert torch.equal(run(model, given), plain)
        with gated(model, Gates(**factors)):
            found = run(model, given)
        expected = run(reference, given)
    tolerance = 2e-2 if how == "autocast" else 1e-5
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert (found - plain).abs().max() > 5 * (found - expected).abs().max()


def test_offloaded_weights_are_gated_alike():
    """Accelerate's offload wraps every forward and drops the weights after it; gates act on what goes into it."""
    from accelerate import cpu_offload

    model, given = tiny_transformer(), inputs()
    gates = Gates(**random_factors(7))
    with gated(model, gates):
        expected = run(model, given)
    cpu_offload(model, execution_device=torch.device("cpu"))
    before = hooks_of(model)
    with gated(model, lambda this: gates), torch.no_grad():
        assert torch.equal(run(model, given), expected)
    assert hooks_of(model) == before and next(model.parameters()).is_meta


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("function", [False, True])
def test_no_hook_stays(error, function):
    model, given = tiny_transformer(), inputs()
    before = hooks_of(model)
    gates = Gates(**random_factors())

    def leave():
        with gated(model, (lambda this: gates) if function else gates):
            assert hooks_of(model) != before
            run(model, given)
            if error:
                handle = model.blocks[1].attn1.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(error()))
                try:
                    run(model, given)
                finally:
                    handle.remove()

    if error:
        with pytest.raises(error):
            leave()
    else:
        leave()
    assert hooks_of(model) == before


def test_capture_inside_gates_measures_the_gated_model_and_heads_before_their_gate():
    model, given = tiny_transformer(), inputs()
    with torch.no_grad(), capture(model) as recorder:
        model(**given)
    plain = recorder.take()[0].arrays
    factor = torch.ones(BLOCKS, HEADS)
    factor[0, 2] = 0
    with torch.no_grad(), gated(model, lambda this: Gates(self_heads=factor)), capture(model) as recorder:
        model(**given)
    closed = recorder.take()[0].arrays
    np.testing.assert_array_equal(closed["self/value_norm"][0], plain["self/value_norm"][0])
    assert closed["block/residual_norm"][0] != plain["block/residual_norm"][0]
    assert (closed["self/value_norm"][1] != plain["self/value_norm"][1]).all()


@pytest.mark.parametrize("image", [False, True])
def test_a_function_of_the_pass_is_told_step_and_branch(image):
    pipe = tiny_image_pipeline() if image else tiny_pipeline()
    seen: list[ForwardPass] = []
    picture = {"image": torch.rand(1, 3, 32, 32)} if image else {}
    before = hooks_of(pipe.transformer)
    with gated(pipe, seen.append):
        for _ in range(2):
            pipe(
                prompt="a red 7", height=32, width=32, num_frames=9, num_inference_steps=3, guidance_scale=2.0,
                output_type="latent", **picture,
            )  # fmt: skip
    once = [(step, branch) for step in range(3) for branch in ("cond", "uncond")]
    assert [(each.step, each.branch) for each in seen] == 2 * once
    timesteps = [each.timestep for each in seen[::2][:3]]
    assert timesteps == sorted(timesteps, reverse=True) and len(set(timesteps)) == 3
    assert hooks_of(pipe.transformer)[0] == before[0] and "forward" not in vars(pipe.transformer)


def test_forwards_outside_of_a_pipeline_are_counted():
    model, given = tiny_transformer(), inputs()
    seen: list[ForwardPass] = []
    with each_pass(model, seen.append):
        for t in (900.0, 500.0, 500.0, 800.0):
            run(model, given | {"timestep": torch.tensor([t])})
    assert [each.step for each in seen] == [0, 1, 2, 0] and {each.branch for each in seen} == {"cond"}


@pytest.mark.parametrize(
    ("gates", "match"),
    [
        ({"self_heads": torch.ones(BLOCKS + 1, HEADS)}, "blocks"),
        ({"self_heads": torch.ones(BLOCKS, HEADS + 1)}, "self_heads, block 0"),
        ({"neurons": torch.ones(BLOCKS, 1)}, "neurons, block 0"),
        ({"cross_heads": torch.ones(BLOCKS, HEADS), "cross_means": torch.ones(BLOCKS, HEADS)}, "cross_means"),
        ({"self_means": torch.ones(BLOCKS, HEADS, HEAD_DIM)}, "no factors"),
    ],
)
def test_gates_of_another_model_are_refused_in_one_line(gates, match):
    model, given = tiny_transformer(), inputs()
    before = hooks_of(model)
    for each in (Gates(**gates), lambda this: Gates(**gates)):
        with pytest.raises(InputError, match=match) as error, gated(model, each):
            run(model, given)
        assert "\n" not in str(error.value)
    assert hooks_of(model) == before


def test_what_is_no_wan_transformer_is_refused():
    for model in (torch.nn.Linear(2, 2), None):
        with pytest.raises(InputError, match="Wan"), gated(model, Gates()):
            pass
    compiled = tiny_transformer()
    compiled.blocks[0].compile(backend="eager")
    with pytest.raises(InputError, match="compiled"), gated(compiled, Gates()):
        pass


def test_shapes_come_from_the_layers():
    assert gate_shapes(tiny_transformer()) == {
        "self_heads": ((HEADS, HEAD_DIM),) * BLOCKS,
        "cross_heads": ((HEADS, HEAD_DIM),) * BLOCKS,
        "neurons": ((FFN, 1),) * BLOCKS,
    }
    value = torch.randn(2, 3, 8)
    torch.testing.assert_close(apply_gate(value, torch.tensor([0.5, 2.0])), value * torch.tensor([0.5] * 4 + [2.0] * 4))


@pytest.mark.parametrize("module", ["pare.gates", "pare.passes"])
def test_examples(module):
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), 3.0, -3.0, 0.0, -0.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_factor_of_one_leaves_every_bit_whatever_the_mean(mean, dtype):
    values = torch.tensor([[[0.0, -0.0, 1e-40, -2.5, float("inf"), 3.0]]]).to(dtype)
    means = torch.full((3, 2), mean)
    for factor in (torch.ones(3), torch.ones(3, dtype=torch.bool), torch.ones(1, 3, requires_grad=True)):
        same = apply_gate(values, factor, means).detach()
        assert torch.equal(same, values) and torch.equal(same.signbit(), values.signbit())


def test_gradients_of_factors_of_one_know_the_mean_and_a_missing_mean_stays_where_its_factor_is_one():
    values, factor = torch.tensor([[[2.0, 5.0, 7.0]]]), torch.ones(3, requires_grad=True)
    apply_gate(values, factor, torch.tensor([[0.5], [-0.5], [float("nan")]])).sum().backward()
    assert factor.grad.tolist() == [1.5, 5.5, 7.0]
    half = torch.tensor([1.0, 0.5, 0.5])
    found = apply_gate(values, half, torch.tensor([[float("nan")], [1.0], [float("nan")]]))[0, 0]
    assert found[:2].tolist() == [2.0, 3.0] and found[2].isnan()
