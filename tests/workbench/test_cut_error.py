"""The error of a cut is that of the velocity, clip by clip; nothing cut is the teacher."""

import numpy as np
import pytest
import torch

from pare.errors import InputError
from pare.models import load_pipeline
from tests.tiny import save, tiny_pipeline
from workbench.commands.capture import capture
from workbench.demo.cut_error import PARTS, SIGMAS, clip_errors, measure, render
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DATA


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cut")
    model = str(save(tiny_pipeline(), folder / "tiny", height=48, width=48, frames=17, steps=2))
    capture(model, out=folder / "run", prompts=["a red 7"], samples=1, frames=5, steps=2, statistics="basic,moments")
    pipe = load_pipeline(model)
    return {"model": model, "run": folder / "run", "load": lambda *args, **options: pipe}


def test_every_part_and_choice_has_its_rows(given, tmp_path):
    found = measure(given["model"], tmp_path / "cut.json", run=given["run"], clips=2, choices=["PARE, α = 1"],
                    load=given["load"])  # fmt: skip
    teacher, *rows = found["rows"]
    assert teacher["more"] == 0 and len(rows) == 2 * len(PARTS)
    assert [row["compensate"] for row in rows] == [False, True] * len(PARTS)
    assert all(row["more"] == pytest.approx(row["mean"] - teacher["mean"], abs=1e-12) for row in rows)
    assert all(row["low"] <= row["more"] <= row["high"] and row["more"] != 0 for row in rows)
    lines = render(found["rows"]).splitlines()
    assert len(lines) == 3 + len(PARTS) and len({line.count("|") for line in lines}) == 1
    with pytest.raises(InputError, match="at least 2"):
        measure(given["model"], tmp_path / "none.json", run=given["run"], clips=1, load=given["load"])
    assert not (tmp_path / "none.json").exists()


def test_the_error_is_the_mean_square_of_the_velocity_less_noise_and_clip(given):
    pipe = given["load"]()
    found = clip_errors(pipe, 2, batch=1)(pipe.transformer)
    assert found.shape == (2, len(SIGMAS)) and found.dtype == np.float64
    clips = [draw_clip(DATA, seed, held_out=True) for seed in range(2)]
    config = pipe.vae.config
    mean, std = (torch.tensor(each).view(-1, 1, 1, 1) for each in (config.latents_mean, config.latents_std))
    with torch.no_grad():
        pixels = [torch.tensor(np.array(clip.video)).float().permute(3, 0, 1, 2)[None] / 127.5 - 1 for clip in clips]
        clean = torch.stack([(pipe.vae.encode(each).latent_dist.mode()[0] - mean) / std for each in pixels])
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        text = pipe.encode_prompt(clips[1].factors.caption, do_classifier_free_guidance=False)[0]
        sigma = SIGMAS[1]
        velocity = pipe.transformer(
            (1 - sigma) * clean[1:] + sigma * noise[1:], torch.tensor([1000 * sigma]), text, return_dict=False
        )[0][0]
    wanted = sum(float(each) ** 2 for each in (velocity - noise[1] + clean[1]).double().flatten()) / velocity.numel()
    assert found[1, 1] == pytest.approx(wanted, rel=1e-5)
