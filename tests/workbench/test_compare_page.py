"""The Compare page in every state: what it says is what the functions and commands behind it say."""

import doctest
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from analysis.manifest import Sample
from analysis.paired import paired_difference
from analysis.run_difference import run_difference
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare import cost, reference, student
from pare import mask as masks
from pare.depth.budget import BudgetSchedule, shifted_timesteps
from pare.errors import InputError
from pare.geometry import DEMO
from pare.mask import PARTS, Mask
from pare.video import write_video
from tests.runs_fixture import make_manifest, make_run, random_sample
from tests.sampled_run import make_sampled_run
from workbench import compare_recipes, compare_words, mask_words, model_card
from workbench.call import plain
from workbench.commands.compare import compare
from workbench.components.difference_grid import component
from workbench.jobs.api import State, open_workspace
from workbench.jobs.folder import JobFolder
from workbench.jobs.process import Identity
from workbench.pages import compare_choice, compare_videos
from workbench.state import Selection
from workbench.video_sets import open_videos

PAGE = "workbench/pages/compare.py"
KINDS = ("runs", "masks", "students", "videos")
PROMPTS = ["a red 7 moving up and left, fast", "a blue 3 standing still", "a red 1 moving up, slow"]
SCORES = {"flow_magnitude": 2.0, "still_share": 0.0, "sharpness": -0.02}
"""Metric → how much larger it is in evaluation b; the first has the largest effect."""


def identity(name: str) -> dict[str, Any]:
    return {"model_id": name, "revision": None, "config_hash": name, "weight_hash": None}


def write_evaluation(folder: Path, shift: float, model: dict[str, Any], seed: int = 0) -> None:
    """What `pare evaluate` leaves: videos, scores.csv, evaluation.json."""
    generator = np.random.default_rng(seed)
    rows = []
    for number, prompt in enumerate(PROMPTS):
        frames = np.full((4, 32, 32, 3), 40 * number, np.uint8)
        frames[np.arange(4), 8:16, 4 + int(2 * shift) * np.arange(4)] = 255
        about = {"model": model, "prompt": prompt, "settings": {"seed": 5 + number, "steps": 2}}
        write_video(frames, folder / "videos" / f"{number:05d}.mp4", 8, about)
        own = {name: number + shift * change + generator.normal(0, 0.01) for name, change in SCORES.items()}
        rows.append({"prompt": prompt, "seed": 5 + number, **own, "digit": number < 2})
    pd.DataFrame(rows).to_csv(folder / "scores.csv", index=False)
    metrics = [{"metric": name, "group": "motion", "title": name.replace("_", " "), "unit": "px"} for name in SCORES]
    request = {"model": model, "prompts": PROMPTS, "settings": {"seed": 5, "steps": 2 + int(shift)}, "how": {}}
    about = {"schema": "pare-evaluation/1", "request": request, "metrics": metrics}
    (folder / "evaluation.json").write_text(json.dumps(about))


