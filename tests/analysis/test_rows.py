"""Sampled query rows: where they lie, that estimates are unbiased, and that their errors cover what was not seen."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.attention import attention_with_lse, frame_map, intra_slice_ratio, mean_entropy
from analysis.projection import projected_energy
from analysis.rows import (
    estimate,
    first_frame_share,
    row_attention,
    row_statistics,
    sample_rows,
    sampled_frame_map,
    temporal_distance,
)


def tensors(tokens=60, heads=3, head_dim=16, dtype=torch.float32, seed=0, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, heads, tokens, head_dim)
    return [(spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2)]


@given(st.integers(1, 100), st.integers(1, 60), st.integers(1, 100), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_rows_are_distinct_as_many_in_every_frame_and_the_same_for_the_same_seed(frames, per_frame, asked, seed):
    rows = sample_rows(frames, per_frame, asked, seed)
    assert torch.equal(rows, sample_rows(frames, per_frame, asked, seed))
    assert (rows // per_frame == torch.arange(frames)[:, None]).all()
    assert rows.unique().numel() == rows.numel() <= max(asked, frames)
    assert rows.shape[1] == min(per_frame, max(1, asked // frames))


def test_every_token_is_drawn_as_often_as_any_other():
    counts = torch.zeros(12)
    for seed in range(2000):
        counts[sample_rows(3, 4, rows=6, seed=seed).flatten()] += 1
    assert (counts / 2000 - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rows_match_a_float64_softmax(dtype):
    query, key = tensors(dtype=dtype)
    rows = sample_rows(6, 10, rows=18)
    found = row_attention(query, key, rows, scale=0.3)
    logits = 0.3 * torch.einsum("hqd,hkd->hqk", query[0].double(), key[0].double())
    weights = torch.softmax(logits, -1)[:, rows]
    torch.testing.assert_close(found.mass[0].double(), weights.unflatten(-1, (6, 10)).sum(-1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.entropy[0].double(), torch.special.entr(weights).sum(-1), atol=1e-5, rtol=1e-5)


def test_large_logits_give_a_small_positive_entropy_without_cancelling():
    query, key = tensors(spread=12.0)
    found = row_attention(query, key, sample_rows(6, 10)).entropy[0]
    weights = torch.softmax(torch.einsum("hqd,hkd->hqk", query[0].double(), key[0].double()) / 4, -1)
    expected = torch.special.entr(weights).sum(-1).unflatten(-1, (6, 10))
    # Logits of several hundred are known to some 1e-5 in float32.
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=2e-4)
    assert (found >= 0).all() and expected.min() < 1e-3


def test_all_rows_give_what_the_exact_functions_give_and_no_error():
    query, key = tensors()
    found = row_statistics(row_attention(query, key, sample_rows(6, 10)), 10)
    lse = attention_with_lse(query, key, key).log_sum_exp
    torch.testing.assert_close(found["self/entropy"], mean_entropy(query, key, lse)[0], rtol=1e-5, atol=1e-5)
    turned = (query.transpose(1, 2), key.transpose(1, 2), 6)
    torch.testing.assert_close(found["self/frame_map"], frame_map(*turned)[0])
    torch.testing.assert_close(found["self/frame_map"].diagonal(dim1=1, dim2=2).mean(-1), intra_slice_ratio(*turned)[0])
    torch.testing.assert_close(found["self/first_frame_share"], found["self/frame_map"][:, :, 0].mean(-1))
    for name in ("entropy", "temporal_distance", "first_frame_share"):
        assert (found[f"self/{name}_error"] == 0).all()


def test_uniform_attention_has_the_values_that_are_promised():
    frames, per_frame = 9, 4
    zeros = torch.zeros(1, 1, frames * per_frame, 8)
    found = row_statistics(row_attention(zeros, zeros, sample_rows(frames, per_frame, rows=18)), per_frame)
    assert found["self/entropy"].item() == pytest.approx(math.log(36), rel=1e-6)
    assert found["self/temporal_distance"].item() == pytest.approx((frames**2 - 1) / (3 * frames), rel=1e-6)
    assert found["self/first_frame_share"].item() == pytest.approx(1 / frames, rel=1e-6)
    torch.testing.assert_close(found["self/frame_map"], torch.full((1, 9, 9), 1 / 9))


@pytest.mark.parametrize("rows", [12, 30])
def test_estimates_are_unbiased_and_the_error_is_their_spread_over_seeds(rows):
    query, key = tensors()
    exact = row_attention(query, key, sample_rows(6, 10))
    means, errors = [], []
    for seed in range(400):
        found = row_attention(query, key, sample_rows(6, 10, rows, seed))
        mean, error = estimate(found.entropy, 10)
        means.append(mean[0].numpy())
        errors.append(error[0].numpy())
    means, errors = np.stack(means), np.stack(errors)
    truth = exact.entropy[0].mean((1, 2)).numpy()
    spread = means.std(0, ddof=1)
    assert (abs(means.mean(0) - truth) < 4 * spread / 20).all()
    np.testing.assert_allclose(np.sqrt((errors**2).mean(0)), spread, rtol=0.15)
    covered = abs(means - truth) < 2 * errors
    assert 0.8 < covered.mean() <= 1


def test_one_row_a_frame_takes_the_spread_of_all_rows():
    query, key = tensors()
    found = row_attention(query, key, sample_rows(6, 10, rows=6))
    values = temporal_distance(found.mass)
    mean, error = estimate(values, 10)
    flat = values.flatten().reshape(3, 6).double()
    torch.testing.assert_close(mean[0].double(), flat.mean(1))
    torch.testing.assert_close(error[0].double(), flat.std(1) / 6**0.5)


def test_shares_and_maps_are_of_the_right_frame():
    mass = torch.zeros(1, 1, 3, 2, 3)
    mass[..., 1] = 1
    assert temporal_distance(mass)[0, 0].tolist() == [[1, 1], [0, 0], [1, 1]]
    assert (first_frame_share(mass) == 0).all()
    assert sampled_frame_map(mass)[0, 0].tolist() == [[0, 1, 0]] * 3


def test_autocast_rounds_nothing():
    query, key = tensors()
    rows = sample_rows(6, 10, rows=18)
    weight = torch.randn(3, 40, 16)
    lse = attention_with_lse(query, key, key).log_sum_exp
    plain = row_statistics(row_attention(query, key, rows), 10)
    energy, entropy = projected_energy(query[0], weight), mean_entropy(query, key, lse)
    with torch.autocast("cpu", torch.bfloat16):
        for name, values in row_statistics(row_attention(query, key, rows), 10).items():
            assert torch.equal(values, plain[name]), name
        assert torch.equal(projected_energy(query[0], weight), energy)
        assert torch.equal(mean_entropy(query, key, lse), entropy)
