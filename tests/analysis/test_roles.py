"""Roles, counts, flips, lift, stability and intervals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.aggregate import read_cells
from analysis.importance import run_roles
from analysis.roles import (
    bootstrap_interval,
    check_thresholds,
    classify,
    flips,
    lift,
    role_counts,
    role_table,
    stability,
)
from analysis.run_writer import RunWriter
from pare.errors import InputError
from tests.runs_fixture import make_manifest, make_run, random_sample

ratios = arrays(float, (4, 5), elements=st.floats(0, 1))


def test_boundaries_belong_to_mixed():
    assert classify(np.array([0.7, 0.7000001, 0.3, 0.2999999])).tolist() == ["M", "S", "M", "T"]


def test_missing_ratios_have_no_role():
    letters = classify(np.array([np.nan, 0.9]))
    assert letters.tolist() == ["", "S"]
    assert sum(role_counts(letters).values()) == 1


@given(ratios, st.floats(0, 1), st.floats(0, 1))
def test_every_head_has_one_role_and_moving_a_threshold_moves_heads_one_way(ratio, a, b):
    tau_t, tau_s = sorted((a, b))
    counts = role_counts(classify(ratio, tau_s, tau_t))
    assert sum(counts.values()) == ratio.size
    assert role_counts(classify(ratio, 1.0, tau_t))["spatial"] <= counts["spatial"]
    assert role_counts(classify(ratio, tau_s, 0.0))["temporal"] == 0


@given(ratios, st.floats(0.001, 0.2))
def test_flips_are_the_heads_whose_role_changes_within_delta(ratio, delta):
    near = flips(ratio, 0.7, 0.3, delta)
    base = classify(ratio)
    # Exactly delta away, |0.75 − 0.7| <= 0.05 and 0.75 <= 0.7 + 0.05 round to different sides.
    exactly = np.isclose(np.abs(ratio[..., None] - [0.7, 0.3]), delta, rtol=0, atol=1e-12).any(-1)
    for shift in (-delta, delta):
        moved = (classify(ratio, 0.7 + shift, 0.3) != base) | (classify(ratio, 0.7, 0.3 + shift) != base)
        assert (near | ~moved | exactly).all()


def test_uniform_attention_is_temporal_as_soon_as_there_are_four_frames():
    """The thresholds are not scale-free: with three frames no ratio of uniform attention is below 0.3."""
    assert classify(np.array([1 / 3, 1 / 4])).tolist() == ["M", "T"]
    assert lift(np.array([1 / 21]), 21) == pytest.approx(0)
    assert lift(np.array([1.0]), 21) == pytest.approx(1)
    assert np.isnan(lift(np.array([1.0]), 1)).all()


@pytest.mark.parametrize("tau_s, tau_t", [(0.3, 0.7), (1.2, 0.3), (0.7, -0.1), (float("nan"), 0.3)])
def test_thresholds_out_of_order_are_refused(tau_s, tau_t):
    with pytest.raises(InputError, match="tau_t <= tau_s"):
        check_thresholds(tau_s, tau_t)
    with pytest.raises(InputError):
        classify(np.array([0.5]), tau_s, tau_t)


def test_stability_counts_cells_that_agree_with_the_role_of_the_mean():
    ratio = np.full((2, 5, 1, 1, 2), 0.9)
    ratio[0, :3, 0, 0, 1] = 0.1
    ratio[1, 0, 0, 0, 0] = np.nan
    # Head 1: mean 0.66, mixed, and no cell is mixed. Head 0: nine cells there, all spatial.
    assert stability(ratio).tolist() == [[1.0, 0.0]]


def test_every_reader_gives_a_head_with_missing_cells_the_same_role(tmp_path):
    """Step 1 is missing in one sample: pooled, or sample by sample, the mean would be above the threshold of 0.6."""
    manifest = make_manifest(blocks=1, heads=2, steps=2, samples=2)
    writer = RunWriter(tmp_path / "run", manifest, {"self/output_weight_norm": np.ones((1, 2))})
    generator = np.random.default_rng(0)
    for index, second in enumerate((0.2, np.nan)):
        arrays = random_sample(manifest, generator, np.full((1, 2), 0.5))
        arrays["self/ratio"] = np.array([[0.9, 0.9], [second, 0.9]], np.float32).reshape(2, 1, 1, 2)
        writer.write_sample(index, arrays)
    run = writer.finish()
    table = role_table(run, 0.6, 0.3)
    np.testing.assert_allclose(table["ratio"], [0.55, 0.9], rtol=1e-6)
    assert table["role"].tolist() == ["M", "S"] == run_roles(run, 0.6, 0.3)[0].tolist()
    np.testing.assert_allclose(read_cells(run).by_head()[0], table["ratio"], rtol=1e-6)
    # No cell of the mixed head is mixed.
    assert table["stability"].tolist() == [0.0, 1.0]
    assert table["n"].tolist() == [2, 2]


def test_the_interval_is_the_normal_one_for_many_samples():
    values = np.random.default_rng(0).normal(0.5, 0.1, (400, 3))
    low, high = bootstrap_interval(values, seed=1)
    half = 1.96 * values.std(0, ddof=1) / np.sqrt(400)
    np.testing.assert_allclose(high - low, 2 * half, rtol=0.12)
    assert ((low < values.mean(0)) & (values.mean(0) < high)).all()


def test_the_interval_is_seeded_and_leaves_missing_samples_out():
    values = np.random.default_rng(0).normal(0.5, 0.1, (20, 2))
    np.testing.assert_array_equal(bootstrap_interval(values, seed=3), bootstrap_interval(values, seed=3))
    holes = values.copy()
    holes[4, 0] = np.nan
    assert np.isfinite(bootstrap_interval(holes)).all()
    assert np.isnan(bootstrap_interval(values[:1])).all()


def test_role_table_is_the_run_averaged(tmp_path):
    run = make_run(tmp_path / "run", blocks=2, heads=3, steps=4, samples=5, branches=("cond", "uncond"))
    table = role_table(run, branch="uncond")
    mean = run.array("self/ratio")[:, :, 1].astype(float).mean((0, 1))
    np.testing.assert_allclose(table["ratio"], mean.ravel(), rtol=1e-6)
    assert table["role"].tolist() == classify(mean).ravel().tolist()
    assert ((table["ratio_low"] <= table["ratio"]) & (table["ratio"] <= table["ratio_high"])).all()
    assert (table["n"] == 5).all()
    assert table[["block", "head"]].to_numpy().tolist() == [[b, h] for b in range(2) for h in range(3)]


def test_role_table_of_a_part_is_the_part_averaged(tmp_path):
    run = make_run(tmp_path / "run", blocks=2, heads=3, steps=4, samples=5, branches=("cond", "uncond"))
    table = role_table(run, branch="cond", sample=3, steps=[1, 2])
    mean = run.array("self/ratio")[3, 1:3, 0].astype(float).mean(0)
    np.testing.assert_allclose(table["ratio"], mean.ravel(), rtol=1e-6)
    np.testing.assert_allclose(read_cells(run, branch="cond", sample=3, steps=[1, 2]).by_head().ravel(), table["ratio"])
    # One sample has no interval over samples.
    assert (table["n"] == 1).all() and table["ratio_low"].isna().all()
    with pytest.raises(InputError, match="a finished sample"):
        role_table(run, sample=5)
    with pytest.raises(InputError, match="widen"):
        role_table(run, steps=[9])
