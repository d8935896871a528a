"""Ratios and frame maps against a float64 softmax written out, and their properties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from analysis.attention import (
    attention_with_lse,
    chunked_attention,
    frame_log_sum_exp,
    frame_map,
    fused_kernel,
    intra_slice_ratio,
    own_frame_share,
    ratio_from_lse,
    run_kernel,
)
from pare.errors import InputError
from tests.largest import LargestTensor


def tensors(batch=1, tokens=60, heads=3, head_dim=16, dtype=torch.float32, seed=0, spread=1.5):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, tokens, heads, head_dim)
    return [(spread * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2)]


def brute_force(query, key, num_frames):
    """Softmax over everything in float64, then the mass per frame: ratio [batch, heads], map [batch, heads, f, f]."""
    batch, tokens, heads, head_dim = query.shape
    per_frame = tokens // num_frames
    ratio = torch.zeros(batch, heads, dtype=torch.float64)
    maps = torch.zeros(batch, heads, num_frames, num_frames, dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            logits = query[b, :, h].double() @ key[b, :, h].double().T / head_dim**0.5
            weights = torch.softmax(logits, dim=-1)
            for q in range(tokens):
                for frame in range(num_frames):
                    mass = weights[q, frame * per_frame : (frame + 1) * per_frame].sum()
                    maps[b, h, q // per_frame, frame] += mass / per_frame
                    if frame == q // per_frame:
                        ratio[b, h] += mass / tokens
    return ratio, maps


@pytest.mark.parametrize("num_frames", [1, 2, 5, 60])
@pytest.mark.parametrize("batch, head_dim", [(1, 16), (2, 12), (1, 7)])
def test_ratio_and_map_match_the_materialised_softmax(num_frames, batch, head_dim):
    query, key = tensors(batch=batch, head_dim=head_dim)
    ratio, maps = brute_force(query, key, num_frames)
    torch.testing.assert_close(intra_slice_ratio(query, key, num_frames).double(), ratio, atol=2e-6, rtol=0)
    torch.testing.assert_close(frame_map(query, key, num_frames).double(), maps, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-5), (torch.float16, 2e-5), (torch.float64, 1e-12)])
def test_other_precisions_are_exact_for_the_numbers_they_hold(dtype, tolerance):
    """Inputs are rounded once; the log-sum-exps are float32 (float64 for float64) and add nothing worth a name."""
    query, key = tensors(dtype=dtype, head_dim=16)
    ratio, _ = brute_force(query, key, 5)
    torch.testing.assert_close(intra_slice_ratio(query, key, 5).double(), ratio, atol=tolerance, rtol=0)


def test_large_logits_do_not_overflow():
    query, key = tensors(spread=30.0)
    ratio, _ = brute_force(query, key, 5)
    torch.testing.assert_close(intra_slice_ratio(query, key, 5).double(), ratio, atol=1e-4, rtol=0)


def test_uniform_attention_gives_one_over_the_frames():
    zeros = torch.zeros(1, 42, 2, 8)
    torch.testing.assert_close(intra_slice_ratio(zeros, zeros, 21), torch.full((1, 2), 1 / 21))


def test_own_frame_only_gives_one_and_same_pixel_everywhere_one_over_the_frames():
    frames, per_frame = 4, 5
    own = 40 * torch.eye(frames).repeat_interleave(per_frame, 0)
    pixel = 40 * torch.eye(per_frame).repeat(frames, 1)
    for features, expected in ((own, 1.0), (pixel, 1 / frames)):
        both = features[None, :, None]
        torch.testing.assert_close(intra_slice_ratio(both, both, frames), torch.tensor([[expected]]))


def test_one_frame_gives_exactly_one():
    query, key = tensors()
    assert intra_slice_ratio(query, key, 1).max() <= 1
    torch.testing.assert_close(intra_slice_ratio(query, key, 1), torch.ones(1, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 4, 6]), st.permutations(range(3)))
def test_permuting_heads_permutes_results_and_ratios_are_shares(seed, num_frames, order):
    query, key = tensors(tokens=12, seed=seed)
    ratio = intra_slice_ratio(query, key, num_frames)
    assert ((ratio > 0) & (ratio <= 1)).all()
    torch.testing.assert_close(
        intra_slice_ratio(query[:, :, order].contiguous(), key[:, :, order].contiguous(), num_frames), ratio[:, order]
    )


def test_the_maps_rows_sum_to_one_and_its_diagonal_is_the_ratio():
    query, key = tensors()
    maps = frame_map(query, key, 6)
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 3, 6))
    torch.testing.assert_close(maps.diagonal(dim1=-2, dim2=-1).mean(-1), intra_slice_ratio(query, key, 6))


def test_sampled_rows_average_to_the_whole_and_absent_frames_are_nan():
    query, key = tensors()
    everything = frame_map(query, key, 6, rows=torch.arange(60))
    torch.testing.assert_close(everything, frame_map(query, key, 6))
    some = frame_map(query, key, 6, rows=torch.tensor([0, 9, 31]))
    assert some[:, :, [1, 2, 4, 5]].isnan().all() and not some[:, :, [0, 3]].isnan().any()
    one = frame_map(query, key, 6, rows=torch.tensor([31]))[:, :, 3]
    weights = torch.softmax(torch.einsum("bhd,bkhd->bhk", query[:, 31].double(), key.double()) / 4, -1)
    torch.testing.assert_close(one.double(), weights.unflatten(-1, (6, 10)).sum(-1), atol=2e-6, rtol=0)


def test_more_frames_than_head_dim():
    query, key = tensors(head_dim=4)
    _, maps = brute_force(query, key, 20)
    torch.testing.assert_close(frame_map(query, key, 20).double(), maps, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("tokens, head_dim", [(60, 16), (324, 12), (333, 64), (700, 128), (1, 8)])
def test_the_kernel_with_log_sum_exp_gives_the_same_bits(dtype, tokens, head_dim):
    query, key = (each.transpose(1, 2) for each in tensors(tokens=tokens, head_dim=head_dim, dtype=dtype))
    value = query.flip(2)
    kernel = fused_kernel(query, key, value)
    assert kernel == "flash_cpu"
    output, lse = run_kernel(kernel, query, key, value)
    assert torch.equal(output, scaled_dot_product_attention(query, key, value))
    expected = torch.logsumexp(query.double() @ key.double().mT / head_dim**0.5, -1)
    torch.testing.assert_close(lse.double(), expected, atol=2e-5, rtol=1e-5)


def test_where_no_fused_kernel_is_allowed_chunks_give_the_same_numbers():
    query, key = tensors()
    ratio, maps = brute_force(query, key, 5)
    with sdpa_kernel(SDPBackend.MATH):
        assert fused_kernel(*(each.transpose(1, 2) for each in (query, key, key))) is None
        torch.testing.assert_close(intra_slice_ratio(query, key, 5).double(), ratio, atol=2e-6, rtol=0)
        torch.testing.assert_close(frame_map(query, key, 5).double(), maps, atol=2e-6, rtol=0)


def test_chunks_are_exact_across_their_borders(monkeypatch):
    query, key = (each.transpose(1, 2) for each in tensors())
    whole = attention_with_lse(query, key, key)
    monkeypatch.setattr("analysis.attention.CHUNK_ROWS", 7)
    parts = chunked_attention(query, key, key)
    torch.testing.assert_close(parts.output, whole.output)
    torch.testing.assert_close(parts.log_sum_exp, whole.log_sum_exp)


@pytest.mark.parametrize("cells", [1, 7, 40, 150, 2000, 1 << 18])
@pytest.mark.parametrize("autocast", [False, True])
def test_summed_exponentials_are_both_log_sum_exps_whatever_is_held_at_a_time(cells, autocast, monkeypatch):
    """One query row, some rows of a frame, some frames of a head, some heads, everything."""
    monkeypatch.setattr("analysis.attention.FRAME_CELLS", cells)
    query, key = (each.transpose(1, 2) for each in tensors(batch=2, tokens=60, heads=5))
    lse = run_kernel("flash_cpu", query, key, key, 0.3).log_sum_exp
    expected = ratio_from_lse(frame_log_sum_exp(query, key, 5, 0.3), lse)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = own_frame_share(query, key, lse, 5, 0.3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("num_frames", [0, -1, 7])
def test_frames_that_do_not_divide_the_tokens_are_refused(num_frames):
    query, key = tensors()
    for function in (intra_slice_ratio, frame_map):
        with pytest.raises(InputError, match="divisor of the 60 tokens"):
            function(query, key, num_frames)


@pytest.mark.parametrize("fused", [True, False])
def test_no_tensor_grows_like_tokens_times_tokens(fused):
    largest = []
    for tokens in (1200, 2400):
        query, key = tensors(tokens=tokens, heads=2, head_dim=16)
        backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH] if fused else [SDPBackend.MATH]
        with sdpa_kernel(backends), LargestTensor() as sizes:
            intra_slice_ratio(query, key, 12)
            frame_map(query, key, 12)
        largest.append(sizes.largest)
    assert largest[1] <= 2 * largest[0]
    assert largest[1] < 2400 * 2400
