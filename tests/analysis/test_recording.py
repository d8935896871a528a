"""Whole runs: what is measured where, seeds, clean latents from the model or from videos, cancel, kill -9 and resume."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.capture import CaptureSpec, capture
from analysis.film import read_clip
from analysis.generation import encode, first_inputs, generate
from analysis.probes import make_probes, velocity
from analysis.recording import bin_centres, plan, record
from analysis.runs import Run
from pare.errors import Cancelled, InputError
from pare.models import load_pipeline, model_geometry, model_identity
from pare.video import read_video, write_video
from tests.tiny import BLOCKS, HEADS
from workbench.settings import RunSettings

PROMPTS = ["a red 7 moving up", "a blue 3 standing still"]


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert files.pop("log.jsonl")
    return files


def make(folder, pipe, mode="calibration", prompts=PROMPTS, images=None, **more):
    settings = RunSettings.of(device="cpu", dtype="float32", **(images or {})).filled(str(folder))
    return plan(
        pipe, model=model_identity(str(folder)), geometry=model_geometry(str(folder)), mode=mode,
        settings=settings.model_dump(), prompts=prompts, **more,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tiny tensors gain nothing from threads, and lose much where other work shares the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipe(tiny_folder):
    return load_pipeline(str(tiny_folder), device="cpu")


@pytest.fixture(scope="module")
def calibration(tiny_folder, pipe, tmp_path_factory) -> Run:
    return record(pipe, make(tiny_folder, pipe, samples=3), tmp_path_factory.mktemp("runs") / "calibration")


@pytest.fixture(scope="module")
def trajectory(tiny_folder, pipe, tmp_path_factory) -> Run:
    return record(pipe, make(tiny_folder, pipe, "trajectory"), tmp_path_factory.mktemp("runs") / "trajectory")


def test_bin_centres_are_the_papers_ten():
    timesteps, sigmas = bin_centres()
    assert timesteps == (950, 850, 750, 650, 550, 450, 350, 250, 150, 50)
    assert sigmas == tuple(t / 1000 for t in timesteps)


def test_a_calibration_run_has_every_cell(calibration):
    assert calibration.array("self/ratio").shape == (3, 10, 1, BLOCKS, HEADS)
    assert calibration.branches == ("cond",) and calibration.num_frames == 5 and calibration.complete
    for name in calibration.statistics:
        assert np.isfinite(calibration.array(name)).all(), name
    samples = calibration.manifest.samples
    assert [(each.prompt, each.seed) for each in samples] == [(PROMPTS[0], 0), (PROMPTS[1], 1), (PROMPTS[0], 2)]
    ratio = calibration.array("self/ratio")
    assert not np.allclose(ratio[0], ratio[2]) and not np.allclose(ratio[0, 0], ratio[0, 9])
    assert calibration.output_weight_norm("cross").shape == (BLOCKS, HEADS)


def test_calibration_measures_the_models_own_latents_noised_to_each_timestep(calibration, pipe):
    """The same numbers from the parts: generate, keep the embeddings, noise with what the seed gives next."""
    settings = calibration.manifest.settings
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), first_inputs(pipe.transformer) as inputs:
        clean = generate(pipe, PROMPTS[1], settings, generator, "latent", lambda message: None)
        text = inputs["encoder_hidden_states"]
        with capture(pipe) as recorder:
            for t in calibration.timesteps:
                noise = torch.randn(clean.shape, generator=generator)
                pipe.transformer((1 - t / 1000) * clean + t / 1000 * noise, torch.tensor([t]), text)
    expected = np.stack([each.arrays["self/ratio"] for each in recorder.take()])
    np.testing.assert_allclose(calibration.array("self/ratio", [1])[0, :, 0], expected, rtol=1e-5)
    # The noise that calibration adds is not the noise that the latents were made from.
    first = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    assert abs(torch.corrcoef(torch.stack([first.flatten(), noise.flatten()]))[0, 1]) < 0.2


def test_maps_rows_and_moments_of_a_run_are_those_of_its_forwards(tiny_folder, pipe, tmp_path):
    """The same numbers from the parts, for a run that keeps maps of some steps and rows of some samples."""
    spec = CaptureSpec.parse("all,rows:2,maps:1", map_steps=3)
    manifest = make(tiny_folder, pipe, samples=3, spec=spec)
    run = record(pipe, manifest, tmp_path / "run")
    samples, moments = [], []
    for index in range(3):
        generator = torch.Generator().manual_seed(index)
        with torch.no_grad(), first_inputs(pipe.transformer) as inputs:
            prompt = manifest.samples[index].prompt
            clean = generate(pipe, prompt, manifest.settings, generator, "latent", lambda message: None)
            with capture(pipe) as recorder:
                for t in run.timesteps:
                    noise = torch.randn(clean.shape, generator=generator)
                    noised = (1 - t / 1000) * clean + t / 1000 * noise
                    pipe.transformer(noised, torch.tensor([t]), inputs["encoder_hidden_states"])
        samples.append(recorder.take())
        moments.append(recorder.take_moments())
    for name in run.manifest.moments:
        expected = [means[name].astype(np.float64) for means in moments]
        found = run.moment(name)
        assert found["n"].tolist() == [3] * BLOCKS
        np.testing.assert_allclose(found["mean"], np.mean(expected, 0), rtol=1e-5, atol=1e-6, err_msg=name)
    assert run.measured("self/entropy_error") == (0, 1) and run.measured("self/frame_map") == (0,)
    maps = run.array("self/frame_map", [0])[0, :, 0]
    expected = [samples[0][step].arrays["self/frame_map"] for step in (0, 4, 9)]
    np.testing.assert_allclose(maps, np.stack(expected).astype(np.float32), atol=1e-3)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=3e-3)
    entropy = np.stack([each.arrays["self/entropy"] for each in samples[1]])
    np.testing.assert_allclose(run.array("self/entropy", [1])[0, :, 0], entropy, rtol=1e-4)
    assert not (run.folder / "moments").exists()


def test_a_trajectory_run_keeps_branches_apart_and_the_videos(trajectory, pipe):
    assert trajectory.branches == ("cond", "uncond")
    assert trajectory.array("self/ratio").shape == (2, 3, 2, BLOCKS, HEADS)
    assert (np.diff(trajectory.timesteps) < 0).all()
    np.testing.assert_allclose(trajectory.sigmas, trajectory.timesteps / 1000, atol=1e-3)
    assert trajectory.array("self/frame_map").shape == (2, 3, 1, BLOCKS, HEADS, 5, 5)
    assert np.isfinite(trajectory.array("self/frame_map")).all() and np.isfinite(trajectory.array("self/entropy")).all()
    cross = trajectory.array("cross/value_norm")
    assert (cross[:, :, 0] != cross[:, :, 1]).all()
    assert sorted(trajectory.videos) == [0, 1]
    frames, fps, metadata = read_video(trajectory.videos[1])
    assert frames.shape == (9, 32, 32, 3) and fps == 8
    assert metadata["prompt"] == PROMPTS[1] and metadata["seed"] == 1
    assert metadata["model"]["model_id"] == trajectory.model_id


def test_a_trajectory_is_the_generation_without_capture(trajectory, pipe, tmp_path):
    settings = trajectory.manifest.settings
    own = pipe.scheduler
    plain = pipe(
        PROMPTS[0], height=32, width=32, num_frames=9, num_inference_steps=3, guidance_scale=settings["guidance"],
        generator=torch.Generator().manual_seed(0), output_type="np",
    ).frames[0]  # fmt: skip
    assert pipe.scheduler is own
    write_video(np.round(plain * 255).astype(np.uint8), tmp_path / "plain.mp4", 8, {})
    frames, _, _ = read_video(tmp_path / "plain.mp4")
    np.testing.assert_array_equal(read_video(trajectory.videos[0])[0], frames)


def test_without_guidance_there_is_one_branch(tiny_folder, pipe):
    settings = RunSettings.of(guidance=1.0).filled(str(tiny_folder)).model_dump()
    manifest = plan(
        pipe, model={}, geometry=model_geometry(str(tiny_folder)), mode="trajectory", settings=settings, prompts=["a 1"]
    )
    assert manifest.branches == ("cond",)


def test_the_same_command_gives_the_same_bytes(calibration, trajectory, tiny_folder, pipe, tmp_path):
    for first in (calibration, trajectory):
        again = record(pipe, first.manifest, tmp_path / first.manifest.mode)
        assert contents(again.folder) == contents(first.folder)


def test_real_videos_are_encoded_by_the_models_vae(tiny_folder, pipe, tmp_path):
    generator = np.random.default_rng(0)
    for name in ("b.mp4", "a.mp4"):
        write_video(generator.integers(0, 256, (12, 48, 40, 3), dtype=np.uint8), tmp_path / name, 8, {})
    films = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    manifest = make(tiny_folder, pipe, prompts=["a red 7"], videos=films)
    assert [(each.prompt, each.source) for each in manifest.samples] == [("a red 7", "a.mp4"), ("a red 7", "b.mp4")]
    run = record(pipe, manifest, tmp_path / "run", videos=films)
    assert np.isfinite(run.array("self/ratio")).all()
    with torch.no_grad():
        latents = encode(pipe, read_clip(films[0], **manifest.clip))
    assert latents.shape == (1, 4, 5, 8, 8)


def test_encoding_undoes_decoding_in_scale(pipe):
    """Latents leave the VAE's own scale by its mean and standard deviation, the inverse of what the pipeline does."""
    frames = np.full((9, 32, 32, 3), 90, np.uint8)
    with torch.no_grad():
        plain = encode(pipe, frames)
        pipe.vae.register_to_config(latents_mean=[1.0] * 4, latents_std=[2.0] * 4)
        scaled = encode(pipe, frames)
        pipe.vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    torch.testing.assert_close(scaled, (plain - 1) / 2)


