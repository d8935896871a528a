"""`pare compare`: what is paired, what is measured, and what the numbers are on drawn videos."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from analysis.metrics.video import METRICS
from analysis.run_difference import run_difference
from analysis.runs import Run
from pare.errors import InputError
from pare.geometry import DEMO
from pare.video import read_video, write_video
from tests.runs_fixture import make_run
from workbench.cli import main
from workbench.commands.compare import compare, render
from workbench.demo.moving_digits import draw_clip
from workbench.demo.settings import DATA
from workbench.pairs import find_videos, pair_videos
from workbench.run_compare import SHOWN, compare_runs


def drawn(speed, seed, frames=4, size=32, brightness=1.0):
    """A texture that moves right; the seed decides the texture."""
    values = gaussian_filter(np.random.default_rng(seed).random((size, size)), 2, mode="wrap")
    values = (values - values.min()) / np.ptp(values) * brightness
    video = np.stack([np.roll(values, speed * t, axis=1) for t in range(frames)])
    return np.round(video[..., None].repeat(3, axis=-1) * 255).astype(np.uint8)


def about(prompt, seed, model="demo", **settings):
    return {"model": {"model_id": model}, "prompt": prompt, "settings": {"seed": seed, "steps": 4, **settings}}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A moves by 1 pixel a frame and B by 2, in three prompts of which one is in A only, under other file names."""
    root = tmp_path_factory.mktemp("videos")
    for place, speed, prompts in (("a", 1, "xyz"), ("b", 2, "zy")):
        for number, prompt in enumerate(prompts):
            video = drawn(speed, seed=ord(prompt))
            told = about(prompt, 7, model=f"model {place}", steps=4 * speed)
            write_video(video, root / place / f"{number}.mp4", 8, told)
    return root


@pytest.fixture(scope="module")
def result(places):
    return compare(places / "a", places / "b", csv=places / "table.csv")


def test_videos_are_paired_by_prompt_and_seed(result):
    assert (result["pairs"], result["paired"], result["by"]) == (2, 2, {"prompt and seed": 2})
    assert [(row["prompt"], row["seed"]) for row in result["videos"]] == [("y", 7), ("z", 7)]
    assert [path.rsplit("/", 1)[-1] for path in result["only_a"]] == ["0.mp4"] and result["only_b"] == []
    assert result["models"] == {"a": ["model a"], "b": ["model b"]}
    assert result["different_settings"] == {"steps": [[4], [8]]}


def test_every_metric_comes_with_n_difference_and_interval_and_never_as_one_number(result):
    rows = {row["metric"]: row for row in result["metrics"]}
    assert list(rows) == list(METRICS)
    for name, row in rows.items():
        assert (row["n"], row["prompts"], row["group"]) == (2, 2, METRICS[name].group)
        assert row["low"] <= row.get("difference", row.get("mean")) <= row["high"]
    moved = rows["flow_magnitude"]
    assert moved["mean_a"] == pytest.approx(1, abs=0.1) and moved["mean_b"] == pytest.approx(2, abs=0.2)
    assert moved["difference"] == pytest.approx(1, abs=0.2) and moved["clear"]
    assert rows["flow_error"]["mean"] == pytest.approx(1, abs=0.2)
    assert abs(rows["sharpness"]["difference"]) < 0.02


def test_the_table_and_the_text_say_the_same(result, places):
    table = pd.read_csv(places / "table.csv")
    assert list(table["prompt"]) == ["y", "z"] and table["paired"].all()
    means = {row["metric"]: row for row in result["metrics"]}
    assert table["flow_magnitude_b"].mean() == pytest.approx(means["flow_magnitude"]["mean_b"])
    assert table["psnr"].mean() == pytest.approx(means["psnr"]["mean"])
    text = render(result)
    for words in (
        "motion",
        "appearance",
        "steadiness",
        "2 by prompt and seed",
        "1 video(s) of A",
        "steps differs: 4 and 8",
    ):
        assert words in text
    assert text.index("\nmotion") < text.index("optical flow, mean") < text.index("\nappearance") < text.index("PSNR")


