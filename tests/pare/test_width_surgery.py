"""Cutting: the right matrices, the three treatments of the query/key norm against masking, bias compensation."""

import doctest
import importlib
import warnings

import numpy as np
import pytest
import torch

from pare.errors import InputError
from pare.gates import gated
from pare.mask import Mask
from pare.width import surgery
from pare.width.compensation import compensated_bias
from pare.width.cut_error import cut_errors
from pare.width.masked import masked
from pare.width.qk_norm import NORMS, fold_constants
from pare.width.surgery import prune
from tests.students import (
    BLOCKS,
    KINDS,
    full_mask,
    inputs,
    measured_moments,
    probe,
    random_mask,
    student,
    teacher,
    velocity,
)
from tests.tiny import HEAD_DIM, HEADS


@pytest.mark.parametrize("name", ["surgery", "qk_norm", "compensation", "masked", "cut_error", "weight_files"])
def test_examples(name):
    assert doctest.testmod(importlib.import_module(f"pare.width.{name}")).failed == 0


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("qk_norm", ["none", "exact", "fold"])
def test_a_full_mask_gives_the_stock_model_bit_for_bit(kind, qk_norm):
    model, given = teacher(kind), inputs(kind, batch=2)
    moments = measured_moments(model, inputs(kind, 7))
    pruned = prune(model, full_mask(), moments, qk_norm=qk_norm, compensate=True)
    assert torch.equal(velocity(pruned, given), velocity(model, given))
    # Nothing was cut, so nothing was treated.
    assert pruned.config.self_heads is None and pruned.config.qk_norm_mode == "none"
    assert all(torch.equal(value, pruned.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_exact_equals_masking(kind):
    model, mask, given = teacher(kind), random_mask(), inputs(kind)
    pruned = prune(model, mask, qk_norm="exact")
    with masked(model, mask):
        expected = velocity(model, given)
    assert relative(velocity(pruned, given), expected) < 1e-5
    assert relative(expected, velocity(model, given)) > 1e-2
    assert max(error.masking_update for error in cut_errors(model, pruned, mask, probe(kind))) < 1e-5


def test_masking_is_zeroed_columns_of_the_output_projections():
    model, mask, given = teacher("i2v"), random_mask(), inputs("i2v")
    with masked(model, mask):
        expected = velocity(model, given)
    with torch.no_grad():
        for index, block in enumerate(model.blocks):
            columns = ((block.attn1.to_out[0], mask.self_heads), (block.attn2.to_out[0], mask.cross_heads))
            for layer, keep in columns:
                layer.weight[:, torch.from_numpy(np.repeat(~keep[index], HEAD_DIM))] = 0
            block.ffn.net[2].weight[:, torch.from_numpy(~mask.neurons[index])] = 0
    assert relative(velocity(model, given), expected) < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_fold_is_nearer_to_masking_than_none_and_exact_is_nearest(kind):
    model, mask = teacher(kind), random_mask()
    moments = measured_moments(model, inputs(kind, 7))
    error = {}
    for qk_norm in ("none", "fold", "exact"):
        found = cut_errors(model, prune(model, mask, moments, qk_norm=qk_norm), mask, probe(kind))
        error[qk_norm] = np.median([each.masking_update for each in found])
    assert error["exact"] < 1e-5 < error["fold"] < error["none"] / 2


def test_fold_is_exact_where_the_ratio_of_the_norms_is_constant():
    # With zero query and key weights their biases are all that is left: the same for every token.
    model, mask = teacher("i2v"), random_mask()
    with torch.no_grad():
        for block in model.blocks:
            for layer in (block.attn1, block.attn2):
                for projection in (layer.to_q, layer.to_k, layer.add_k_proj):
                    if projection is not None:
                        projection.weight.zero_()
                        projection.bias.normal_(generator=torch.Generator().manual_seed(len(projection.bias)))
    pruned = prune(model, mask, measured_moments(model, inputs("i2v", 7)), qk_norm="fold")
    assert max(error.masking_update for error in cut_errors(model, pruned, mask, probe("i2v"))) < 1e-5


def test_fold_constants_against_their_formula():
    model, mask = teacher("i2v"), random_mask()
    moments = measured_moments(model, inputs("i2v", 7))
    constants = fold_constants(moments, mask, image=True)
    assert set(constants) == set(NORMS)
    for norm, (part, name) in NORMS.items():
        for block in range(BLOCKS):
            squares = [float(each) for each in moments[name][block]]
            kept = [each for each, stays in zip(squares, getattr(mask, part)[block], strict=True) if stays]
            expected = (sum(kept) / len(kept)) ** 0.5 / (sum(squares) / len(squares)) ** 0.5
            assert constants[norm][block] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("qk_norm", ["none", "exact"])
def test_every_tensor_is_the_sub_matrix_of_the_base_model(kind, qk_norm):
    model, mask = teacher(kind), random_mask()
    pruned, source = prune(model, mask, qk_norm=qk_norm), teacher(kind).state_dict()
    whole = list(range(HEADS * HEAD_DIM))
    for name, tensor in pruned.state_dict().items():
        if not name.startswith("blocks."):
            assert torch.equal(tensor, source[name])
            continue
        _, number, own = name.split(".", 2)
        block = int(number)

        def channels(part: str, block: int = block) -> list[int]:
            keep = getattr(mask, part)[block]
            return [head * HEAD_DIM + channel for head in range(HEADS) if keep[head] for channel in range(HEAD_DIM)]

        expected = source[name]
        part = {"attn1": "self_heads", "attn2": "cross_heads"}.get(own.split(".")[0])
        if part and any(f".{layer}" in own for layer in ("to_q", "to_k", "add_k", "norm_q", "norm_k", "norm_added_k")):
            expected = expected[whole if qk_norm == "exact" else channels(part)]
        elif part and (".to_v" in own or ".add_v" in own):
            expected = expected[channels(part)]
        elif part and own.endswith("to_out.0.weight"):
            expected = expected[:, channels(part)]
        elif own.startswith("ffn.net.0"):
            expected = expected[mask.neurons[block]]
        elif own == "ffn.net.2.weight":
            expected = expected[:, mask.neurons[block]]
        assert torch.equal(tensor, expected), name


def test_nothing_is_shared_with_the_base_model():
    model, given = teacher("t2v"), inputs("t2v")
    before = velocity(model, given)
    pruned = prune(model, random_mask(), qk_norm="exact")
    with torch.no_grad():
        for parameter in pruned.parameters():
            parameter.zero_()
    assert torch.equal(velocity(model, given), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_precision_is_the_base_models(dtype):
    model = teacher("i2v").to(dtype)
    moments = {name: values for name, values in measured_moments(teacher("i2v"), inputs("i2v", 7)).items()}
    pruned = prune(model, random_mask(), moments, compensate=True)
    assert {parameter.dtype for parameter in pruned.parameters()} == {dtype}


def test_compensation_against_its_formula_and_against_mean_gates():
    model, mask, given = teacher("i2v"), random_mask(), inputs("i2v")
    moments = measured_moments(model, inputs("i2v", 7))
    pruned = prune(model, mask, moments, qk_norm="exact", compensate=True)
    with masked(model, mask, moments):
        expected = velocity(model, given)
    assert relative(velocity(pruned, given), expected) < 1e-5
    block = model.blocks[0]
    bias = block.ffn.net[2].bias.double() + sum(
        block.ffn.net[2].weight[:, neuron].double() * moments["ffn/activation"][0, neuron]
        for neuron in range(mask.neurons.shape[1])
        if not mask.neurons[0, neuron]
    )
    assert torch.allclose(pruned.blocks[0].ffn.net[2].bias.double(), bias, atol=1e-6)
    assert pruned.config.pruning["compensated"]


def test_compensation_brings_the_blocks_nearer_to_the_dense_ones():
    model, mask = teacher("t2v"), random_mask()
    moments = measured_moments(model, inputs("t2v"))
    plain = prune(model, mask, moments)
    compensated = prune(model, mask, moments, compensate=True)
    without = cut_errors(model, plain, mask, probe("t2v"))
    with_mean = cut_errors(model, compensated, mask, probe("t2v"), moments)
    assert all(b.dense_update < a.dense_update for a, b in zip(without, with_mean, strict=True))


def test_half_precision_loses_nothing_in_a_long_sum():
    weight, keep = torch.ones(1, 4097, dtype=torch.bfloat16), np.arange(4097) < 1
    bias = compensated_bias(weight, torch.zeros(1, dtype=torch.bfloat16), keep, np.full((4097, 1), 0.25))
    assert bias.tolist() == [1024.0]


def test_masked_leaves_no_hook_and_a_full_mask_adds_none():
    model, given = teacher("t2v"), inputs("t2v")
    before = velocity(model, given)
    with pytest.raises(KeyboardInterrupt), masked(model, random_mask()):
        raise KeyboardInterrupt
    with masked(model, full_mask()):
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert torch.equal(velocity(model, given), before)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_gates_work_on_a_student():
    pruned, given = student("t2v", "fold"), inputs("t2v")
    from pare.gates import Gates

    ones = [np.ones(block.attn1.heads, bool) for block in pruned.blocks]
    with gated(pruned, Gates(self_heads=ones)):
        assert torch.equal(velocity(pruned, given), velocity(pruned, given))
    ones[0] = np.zeros(pruned.blocks[0].attn1.heads, bool)
    with gated(pruned, Gates(self_heads=ones)):
        gone = velocity(pruned, given)
    assert relative(gone, velocity(pruned, given)) > 1e-4


def test_without_moments_fold_becomes_none_and_says_so():
    with pytest.warns(UserWarning, match="fold needs the moments of a run"):
        pruned = prune(teacher("t2v"), random_mask())
    assert pruned.config.qk_norm_mode == "none"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prune(teacher("t2v"), random_mask(), qk_norm="none")


def test_what_the_student_says_of_itself():
    mask = random_mask()
    named = Mask(mask.self_heads, mask.cross_heads, mask.neurons, {"model": {"model_id": "base"}, "settings": {"p": 1}})
    about = prune(teacher("t2v"), named, qk_norm="none").config.pruning
    assert about["base"] == {"model_id": "base"} and about["mask"]["settings"] == {"p": 1}
    assert about["mask"]["hash"] == surgery.mask_hash(mask) != surgery.mask_hash(random_mask(1))
    assert "torch" in about["versions"] and not about["compensated"]


def refusals():
    model, mask = teacher("t2v"), random_mask()
    moments = measured_moments(model, inputs("t2v", 7))
    fused = teacher("t2v")
    fused.fuse_qkv_projections()
    nan = {**moments, "self/key_square": np.where(np.arange(BLOCKS)[:, None] == 1, np.nan, 1.0) * np.ones((1, HEADS))}
    return {
        "--qk-norm": lambda: prune(model, mask, qk_norm="half"),
        "mask, self_heads": lambda: prune(model, random_mask(heads=HEADS + 1)),
        "--compensate": lambda: prune(model, mask, qk_norm="none", compensate=True),
        "pruned before": lambda: prune(prune(model, mask, qk_norm="none"), mask),
        "fused projections": lambda: prune(fused, mask, qk_norm="none"),
        "none called self/key_square": lambda: prune(model, mask, {"self/query_square": moments["self/query_square"]}),
        "none of block 1": lambda: prune(model, mask, nan),
        "added_key_square": lambda: prune(teacher("i2v"), mask, moments),
        r"moments, self/query_square: got \[1": lambda: prune(
            model, mask, {name: values[:1] for name, values in moments.items()}
        ),
    }


@pytest.mark.parametrize("message", list(refusals()))
def test_refusals(message):
    # beartype would refuse an unknown qk_norm first, as a type checker does.
    expected = (InputError, Exception) if message == "--qk-norm" else InputError
    with pytest.raises(expected, match=None if message == "--qk-norm" else message):
        refusals()[message]()