@pytest.mark.parametrize("mode", ["calibration", "trajectory"])
def test_image_to_video(tiny_image_folder, tmp_path, mode):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    pipe = load_pipeline(str(tiny_image_folder), device="cpu")
    manifest = make(tiny_image_folder, pipe, mode, prompts=["a red 7"], images={"image": str(tmp_path / "red.png")})
    run = record(pipe, manifest, tmp_path / "run")
    assert "cross/image_value_norm" in run.statistics
    for name in run.statistics:
        assert np.isfinite(run.array(name)).all(), name
    assert (run.array("cross/value_norm") != run.array("cross/image_value_norm")).all()


def test_every_video_conditions_an_image_to_video_model_on_its_own_first_frame(tiny_image_folder, tmp_path):
    """The condition of each sample is what the pipeline makes of that video's first frame; a given image plays no part."""
    pipe = load_pipeline(str(tiny_image_folder), device="cpu")
    generator = np.random.default_rng(0)
    films = [tmp_path / name for name in ("a.mp4", "b.mp4")]
    for film in films:
        write_video(generator.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), film, 8, {})
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    settings = RunSettings.of(device="cpu", dtype="float32").filled(str(tiny_image_folder), videos=True).model_dump()
    red = settings | {"image": str(tmp_path / "red.png")}
    probes = [make_probes(pipe, ["a red 7"], how, videos=films) for how in (settings, red)]
    for index, film in enumerate(films):
        first = Image.fromarray(read_video(film)[0][0])
        with torch.no_grad(), first_inputs(pipe.transformer) as inputs:
            one_step = settings | {"image": first, "steps": 1, "guidance": 1.0}
            generate(pipe, "a red 7", one_step, torch.Generator().manual_seed(index), "latent", lambda message: None)
        for each in (probes[0][index], probes[1][index]):
            assert torch.equal(each.condition, inputs["hidden_states"][:, 4:])
            name = "encoder_hidden_states_image"
            assert torch.equal(each.embeddings[name], inputs[name])
    assert not torch.equal(probes[0][0].condition, probes[0][1].condition)
    manifest = plan(
        pipe, model={}, geometry=model_geometry(str(tiny_image_folder)), mode="calibration", settings=settings,
        prompts=["a red 7"], videos=films, spec=CaptureSpec.parse("cross/image_value_norm"),
    )  # fmt: skip
    norms = record(pipe, manifest, tmp_path / "run", videos=films).array("cross/image_value_norm")
    with torch.no_grad(), capture(pipe, CaptureSpec.parse("cross/image_value_norm")) as recorder:
        # The noise of a run is its own; that of the last timestep hides least of the image.
        velocity(pipe.transformer, probes[0][1], 50.0)
    (found,) = recorder.take()
    np.testing.assert_allclose(norms[1, -1, 0], found.arrays["cross/image_value_norm"], rtol=0.05)


