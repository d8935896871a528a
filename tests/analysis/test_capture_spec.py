"""What a capture is asked for: words of the command line, what a manifest says, and what it will weigh."""

import numpy as np
import pytest
from safetensors.numpy import load_file

from analysis.capture_spec import CaptureSpec, disk_bytes
from analysis.catalogue import BASIC, CHEAP, FRAME_MAP, MOMENTS, ROW_STATISTICS, STATISTICS
from analysis.manifest import HEAD_AXES, Manifest
from analysis.run_writer import RunWriter
from pare.errors import InputError
from pare.geometry import PRESETS, Geometry
from tests.runs_fixture import make_manifest
from workbench.demo import bundle


def planned(spec: CaptureSpec, samples: int = 20, **base) -> Manifest:
    manifest = make_manifest(samples=samples, **base)
    geometry = Geometry.from_dict(manifest.geometry)
    described = spec.describe(
        geometry,
        steps=len(manifest.timesteps),
        branches=manifest.branches,
        samples=samples,
        num_frames=manifest.num_frames,
        tokens_per_frame=manifest.tokens_per_frame,
    )
    extra = {
        "statistics": described,
        "moments": spec.describe_moments(geometry),
        "query_rows": spec.query_rows(manifest.num_frames, manifest.tokens_per_frame),
    }
    return Manifest.model_validate(manifest.model_dump(by_alias=True) | extra)


def write(folder, manifest: Manifest):
    generator = np.random.default_rng(0)

    def random(described):
        return {name: generator.random(each.shape) for name, each in described.items()}

    norms = np.ones((manifest.geometry["blocks"], manifest.geometry["heads"]))
    writer = RunWriter(folder, manifest, {f"{kind}/output_weight_norm": norms for kind in ("self", "cross")})
    for index in writer.pending():
        writer.write_sample(index, random(manifest.measured(index)), random(manifest.moments))
        writer.log("sample", index=index, seconds=12.345, kernels=["flash_cpu"])
    return writer.finish()


def test_words_of_the_command_line():
    everything = CaptureSpec.parse("all")
    assert everything.statistics == CHEAP and everything.moments and everything.samples == {}
    assert "self/entropy_exact" not in CHEAP and set(CHEAP) | {"self/entropy_exact"} == set(STATISTICS)
    assert everything == CaptureSpec()
    basic = CaptureSpec.parse("basic")
    assert basic.statistics == BASIC and not basic.moments and basic.samples == {}
    some = CaptureSpec.parse("all, self/entropy_exact:3,rows:10,maps:2,rows", map_steps=7)
    assert set(some.statistics) == set(STATISTICS) and some.map_steps == 7
    assert some.samples == {"self/entropy_exact": 3, FRAME_MAP: 2} | dict.fromkeys(ROW_STATISTICS, 10)
    assert CaptureSpec.parse("moments").statistics == () and CaptureSpec.parse("moments").moments


@pytest.mark.parametrize(
    "words, said",
    [
        ("self/rato", "self/rato"),
        (" ,", "nothing"),
        ("rows:many", "rows:many"),
        ("rows:0", "0"),
        ("moments:3", "moments:3"),
        ("all:3", "all:3"),
        ("self/entropy_error", "self/entropy_error"),
    ],
)
def test_bad_words_are_refused(words, said):
    with pytest.raises(InputError, match=said):
        CaptureSpec.parse(words)


def test_bad_numbers_are_refused():
    with pytest.raises(InputError, match="--maps-steps"):
        CaptureSpec.parse("all", map_steps=0)
    with pytest.raises(InputError, match="rows"):
        CaptureSpec(rows=0)
    with pytest.raises(InputError, match="self/rato"):
        CaptureSpec(samples={"self/rato": 1})


def test_a_manifest_says_what_was_measured_where_and_how():
    manifest = planned(CaptureSpec.parse("all,rows:5,maps:2"), branches=("cond", "uncond"))
    maps, entropy = manifest.statistics[FRAME_MAP], manifest.statistics["self/entropy"]
    assert maps.axes == (*HEAD_AXES, "frame_q", "frame_k") and maps.shape == (5, 1, 8, 10, 9, 9)
    assert maps.dtype == "float16" and maps.steps == (0, 2, 4, 7, 9) and maps.branches == ("cond",)
    assert maps.samples == (0, 10) and entropy.samples == (0, 4, 8, 12, 16)
    assert entropy == manifest.statistics["self/entropy_error"].model_copy(update={"description": entropy.description})
    assert entropy.method == "from 63 query rows, 7 of every latent frame"
    assert manifest.query_rows == {"rows": 64, "per_frame": 7, "seed": 0}
    assert manifest.statistics["self/ratio"].samples is None and manifest.statistics["self/ratio"].method == "exact"
    assert manifest.moments["self/output"].shape == (8, 10, 16) and manifest.moments["ffn/activation"].shape == (8, 640)
    assert "cross/added_key_square" not in manifest.moments and "cross/image_value_norm" not in manifest.statistics
    assert Manifest.from_bytes(manifest.to_bytes(), "run.json") == manifest


