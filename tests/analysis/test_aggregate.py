"""What a view shows is the plain mean of the cells it names, and missing cells are never zeros."""

import numpy as np
import pytest

from analysis.aggregate import head_by_sample, read_cells
from pare.errors import InputError
from tests.runs_fixture import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", 3, 4, steps=5, samples=6, branches=("cond", "uncond"))


def test_all_samples_come_from_the_summary_and_equal_the_samples(run):
    values = run.array("self/ratio").astype(float)
    cells = read_cells(run)
    assert cells.samples == 6 and np.array_equal(cells.timesteps, run.timesteps)
    assert np.allclose(cells.by_head(), values.mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(cells.by_step(), values.mean(axis=(0, 2)), atol=1e-6)
    error = values.std(axis=0, ddof=1).mean(axis=1) / np.sqrt(6)
    assert np.allclose(cells.error_by_step(), error, atol=1e-6)


@pytest.mark.parametrize(
    ("part", "index"),
    [
        ({"sample": 2}, np.ix_([2], range(5), range(2))),
        ({"branch": "uncond"}, np.ix_(range(6), range(5), [1])),
        ({"steps": [1, 3]}, np.ix_(range(6), [1, 3], range(2))),
        ({"sample": 4, "branch": "cond", "steps": [0]}, np.ix_([4], [0], [0])),
    ],
)
def test_a_part_is_that_part(run, part, index):
    values = run.array("self/ratio").astype(float)[index]
    assert np.allclose(read_cells(run, **part).by_head(), values.mean(axis=(0, 1, 2)), atol=1e-6)
    assert np.allclose(head_by_sample(run, 1, 3, **part), values.mean(axis=2)[:, :, 1, 3], atol=1e-6)
    held = run.array("self/ratio", run.finished)
    assert np.array_equal(head_by_sample(run, 1, 3, **part, values=held), head_by_sample(run, 1, 3, **part))


def test_one_sample_has_no_error(run):
    cells = read_cells(run, sample=0)
    assert cells.samples == 1 and np.isnan(cells.error_by_step()).all()


def test_missing_stays_missing(tmp_path):
    run = make_run(tmp_path / "run", 2, 2, steps=2, samples=3)
    (run.folder / "samples" / "00001.safetensors").unlink()
    assert np.isnan(read_cells(run, sample=1).by_head()).all()
    assert head_by_sample(run, 0, 0).shape == (2, 2)


def test_what_the_run_lacks_is_refused(run):
    for part in ({"branch": "other"}, {"steps": [9]}, {"sample": 6}):
        with pytest.raises(InputError):
            read_cells(run, **part)
    with pytest.raises(InputError, match="statistic"):
        read_cells(run, "self/none")
