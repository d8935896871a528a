"""What fits into an accelerator's memory: held to the costs that it adds up, and to a search by hand."""

import doctest

import numpy as np
import pytest

import pare.fit
from pare import cost
from pare.errors import InputError
from pare.fit import GIB, fits, largest_group
from pare.geometry import DEMO, PRESETS, Clip, Geometry, check_clip, read_geometry, tokens
from pare.mask import Mask

T2V, I2V, SMALL = (PRESETS[name].geometry for name in ("wan2.1-t2v-14b", "wan2.1-i2v-14b", "wan2.1-t2v-1.3b"))
CLIP = Clip(480, 832, 81)
STUDENT = {"self_heads": 28, "cross_heads": 28, "neurons": 9600}


def test_doctests():
    assert doctest.testmod(pare.fit).failed == 0


@pytest.mark.parametrize("kept", [{}, STUDENT, STUDENT | {"whole_query_key": True}], ids=["dense", "student", "exact"])
@pytest.mark.parametrize("geometry", [T2V, I2V, SMALL], ids=["t2v", "i2v", "small"])
def test_needs_are_those_of_the_costs(geometry, kept):
    kept = {name: min(count, {"neurons": geometry.ffn}.get(name, geometry.heads)) if count is not True else count
            for name, count in kept.items()}  # fmt: skip
    found = fits(geometry, CLIP, 24, around_bytes=GIB, **kept)
    need = cost.memory(geometry, CLIP, bytes_per_value=2, **kept)
    assert found["none"].total == need.total + GIB
    assert found["group"].activations == need.activations
    block = cost.parameters(geometry, **kept).in_blocks // geometry.blocks
    assert found["group"].weights == 2 * max(block, cost.parameters(geometry, **kept).outside)
    assert found["none"].fits == (need.total + GIB <= 24 * GIB)


def test_the_student_fits_where_the_dense_model_does_not():
    dense, student = (fits(T2V, CLIP, 24, **kept)["none"] for kept in ({}, STUDENT))
    assert not dense.fits and dense.largest is None
    assert student.fits and student.largest is not None


@pytest.mark.parametrize("gib", [1.0, 2.0, 6.0, 16.0])
@pytest.mark.parametrize("geometry", [T2V, SMALL], ids=["14b", "1.3b"])
def test_the_largest_size_fits_and_the_next_does_not(geometry, gib):
    def need(height):
        size = Clip(height, round(height * 832 / 480 / 16) * 16, 81)
        return fit.weights + cost.memory(geometry, size, bytes_per_value=2).activations

    for fit in fits(geometry, CLIP, gib).values():
        height = fit.largest.height if fit.largest else 0
        assert need(height + 16) > gib * GIB and (height == 0 or need(height) <= gib * GIB)
        if fit.largest:
            check_clip(geometry, fit.largest)
            assert (tokens(geometry, fit.largest) >= tokens(geometry, CLIP)) == fit.fits


def test_a_huge_memory_ends_at_what_the_model_has_positions_for():
    geometry = read_geometry(DEMO)
    found = fits(geometry, Clip(48, 48, 17), 10_000)
    for fit in found.values():
        check_clip(geometry, fit.largest)
        assert fit.largest.height <= geometry.max_positions * geometry.vae_spatial * geometry.patch[1]
    wide = Geometry.from_dict(geometry.to_dict() | {"max_positions": 16})
    assert fits(wide, Clip(48, 96, 17), 10_000)["none"].largest == Clip(64, 128, 17)


def test_group_offload_holds_the_largest_block_of_a_mask_or_what_is_outside():
    geometry = Geometry(2, 4, 12, 4096, 4, 4, 16, vae_spatial=4, vae_temporal=2, latent_channels=4)
    rows = np.ones((2, 4), bool), np.ones((2, 4), bool), np.arange(4096) < np.array([[4096], [8]])
    counts = Mask(*rows).counts()
    dense = cost.block_parameters(geometry).total
    assert largest_group(geometry) == largest_group(geometry, **counts) == dense
    few = cost.parameters(geometry, neurons=8)
    assert largest_group(geometry, neurons=8) == few.outside > few.in_blocks // 2


@pytest.mark.parametrize(("gib", "clip", "words"), [(0.0, CLIP, "--gib"), (float("nan"), CLIP, "--gib"),
                                                    (16.0, Clip(481, 832, 81), "--height 480")])  # fmt: skip
def test_bad_input_is_refused(gib, clip, words):
    with pytest.raises(InputError, match=words):
        fits(T2V, clip, gib)
