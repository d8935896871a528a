"""Runs joined: the bytes of the run that had all the samples at once; what does not belong together is refused."""

from pathlib import Path

import numpy as np
import pytest

from analysis.manifest import Sample, Statistic
from analysis.merge import merge_runs
from analysis.moments import MeanOfSamples
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.errors import Cancelled, InputError
from tests.runs_fixture import make_manifest, random_sample

BASE = make_manifest(blocks=2, heads=3, steps=2, samples=5)
MOMENTS = {
    "self/query_square": Statistic(axes=("block", "head"), shape=(2, 3), unit="square", description="per head"),
    "neuron/mean": Statistic(axes=("block", "neuron"), shape=(2, 7), unit="activation", description="per neuron"),
}
WEIGHTS = {"self/output_weight_norm": np.arange(6, dtype=np.float32).reshape(2, 3)}


def moments_of(seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    values = {name: generator.lognormal(0, 1, each.shape).astype(np.float32) for name, each in MOMENTS.items()}
    if seed == 3:
        values["neuron/mean"][1] = np.nan
    return values


def write(folder: Path, seeds: list[int], videos: bool = False, weights=WEIGHTS, finish: bool = True, **change) -> Run:
    samples = tuple(
        Sample(prompt=f"a red {seed}", seed=seed, video=f"videos/{index:05d}.mp4" if videos else None)
        for index, seed in enumerate(seeds)
    )
    settings = {**BASE.settings, "seed": seeds[0]}
    manifest = BASE.model_copy(update={"samples": samples, "settings": settings, "moments": MOMENTS} | change)
    writer = RunWriter(folder, manifest, weights)
    for index, seed in enumerate(seeds):
        sample = random_sample(manifest, np.random.default_rng(seed), np.full((2, 3), 0.5))
        if videos:
            (folder / "videos").mkdir(exist_ok=True)
            (folder / f"videos/{index:05d}.mp4").write_bytes(b"video %d" % seed)
        writer.write_sample(index, sample, {name: moments_of(seed)[name] for name in manifest.moments})
    return writer.finish() if finish else Run.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    files.pop("log.jsonl", None)
    return files


@pytest.mark.parametrize("videos", [False, True])
def test_parts_merge_to_the_bytes_of_the_whole(tmp_path, videos):
    parts = [write(tmp_path / name, seeds, videos) for name, seeds in (("a", [0, 1]), ("b", [2]), ("c", [3, 4]))]
    whole = write(tmp_path / "whole", [0, 1, 2, 3, 4], videos)
    merged = merge_runs(parts, tmp_path / "merged")
    ours, theirs = contents(merged.folder), contents(whole.folder)
    # Means are added in another order: equal to rounding.
    del ours["moments.safetensors"], theirs["moments.safetensors"]
    assert ours == theirs
    for name in MOMENTS:
        np.testing.assert_array_equal(merged.moment(name)["n"], whole.moment(name)["n"])
        np.testing.assert_allclose(merged.moment(name)["mean"], whole.moment(name)["mean"], rtol=1e-14)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "merged", "whole"]


def test_moments_are_weighted_by_their_counts(tmp_path):
    merged = Run.merge([write(tmp_path / "a", [0, 1, 2]), write(tmp_path / "b", [3])], tmp_path / "merged")
    values = np.stack([moments_of(seed)["neuron/mean"].astype(float) for seed in range(4)])
    found = merged.moment("neuron/mean")
    assert found["n"].tolist() == [4, 3]
    np.testing.assert_allclose(found["mean"][0], values[:, 0].mean(0), rtol=1e-14)
    np.testing.assert_allclose(found["mean"][1], values[:3, 1].mean(0), rtol=1e-14)
    with pytest.raises(InputError, match="neuron/mean"):
        merged.moment("neuron/max")


def test_a_block_that_never_ran_has_no_mean():
    means = MeanOfSamples(MOMENTS)
    means.add({**moments_of(0), "neuron/mean": np.full((2, 7), np.nan)})
    arrays = means.arrays()
    assert arrays["neuron/mean/n"].tolist() == [0, 0] and np.isnan(arrays["neuron/mean/mean"]).all()
    again = MeanOfSamples(MOMENTS, arrays)
    again.add(moments_of(1))
    np.testing.assert_array_equal(again.arrays()["neuron/mean/mean"], moments_of(1)["neuron/mean"])


