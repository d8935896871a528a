"""`pare prune`: what it writes, what it says, and what it refuses before it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanImageToVideoPipeline, WanPipeline

import pare.transformer  # noqa: F401
from analysis.importance import run_roles
from analysis.runs import Run
from pare import mask as masks
from pare import reference
from pare.errors import Cancelled, InputError
from pare.geometry import read_json
from pare.mask import Mask
from pare.student import kept
from tests.students import inputs, velocity
from tests.tiny import BLOCKS, DEFAULTS, FFN, HEADS, PROMPT
from workbench.cli import main
from workbench.commands.capture import capture
from workbench.commands.generate import generate
from workbench.commands.info import info
from workbench.commands.prune import prune, render


@pytest.fixture(scope="module")
def mask_file(tmp_path_factory, tiny_folder):
    keep = np.arange(HEADS) < np.array([[2], [3]])
    identity = reference.model_identity(str(tiny_folder))
    mask = Mask(
        keep, ~keep, np.tile(np.arange(FFN) % 2 == 0, (BLOCKS, 1)), {"model": identity, "settings": {"ratio": 0.5}}
    )
    return masks.save(mask, tmp_path_factory.mktemp("mask") / "mask.safetensors")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_folder):
    out = tmp_path_factory.mktemp("run") / "run"
    capture(str(tiny_folder), out=out, prompts=[PROMPT], samples=1, frames=5, steps=1, statistics="basic,moments")
    return out


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, tiny_folder, mask_file, run_folder):
    out = tmp_path_factory.mktemp("student") / "student"
    return out, prune(str(tiny_folder), mask=mask_file, out=out, run=run_folder, compensate=True)


def test_a_whole_pipeline_that_loads_and_generates(pruned, tmp_path):
    out, result = pruned
    pipe = WanPipeline.from_pretrained(out)
    assert pipe.transformer.config.self_heads == [2, 3] and pipe.transformer.config.qk_norm_mode == "fold"
    assert result["parameters"] == sum(each.numel() for each in pipe.transformer.parameters())
    assert json.loads((out / "defaults.json").read_text()) == DEFAULTS
    video = generate(str(out), prompt=PROMPT, out=tmp_path / "v.mp4", frames=5, steps=1)
    assert video["model"]["model_id"] == "student"


def test_info_counts_the_student(pruned, tiny_folder):
    out, result = pruned
    counted = info(str(out))
    assert counted["parameters"]["total"] == result["parameters"] < info(str(tiny_folder))["parameters"]["total"]
    assert counted["flops_per_forward"]["total"] == result["flops"]["student"]
    assert counted["geometry"]["heads"] == HEADS


def test_config_and_card_say_where_it_comes_from(pruned, tiny_folder, run_folder):
    out, result = pruned
    about = json.loads((out / "transformer" / "config.json").read_text())["pruning"]
    assert about["base"] == reference.model_identity(str(tiny_folder))
    assert about["run"]["hash"] == Run.open(run_folder).hash and about["compensated"]
    card = (out / "README.md").read_text()
    assert card == (out / "transformer" / "README.md").read_text()
    assert "--mask mask.safetensors" in card and "ratio 0.5" in card and f"{result['parameters']:,}" in card
    # Nothing of this machine.
    assert str(tiny_folder.parent) not in card and str(out.parent) not in card
    assert len(result["errors"]) == BLOCKS and "kept in every block" in render(result)


def test_the_modes_in_order_of_their_error(tiny_folder, mask_file, run_folder, tmp_path):
    error = {}
    for qk_norm in ("none", "exact"):
        result = prune(str(tiny_folder), mask=mask_file, out=tmp_path / qk_norm, run=run_folder, qk_norm=qk_norm)
        error[qk_norm] = max(each["masking"] for each in result["errors"])
    assert error["exact"] < 1e-5 < error["none"]
    exact = WanPipeline.from_pretrained(tmp_path / "exact").transformer
    assert info(str(tmp_path / "exact"))["parameters"]["total"] == sum(each.numel() for each in exact.parameters())


def test_without_a_run_it_becomes_none_and_says_so(tiny_folder, mask_file, tmp_path, capsys):
    words = ["prune", str(tiny_folder), "--mask", str(mask_file), "--out", str(tmp_path / "student"), "--no-measure"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert said.count("fold needs the moments of a run; without one it became none\n") == 1
    assert "qk norm     none" in said
    config = json.loads((tmp_path / "student" / "transformer" / "config.json").read_text())
    assert config["qk_norm_mode"] == "none"


@pytest.mark.parametrize("components", ["link", "none"])
def test_the_other_components(components, tiny_folder, mask_file, tmp_path):
    out = tmp_path / "student"
    result = prune(str(tiny_folder), mask=mask_file, out=out, qk_norm="exact", components=components, measure=False)
    if components == "link":
        assert (out / "vae").is_symlink()
        assert WanPipeline.from_pretrained(out).transformer.config.qk_norm_mode == "exact"
        return
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "transformer"]
    namespace: dict = {}
    code = result["use"].replace(f'"{out.name}"', repr(str(out)))
    exec(code.replace('"text-to-video"', repr(str(tiny_folder))), namespace)
    assert namespace["pipe"].transformer is namespace["student"]


def test_image_to_video(tiny_image_folder, tmp_path):
    keep = np.arange(HEADS) < np.array([[2], [3]])
    mask = masks.save(Mask(keep, keep, np.ones((BLOCKS, FFN), bool)), tmp_path / "mask.safetensors")
    prune(str(tiny_image_folder), mask=mask, out=tmp_path / "student", qk_norm="exact")
    pipe = WanImageToVideoPipeline.from_pretrained(tmp_path / "student")
    assert [block.attn2.add_v_proj.out_features for block in pipe.transformer.blocks] == [24, 36]
    assert pipe.transformer.config.neurons is None
    assert torch.isfinite(velocity(pipe.transformer, inputs("i2v"))).all()


def test_a_dry_run_writes_nothing(tiny_folder, mask_file, tmp_path):
    result = prune(str(tiny_folder), mask=mask_file, out=tmp_path / "student", dry_run=True)
    assert result["dry_run"] and "nothing was written" in render(result)
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_preset_needs_no_weights(tmp_path):
    """What the paper keeps: 28 of 40 heads and 9,600 of 13,824 neurons (method, width)."""
    keep, neurons = np.arange(40) < np.full((40, 1), 28), np.arange(13824) < np.full((40, 1), 9600)
    mask = masks.save(Mask(keep, keep, neurons), tmp_path / "mask.safetensors")
    result = prune("wan2.1-t2v-14b", mask=mask, out=tmp_path / "student", qk_norm="none", dry_run=True)
    assert round(result["parameters"] / 1e9, 2) == 10.04
    assert round(result["flops"]["student"] / result["flops"]["dense"], 3) == 0.699


def test_nothing_is_left_of_a_cancelled_prune(tiny_folder, mask_file, tmp_path):
    def stop(done, total, message):
        if done == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        prune(str(tiny_folder), mask=mask_file, out=tmp_path / "student", progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_student_is_captured_at_its_heads_places_in_the_base_model(pruned, tmp_path):
    folder = pruned[0]
    capture(str(folder), out=tmp_path / "run", prompts=[PROMPT], device="cpu")
    run = Run.open(tmp_path / "run")
    keep = kept(read_json(folder / "transformer" / "config.json"))
    for name, part in (("self/ratio", "self_heads"), ("cross/value_norm", "cross_heads")):
        assert not keep[part].all()
        assert (np.isfinite(run.array(name)) == keep[part]).all(), name
    assert (np.isfinite(run.moment("self/query_square")["mean"]) == keep["self_heads"]).all()
    assert set(run_roles(run, 0.7, 0.3)[~keep["self_heads"]]) == {""}


REFUSED = {
    "--qk-norm": {"qk_norm": "half"},
    "--dtype": {"dtype": "int8"},
    "--components": {"components": "move"},
    "--max-shard": {"max_shard": 0.0},
    "MASK": {"mask": "no-such-file"},
    "--compensate": {"compensate": True},
    "RUN": {"run": "no-such-run"},
}


@pytest.mark.parametrize("flag", REFUSED)
def test_refusals_come_before_anything_is_written(flag, tiny_folder, mask_file, tmp_path):
    with pytest.raises(InputError, match=flag):
        prune(str(tiny_folder), **({"mask": mask_file, "out": tmp_path / "student"} | REFUSED[flag]))
    assert not list(tmp_path.iterdir())


def test_models_masks_runs_and_places_that_do_not_fit(
    pruned, tiny_folder, tiny_image_folder, mask_file, run_folder, tmp_path
):
    out = tmp_path / "student"
    with pytest.raises(InputError, match="one of image-to-video"):
        prune(str(tiny_image_folder), mask=mask_file, out=out)
    with pytest.raises(InputError, match="a mask of text-to-video"):
        prune(str(pruned[0]), mask=mask_file, out=out)
    anonymous = masks.save(
        Mask(*(getattr(masks.load(mask_file), part) for part in masks.PARTS)), tmp_path / "m.safetensors"
    )
    with pytest.raises(InputError, match="pruned before"):
        prune(str(pruned[0]), mask=anonymous, out=out)
    with pytest.raises(InputError, match="--run: got a run of text-to-video"):
        prune(str(tiny_image_folder), mask=anonymous, out=out, run=run_folder)
    with pytest.raises(InputError, match="a preset"):
        prune("wan2.1-t2v-14b", mask=anonymous, out=out)
    with pytest.raises(InputError, match="not empty"):
        prune(str(tiny_folder), mask=mask_file, out=Path(mask_file).parent)
    assert not out.exists()