def test_equal_videos_are_equal_and_a_lone_pair_has_no_interval(places):
    found = compare(places / "a" / "0.mp4", places / "a" / "0.mp4")
    rows = {row["metric"]: row for row in found["metrics"]}
    assert rows["psnr"]["mean"] == 100 and rows["ssim"]["mean"] == 1 and rows["flow_error"]["mean"] == 0
    assert rows["flow_magnitude"]["difference"] == 0 and np.isnan(rows["flow_magnitude"]["low"])
    assert "no intervals" in render(found)


def test_two_videos_of_other_prompts_are_not_compared_by_pixel(places):
    found = compare(places / "a" / "0.mp4", places / "b" / "0.mp4")
    assert found["by"] == {"order": 1} and found["paired"] == 0
    rows = {row["metric"]: row for row in found["metrics"]}
    assert all(rows[name]["n"] == (0 if METRICS[name].two else 1) for name in METRICS)
    assert "only equal prompt and seed count as paired" in render(found)


def test_videos_that_say_nothing_are_paired_by_name(tmp_path):
    for place in ("a", "b"):
        for name in ("one", "two", place):
            write_video(drawn(1, seed=len(name)), tmp_path / place / f"{name}.mp4", 8, {})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found["by"] == {"file name": 2} and found["paired"] == 0 and len(found["only_b"]) == 1
    assert {row["metric"]: row["n"] for row in found["metrics"]}["psnr"] == 2


def test_names_do_not_pair_what_is_known_to_differ(tmp_path):
    for place, seed in (("a", 0), ("b", 1)):
        write_video(drawn(1, 0), tmp_path / place / "one.mp4", 8, about("x", seed))
        write_video(drawn(1, 0), tmp_path / place / "two.mp4", 8, about("y", 0))
    found = pair_videos(find_videos(tmp_path / "a"), find_videos(tmp_path / "b"))
    assert [pair.a.path.stem for pair in found.pairs] == ["two"]
    assert [video.path.stem for video in found.only_a] == ["one"] == [video.path.stem for video in found.only_b]


def test_a_run_with_videos_is_a_place():
    run = DEMO.parent / "runs" / "demo-videos"
    video, *_ = find_videos(run)
    assert video.known and video.prompt and video.path.parent == run / "videos"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: None, "no video"),
        (lambda root: write_video(drawn(1, 0, size=48), root / "b" / "0.mp4", 8, about("x", 7)), "4 frames of 48 x 48"),
        (lambda root: write_video(drawn(1, 0), root / "b" / "0.mp4", 8, about("x", 8)), "no two have the same prompt"),
        (lambda root: [write_video(drawn(1, 0), root / "b" / f"{n}.mp4", 8, about("x", 7)) for n in "01"],
         "0.mp4 and 1.mp4 of one prompt and seed"),
    ],
    ids=["nothing", "other size", "other seed", "twice the same"],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused_in_one_line(make, words, places, tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match=words) as refused:
        compare(places / "a", tmp_path / "b", csv=tmp_path / "table.csv")
    assert "\n" not in str(refused.value) and not (tmp_path / "table.csv").exists()


def test_the_oracle_reads_moving_digits(tmp_path):
    for seed in range(2):
        clip = draw_clip(DATA, seed, held_out=True)
        told = about(clip.factors.caption, seed)
        write_video(clip.video[:8], tmp_path / "a" / f"{seed}.mp4", 8, told)
        still = np.repeat(clip.video[:1], 8, axis=0)
        write_video(still, tmp_path / "b" / f"{seed}.mp4", 8, told)
    found = compare(tmp_path / "a", tmp_path / "b", oracle=True)
    rows = {row["metric"]: row for row in found["metrics"] if row["group"] == "oracle"}
    assert (rows["digit"]["mean_a"], rows["colour"]["mean_a"], rows["speed"]["mean_a"]) == (1, 1, 1)
    assert rows["speed"]["mean_b"] == 0 and rows["speed"]["difference"] == -1 and rows["colour"]["mean_b"] == 1
    assert rows["consistency"]["mean_b"] >= rows["consistency"]["mean_a"] > 0.9
    assert "oracle" in render(found)


