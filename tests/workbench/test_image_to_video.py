"""Image-to-video from an image to a mask, through the command line; diffusers itself never tests that path."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.generation import first_inputs
from analysis.runs import Run
from pare import mask as masks
from pare.models import load_pipeline
from pare.video import read_video, write_video
from tests.tiny import BLOCKS, HEADS, IMAGE_DIM, TEXT_DIM
from workbench.cli import main

PROMPT = "a red 7 moving up and left, fast"


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "first.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return path


def say(capsys, *words):
    assert main([*map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_model_has_all_that_image_to_video_needs(tiny_image_folder, picture):
    """An image encoder, added key and value projections, and text padded to 512 tokens, which the processor assumes."""
    pipe = load_pipeline(str(tiny_image_folder), device="cpu")
    assert pipe.image_encoder is not None
    assert all(
        block.attn2.add_k_proj is not None and block.attn2.add_v_proj is not None for block in pipe.transformer.blocks
    )
    with torch.no_grad(), first_inputs(pipe.transformer) as seen:
        pipe(
            prompt=PROMPT, image=Image.open(picture), height=32, width=32, num_frames=9, num_inference_steps=1,
            output_type="latent",
        )  # fmt: skip
    assert seen["encoder_hidden_states"].shape == (1, 512, TEXT_DIM)
    assert seen["encoder_hidden_states_image"].shape == (1, 17, IMAGE_DIM)


def test_generate_capture_roles_and_mask(tiny_image_folder, picture, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text(f"{PROMPT}\na blue 3\n")
    common = ["--image", picture, "--device", "cpu", "--seed", "4", "--steps", "2"]
    generated = say(capsys, "generate", tiny_image_folder, "--prompt", PROMPT, "--out", tmp_path / "v.mp4", *common)
    capture = ["capture", tiny_image_folder, "--prompts", tmp_path / "prompts.txt", *common]
    trajectory = say(capsys, *capture, "--mode", "trajectory", "--out", tmp_path / "trajectory")
    calibration = say(capsys, *capture, "--out", tmp_path / "calibration")
    # The same generation, without capture and with both branches captured.
    with_capture = read_video(tmp_path / "trajectory" / "videos" / "00000.mp4")[0]
    np.testing.assert_array_equal(read_video(generated["video"])[0], with_capture)
    assert trajectory["branches"] == ["cond", "uncond"] and trajectory["steps"] == 2 and trajectory["videos"] == 2
    assert calibration["branches"] == ["cond"] and calibration["steps"] == 10
    for result in (trajectory, calibration):
        run = Run.open(result["run"])
        assert run.complete and run.geometry.image_to_video
        for name in run.statistics:
            assert np.isfinite(run.array(name)).all(), name
        assert {"cross/image_value_norm", "cross/projected_energy"} <= set(run.statistics)
        assert (run.moment("cross/added_key_square")["mean"] > 0).all()
        # The image comes in beside the text, and both branches of guidance see the same image.
        image, text = run.array("cross/image_value_norm"), run.array("cross/value_norm")
        assert (image > 0).all() and (image != text).all()
        table = say(capsys, "roles", result["run"])
        assert sum(table["counts"].values()) == BLOCKS * HEADS
        out = tmp_path / f"{run.manifest.mode}.safetensors"
        say(capsys, "mask", result["run"], "--model", tiny_image_folder, "--out", out, "--ratio", "0.5")
        assert main(["mask", "check", str(out), str(tiny_image_folder)]) == 0
        capsys.readouterr()
        kept = masks.load(out)
        # One kept set of cross heads per block, shared by the keys and values of text and image.
        assert kept.counts()["cross_heads"] == kept.counts()["self_heads"] == [2] * BLOCKS


def test_videos_need_no_image_and_refuse_one(tiny_image_folder, picture, tmp_path, capsys):
    films, out = tmp_path / "films", tmp_path / "run"
    films.mkdir()
    frames = np.random.default_rng(1).integers(0, 256, (30, 40, 64, 3), dtype=np.uint8)
    write_video(frames, films / "a.mp4", 24, {})
    words = ["capture", tiny_image_folder, "--videos", films, "--out", out, "--device", "cpu"]
    words += ["--prompts", tmp_path / "prompts.txt"]
    (tmp_path / "prompts.txt").write_text(PROMPT)
    assert main([*map(str, words), "--image", str(picture)]) == 2
    said = capsys.readouterr().err.strip()
    assert "leave --image out" in said and len(said.splitlines()) == 1 and not out.exists()
    result = say(capsys, *words)
    assert result["samples"] == 1 and Run.open(out).manifest.samples[0].source == "a.mp4"
    assert np.isfinite(Run.open(out).array("cross/image_value_norm")).all()
