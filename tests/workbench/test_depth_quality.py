"""The quality of fewer blocks is measured way by way, resumably, with paired intervals; caches execute what they should."""

import json

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig

from pare.errors import Cancelled, InputError
from pare.models import load_pipeline
from tests.tiny import save, tiny_pipeline
from workbench.demo.block_caches import cached, executions, magnitude_ratios, threshold_for
from workbench.demo.depth_quality import Way, all_ways, measure, render, table

BLOCKS, STEPS = 4, 4
WAYS = [Way(), Way(1.0, "random", 1.0), Way(0.75, "random", 0.75), Way(0.6, cache="mag cache")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pipe = tiny_pipeline(num_layers=BLOCKS)
    return str(save(pipe, tmp_path_factory.mktemp("model") / "tiny", height=48, width=48, steps=STEPS))


@pytest.fixture(scope="module")
def load(folder):
    pipe = load_pipeline(folder)
    return lambda model, **options: pipe


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.txt"
    path.write_text("a red 7 moving up and left, fast\na blue 3 standing still\n")
    return path


@pytest.fixture(scope="module")
def measured(folder, load, prompts, tmp_path_factory):
    out = tmp_path_factory.mktemp("quality") / "depth.json"
    return out, measure(folder, out, prompts=prompts, ways=WAYS, load=load)


def test_every_way_has_a_row(measured, load, folder):
    _, result = measured
    teacher, whole, part, cache = result["table"]
    assert [row["way"] for row in result["table"]] == [
        "teacher",
        "random router 1",
        "random router 0.75",
        "mag cache 0.6",
    ]
    assert teacher["share"] == whole["share"] == 1.0 and part["share"] == 0.75
    assert result["thresholds"].keys() == {"mag cache 0.6"} and 0 < cache["share"] < 1
    # All blocks give the teacher's video.
    assert whole["flow_magnitude"]["difference"] == 0 and whole["ssim"]["mean"] == pytest.approx(1.0)
    assert part["psnr"]["n"] == 2 and part["ssim"]["mean"] < 1
    assert all(row["n"] == 2 and row["seconds"] > 0 for row in result["table"])
    lines = render(result["table"]).splitlines()
    assert len(lines) == 2 + len(WAYS) and lines[0].count("|") == lines[2].count("|")
    assert not load(folder).transformer.is_routing_enabled and not load(folder).transformer.is_cache_enabled


def test_a_measurement_that_was_stopped_goes_on(measured, folder, load, prompts, tmp_path):
    _, whole = measured

    def stop(done, total, message=""):
        if done == 2 and "threshold" not in message:
            raise Cancelled

    again = tmp_path / "depth.json"
    with pytest.raises(Cancelled):
        measure(folder, again, prompts=prompts, ways=WAYS, load=load, progress=stop)
    assert not again.exists() and len(again.with_suffix(".jsonl").read_text().splitlines()) == 3
    with again.with_suffix(".jsonl").open("a") as file:
        file.write('{"way": "cut off')
    result = measure(folder, again, prompts=prompts, ways=WAYS, load=load)
    for one, other in zip(result["table"], whole["table"], strict=True):
        untimed = {name for name in one if "seconds" not in name}
        assert json.dumps({name: one[name] for name in untimed}, sort_keys=True) == json.dumps(
            {name: other[name] for name in untimed}, sort_keys=True
        )
    with pytest.raises(InputError, match="another model"):
        measure(folder, again, prompts=prompts, ways=WAYS[:2], load=load, guidance=1.5)


def test_differences_are_paired_over_prompts():
    def record(way, seed, digit, flow):
        return {"way": way, "seed": seed, "share": 1.0, "seconds": 2.0, "processor_seconds": 2.0,
                "score": {"digit": digit}, "motion": {"flow_magnitude": flow}, "to_teacher": {"psnr": 20.0}}  # fmt: skip

    ways = [Way(), Way(0.5, "static", 0.5)]
    records = [record("teacher", seed, True, 1.0 + seed) for seed in range(4)]
    records += [record(ways[1].name, seed, seed > 0, 0.5 + seed) for seed in range(3)]
    row = table(records, ways)[1]
    assert row["n"] == 3 and row["digit"]["mean_b"] == pytest.approx(2 / 3)
    assert row["flow_magnitude"]["difference"] == pytest.approx(-0.5)
    assert np.isnan(row["direction"]["mean_b"]) and row["psnr"]["mean"] == 20.0


def test_all_ways_are_named_apart_and_pair_caches_at_equal_work():
    ways = all_ways()
    assert len({way.name for way in ways}) == len(ways) and ways[0].name == "teacher"
    both = [way for way in ways if way.cache and way.router]
    assert all(way.routed**2 == pytest.approx(way.share) for way in both) and len(both) == 4


def test_the_count_is_of_blocks_that_really_ran(folder, load):
    pipe = load(folder)
    generator = torch.Generator().manual_seed(0)
    with cached(pipe.transformer, FirstBlockCacheConfig(threshold=1e6)), executions(pipe.transformer) as count:
        pipe("a red 7", height=48, width=48, num_frames=9, num_inference_steps=3, guidance_scale=1.0,
             generator=generator, output_type="latent")  # fmt: skip
    # One whole step, then the first block alone.
    assert count == [BLOCKS + 2]


def test_magnitude_ratios_are_those_of_the_residuals(folder, load):
    pipe = load(folder)
    seen = []

    def watch(module, args, output):
        seen.append((output - start[-1]).norm(dim=-1))

    start = []
    handles = [
        pipe.transformer.blocks[0].register_forward_pre_hook(lambda module, args: start.append(args[0])),
        pipe.transformer.blocks[-1].register_forward_hook(watch),
    ]

    def generate():
        pipe("a red 7", height=48, width=48, num_frames=9, num_inference_steps=3, guidance_scale=2.0,
             generator=torch.Generator().manual_seed(0), output_type="latent")  # fmt: skip

    ratios = magnitude_ratios(pipe.transformer, generate)
    for handle in handles:
        handle.remove()
    expected = [1.0] + [
        np.mean([float((seen[2 * step + branch] / seen[2 * step - 2 + branch]).mean()) for branch in (0, 1)])
        for step in (1, 2)
    ]
    np.testing.assert_allclose(ratios, expected, rtol=1e-5)


def test_the_threshold_that_comes_nearest_is_kept():
    steps = {0.01: 1.0, 1.0: 0.75, 5.0: 0.25}
    threshold, share = threshold_for(
        0.6, lambda t: next(s for limit, s in reversed(steps.items()) if t >= limit or limit == 0.01)
    )
    assert share == 0.75 and 1.0 <= threshold < 5.0
