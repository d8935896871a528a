"""The demo model's evaluation: balanced prompts, honest tables, and a kill costs one video."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from diffusers import UniPCMultistepScheduler, WanPipeline

from pare.errors import Cancelled, InputError
from pare.progress import silent
from tests.tiny import tiny_pipeline
from workbench.demo.evaluate import BARS, REAL_BARS, evaluate, judge, read_prompts, real_records, render, table
from workbench.demo.moving_digits import draw_clip, parse_caption
from workbench.demo.prompts import HELD_OUT, held_out_prompts
from workbench.demo.settings import DATA

PROMPTS = held_out_prompts()[:6]


class DrawingPipeline(WanPipeline):
    """Stands in for a model: draws the clip of a prompt, so that what the oracle must say is known."""

    def __init__(self):
        super().__init__(
            **{part: value for part, value in tiny_pipeline().components.items() if value is not None}
            | {"scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)}
        )
        self.asked = []

    def __call__(self, prompt, generator, output_type, **_):
        assert output_type == "np"
        self.asked.append((prompt, generator.initial_seed()))
        clip = draw_clip(DATA, generator.initial_seed(), held_out=True, factors=parse_caption(prompt))
        return type("Output", (), {"frames": clip.video[None] / 255.0})


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("\n".join(PROMPTS) + "\n")
    return path


def test_the_prompt_file_is_what_its_command_writes(tmp_path):
    out = tmp_path / "held-out.txt"
    subprocess.run([sys.executable, "-m", "workbench.demo.prompts", "--out", str(out)], check=True)
    assert out.read_bytes() == HELD_OUT.read_bytes()


def test_the_prompts_are_balanced():
    factors = [parse_caption(prompt) for prompt in read_prompts(HELD_OUT)]
    assert len(set(factors)) == 200
    assert set(Counter(f.digit for f in factors).values()) == {20}
    assert set(Counter(f.colour for f in factors).values()) <= {33, 34}
    assert Counter(f.speed for f in factors) == {"still": 40, "slow": 80, "fast": 80}
    assert set(Counter((f.direction, f.speed) for f in factors if f.direction).values()) == {10}


def test_prompt_i_has_seed_i_and_right_videos_score_right(tmp_path, tiny_folder, prompts):
    pipe = DrawingPipeline()
    result = evaluate(
        str(tiny_folder), out=tmp_path / "scores.json", prompts=prompts, load=lambda *a, **k: pipe, shift=2.0
    )
    assert pipe.asked == list(zip(PROMPTS, range(6), strict=True))
    assert pipe.scheduler.config.flow_shift == 2.0
    rows = result["generated"]["table"]
    moving = sum("moving" in prompt for prompt in PROMPTS)
    assert {name: (rows[name]["right"], rows[name]["n"]) for name in BARS} == {
        "digit": (6, 6),
        "colour": (6, 6),
        "direction": (moving, moving),
        "speed": (6, 6),
    }
    assert json.loads((tmp_path / "scores.json").read_text()) == json.loads(json.dumps(result))
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize("torn", [False, True])
def test_a_stopped_evaluation_goes_on_where_it_stopped(tmp_path, tiny_folder, prompts, torn):
    def stop_after_three(stage):
        def progress(done, total, message=""):
            if done == 3:
                raise Cancelled

        return progress

    first, second, whole = DrawingPipeline(), DrawingPipeline(), DrawingPipeline()
    out, uninterrupted = tmp_path / "scores.json", tmp_path / "whole.json"
    with pytest.raises(Cancelled):
        evaluate(str(tiny_folder), out=out, prompts=prompts, load=lambda *a, **k: first, progress=stop_after_three)
    assert not out.exists()
    if torn:
        with out.with_suffix(".jsonl").open("a") as file:
            file.write('{"seed": 3, "pro')
    evaluate(str(tiny_folder), out=out, prompts=prompts, load=lambda *a, **k: second)
    assert [seed for _, seed in first.asked + second.asked] == [0, 1, 2, 3, 4, 5]
    evaluate(str(tiny_folder), out=uninterrupted, prompts=prompts, load=lambda *a, **k: whole)
    assert out.read_bytes() == uninterrupted.read_bytes()
    assert out.with_suffix(".jsonl").read_bytes() == uninterrupted.with_suffix(".jsonl").read_bytes()


def test_other_prompts_or_settings_are_not_mixed_in(tmp_path, tiny_folder, prompts):
    out = tmp_path / "scores.json"
    pipe = DrawingPipeline()
    evaluate(str(tiny_folder), out=out, prompts=prompts, load=lambda *a, **k: pipe)
    with pytest.raises(InputError, match="other settings"):
        evaluate(str(tiny_folder), out=out, prompts=prompts, load=lambda *a, **k: pipe, steps=5)
    prompts.write_text("\n".join(reversed(PROMPTS)) + "\n")
    with pytest.raises(InputError, match="other prompts"):
        evaluate(str(tiny_folder), out=out, prompts=prompts, load=lambda *a, **k: pipe)


def test_an_untrained_model_is_scored_and_shows_nothing(tmp_path, tiny_folder, prompts):
    prompts.write_text(PROMPTS[0] + "\n")
    result = evaluate(str(tiny_folder), out=tmp_path / "scores.json", prompts=prompts, steps=1)
    rows = result["generated"]["table"]
    assert rows["unreadable"] == {"count": 1, "n": 1}
    assert rows["digit"]["right"] == 0
    assert result["generated"]["settings"]["steps"] == 1
    assert result["generated"]["model"]["vae_hash"]


def test_real_clips_reach_their_bars_and_the_table_says_so():
    rows = table(real_records(DATA, 100))
    for name, bar in REAL_BARS.items():
        assert rows[name]["share"] >= bar
        assert rows[name]["low"] < rows[name]["share"] <= rows[name]["high"]
    assert rows["direction"]["n"] < rows["digit"]["n"] == 100
    text = render("Real clips", rows, REAL_BARS)
    assert f"{rows['digit']['share']:.1%}" in text and "97%" in text


def test_the_table_counts_what_is_wrong():
    clip = draw_clip(DATA, 11, held_out=True, factors=parse_caption("a red 7 moving up, fast"))
    asked = ["a red 7 moving up, fast", "a blue 7 moving down, fast", "a red 7 standing still"]
    records = [judge(clip.video, parse_caption(prompt), DATA) for prompt in asked]
    records.append(judge(np.zeros_like(clip.video), parse_caption(asked[0]), DATA))
    rows = table(records)
    counts = {name: (rows[name]["right"], rows[name]["n"]) for name in BARS}
    assert counts == {"digit": (3, 4), "colour": (2, 4), "direction": (1, 3), "speed": (2, 4)}
    assert rows["unreadable"] == {"count": 1, "n": 4}


def test_bad_input_is_refused_before_anything_runs(tmp_path, prompts):
    prompts.write_text("a red 7 moving up, fast\na cat\n")
    with pytest.raises(InputError, match="prompt 2"):
        evaluate("demo", out=tmp_path / "scores.json", prompts=prompts, progress=lambda stage: silent)
    with pytest.raises(InputError, match="no model"):
        evaluate(None, out=tmp_path / "scores.json")
    with pytest.raises(InputError, match=r"\.json"):
        evaluate(None, out=tmp_path / "scores.txt", real=1)
    assert [path.name for path in tmp_path.iterdir()] == ["prompts.txt"]