def test_an_image_model_has_the_image_part():
    geometry = PRESETS["wan2.1-i2v-14b"].geometry
    lengths = {"steps": 50, "branches": ("cond", "uncond"), "samples": 1, "num_frames": 21, "tokens_per_frame": 1560}
    assert "cross/image_value_norm" in CaptureSpec().describe(geometry, **lengths)
    assert set(CaptureSpec().describe_moments(geometry)) == set(MOMENTS)


def test_each_sample_is_measured_as_its_manifest_says():
    for words in ("all,rows:5,maps:2", "basic", "self/ratio,moments", "self/entropy_exact:2,parts"):
        manifest = planned(CaptureSpec.parse(words), branches=("cond", "uncond"))
        for index in range(20):
            spec = CaptureSpec.of_sample(manifest, index)
            with_errors = {*spec.statistics, *(f"{name}_error" for name in spec.statistics if name in ROW_STATISTICS)}
            assert with_errors == set(manifest.measured(index))
            assert spec.moments == bool(manifest.moments)
            for step in range(10):
                kept = FRAME_MAP in manifest.measured(index) and step in manifest.statistics[FRAME_MAP].steps
                assert spec.keeps_map(step, "cond") == kept and not spec.keeps_map(step, "uncond")
    everywhere = planned(CaptureSpec(map_steps=50, rows=9, seed=4))
    assert everywhere.statistics[FRAME_MAP].steps is None
    spec = CaptureSpec.of_sample(everywhere, 0)
    assert all(spec.keeps_map(step, "cond") for step in range(10)) and (spec.rows, spec.seed) == (9, 4)


def test_a_run_with_statistics_of_some_samples_reads_as_one(tmp_path):
    run = write(tmp_path / "run", planned(CaptureSpec.parse("all,rows:3,maps:2"), samples=7))
    assert run.measured("self/entropy") == (0, 2, 4) and run.measured("self/ratio") == tuple(range(7))
    entropy = run.array("self/entropy")
    assert np.isfinite(entropy[[0, 2, 4]]).all() and np.isnan(entropy[[1, 3, 5, 6]]).all()
    summary = run.summary("self/entropy")
    assert (summary["n"] == 3).all()
    np.testing.assert_allclose(summary["mean"], entropy[[0, 2, 4]].mean(0), rtol=1e-6)
    maps = run.summary(FRAME_MAP)
    np.testing.assert_allclose(maps["mean"], run.array(FRAME_MAP, [0, 3]).mean(0), rtol=1e-6)
    assert (maps["n"] == 2).all()
    table = run.heads()
    assert set(table["sample"][table["entropy"].notna()]) == {0, 2, 4} and table["ratio"].notna().all()
    assert run.uniform_entropy == pytest.approx(np.log(9 * 36))
    assert run.moment("ffn/activation")["mean"].shape == (8, 640)


def test_maps_of_every_sample_have_a_summary_and_those_of_few_have_none(tmp_path):
    for number in (6, 7):
        manifest = planned(CaptureSpec.parse("maps"), samples=number)
        assert manifest.statistics[FRAME_MAP].samples is None
        run = write(tmp_path / str(number), manifest)
        stored = load_file(run.folder / "summary.safetensors")
        assert (f"{FRAME_MAP}/mean" in stored) == (number == 7)
        summary = run.summary(FRAME_MAP)
        np.testing.assert_allclose(summary["mean"], run.array(FRAME_MAP).mean(0), rtol=1e-5)
        assert (summary["n"] == number).all()
        size = sum(path.stat().st_size for path in run.folder.rglob("*.safetensors"))
        assert disk_bytes(manifest.statistics, manifest.moments, number) == pytest.approx(size, rel=0.02)


def test_what_maps_of_a_14b_model_take_on_disk_is_told_and_below_the_standard_limit():
    geometry = PRESETS["wan2.1-t2v-14b"].geometry
    lengths = {"steps": 10, "branches": ("cond",), "num_frames": 21, "tokens_per_frame": 1560}
    sizes = {}
    for words in ("all", "all,maps:8", "basic"):
        spec = CaptureSpec.parse(words)
        described = spec.describe(geometry, samples=200, **lengths)
        sizes[words] = disk_bytes(described, spec.describe_moments(geometry), 200)
    # 40 x 40 heads, 21 x 21 frames, 2 bytes, 5 steps: 7 MB a sample.
    each = 40 * 40 * 21 * 21 * 2 * 5
    assert sizes["all"] - sizes["all,maps:8"] == pytest.approx(192 * each, rel=0.001)
    assert sizes["all"] - sizes["basic"] > 1.3e9 and sizes["all"] < 2e9


def test_the_bundled_run_stays_below_4_megabytes_and_its_size_is_foreseen(tmp_path):
    manifest = planned(CaptureSpec.parse(bundle.STATISTICS), samples=200)
    run = write(tmp_path / "run", manifest)
    files = [path for path in run.folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_blocks * 512 for path in files) < 4e6
    arrays = sum(path.stat().st_size for path in files if path.suffix == ".safetensors")
    assert disk_bytes(manifest.statistics, manifest.moments, 200) == pytest.approx(arrays, rel=0.02)
    assert set(manifest.statistics) >= set(CHEAP) - {"cross/image_value_norm"}
