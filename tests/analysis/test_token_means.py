"""Means over tokens, also where they come in several chunks."""

import pytest
import torch

from analysis import projection, residual, token_means
from analysis.projection import projected_energy
from analysis.residual import change


@pytest.fixture(params=[None, 1, 50])
def chunk_cells(request, monkeypatch):
    """Chunks as large as they come, of one row, and of a few."""
    for module in (projection, residual, token_means):
        if request.param:
            monkeypatch.setattr(module, "CHUNK_CELLS", request.param)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 1e-6), (torch.float16, 1e-6)])
def test_chunks_change_nothing(chunk_cells, dtype, tolerance):
    """Inputs are rounded once; sums are float32 and add nothing worth a name."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 37, 12, generator=generator).to(dtype) for _ in range(2))
    mean, square = token_means.token_means(x[0])
    torch.testing.assert_close(mean.double(), x[0].double().mean(0), atol=tolerance, rtol=1e-5)
    torch.testing.assert_close(square.double(), x[0].double().pow(2).mean(0), atol=tolerance, rtol=1e-5)
    found, a, b = change(x, y), x.double(), y.double()
    expected = ((b - a).norm(), a.norm(), (a * b).sum() / (a.norm() * b.norm()))
    torch.testing.assert_close(torch.stack(found).double(), torch.stack(expected), atol=1e-6, rtol=1e-5)
    output, weight = x[0].unflatten(1, (3, 4)).transpose(0, 1), torch.randn(3, 20, 4, generator=generator)
    energy = (output.double() @ weight.double().mT).norm(dim=(1, 2))
    torch.testing.assert_close(projected_energy(output, weight).double(), energy, atol=1e-6, rtol=1e-5)


def test_a_head_that_the_projection_ignores_has_no_energy():
    output, weight = torch.zeros(1, 5, 2), torch.zeros(1, 3, 2)
    output[..., 0], weight[..., 1] = 1, 1
    assert projected_energy(output, weight).tolist() == [0]
