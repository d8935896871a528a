"""Which videos stand beside one another: one prompt and seed, the model's own first, whatever else made the same after."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from tests.runs_fixture import make_run
from workbench.teacher_videos import clips_of
from workbench.video_sets import VideoSet

SIZE = {"height": 48, "width": 48, "frames": 17}


def made(
    name: str, model: dict, clips: list[tuple[str, int]], how: dict | None = None, settings: dict = SIZE
) -> VideoSet:
    rows = [{"prompt": prompt, "seed": seed, "path": f"{name}/{i}.mp4"} for i, (prompt, seed) in enumerate(clips)]
    return VideoSet(Path(name), model, settings, how or {}, pd.DataFrame(rows), ())


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("videos") / "run", 2, 4, steps=2, samples=2)


def test_the_models_own_video_comes_first_and_others_of_its_prompt_and_seed_follow(run):
    model, half = run.manifest.model, {"model_id": "students/half", "weight_hash": "f"}
    own = made("own", model, [("a red 7", 0), ("a blue 3", 1), ("a red 1", 1)])
    routed = made("routed", model, [("a blue 3", 1)], {"router": "importance"})
    student = made("student", half, [("a blue 3", 1), ("a red 7", 5)])
    large = made("large", half, [("a red 7", 0)], settings=SIZE | {"height": 96})
    found = clips_of(run, [student, own, routed, large])
    assert (found.prompt, found.seed) == ("a blue 3", 1)
    assert {name: path.as_posix() for name, path in found.videos.items()} == {
        "random": "own/1.mp4", "half": "student/0.mp4", "random · router importance": "routed/0.mp4",
    }  # fmt: skip
    assert next(iter(found.videos)) == "random"
    # The chosen sample decides where its video is there (fixture samples: "a red 0" with seed 0, "a red 1" with seed 1).
    assert clips_of(run, [student, own], sample=1).prompt == "a red 1"
    assert clips_of(run, [student, own], sample=0).prompt == "a blue 3"


def test_without_a_video_of_the_model_there_is_nothing(run):
    stranger = made("other", {"model_id": "other", "config_hash": "1", "weight_hash": "1"}, [("a red 7", 0)])
    assert clips_of(run, []) is None and clips_of(run, [stranger]) is None
    gone = made("own", run.manifest.model, [("a red 7", 0)])
    assert clips_of(run, [replace(gone, table=gone.table.assign(path=None))]) is None


def test_equal_names_stay_apart_and_four_are_enough(run):
    own = made("own", run.manifest.model, [("p", 0)])
    others = [made(f"set{i}", {"model_id": "half", "weight_hash": str(i)}, [("p", 0)]) for i in range(5)]
    assert list(clips_of(run, [own, *others]).videos) == ["random", "half", "half (3)", "half (4)"]
