"""What is shown of a block is the plain mean of the cells it names: quotients first, then averages."""

import numpy as np
import pytest

from analysis.block_values import LENSES, PARTS, block_sums, block_values, ratio_by_block
from pare.errors import InputError
from tests.runs_fixture import make_run
from tests.sampled_run import make_sampled_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_sampled_run(tmp_path_factory.mktemp("runs") / "run", 3, 4, steps=5, samples=6)


def expected(run, lens: str) -> np.ndarray:
    values = run.array(LENSES[lens].statistic).astype(float)
    return values / run.array("block/input_norm") if lens in PARTS else values


@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_is_a_mean_of_quotients(run, lens):
    cells = expected(run, lens)
    found = block_values(run, lens)
    np.testing.assert_allclose(found.values, cells.mean(axis=2), rtol=1e-6)
    np.testing.assert_allclose(found.cells(), cells.mean(axis=(0, 2)), rtol=1e-6)
    assert found.samples == 6 and np.array_equal(found.timesteps, run.timesteps)
    part = block_values(run, lens, sample=2, branch="uncond", steps=[1, 4])
    np.testing.assert_allclose(part.cells(), cells[2, [1, 4], 1], rtol=1e-6)
    assert np.array_equal(part.timesteps, run.timesteps[[1, 4]]) and part.samples == 1


def test_marginals_have_their_interval_and_n(run):
    cells = expected(run, "residual").mean(axis=2)
    found = block_values(run)
    for frame, axis, labels in (
        (found.by_block(), 1, ("block", range(3))),
        (found.by_step(), 2, ("timestep", run.timesteps)),
        (found.of_block(2), None, ("timestep", run.timesteps)),
    ):
        per_sample = cells[:, :, 2] if axis is None else cells.mean(axis=axis)
        np.testing.assert_allclose(frame["mean"], per_sample.mean(axis=0), rtol=1e-6)
        assert frame[labels[0]].tolist() == list(labels[1])
        # A percentile bootstrap of 6 samples stays within their range and holds the mean.
        assert (frame["low"] >= per_sample.min(axis=0) - 1e-9).all()
        assert (frame["high"] <= per_sample.max(axis=0) + 1e-9).all()
        assert ((frame["low"] < frame["mean"]) & (frame["mean"] < frame["high"])).all()
        assert (frame["n"] == 6).all()
    one = block_values(run, sample=0).by_block()
    assert one[["low", "high"]].isna().all(axis=None) and (one["n"] == 1).all()


def test_missing_samples_are_no_zeros(tmp_path):
    run = make_sampled_run(tmp_path / "run", 3, 3, steps=2, samples=3)
    (run.folder / "samples" / "00001.safetensors").unlink()
    found = block_values(run, "ffn")
    assert found.samples == 2 and (found.by_block()["n"] == 2).all() and found.cells().min() > 0
    nothing = block_values(run, sample=1)
    assert nothing.samples == 0 and np.isnan(nothing.cells()).all()
    assert nothing.by_step()["mean"].isna().all() and (nothing.by_step()["n"] == 0).all()


def test_what_the_run_lacks_is_refused(run, tmp_path):
    for part in ({"branch": "other"}, {"steps": [9]}, {"sample": 6}):
        with pytest.raises(InputError):
            block_values(run, **part)
    plain = make_run(tmp_path / "plain", 2, 3, steps=2, samples=2)
    with pytest.raises(InputError, match="self_norm"):
        block_values(plain, "self")


def test_the_ratio_of_a_block_is_the_mean_of_its_heads(run):
    ratio = run.array("self/ratio").astype(float)
    frame = ratio_by_block(block_sums(run.array("self/ratio")))
    np.testing.assert_allclose(frame["mean"], ratio.mean(axis=(0, 1, 2, 4)), rtol=1e-6)
    assert frame["block"].tolist() == [0, 1, 2] and (frame["n"] == 6).all()
    assert ((frame["low"] < frame["mean"]) & (frame["mean"] < frame["high"])).all()