def test_the_oracle_refuses_other_prompts(places):
    with pytest.raises(InputError, match="--oracle"):
        compare(places / "a", places / "b", oracle=True)


def test_on_the_command_line(places, tmp_path, capsys):
    assert main(["compare", str(places / "a"), str(places / "b"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["pairs"] == 2
    assert main(["compare", str(places / "a"), str(tmp_path), "--csv", str(tmp_path / "t.csv")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert main(["compare", str(places / "a" / "0.mp4"), str(places / "b" / "1.mp4")]) == 0
    assert "B − A" in capsys.readouterr().out


def test_progress_is_told_after_every_pair(places):
    told = []
    compare(places / "a", places / "b", progress=lambda done, total, message="": told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_metrics_are_of_the_decoded_frames(places, result):
    from analysis.metrics.video import measure

    frames, _, _ = read_video(result["videos"][0]["video_a"])
    assert result["videos"][0]["a"] == pytest.approx(measure(frames).summary)


@pytest.fixture(scope="module")
def captured(tmp_path_factory):
    """Two runs of the same samples, and one with other timesteps; none has a video."""
    root = tmp_path_factory.mktemp("captured")
    for name, seed, steps in (("a", 0, 3), ("b", 1, 3), ("c", 0, 2)):
        make_run(root / name, blocks=4, heads=6, samples=3, steps=steps, seed=seed)
    return root


def test_two_runs_without_videos_are_compared_by_what_was_captured(captured, tmp_path):
    found = compare(captured / "a", captured / "b", csv=tmp_path / "heads.csv")
    expected = run_difference(Run.open(captured / "a"), Run.open(captured / "b"))
    assert found["statistic"] == "self/ratio" and found["paired"] and (found["n"], found["prompts"]) == (3, 3)
    assert [(row["block"], row["head"]) for row in found["rows"]] == [
        (row.block, row.head) for row in expected.table().itertuples()
    ]
    assert found["clear"] == int(expected.clear.sum()) and len(found["roles"]["changed"]) == len(
        expected.role_changes()
    )
    written = pd.read_csv(tmp_path / "heads.csv")
    np.testing.assert_allclose(written["difference"], expected.table()["difference"])
    text = render(found)
    assert f"and {24 - SHOWN} more heads" in text and "3 sample(s) paired by prompt and seed" in text
    assert (
        "heads change role at τs 0.7, τt 0.3: block" in text
        and f"about {expected.expected_by_chance:.2g} by chance" in text
    )


def test_a_statistic_of_blocks_and_a_branch(captured, capsys):
    words = [str(captured / name) for name in ("a", "b")]
    assert main(["compare", *words, "--statistic", "residual", "--branch", "cond", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["branches"] == ["cond"] and found["roles"] is None and len(found["rows"]) == 4
    changes = [abs(row["difference"]) for row in found["rows"]]
    assert changes == sorted(changes, reverse=True)
    assert main(["compare", *words, "--statistic", "residual"]) == 0
    assert "block            n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--statistic", "self/none"], "--statistic: got self/none; expected one of self/ratio"),
        (["--branch", "uncond"], "branch: got uncond; expected cond"),
        (["--statistic", "self/ratio", "--oracle"], "--oracle: got a statistic too"),
    ],
)
def test_what_two_runs_do_not_have_is_refused_in_one_line(captured, capsys, flags, message):
    assert main(["compare", str(captured / "a"), str(captured / "b"), *flags]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_runs_that_do_not_belong_together_are_refused_and_nothing_is_written(captured, tmp_path, capsys):
    assert main(["compare", str(captured / "a"), str(captured / "c"), "--csv", str(tmp_path / "t.csv")]) == 2
    error = capsys.readouterr().err
    assert "3 timesteps" in error and "2 timesteps" in error and len(error.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_samples_without_a_partner_are_counted(captured, tmp_path):
    more = make_run(tmp_path / "more", blocks=4, heads=6, samples=5, steps=3)
    found = compare_runs(captured / "a", more.folder)
    assert (found["only_a"], found["only_b"]) == (0, 2) and "2 sample(s) of B have no partner" in render(found)
