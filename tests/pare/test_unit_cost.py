"""Costs of single units: their sums are the prediction's own, exactly, whatever each block keeps."""

import numpy as np
import pytest

from pare.geometry import PRESETS, Clip
from pare.width.budget import Counts, predict
from pare.width.unit_cost import head_alone, unit_costs


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_sums_of_units_are_the_prediction(preset):
    geometry, clip, generator = preset.geometry, Clip(720, 1280, 81), np.random.default_rng(0)
    costs = unit_costs(geometry, clip)
    for _ in range(3):
        kept = [
            tuple(generator.integers(1, most + 1, geometry.blocks).tolist())
            for most in (geometry.heads, geometry.heads, geometry.ffn)
        ]
        found = predict(geometry, clip, Counts(*kept))
        assert {name: each.of(*map(sum, kept)) for name, each in costs.items()} == {name: found[name] for name in costs}


def test_one_head_alone():
    geometry, clip = PRESETS["wan2.1-t2v-14b"].geometry, Clip(480, 832, 81)
    alone = head_alone(geometry, clip)
    without = predict(geometry, clip, Counts((39, *[40] * 39), 40, 13824))
    assert alone["parameters"]["saved"] == 2_622_080 == without["dense_parameters"] - without["parameters"]
    assert alone["flops"]["share"] == pytest.approx(1 - without["flop_ratio"], rel=1e-9)
    assert "flops" not in head_alone(geometry) and "flops" not in unit_costs(geometry)