def write_model(folder: Path, **changes: Any) -> Path:
    """The demo model's JSON files without weights, its transformer's config changed."""
    for name in ("model_index.json", "defaults.json", "transformer/config.json", "vae/config.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DEMO / name, folder / name)
    config = json.loads((folder / "transformer/config.json").read_text())
    (folder / "transformer/config.json").write_text(json.dumps(config | changes))
    return folder


def kept(heads: int, shape: tuple[int, int] = (8, 10)) -> Mask:
    keep = np.zeros(shape, bool)
    keep[:, :heads] = True
    return Mask(keep, keep.copy(), np.ones((shape[0], 640), bool), {"settings": {"ratio": 1 - heads / shape[1]}})


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "captures"
    for name, seed in (("a", 0), ("b", 1)):
        make_run(folder / name, samples=4, steps=3, seed=seed)
    make_run(folder / "c-other-steps", samples=2, steps=2)
    masks.save(kept(7), folder / "m" / "seven.safetensors")
    masks.save(kept(6), folder / "m" / "six.safetensors")
    keep = {part: getattr(kept(7), part) for part in PARTS}
    about = {"base": {"model_id": "demo"}, "mask": {"settings": {"ratio": 0.3}}, "training": [{"stage": "width"}]}
    write_model(folder / "teacher")
    write_model(
        folder / "small",
        **student.describe(keep),
        pruning=about,
        routing=BudgetSchedule.linear(4, 6).to_dict() | {"kind": "learned"},
    )
    for name, shift in (("teacher", 0.0), ("small", 1.0)):
        write_evaluation(folder / "e" / name, shift, reference.model_identity(str(folder / name)), seed=int(shift))
    return folder


@pytest.fixture
def at(open_page, captures):
    """at(kind, **link) runs the page on these captures."""

    def run(kind: str, folder: Path | None = captures, **link: str) -> AppTest:
        return open_page(PAGE, folder, kind=kind, **link)

    return run


def words(test: AppTest) -> str:
    shown = [
        *test.title,
        *test.header,
        *test.markdown,
        *test.caption,
        *test.error,
        *test.info,
        *test.warning,
        *test.code,
    ]
    return "\n".join(str(one.value) for one in shown).replace("\\", "")


def alive(test: AppTest) -> AppTest:
    assert not test.exception and not [error.value for error in test.error]
    return test


def components(test: AppTest) -> list[str]:
    return [one.proto.component_name.split(".")[-1] for one in test.get("bidi_component")]


@pytest.mark.parametrize("module", [compare_choice, compare_videos, compare_words, mask_words, component])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("kind", KINDS)
def test_with_nothing_to_compare_it_says_which_command_makes_something(at, kind, tmp_path):
    test = alive(at(kind, None))
    assert any(code.value.startswith("pare ") for code in test.code)
    assert not (tmp_path / "workspace").exists()
    assert set(components(test)) <= {"copy_button"}


def test_one_run_alone_says_how_a_second_one_is_made(at, captures, tmp_path):
    shutil.copytree(captures / "a", tmp_path / "one" / "a")
    test = alive(at("runs", tmp_path / "one"))
    assert "only one is here" in test.title[0].value and "pare capture STUDENT" in test.code[0].value


def test_two_runs_show_what_the_difference_is(at, captures):
    test = alive(at("runs"))
    found = run_difference(Run.open(captures / "a"), Run.open(captures / "b"))
    changed = len(found.role_changes())
    assert 0 < changed < 80 and test.title[0].value.startswith(f"{changed} of 80 heads change role")
    assert f"the intervals of {int(found.clear.sum())} leave 0 out" in words(test)
    first = found.table().iloc[0]
    sign = "+" if first.difference > 0 else "−"
    assert (
        f"| {first.block} · {first['head']} | {first.a:.3f} | {first.b:.3f} | {sign}{abs(first.difference):.3g} *"
        in words(test)
    )
    assert "4 samples paired by prompt and seed, 4 prompts" in words(test)
    assert components(test) == ["copy_button", "difference_grid"] and len(test.get("plotly_chart")) == 1
    # c cannot be subtracted, so the page chose b.
    assert test.selectbox(key="compare_runs_b").value == "captures/b"


def test_filters_choose_the_part_of_both_runs(at, captures):
    test = alive(at("runs", steps="1-2", sample="3", ts="0.6", **{"with": "captures/b"}))
    found = run_difference(Run.open(captures / "a"), Run.open(captures / "b"), steps=[1, 2], sample=3)
    assert test.title[0].value.startswith(f"{len(found.role_changes(0.6, 0.3))} of 80 heads change role")
    assert "sample (3 of 4)" in words(test) and "steps (1–2 of 0–2)" in words(test)
    assert "without two prompts" in test.title[0].value.replace("\\", "")


def test_a_run_that_does_not_fit_is_refused_in_one_line(at, captures, tmp_path):
    test = at("runs", **{"with": "captures/c-other-steps"})
    assert not test.exception and len(test.error) == 1
    assert "3 timesteps" in words(test) and "2 timesteps" in words(test)
    # The first student that was found stands in the command.
    assert f"pare capture {captures / 'small'} --prompts" in words(test)
    assert test.selectbox(key="compare_runs_b").set_value("captures/b").run().query_params["with"] == "captures/b"
    alive(test)
    # Where none fits, the page chooses none and says what would.
    for name in ("a", "c-other-steps"):
        shutil.copytree(captures / name, tmp_path / "two" / name)
    test = alive(at("runs", tmp_path / "two"))
    assert test.title[0].value == "A second run like this one is needed" and not test.info
    assert test.selectbox(key="compare_runs_b").value is None
    assert "nothing to subtract yet" in words(test) and "pare capture STUDENT" in words(test)
    # Chosen all the same, it is refused with the reason, under its own link.
    test.selectbox(key="compare_runs_b").set_value("two/c-other-steps").run()
    assert not test.exception and len(test.error) == 1 and "2 timesteps" in words(test)
    assert test.query_params["kind"] == "runs" and test.query_params["with"] == "two/c-other-steps"


def test_the_page_opens_with_what_can_be_compared(open_page, captures, tmp_path):
    """Runs where two fit; else the first kind of which two are there; else runs, with what is missing."""
    folder = tmp_path / "some"
    for name in ("a", "c-other-steps"):
        shutil.copytree(captures / name, folder / name)

    def first_sight() -> tuple[str, AppTest]:
        # What lies in the places is looked for again.
        st.cache_data.clear()
        test = alive(open_page(PAGE, folder))
        return test.segmented_control(key="compare_kind").value, test

    kind, test = first_sight()
    assert kind == "runs" and "kind" not in test.query_params
    assert any(code.value.startswith("pare capture") for code in test.code)
    for number in (7, 6):
        masks.save(kept(number), folder / "m" / f"{number}.safetensors")
    write_evaluation(folder / "e" / "x", 0.0, identity("x"))
    write_evaluation(folder / "e" / "y", 1.0, identity("y"))
    assert first_sight()[0] == "videos"
    for name in ("teacher", "small"):
        shutil.copytree(captures / name, folder / name)
    kind, test = first_sight()
    assert kind == "students" and "B (small) stores" in test.title[0].value.replace("\\", "")
    # What is chosen stays, and is in the link; so is the kind of two that are.
    test.segmented_control(key="compare_kind").set_value("runs").run()
    assert test.query_params["kind"] == "runs" and "second run" in alive(test).title[0].value
    assert test.segmented_control(key="compare_kind").value == "runs"
    test = alive(open_page(PAGE, folder))
    test.selectbox(key="compare_students_left").set_value("some/small").run()
    assert alive(test).query_params["kind"] == "students"
    shutil.copytree(captures / "b", folder / "b")
    kind, test = first_sight()
    assert kind == "runs" and test.selectbox(key="compare_runs_b").value == "some/b"


def test_a_damaged_run_leaves_the_page_alive(at, captures, tmp_path):
    folder = tmp_path / "captures"
    for name in ("a", "b"):
        shutil.copytree(captures / name, folder / name)
    for path in (folder / "b" / "samples").iterdir():
        path.write_bytes(b"no tensors")
    for text in (None, "{"):
        if text is not None:
            (folder / "b" / "run.json").write_text(text)
        test = at("runs", folder, **{"with": "captures/b"})
        assert not test.exception and len(test.error) == 1 and "got" in test.error[0].value


def test_runs_without_a_common_sample_are_said_to_be_unpaired(at, captures, tmp_path):
    folder = tmp_path / "captures"
    shutil.copytree(captures / "a", folder / "a")
    made = make_other_prompts(folder / "b")
    test = alive(at("runs", folder))
    assert not run_difference(Run.open(folder / "a"), made).paired
    assert len(test.warning) == 1 and "Not paired" in test.warning[0].value and "unpaired" in words(test)


def make_other_prompts(folder: Path) -> Run:
    made = make_manifest(8, 10, 3, 4)
    manifest = made.model_copy(update={"samples": tuple(Sample(prompt=f"other {i}", seed=i) for i in range(4))})
    writer = RunWriter(folder, manifest, {})
    generator = np.random.default_rng(0)
    for index in writer.pending():
        writer.write_sample(index, random_sample(manifest, generator, np.full((8, 10), 0.5)))
    return writer.finish()


def test_absent_heads_go_to_the_grid_as_absent(captures):
    found = run_difference(*[Run.open(captures / "a")] * 2)
    found.absent_b[1, 2] = True
    found.difference[1, 2] = found.mean_b[1, 2] = np.nan
    cells = component.cells(found, (0.7, 0.3))
    assert cells["absentB"].sum() == 1 and np.isnan(cells["difference"][12]) and cells["roleB"][12] == 0
    assert cells["roleA"][12] > 0 and "absent in B (1 head)" in component.legend(found, True)


def test_two_masks_side_by_side(at, captures):
    test = alive(at("masks"))
    assert test.title[0].value.replace("\\", "").startswith("The masks decide otherwise on 8 self-attention heads")
    shown = words(test)
    assert "| self-attention heads | 7 of 10 | 6 of 10 | 48 | 8 | 0 |" in shown
    assert "| ratio | **0.3" in shown and "**0.4**" in shown
    # They do not say what they predict; the open run's model says what they leave.
    run = Run.open(captures / "a")
    size = cost.parameters(run.geometry, **kept(7).counts()).total
    assert f"| parameters | {size:,} |" in shown and re.search(
        r"FLOPs per forward \| [\d.]+ GFLOP \| [\d.]+ GFLOP", shown
    )
    assert len(test.get("plotly_chart")) == 3 and "This page is filtered" not in shown


def test_masks_of_two_models_and_damaged_ones_are_refused(at, captures, tmp_path):
    folder = tmp_path / "captures"
    shutil.copytree(captures / "m", folder)
    masks.save(kept(3, (4, 5)), folder / "other.safetensors")
    test = at("masks", folder, a="captures/other.safetensors")
    assert not test.exception and "of different models" in test.title[0].value and len(test.error) == 1
    path = folder / "six.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    test = at("masks", folder, a="captures/six.safetensors")
    assert not test.exception and "six.safetensors" in words(test) and len(test.error) == 1
    path.write_bytes((captures / "m" / "six.safetensors").read_bytes())
    (folder / "notes.txt").write_text("no mask")
    test = at("masks", folder, a="captures/notes.txt", b="captures/six.safetensors")
    assert not test.exception and "a=captures/notes.txt is none of the masks found" in words(test)
    assert test.selectbox(key="compare_masks_right").value == "captures/six.safetensors"


def test_students_side_by_side_with_their_scores(at, captures):
    test = alive(at("students", a="captures/teacher", b="captures/small"))
    card = model_card.read_card(captures / "small")
    teacher = model_card.read_card(captures / "teacher")
    assert card.pruned and not teacher.pruned and card.base == "demo"
    mean = BudgetSchedule.linear(4, 6).mean_count(shifted_timesteps(20, 3.0), 8)
    assert card.blocks == mean and card.active_flops == pytest.approx(card.flops * mean / 8)
    shown = words(test)
    assert f"| parameters stored | {teacher.parameters:,} | {card.parameters:,} |" in shown
    assert f"| blocks of a mean step | 8 | {mean:.4g} |" in shown
    assert "| self-attention heads in a block | 10 | 7 |" in shown and "**width**" in shown
    assert "| flow magnitude | px |" in shown and "From captures/e/teacher and captures/e/small." in shown
    test.button(key="compare_their_videos").click().run()
    assert alive(test).query_params["kind"] == "videos" and "player" in components(test)
    assert test.query_params["b"] == "captures/e/small"


def test_a_model_without_an_evaluation_and_a_damaged_one(at, captures, tmp_path):
    folder = tmp_path / "captures"
    for name in ("teacher", "small"):
        shutil.copytree(captures / name, folder / name)
    assert sum("pare evaluate" in code.value for code in alive(at("students", folder)).code) == 1
    (folder / "small" / "transformer" / "config.json").write_text("[]")
    test = at("students", folder)
    assert not test.exception and len(test.error) == 1


def test_two_evaluations_sorted_by_effect_with_the_worst_pair_in_the_player(at, captures):
    test = alive(at("videos", a="captures/e/teacher", b="captures/e/small"))
    left, right = (pd.read_csv(captures / "e" / name / "scores.csv") for name in ("teacher", "small"))
    expected = paired_difference(*(each["flow_magnitude"].to_numpy() for each in (left, right)), PROMPTS)
    assert expected.clear and f"flow magnitude (+{expected.difference:.3g} px)" in words(test)
    shown = words(test)
    order = [shown.index(f"| {name} |") for name in ("flow magnitude", "sharpness")]
    assert order == sorted(order) and "| digit | share right |" in shown
    assert "player" in components(test)
    change = right["flow_magnitude"] - left["flow_magnitude"]
    worst = int(change.abs().idxmax())
    assert test.selectbox(key="compare_pair").value == worst
    assert f"{PROMPTS[worst]} · seed {5 + worst}" in shown
    test.selectbox(key="compare_pair").set_value((worst + 1) % 3).run()
    assert alive(test).query_params["pair"] == str((worst + 1) % 3)
    assert "| steps | **2** | **3** |" in words(test)


@pytest.mark.parametrize("scored", [True, False])
def test_a_job_measures_what_lies_between_the_videos_and_its_result_is_kept(at, captures, tmp_path, scored):
    folder, link = tmp_path / "captures", {"a": "captures/teacher", "b": "captures/small"}
    shutil.copytree(captures / "e", folder)
    if not scored:
        (folder / "small" / "scores.csv").unlink()
    test = alive(at("videos", folder, **link))
    assert ("not scored yet" in test.title[0].value) == (not scored)
    test.button(key="submit_compare").click().run()
    jobs = open_workspace(tmp_path / "workspace")
    (job,) = jobs.list(command="compare")
    assert job.arguments["a"] == str(folder / "teacher")
    assert [button.key for button in test.button if str(button.key).startswith("cancel-")] == [f"cancel-{job.id}"]
    me = Identity.mine()
    assert jobs.store.take_device(job.device, me)
    job = jobs.store.claim(job.device, me)
    place = JobFolder(jobs.folder(job.id))
    place.create()
    result = plain(compare(job.arguments["a"], job.arguments["b"]))
    place.complete(job, result)
    assert jobs.store.finish(job, State.DONE, None, result)
    test = alive(at("videos", folder, **link))
    shown = words(test)
    assert "| PSNR | dB |" in shown and "submit_compare" not in [button.key for button in test.button]
    # The stored scores stay where there are some, with what only they have.
    assert ("| digit | share right |" in shown) == scored and ("optical flow, mean" in shown) == (not scored)
    test.selectbox(key="compare_worst_by").set_value("psnr").run()
    worst = min(result["videos"], key=lambda row: row["both"]["psnr"])
    assert test.selectbox(key="compare_pair").value == PROMPTS.index(worst["prompt"])


def test_a_video_that_is_gone_and_a_damaged_evaluation(at, captures, tmp_path):
    folder = tmp_path / "captures"
    shutil.copytree(captures / "e", folder)
    for path in (folder / "small" / "videos").iterdir():
        path.unlink()
    link = {"a": "captures/teacher", "b": "captures/small"}
    test = alive(at("videos", folder, **link))
    assert "The video of B is not on disk" in words(test) and "player" not in components(test)
    (folder / "small" / "scores.csv").write_text("prompt,seed\nx,0\n")
    assert "scores.csv of other videos" in words(at("videos", folder, **link))
    (folder / "small" / "evaluation.json").write_text("{")
    test = at("videos", folder, **link)
    assert not test.exception and len(test.error) == 1


def test_sets_without_a_common_video_are_said_to_be(at, captures, tmp_path):
    folder = tmp_path / "captures"
    shutil.copytree(captures / "e", folder)
    for name, old in (("scores.csv", ",5,"), ("scores.csv", ",6,"), ("scores.csv", ",7,")):
        path = folder / "small" / name
        path.write_text(path.read_text().replace(old, old.replace(",", ",1", 1)))
    path = folder / "small" / "evaluation.json"
    path.write_text(path.read_text().replace('"seed": 5', '"seed": 15'))
    test = alive(at("videos", folder))
    assert "no video of the same prompt and seed" in test.title[0].value


def test_another_kind_forgets_the_choices_of_the_last_one(at):
    test = alive(at("masks", a="captures/m/six.safetensors"))
    test.segmented_control(key="compare_kind").set_value("students").run()
    assert alive(test).query_params["kind"] == "students" and "a" not in test.query_params


@pytest.fixture
def remade(monkeypatch):
    monkeypatch.setattr(go.Figure, "show", lambda self: None)

    def run(text: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        exec(text, made)
        return made

    return run


def test_what_is_taken_out_makes_the_same_numbers(captures, remade):
    a, b = Run.open(captures / "a"), Run.open(captures / "b")
    part = Selection(sample=1, first_step=0, last_step=1)
    made = remade(compare_recipes.head_differences(a, b, "self/ratio", part))
    pd.testing.assert_frame_equal(made["table"], run_difference(a, b, sample=1, steps=[0, 1]).table())
    assert compare_recipes.run_command(a, b, "self/ratio", part) is None
    assert "--branch cond" in str(compare_recipes.run_command(a, b, "self/ratio", Selection(branch="cond")))
    made = remade(compare_recipes.block_differences(a, b, "residual", Selection(), "x"))
    assert len(made["table"]) == 8 and len(made["figure"].data[0].x) == 8
    paths = [captures / "m" / f"{name}.safetensors" for name in ("seven", "six")]
    assert remade(compare_recipes.mask_agreement(*paths, "self_heads"))["table"]["kept_by_a"].sum() == 56
    assert remade(compare_recipes.mask_flips(*paths))["table"]["self_heads_a"].tolist() == [1] * 8
    folders = [captures / "e" / name for name in ("teacher", "small")]
    stored = remade(compare_recipes.metric_effects(*folders))["table"]
    assert stored["metric"].iloc[0] == "flow_magnitude" and len(stored) == 4
    measured = remade(compare_recipes.measured_effects(*folders))["table"]
    assert set(measured["metric"]) >= {"sharpness", "flicker"}


def test_only_evaluations_and_runs_with_videos_are_sets(captures, tmp_path):
    with pytest.raises(InputError, match="without videos"):
        open_videos(captures / "a")
    run = make_sampled_run(tmp_path / "films", blocks=3, steps=2, samples=3, videos=2)
    found = open_videos(run.folder)
    assert found.table["path"].tolist() == [str(path) for path in run.videos.values()]
    assert len(found.table) == 2 and not found.scored and found.model_id == "random"


def test_videos_that_jobs_made_are_sets_too(at, captures, tmp_path):
    made = [tmp_path / "workspace" / "jobs" / name / "artefacts" / "clip.mp4" for name in ("x", "y")]
    frames = np.zeros((4, 32, 32, 3), np.uint8)
    for path, steps in zip(made, (2, 3), strict=True):
        about = {"model": {"model_id": "demo"}, "prompt": PROMPTS[0], "settings": {"seed": 5, "steps": steps}}
        write_video(frames, path, 8, about)
    test = alive(at("videos", None, a="workspace/jobs/x/artefacts/clip.mp4"))
    assert test.selectbox(key="compare_videos_right").value == "workspace/jobs/y/artefacts/clip.mp4"
    assert "1 pair of videos, not scored yet" in words(test) and "player" in components(test)
    assert "| steps | **2** | **3** |" in words(test)
    write_video(frames, made[1], 8, {})
    with pytest.raises(InputError, match="do not say their prompt"):
        open_videos(made[1])