def test_moments_survive_a_kill_at_every_place(tmp_path):
    """Killed after the moments of a sample, after its file, or after they were folded: the same bytes in the end."""
    whole = write(tmp_path / "whole", [0, 1, 2])
    manifest = whole.manifest
    samples = [random_sample(manifest, np.random.default_rng(seed), np.full((2, 3), 0.5)) for seed in range(3)]

    class Killed(BaseException):
        pass

    places = 0
    for place in range(2, 40):
        folder, saved = tmp_path / f"killed{place}", []

        class Writer(RunWriter):
            def _save(self, name, arrays, place=place, saved=saved):
                saved.append(name)
                if len(saved) > place:
                    raise Killed
                super()._save(name, arrays)

        try:
            writer = Writer(folder, manifest, WEIGHTS)
            for index in range(3):
                writer.write_sample(index, samples[index], moments_of(index))
            writer.finish()
            break
        except Killed:
            places += 1
        # Other processes' samples come in any order.
        resumed = RunWriter(folder, manifest, WEIGHTS, resume=True)
        member = RunWriter(folder, manifest, {}, lead=False)
        for index in reversed(resumed.pending()):
            member.write_sample(index, samples[index], moments_of(index))
        assert contents(resumed.finish().folder) == contents(whole.folder)
    assert places >= 8


def test_a_merged_run_with_seeds_that_do_not_follow_each_other_names_none(tmp_path):
    merged = merge_runs([write(tmp_path / "a", [7]), write(tmp_path / "b", [3])], tmp_path / "merged")
    assert merged.manifest.settings["seed"] is None
    assert [each.seed for each in merged.manifest.samples] == [7, 3]
    np.testing.assert_array_equal(merged.array("self/ratio")[1], Run.open(tmp_path / "b").array("self/ratio")[0])


def test_a_statistic_of_some_samples_keeps_them(tmp_path):
    described = dict(BASE.statistics)
    described["self/value_norm"] = described["self/value_norm"].model_copy(update={"samples": (0,)})
    parts = []
    for name, seeds in (("a", [0, 1]), ("b", [2])):
        samples = tuple(Sample(prompt="", seed=seed) for seed in seeds)
        manifest = BASE.model_copy(update={"samples": samples, "statistics": described})
        writer = RunWriter(tmp_path / name, manifest, WEIGHTS)
        for index, seed in enumerate(seeds):
            sample = random_sample(BASE, np.random.default_rng(seed), np.full((2, 3), 0.5))
            writer.write_sample(index, {each: sample[each] for each in manifest.measured(index)})
        parts.append(writer.finish())
    merged = merge_runs(parts, tmp_path / "merged")
    assert merged.manifest.statistics["self/value_norm"].samples == (0, 2)
    assert np.isfinite(merged.array("self/value_norm")).all(axis=(1, 2, 3, 4)).tolist() == [True, False, True]


@pytest.mark.parametrize(
    "change, words",
    [
        (
            {"model": {**BASE.model, "model_id": "other", "config_hash": "1"}},
            r"b: got a run of other.*one of random.*a;",
        ),
        ({"settings": {**BASE.settings, "steps": 9}}, r"b: got other settings \(steps\).*a;"),
        ({"timesteps": (3.0, 2.0)}, "other timesteps.*timesteps of .*a;"),
        ({"moments": {}}, r"other moments \(.*neuron/mean"),
        ({"versions": {**BASE.versions, "torch": "1"}}, r"other versions \(torch\)"),
        ({"weights": {"self/output_weight_norm": np.zeros((2, 3), np.float32)}}, "other output norms than .*a;"),
        ({"seeds": [5, 1]}, r"sample 1 \(seed 1\), which .*a has as well"),
        ({"finish": False}, "not finished"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path, change, words):
    first = write(tmp_path / "a", [0, 1])
    change = dict(change)
    second = write(tmp_path / "b", change.pop("seeds", [2, 3]), **change)
    with pytest.raises(InputError, match=words) as caught:
        merge_runs([first, second], tmp_path / "merged")
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_cancelling_and_foreign_targets_leave_nothing(tmp_path):
    parts = [write(tmp_path / "a", [0, 1]), write(tmp_path / "b", [2])]

    def cancel(done, total, message=""):
        if done == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        merge_runs(parts, tmp_path / "merged", progress=cancel)
    for out, words in ((tmp_path / "a", "a run"), (tmp_path, "not empty")):
        with pytest.raises(InputError, match=words):
            merge_runs(parts, out)
    with pytest.raises(InputError, match="at least 2"):
        merge_runs(parts[:1], tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_heads_that_a_pruned_model_lacks_stay_absent_however_moments_come_together():
    described = {"self/query_square": Statistic(axes=("block", "head"), shape=(2, 2), unit="", description="")}
    samples = [np.array([[1.0, np.nan], [2.0, 4.0]]), np.array([[3.0, np.nan], [np.nan, np.nan]])]

    def means(values, stored=None):
        found = MeanOfSamples(described, stored)
        for each in values:
            found.add({"self/query_square": each})
        return found

    resumed = means(samples[1:], means(samples[:1]).arrays())
    merged = means(samples[:1])
    merged.merge(MeanOfSamples(described, means(samples[1:]).arrays()))
    for found in (means(samples), resumed, merged):
        arrays = found.arrays()
        np.testing.assert_array_equal(arrays["self/query_square/mean"], [[2.0, np.nan], [2.0, 4.0]])
        assert arrays["self/query_square/n"].tolist() == [2, 1]