def test_cancel_stops_at_the_next_step_and_resume_ends_with_the_same_bytes(calibration, tiny_folder, pipe, tmp_path):
    calls = []

    def cancel(done, total, message=""):
        calls.append((done, total))
        if done == 17:
            raise Cancelled

    own, forward = pipe.scheduler, "forward" in vars(pipe.transformer)
    with pytest.raises(Cancelled):
        record(pipe, calibration.manifest, tmp_path / "run", progress=cancel)
    # 3 sampler steps and 10 timesteps a sample: the second sample is in its calibration forwards.
    assert calls == [(done, 39) for done in range(1, 18)]
    assert Run.open(tmp_path / "run").finished == (0,)
    assert pipe.scheduler is own and ("forward" in vars(pipe.transformer)) == forward
    calls.clear()
    record(pipe, calibration.manifest, tmp_path / "run", resume=True, progress=lambda *call: calls.append(call[:2]))
    assert calls == [(done, 39) for done in range(14, 40)]
    assert contents(tmp_path / "run") == contents(calibration.folder)


@pytest.mark.parametrize("mode", ["calibration", "trajectory"])
def test_kill_9_and_resume_end_with_the_same_bytes(tiny_folder, pipe, tmp_path, mode):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("\n".join(PROMPTS))
    command = [
        sys.executable, "-m", "workbench", "capture", str(tiny_folder), "--out", str(tmp_path / "killed"), "--mode", mode,
        "--prompts", str(prompts), "--samples", "8", "--device", "cpu", "--resume",
    ]  # fmt: skip
    random.seed(mode)
    killed = 0
    for after in (1, 3):
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "killed/samples").glob("[0-9]*"))) < after and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(random.random() * 0.1)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 2
    assert 1 <= len(Run.open(tmp_path / "killed").finished) < 8
    # A write that the kill cut short leaves a temporary name.
    (tmp_path / "killed/samples/.00007.1.partial.safetensors").write_bytes(b"half")
    manifest = make(tiny_folder, pipe, mode, samples=8)
    resumed = record(pipe, manifest, tmp_path / "killed", resume=True)
    whole = record(pipe, manifest, tmp_path / "whole")
    assert contents(resumed.folder) == contents(whole.folder)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"mode": "both"}, "--mode"),
        ({"prompts": []}, "--prompts"),
        ({"samples": 0}, "--samples"),
        ({"videos": [Path("a.mp4")], "mode": "trajectory"}, "--videos"),
        ({"videos": [Path("a.mp4")], "samples": 2}, "--samples"),
        ({"videos": [Path("a.mp4")] * 3}, "2 lines"),
    ],
)
def test_contradictory_inputs_are_refused(given, words):
    from analysis.recording import check_inputs

    with pytest.raises(InputError, match=words):
        check_inputs(**({"mode": "calibration", "prompts": PROMPTS, "samples": None, "videos": []} | given))
