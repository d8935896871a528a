"""The checks of `pare doctor`: they pass on a capture that is right, and each fails on one that is wrong in its way."""

from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis import checks
from analysis.attention import intra_slice_ratio
from analysis.brute_force import brute_force_ratio, queries_and_keys
from analysis.capture import capture
from analysis.checks import (
    FROM_TOKENS,
    check_backend,
    check_bits,
    check_hooks,
    check_memory,
    check_overhead,
    check_ratio,
    hooks_of,
    random_inputs,
)
from pare.geometry import Geometry
from tests.tiny import BLOCKS, HEADS, IMAGE_DIM, tiny_image_pipeline, tiny_transformer


def geometry_of(transformer) -> Geometry:
    return Geometry.from_config({"image_dim": None, **transformer.config})


@pytest.fixture(scope="module")
def transformer():
    return tiny_transformer()


@pytest.fixture(scope="module")
def inputs(transformer):
    return random_inputs(transformer, geometry_of(transformer), (4, 8, 8))


def with_hook(hook, remove=True):
    """A capture that also has this hook on the last block, and may forget to remove it."""

    @contextmanager
    def measure(model, spec=None):
        with capture(model, spec) as recorder:
            handle = model.blocks[-1].register_forward_hook(hook)
            try:
                yield recorder
            finally:
                if remove:
                    handle.remove()

    return measure


@contextmanager
def wrong_ratio(model, spec=None):
    with capture(model, spec) as recorder:
        take = recorder.take

        def shifted():
            passes = take()
            for each in passes:
                each.arrays["self/ratio"][-1, -1] += 1e-3
            return passes

        recorder.take = shifted
        yield recorder


@contextmanager
def forgets_after_errors(model, spec=None):
    handle = model.blocks[0].register_forward_pre_hook(lambda *_: None)
    with capture(model, spec) as recorder:
        yield recorder
    handle.remove()


@contextmanager
def measures_nothing(model, spec=None):
    with capture(model, spec) as recorder:
        recorder.take = list
        yield recorder


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("image", [False, True])
def test_a_right_capture_passes(dtype, image):
    transformer = (tiny_image_pipeline().transformer if image else tiny_transformer()).to(dtype)
    with torch.no_grad():
        # Sharp attention: ratios far from uniform.
        for block in transformer.blocks:
            block.attn1.norm_q.weight.mul_(4)
    given = random_inputs(transformer, geometry_of(transformer), (4, 8, 8))
    assert ("encoder_hidden_states_image" in given) == image
    before = hooks_of(transformer)
    ratio = check_ratio(transformer, given, 4)
    assert ratio.ok and ratio.numbers["heads"] == BLOCKS * HEADS and ratio.numbers["tokens"] == 64
    assert ratio.numbers["largest"] - ratio.numbers["smallest"] > 0.05
    bits, hooks, backend = (check(transformer, given) for check in (check_bits, check_hooks, check_backend))
    assert bits.ok and bits.numbers["differing"] == 0 and bits.numbers["values"] == 4 * 4 * 8 * 8
    assert hooks.ok and hooks.numbers["left"] == 0 and hooks_of(transformer) == before
    assert backend.ok and backend.numbers["kernels"] == ["flash_cpu"]
    assert backend.numbers["extra_calls_per_forward"] == 0


def test_another_output_is_seen(transformer, inputs):
    found = check_bits(transformer, inputs, with_hook(lambda module, args, output: output * (1 + 1e-6)))
    assert not found.ok and found.numbers["differing"] > 0 and found.numbers["largest_difference"] < 1e-4
    assert not check_bits(transformer, inputs, measures_nothing).ok


def test_a_model_that_is_not_repeatable_is_told_from_a_capture_that_changes_it(inputs):
    noisy = tiny_transformer()
    noisy.blocks[0].register_forward_hook(lambda module, args, output: output + 1e-3 * torch.randn_like(output))
    found = check_bits(noisy, inputs)
    assert not found.ok and "not repeatable" in found.text


@pytest.mark.parametrize("measure", [with_hook(lambda *_: None, remove=False), forgets_after_errors])
def test_a_hook_that_stays_is_seen(inputs, measure):
    found = check_hooks(tiny_transformer(), inputs, measure)
    assert not found.ok and found.numbers["left"] >= 2 and "blocks." in found.text


