"""`pare evaluate`: videos and scores of a file of prompts, the same after a stop, and what is refused."""

import json

import pandas as pd
import pytest

from pare.errors import Cancelled, InputError
from pare.video import read_metadata
from tests.tiny import save, tiny_pipeline
from workbench.cli import main
from workbench.commands.compare import compare
from workbench.commands.evaluate import evaluate, render
from workbench.video_sets import open_videos

PROMPTS = ["a red 7 moving up and left, fast", "a blue 3 standing still"]
FEW = {"steps": 1, "guidance": 1.0, "device": "cpu"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save(tiny_pipeline(), tmp_path_factory.mktemp("models") / "tiny", height=48, width=48))


@pytest.fixture(scope="module")
def done(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluations") / "a"
    return folder, evaluate(model, out=folder, prompts=PROMPTS, seed=5, **FEW)


def test_every_prompt_has_its_video_and_its_row(done):
    folder, result = done
    table = pd.read_csv(folder / "scores.csv")
    assert list(table["prompt"]) == PROMPTS and list(table["seed"]) == [5, 6]
    for number, prompt in enumerate(PROMPTS):
        told = read_metadata(folder / "videos" / f"{number:05d}.mp4")
        assert (told["prompt"], told["settings"]["seed"]) == (prompt, 5 + number)
    rows = {row["metric"]: row for row in result["metrics"]}
    assert rows["flow_magnitude"]["mean"] == pytest.approx(table["flow_magnitude"].mean())
    assert rows["sharpness"]["n"] == 2 and rows["sharpness"]["low"] <= rows["sharpness"]["high"]
    # Random weights show no digit, and the oracle says so.
    assert result["oracle"]["digit"]["n"] == 2 and result["oracle"]["unreadable"]["count"] == 2
    text = render(result)
    assert "motion" in text and "no colour readable in 2 of 2" in text
    stored = json.loads((folder / "evaluation.json").read_text())
    assert stored["request"]["settings"]["steps"] == 1 and stored["videos"] == 2


def test_what_it_leaves_is_a_set_of_videos_with_scores(done):
    folder, result = done
    found = open_videos(folder)
    assert found.scored and found.model_id == result["request"]["model"]["model_id"] and found.settings["steps"] == 1
    table = pd.read_csv(folder / "scores.csv")
    named = {each["metric"]: each for each in found.metrics}
    assert set(named) <= set(table.columns) and named["sharpness"]["group"] == "appearance" and "digit" in named
    assert found.table["path"].tolist() == [str(path) for path in sorted((folder / "videos").iterdir())]


def test_a_stopped_evaluation_goes_on_with_what_is_there_and_ends_the_same(model, done, tmp_path):
    def stop(finished, total, message=""):
        if finished == 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        evaluate(model, out=tmp_path / "b", prompts=PROMPTS, seed=5, progress=stop, **FEW)
    first = tmp_path / "b" / "videos" / "00000.mp4"
    made = first.stat().st_mtime_ns
    result = evaluate(model, out=tmp_path / "b", prompts=PROMPTS, seed=5, **FEW)
    assert first.stat().st_mtime_ns == made and result["metrics"] == done[1]["metrics"]
    for name in ("scores.csv", "evaluation.json", "videos/00001.mp4"):
        assert (tmp_path / "b" / name).read_bytes() == (done[0] / name).read_bytes()


def test_finished_videos_are_not_made_again_and_no_model_is_loaded(model, done):
    def load(*arguments, **options):
        raise AssertionError("loaded")

    assert evaluate(model, out=done[0], prompts=PROMPTS, seed=5, load=load, **FEW)["videos"] == 2


def test_two_evaluations_are_what_compare_takes(model, done, tmp_path):
    evaluate(model, out=tmp_path / "c", prompts=PROMPTS[:1], seed=5, **(FEW | {"steps": 2}))
    found = compare(done[0], tmp_path / "c")
    assert found["paired"] == 1 and found["different_settings"]["steps"] == [[1], [2]] and len(found["only_a"]) == 1


def test_something_else_in_the_folder_is_refused(model, done, tmp_path):
    for given in ({"seed": 6}, {"seed": 5, "steps": 2}, {"seed": 5, "prompts": PROMPTS[:1]}):
        with pytest.raises(InputError, match="evaluation of something else"):
            evaluate(model, out=done[0], **({"prompts": PROMPTS} | FEW | given))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"):
        evaluate(model, out=tmp_path, prompts=PROMPTS, **FEW)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"prompts": []}, "--prompts"), ({"samples": 3}, "--samples"), ({"prompts": "none.txt"}, "--prompts"),
     ({"mask": "none.safetensors"}, "MASK")],
)  # fmt: skip
def test_bad_input_is_refused_before_the_model_is_loaded(model, tmp_path, given, words):
    with pytest.raises(InputError, match=words):
        evaluate(model, out=tmp_path / "d", **({"prompts": PROMPTS} | FEW | given))
    assert not list(tmp_path.iterdir())


def test_other_prompts_have_no_oracle_and_the_plan_counts_all_videos(model, tmp_path, capsys):
    result = evaluate(model, out=tmp_path / "e", prompts=["a cat"], **FEW)
    assert result["oracle"] is None and "oracle" not in render(result)
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    words = ["evaluate", model, "--out", str(tmp_path / "f"), "--prompts", str(tmp_path / "prompts.txt"), "--dry-run"]
    assert main([*words, "--steps", "3", "--guidance", "1", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["clips"], planned["forwards"]) == (2, 6) and not (tmp_path / "f").exists()
