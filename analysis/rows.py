"""Attention of a few sampled query rows: frame map, entropy, temporal distance, first-frame share, standard errors."""

from typing import NamedTuple

import torch
from einops import rearrange, reduce
from jaxtyping import Float, Int

from analysis.attention import CHUNK_CELLS

ROWS = 64


class RowAttention(NamedTuple):
    """What the sampled rows look at: the share of every key frame, and the entropy of the row in nats."""

    mass: Float[torch.Tensor, "batch heads frames rows key_frames"]
    entropy: Float[torch.Tensor, "batch heads frames rows"]


class Estimate(NamedTuple):
    """A mean over all queries, estimated from sampled rows, and its standard error."""

    mean: Float[torch.Tensor, "batch heads"]
    error: Float[torch.Tensor, "batch heads"]


def rows_per_frame(num_frames: int, tokens_per_frame: int, rows: int = ROWS) -> int:
    """How many query rows of each latent frame are looked at: as many as fit into `rows`, one at least.

    >>> rows_per_frame(21, 1560), rows_per_frame(9, 36), rows_per_frame(100, 4), rows_per_frame(1, 16)
    (3, 7, 1, 16)
    """
    return min(tokens_per_frame, max(1, rows // num_frames))


def sample_rows(
    num_frames: int, tokens_per_frame: int, rows: int = ROWS, seed: int = 0
) -> Int[torch.Tensor, "frames rows"]:
    """Indices of query tokens, drawn without replacement: the same number from every latent frame, in rising order.

    >>> sample_rows(num_frames=3, tokens_per_frame=2, rows=6)
    tensor([[0, 1],
            [2, 3],
            [4, 5]])
    """
    generator = torch.Generator().manual_seed(seed)
    count = rows_per_frame(num_frames, tokens_per_frame, rows)
    drawn = [torch.randperm(tokens_per_frame, generator=generator)[:count].sort().values for _ in range(num_frames)]
    return torch.stack(drawn) + tokens_per_frame * torch.arange(num_frames)[:, None]


def row_attention(
    query: Float[torch.Tensor, "batch heads tokens head_dim"],
    key: Float[torch.Tensor, "batch heads tokens head_dim"],
    rows: Int[torch.Tensor, "frames rows"],
    scale: float | None = None,
) -> RowAttention:
    """Softmax of the sampled rows over all keys, in float32 at least, as many heads at a time as the queries are large.

    Queries and keys as they enter attention, the tokens of a frame next to each other; `rows` from `sample_rows`.
    Memory is rows x tokens at the most, never tokens x tokens.

    >>> zeros = torch.zeros(1, 1, 4, 8)
    >>> found = row_attention(zeros, zeros, sample_rows(num_frames=2, tokens_per_frame=2))
    >>> found.mass[0, 0, 0, 0], found.entropy[0, 0, 0, 0]
    (tensor([0.5000, 0.5000]), tensor(1.3863))
    """
    batch, tokens, head_dim, frames = query.shape[0], query.shape[2], query.shape[3], len(rows)
    precise = torch.promote_types(query.dtype, torch.float32)
    scale = head_dim**-0.5 if scale is None else scale
    at_once = max(1, min(CHUNK_CELLS, query.numel()) // (batch * rows.numel() * tokens))
    masses, entropies = [], []
    chosen = query[:, :, rows.flatten().to(query.device)]
    for queries, keys in zip(chosen.split(at_once, dim=1), key.split(at_once, dim=1), strict=True):
        # Autocast would round the logits.
        with torch.autocast(query.device.type, enabled=False):
            logits = queries.to(precise) * scale @ keys.to(precise).mT
        logits -= logits.logsumexp(dim=-1, keepdim=True)
        weights = logits.exp()
        masses.append(reduce(weights, "b h (f r) (k l) -> b h f r k", "sum", f=frames, k=frames))
        # −Σ p·log p has no large numbers that cancel, unlike LSE − q·E[k].
        entropies.append(rearrange(-(weights * logits).sum(dim=-1), "b h (f r) -> b h f r", f=frames))
    return RowAttention(torch.cat(masses, dim=1), torch.cat(entropies, dim=1))


def estimate(values: Float[torch.Tensor, "batch heads frames rows"], tokens_per_frame: int) -> Estimate:
    """Mean over all queries from as many sampled rows of every frame, with the standard error of a stratified sample.

    error² = Σ_f (1 − n/L)·s_f²/n / Fl², s_f² the variance of the n rows of frame f out of L: 0 when all rows are seen.
    With one row per frame the spread inside a frame is unknown, and the spread of all rows takes its place (it is
    larger where frames differ). Source: Cochran, Sampling Techniques, 1977, chapter 5.

    >>> estimate(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), tokens_per_frame=2)
    Estimate(mean=tensor([[2.5000]]), error=tensor([[0.]]))
    """
    frames, count = values.shape[2:]
    mean = values.mean(dim=(2, 3))
    if count == tokens_per_frame:
        return Estimate(mean, torch.zeros_like(mean))
    if count > 1:
        variance = values.var(dim=3) * (1 - count / tokens_per_frame) / count
        return Estimate(mean, variance.sum(dim=2).sqrt() / frames)
    return Estimate(mean, (values.flatten(2).var(dim=2) / frames).sqrt())


def temporal_distance(
    mass: Float[torch.Tensor, "batch heads frames rows key_frames"],
) -> Float[torch.Tensor, "batch heads frames rows"]:
    """Mean |frame_q − frame_k| of every row under its attention, in latent frames.

    Uniform attention gives (Fl² − 1) / (3·Fl) in the mean of all frames.
    """
    frame = torch.arange(mass.shape[-1], device=mass.device, dtype=mass.dtype)
    return (mass * rearrange((frame[:, None] - frame).abs(), "f k -> f 1 k")).sum(dim=-1)


def first_frame_share(
    mass: Float[torch.Tensor, "batch heads frames rows key_frames"],
) -> Float[torch.Tensor, "batch heads frames rows"]:
    """Share of every row's attention that goes to latent frame 0; uniform attention gives 1/Fl."""
    return mass[..., 0]


def sampled_frame_map(
    mass: Float[torch.Tensor, "batch heads frames rows key_frames"],
) -> Float[torch.Tensor, "batch heads query_frames key_frames"]:
    """Attention from every query frame to every key frame, the mean of its sampled rows; each row sums to 1."""
    return mass.mean(dim=3)


def row_statistics(attention: RowAttention, tokens_per_frame: int) -> dict[str, torch.Tensor]:
    """What a run keeps of one sample's rows: [heads], and the frame map [heads, query_frames, key_frames]."""
    of_rows = {
        "self/entropy": attention.entropy,
        "self/temporal_distance": temporal_distance(attention.mass),
        "self/first_frame_share": first_frame_share(attention.mass),
    }
    found = {"self/frame_map": sampled_frame_map(attention.mass)[0]}
    for name, values in of_rows.items():
        mean, error = estimate(values, tokens_per_frame)
        found |= {name: mean[0], f"{name}_error": error[0]}
    return found
