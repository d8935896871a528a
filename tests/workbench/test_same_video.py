"""One dense video serves every page: what decides a video, under whatever name and with whatever left unsaid."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.runs import Run
from tests.runs_fixture import make_run
from workbench.jobs.api import open_workspace
from workbench.pages import ablation, prune_work, route_work
from workbench.pages.prune_work import Preview
from workbench.pages.same_video import clip_settings, decisive
from workbench.places import PROJECT, Places

PREVIEW = Preview("a red 7", 3, 5)


@pytest.fixture
def demo_run() -> Run:
    return Run.open(PROJECT / "data" / "runs" / "demo")


def test_a_dense_video_of_one_page_is_found_by_the_others(demo_run, tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.jobs.api.Jobs.ensure_worker", lambda *_, **__: None)
    places = Places(tmp_path / "workspace")
    heads = ablation.heads_off(demo_run, places, "one", np.zeros((8, 10), bool))
    block = ablation.block_off(demo_run, places, 3)
    asked = {
        "ablation": ablation.Ablation(heads, PREVIEW, "demo").jobs(demo_run)[0],
        "ablation of a block": ablation.Ablation(block, PREVIEW, "demo").jobs(demo_run)[0],
        "prune": prune_work.generate_job_arguments(demo_run, PREVIEW, None),
        "route": route_work.generate_arguments(demo_run, PREVIEW, route_work.DENSE, places),
        "typed": {"model": "demo", "prompt": "a red 7", "seed": 3, "steps": 5, "out": "video.mp4"},
    }
    job = open_workspace(places.workspace).submit("generate", asked["route"])
    for page, arguments in asked.items():
        found = prune_work.find(places, "generate", arguments)
        assert found is not None and found.id == job, page
    assert route_work.lacking(places, list(asked.values())) == []
    other = {**asked["prune"], "seed": 4}
    assert prune_work.find(places, "generate", other) is None


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a red 8"}, {"seed": 4}, {"steps": 6}, {"guidance": 9.0}, {"width": 64}, {"mask": "/m.safetensors"},
        {"router": "importance"}, {"model": "wan2.1-t2v-14b"},
    ],
)  # fmt: skip
def test_what_changes_the_video_is_another_video(change):
    asked = {"model": "demo", "prompt": "a red 7", "seed": 3, "steps": 5, "router": "none"}
    assert decisive({**asked, **change}) != decisive(asked)


def test_names_places_and_what_the_model_does_anyway_make_no_other_video():
    asked = {"model": "demo", "prompt": "a red 7", "seed": 3}
    own = json.loads((PROJECT / "data" / "demo" / "defaults.json").read_text())
    said = {
        "steps": own["steps"],
        "guidance": own["guidance"],
        "height": own["height"],
        "out": "x.mp4",
        "device": "cpu",
    }
    assert decisive(asked) == decisive({**asked, **said, "model": str(PROJECT / "data" / "demo")})


def test_no_router_is_another_video_of_a_model_that_has_one(tmp_path):
    routed = Path(shutil.copytree(PROJECT / "data" / "demo", tmp_path / "routed"))
    config = routed / "transformer" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"routing": {"k_min": 4}}))
    asked = {"model": str(routed), "prompt": "a red 7", "seed": 3, "steps": 5}
    assert decisive({**asked, "router": "none"}) != decisive(asked)


def test_a_video_beside_a_run_is_of_its_clip(tmp_path):
    run = make_run(tmp_path / "run")
    run.manifest.settings.update(height=96, guidance=3.0, prompts="no setting of a clip")
    assert clip_settings(run, "demo") == {"height": 96}


def test_the_cost_is_that_of_the_clip_that_is_made(tmp_path):
    places, run, larger = Places(tmp_path / "workspace"), make_run(tmp_path / "run"), make_run(tmp_path / "larger")
    larger.manifest.settings.update(height=96, width=96)
    cost = [prune_work.preview_cost(places, each, 5, 2, model="demo") for each in (run, larger)]
    assert cost[0] != cost[1] and all("2 videos" in words for words in cost)