def test_hooks_of_sees_every_kind():
    model = tiny_transformer()
    assert hooks_of(model) == set()
    model.blocks[0].register_forward_pre_hook(lambda *_: None)
    model.blocks[1].attn1.register_full_backward_hook(lambda *_: None)
    model.forward = model.forward
    with capture(tiny_transformer()), torch.overrides.BaseTorchFunctionMode():
        assert len(hooks_of(model)) == 4
    with capture(model):
        assert any("diffusers hook" in each for each in hooks_of(model))
    assert len(hooks_of(model)) == 3


def test_a_wrong_ratio_is_seen(transformer, inputs):
    found = check_ratio(transformer, inputs, 4, wrong_ratio)
    assert not found.ok and found.numbers["largest_error"] == pytest.approx(1e-3, rel=0.01)
    # Frames counted wrongly: 8 instead of 4.
    assert not check_ratio(transformer, inputs, 8).ok


def test_a_ratio_that_is_missing_is_not_within_the_tolerance(transformer, inputs):
    @contextmanager
    def nothing(model, spec=None):
        with capture(model, spec) as recorder:
            take = recorder.take
            recorder.take = lambda: [each for each in take() if each.arrays["self/ratio"].fill(np.nan) is None]
            yield recorder

    assert not check_ratio(transformer, inputs, 4, nothing).ok


def test_overhead_is_a_median_of_turns_and_limited_from_8000_tokens_on(transformer, inputs, monkeypatch):
    """By a clock of its own: a forward takes one second, and what a hook adds."""
    now = 0.0

    def look() -> float:
        nonlocal now
        now += 1
        return now

    def takes(seconds):
        def hook(module, args, output):
            nonlocal now
            now += seconds

        return with_hook(hook)

    monkeypatch.setattr(checks, "time", SimpleNamespace(perf_counter=look))
    few = check_overhead(transformer, inputs, seconds=0.0, measure=takes(2.0))
    assert few.ok and few.numbers["n"] == 3 and few.numbers["tokens"] == 64 < FROM_TOKENS == 8000
    assert few.numbers["seconds"] == 1 and few.numbers["ratios_percent"] == few.numbers["everything_percent"] == 200
    assert few.numbers["limit_percent"] is None and "no limit" in few.text
    monkeypatch.setattr(checks, "FROM_TOKENS", 64)
    dear = check_overhead(transformer, inputs, seconds=20.0, measure=takes(0.06))
    assert not dear.ok and dear.numbers["n"] == 6 and dear.numbers["ratios_percent"] == pytest.approx(6)
    assert "limit for ratios 5%" in dear.text
    assert check_overhead(transformer, inputs, seconds=0.0, measure=takes(0.04)).ok


def test_brute_force_is_the_definition_and_sees_what_attention_sees(transformer, inputs):
    seen = queries_and_keys(transformer, inputs)
    assert len(seen) == BLOCKS and hooks_of(transformer) == set()
    query, key = seen[1]
    assert query.shape == (HEADS, 64, 12)
    expected = torch.zeros(HEADS, dtype=torch.float64)
    for head in range(HEADS):
        for row in range(64):
            logits = [float(query[head, row].double() @ key[head, column].double()) / 12**0.5 for column in range(64)]
            weights = np.exp(logits) / np.exp(logits).sum()
            expected[head] += weights[row // 16 * 16 : row // 16 * 16 + 16].sum() / 64
    torch.testing.assert_close(brute_force_ratio(query, key, 4), expected)
    ours = intra_slice_ratio(query.transpose(0, 1)[None], key.transpose(0, 1)[None], 4)[0]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-5, atol=1e-6)


def test_memory_that_is_not_there():
    assert check_memory(2**31, 2**31, "cuda:0").ok
    found = check_memory(2**31 + 1, 2**31, "cuda:0")
    assert not found.ok and "does not fit" in found.text and "cuda:0" in found.text


def test_first_and_last_frame_models_get_two_images():
    config = {"image_dim": IMAGE_DIM, "added_kv_proj_dim": 48, "pos_embed_seq_len": 34, "in_channels": 10}
    transformer = tiny_transformer(**config)
    geometry = Geometry.from_dict(geometry_of(transformer).to_dict() | {"image_tokens": 17})
    given = random_inputs(transformer, geometry, (2, 8, 8))
    assert given["encoder_hidden_states_image"].shape == (2, 17, IMAGE_DIM)
    assert check_bits(transformer, given).ok
