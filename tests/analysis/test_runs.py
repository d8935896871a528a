"""Runs on disk: what is written is what is read, missing is absent, foreign is refused, resumed is the same bytes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from analysis.manifest import Statistic
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.errors import InputError
from tests.runs_fixture import make_manifest, make_run, random_sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("runs") / "run"
    make_run(target, blocks=3, heads=4, steps=5, samples=6, num_frames=9, branches=("cond", "uncond"))
    return target


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("log.jsonl", None)
    return files


def test_axes_and_shapes_are_named(folder):
    run = Run.open(folder)
    assert run.statistics[0] == "self/ratio"
    assert run.axes("self/ratio") == ("sample", "step", "branch", "block", "head")
    assert run.axes("block/cosine") == ("sample", "step", "branch", "block")
    assert run.array("self/ratio").shape == (6, 5, 2, 3, 4)
    assert run.array("self/ratio", [4]).dtype == np.float32
    assert run.uniform == pytest.approx(1 / 9)
    assert run.geometry.blocks == 3
    assert run.timesteps.tolist() == [900, 700, 500, 300, 100]
    np.testing.assert_allclose(run.sigmas * 1000, run.timesteps)


def test_summary_is_the_mean_and_spread_over_samples(folder):
    run = Run.open(folder)
    for name in run.statistics:
        values = run.array(name).astype(float)
        summary = run.summary(name)
        np.testing.assert_allclose(summary["mean"], values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(summary["std"], values.std(0, ddof=1), rtol=1e-5)
        assert (summary["n"] == 6).all() and summary["n"].shape == values.shape[1:]


def test_tidy_frames_hold_every_cell_once(folder):
    run = Run.open(folder)
    frame = run.heads()
    assert list(frame.columns) == [
        "sample", "step", "timestep", "sigma", "branch", "block", "head", "ratio", "value_norm", "cross_value_norm",
    ]  # fmt: skip
    assert len(frame) == 6 * 5 * 2 * 3 * 4
    ratio = run.array("self/ratio")
    row = frame[(frame["sample"] == 2) & (frame["step"] == 3) & (frame["branch"] == "uncond")]
    row = row[(row["block"] == 1) & (row["head"] == 2)]
    assert row["ratio"].item() == ratio[2, 3, 1, 1, 2]
    assert row["timestep"].item() == 300
    blocks = run.blocks()
    assert len(blocks) == 6 * 5 * 2 * 3
    assert list(blocks.columns[-3:]) == ["residual_norm", "input_norm", "cosine"]


def test_filters(folder):
    run = Run.open(folder)
    frame = run.heads(samples=[1, 4], branch="uncond", steps=[0, 2])
    assert sorted(set(frame["sample"])) == [1, 4]
    assert set(frame["branch"]) == {"uncond"} and sorted(set(frame["timestep"])) == [500, 900]
    np.testing.assert_array_equal(
        frame["ratio"].to_numpy().reshape(2, 2, 3, 4), run.array("self/ratio")[[1, 4]][:, [0, 2], 1]
    )
    for bad in ({"samples": [6]}, {"samples": [-1]}, {"branch": "both"}, {"steps": [5]}):
        with pytest.raises(InputError):
            run.heads(**bad)
    with pytest.raises(InputError, match="self/ratio"):
        run.array("self/rato")


def test_a_range_of_timesteps_filters_frames_and_arrays_alike(folder):
    run = Run.open(folder)
    frame = run.heads(t_min=300, t_max=700, branch="cond", samples=[2])
    assert sorted(set(frame["timestep"])) == [300, 500, 700] and set(frame["branch"]) == {"cond"}
    whole = run.array("self/ratio")
    part = run.array("self/ratio", [2], t_min=300, t_max=700, branch="cond")
    np.testing.assert_array_equal(part, whole[[2]][:, 1:4, :1])
    np.testing.assert_array_equal(frame["ratio"].to_numpy(), part.ravel())
    np.testing.assert_array_equal(run.array("self/ratio", steps=[3, 0], branch="uncond"), whole[:, [3, 0], 1:])
    blocks = run.blocks(t_max=100)
    np.testing.assert_array_equal(blocks["cosine"].to_numpy(), run.array("block/cosine", t_max=100).ravel())
    assert set(run.blocks(steps=[0, 1, 2], t_max=700)["step"]) == {1, 2}
    along = run.coordinates("self/ratio", [2], t_min=300, t_max=700, branch="cond")
    assert {name: values.tolist() for name, values in along.items()} == {
        "sample": [2], "step": [1, 2, 3], "timestep": [700, 500, 300], "branch": ["cond"], "block": [0, 1, 2],
        "head": [0, 1, 2, 3],
    }  # fmt: skip
    for bad in ({"t_min": 950}, {"t_max": 99}, {"t_min": 600, "t_max": 400}, {"steps": [0], "t_max": 500}):
        for read in (run.heads, run.blocks, lambda **where: run.array("self/ratio", **where)):
            with pytest.raises(InputError, match="timesteps"):
                read(**bad)


def test_missing_is_absent_never_zero(tmp_path):
    manifest = make_manifest(blocks=2, heads=3, steps=2, samples=3)
    writer = RunWriter(tmp_path / "run", manifest, {})
    samples = [random_sample(manifest, np.random.default_rng(i), np.full((2, 3), 0.5)) for i in range(3)]
    writer.write_sample(0, samples[0])
    writer.write_sample(2, samples[2])
    run = Run.open(tmp_path / "run")
    assert run.finished == (0, 2) and not run.complete
    ratio = run.array("self/ratio")
    assert np.isnan(ratio[1]).all() and not np.isnan(ratio[[0, 2]]).any()
    assert sorted(set(run.heads()["sample"])) == [0, 2]
    assert (run.summary("self/ratio")["n"] == 2).all()
    with pytest.raises(ValueError, match="1"):
        writer.finish()
    with pytest.raises(InputError, match="output_weight_norm"):
        run.output_weight_norm("self")


def test_a_nan_cell_is_not_counted(tmp_path):
    manifest = make_manifest(blocks=1, heads=2, steps=1, samples=2)
    writer = RunWriter(tmp_path / "run", manifest, {})
    for index in range(2):
        sample = random_sample(manifest, np.random.default_rng(index), np.full((1, 2), 0.5))
        if index == 0:
            sample["self/ratio"][0, 0, 0, 1] = np.nan
        writer.write_sample(index, sample)
    run = writer.finish()
    summary = run.summary("self/ratio")
    assert summary["n"].ravel().tolist() == [2, 1]
    assert summary["mean"][0, 0, 0, 1] == run.array("self/ratio")[1, 0, 0, 0, 1]
    assert np.isnan(summary["std"][0, 0, 0, 1])


def test_a_statistic_of_some_steps_and_branches_keeps_its_place(tmp_path):
    base = make_manifest(blocks=1, heads=2, steps=4, samples=1, branches=("cond", "uncond"))
    entropy = Statistic(
        axes=("step", "branch", "block", "head"), shape=(2, 1, 1, 2), unit="nat", description="entropy",
        method="64 sampled rows", steps=(1, 3), branches=("cond",),
    )  # fmt: skip
    frame_map = Statistic(
        axes=("step", "branch", "block", "head", "query_frame", "key_frame"), shape=(2, 1, 1, 2, 9, 9), dtype="float16",
        unit="share", description="map", steps=(1, 3), branches=("cond",),
    )  # fmt: skip
    statistics = {**base.statistics, "self/entropy": entropy, "self/frame_map": frame_map}
    manifest = base.model_copy(update={"statistics": statistics})
    sample = random_sample(manifest, np.random.default_rng(0), np.full((1, 2), 0.5))
    writer = RunWriter(tmp_path / "run", manifest, {})
    writer.write_sample(0, sample)
    run = writer.finish()
    frame = run.heads()
    there = frame[frame["entropy"].notna()]
    assert set(zip(there["step"], there["branch"], strict=True)) == {(1, "cond"), (3, "cond")}
    np.testing.assert_array_equal(there["entropy"].to_numpy(), sample["self/entropy"].ravel())
    assert frame["ratio"].notna().all()
    assert run.array("self/frame_map").shape == (1, 2, 1, 1, 2, 9, 9)
    assert run.coordinates("self/frame_map")["step"].tolist() == [1, 3]
    # Steps 1 and 3 of 4 have the map: t = 625 and 125.
    np.testing.assert_array_equal(run.array("self/frame_map", t_max=500), run.array("self/frame_map")[:, 1:])
    for elsewhere in ({"steps": [0, 2]}, {"branch": "uncond"}):
        with pytest.raises(InputError, match=r"self/frame_map.*steps \[1, 3\], branch cond"):
            run.array("self/frame_map", **elsewhere)
    assert load_file(tmp_path / "run/samples/00000.safetensors")["self/frame_map"].dtype == np.float16


def test_the_same_run_is_the_same_bytes_in_another_process(tmp_path):
    make_run(tmp_path / "here", blocks=2, heads=3, steps=2, samples=2)
    code = f"from tests.runs_fixture import make_run; make_run({str(tmp_path / 'there')!r}, 2, 3, 2, 2)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_resume_ends_with_the_same_bytes(tmp_path):
    manifest = make_manifest(blocks=2, heads=3, steps=2, samples=4)
    samples = [random_sample(manifest, np.random.default_rng(i), np.full((2, 3), 0.5)) for i in range(4)]
    weights = {"self/output_weight_norm": np.ones((2, 3))}
    whole = RunWriter(tmp_path / "whole", manifest, weights)
    for index in whole.pending():
        whole.write_sample(index, samples[index])
    whole.finish()
    part = RunWriter(tmp_path / "part", manifest, weights)
    part.write_sample(0, samples[0])
    part.log("killed")
    (tmp_path / "part/samples/.00001.123.partial.safetensors").write_bytes(b"half")
    part = RunWriter(tmp_path / "part", manifest, weights, resume=True)
    assert part.pending() == [1, 2, 3]
    for index in part.pending():
        part.write_sample(index, samples[index])
    part.finish()
    assert contents(tmp_path / "whole") == contents(tmp_path / "part")


def test_the_writer_refuses_what_it_would_overwrite_or_mix(tmp_path):
    manifest = make_manifest(blocks=2, heads=3, steps=2, samples=2)
    RunWriter(tmp_path / "run", manifest, {})
    with pytest.raises(InputError, match="--resume"):
        RunWriter(tmp_path / "run", manifest, {})
    with pytest.raises(InputError, match="another timesteps"):
        RunWriter(tmp_path / "run", make_manifest(blocks=2, heads=3, steps=2).model_copy(
            update={"timesteps": (2.0, 1.0), "samples": manifest.samples}), {}, resume=True)  # fmt: skip
    (tmp_path / "other").mkdir()
    (tmp_path / "other/letter.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match="not empty"):
            RunWriter(tmp_path / "other", manifest, {}, resume=resume)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["letter.txt"]


def test_the_writer_refuses_a_sample_that_the_manifest_does_not_describe(tmp_path):
    manifest = make_manifest(blocks=2, heads=3, steps=2, samples=2)
    writer = RunWriter(tmp_path / "run", manifest, {})
    sample = random_sample(manifest, np.random.default_rng(0), np.full((2, 3), 0.5))
    with pytest.raises(ValueError, match="shape"):
        writer.write_sample(0, {**sample, "self/ratio": sample["self/ratio"][:1]})
    sample.pop("block/cosine")
    with pytest.raises(ValueError, match="cosine"):
        writer.write_sample(0, sample)
    assert writer.pending() == [0, 1]


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda d: d.update(schema="pare-run/2"), "pare-run/2"),
        (lambda d: d.pop("timesteps"), "timesteps"),
        (lambda d: d.update(sigmas=[0.5]), "sigmas"),
        (lambda d: d["statistics"]["self/ratio"].update(shape=[1, 1, 1, 1]), "axis"),
        (lambda d: d["geometry"].pop("heads"), "heads"),
        (lambda d: d["samples"][0].pop("seed"), "seed"),
    ],
)
def test_a_foreign_or_broken_manifest_is_refused_in_one_line(tmp_path, change, words):
    make_run(tmp_path / "run", blocks=1, heads=2, steps=2, samples=1)
    path = tmp_path / "run/run.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=words) as caught:
        Run.open(tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_unreadable_folders_and_files(tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        Run.open(tmp_path / "nowhere")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Run.open(tmp_path)
    run = make_run(tmp_path / "run", blocks=1, heads=2, steps=2, samples=2)
    path = tmp_path / "run/samples/00000.safetensors"
    own = load_file(path)
    path.write_bytes(b"\x00" * 40)
    with pytest.raises(InputError, match="safetensors"):
        run.array("self/ratio")
    save_file(own, path, metadata={"run": "another"})
    with pytest.raises(InputError, match="another run"):
        run.array("self/ratio")


def test_a_later_field_does_not_hide_the_run(tmp_path):
    """Readers pass over what a later version adds; a run is known by its file, not by what was understood of it."""
    manifest = make_manifest(blocks=1, heads=2, steps=2, samples=1)
    run = make_run(tmp_path / "run", blocks=1, heads=2, steps=2, samples=1)
    document = json.loads(manifest.to_bytes()) | {"later": 1}
    content = json.dumps(document).encode()
    (tmp_path / "run/run.json").write_bytes(content)
    later = Run.open(tmp_path / "run")
    assert later.statistics == run.statistics and later.identity != run.identity
    with pytest.raises(InputError, match="another run"):
        later.array("self/ratio")


def test_size_and_speed_of_large_runs(tmp_path):
    small = make_run(tmp_path / "small", samples=200)
    size = sum(path.stat().st_blocks * 512 for path in small.folder.rglob("*") if path.is_file())
    assert size < 3.5e6
    make_run(tmp_path / "large", blocks=40, heads=40, steps=10, samples=20, branches=("cond", "uncond"))
    # Processor time: another process on the machine must not fail this.
    start = time.process_time()
    run = Run.open(tmp_path / "large")
    assert run.summary("self/ratio")["mean"].shape == (10, 2, 40, 40)
    run.output_weight_norm("self")
    assert time.process_time() - start < 1


def test_reading_needs_no_torch():
    modules = "analysis.runs, analysis.roles, analysis.importance, pare.mask, pare.width.heads"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"
