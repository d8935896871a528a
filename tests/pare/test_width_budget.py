"""From a ratio or a target to counts and cost: the published sizes, and the smallest ratio that meets a target."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pare import cost
from pare.errors import InputError
from pare.geometry import PRESETS, Clip, Geometry
from pare.width.budget import Counts, Ratios, Target, predict, ratio_for
from pare.width.neuron_count import kept_neurons, neuron_multiple

WAN, SMALL = PRESETS["wan2.1-t2v-14b"].geometry, PRESETS["wan2.1-t2v-1.3b"].geometry
DEMO = Geometry(blocks=8, heads=10, head_dim=16, ffn=640, in_channels=8, out_channels=8, text_dim=64, vae_spatial=4)
CLIP = Clip(480, 832, 81)


@pytest.mark.parametrize(
    "ffn, ratio, multiple, count",
    [
        (13824, 0.3, None, 9600),
        (8960, 0.3, None, 6272),
        (640, 0.3, None, 448),
        (640, 0.5, None, 320),
        (13824, 0.0, None, 13824),
        (13824, 0.999, None, 128),
        (32, 0.3, None, 16),
        (5, 0.3, None, 5),
        (1000, 0.7, 100, 300),
        (2050, 0.0, None, 2050),
    ],
)
def test_neurons_are_floored_to_the_multiple(ffn, ratio, multiple, count):
    assert kept_neurons(ffn, ratio, multiple) == count


@given(st.integers(8, 20000), st.integers(1, 9999))
@settings(max_examples=50, deadline=None)
def test_the_kept_neurons_are_the_most_that_are_aligned_and_within_the_ratio(ffn, share):
    count, multiple = kept_neurons(ffn, share / 10_000), neuron_multiple(ffn)
    assert count % multiple == 0
    within = count * 10_000 <= ffn * (10_000 - share) < (count + multiple) * 10_000
    assert within or count == multiple


def test_the_published_student():
    counts = Ratios().counts(WAN)
    assert counts == Counts(28, 28, 9600)
    found = predict(WAN, CLIP, counts)
    assert found["block_parameters"] == 9_808_256_000 and found["dense_block_parameters"] == 14_055_772_160
    assert round(found["flop_ratio"], 3) == 0.699 and round(found["flops"] / 1e12) == 1173
    image = predict(PRESETS["wan2.1-i2v-14b"].geometry, None, counts)
    assert round(image["block_parameters"] / 1e9, 3) == 11.277 and "flops" not in image


def test_a_prediction_counts_what_differs_from_block_to_block():
    per_block = Counts((10, 4, 10, 4, 10, 4, 10, 4), 7, 448)
    found = predict(DEMO, None, per_block, "float32")
    widths = [cost.block_parameters(DEMO, self_heads=each, cross_heads=7, neurons=448) for each in (10, 4)]
    assert found["block_parameters"] == 4 * sum(block.total for block in widths)
    assert found["weight_bytes"] == 4 * found["parameters"]


def test_ratios_of_their_own():
    ratios = Ratios(0.3, self_ratio=0.5, cross_ratio=0.0, neuron_ratio=0.25)
    assert ratios.counts(WAN) == Counts(20, 40, 10368)
    assert Ratios(0.3, prune_neurons=False).counts(WAN).neurons == 13824
    for name, flag in (("self_ratio", "--self-ratio"), ("neuron_ratio", "--neuron-ratio"), ("ratio", "--ratio")):
        with pytest.raises(InputError, match=flag):
            Ratios(**{name: 1.0}).counts(WAN)
    with pytest.raises(InputError, match="--neuron-multiple"):
        Ratios(neuron_multiple=0).counts(WAN)


def size(geometry, ratios, target):
    found = predict(geometry, CLIP, ratios.counts(geometry))
    return {"parameters": found["parameters"], "flops": found["flops"], "gib": found["memory_bytes"] / 2**30}[target]


@given(st.sampled_from(["parameters", "flops", "gib"]), st.floats(0.35, 1.05), st.sampled_from([WAN, SMALL]))
@settings(max_examples=12, deadline=None)
def test_a_target_is_met_by_the_smallest_ratio(kind, share, geometry):
    value = share * size(geometry, Ratios(0.0), kind)
    found = ratio_for(geometry, Ratios(), Target(kind, value), clip=CLIP)
    assert size(geometry, Ratios(found), kind) <= value
    assert found == 0 or size(geometry, Ratios(round(found - 1e-4, 4)), kind) > value


def test_a_target_leaves_ratios_of_their_own_alone():
    ratios = Ratios(self_ratio=0.5)
    found = ratio_for(WAN, ratios, Target("parameters", 10e9))
    assert ratios.at(found).counts(WAN).self_heads == 20 and found < ratio_for(
        WAN, Ratios(), Target("parameters", 10e9)
    )


def test_targets_that_cannot_be_met_or_counted():
    with pytest.raises(InputError, match=r"--target-parameters.*at least 1"):
        ratio_for(WAN, Ratios(), Target("parameters", 1e9))
    with pytest.raises(InputError, match=r"--target-flops.*--height"):
        ratio_for(WAN, Ratios(), Target("flops", 1e15))
    with pytest.raises(InputError, match="above 0"):
        Target("gib", 0.0)
    with pytest.raises(InputError, match="parameters or flops or gib"):
        Target("dollars", 1.0)
    with pytest.raises(InputError, match="--dtype"):
        predict(WAN, CLIP, Ratios().counts(WAN), "int4")
