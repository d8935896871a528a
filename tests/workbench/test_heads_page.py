"""The Heads page beyond its first look: other views of all heads, sets under names, ablation, what filters a page."""

import doctest
import importlib
import shlex
import shutil
from itertools import pairwise

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.runs import Run
from pare import mask as masks
from tests.runs_fixture import make_run
from workbench import cli, head_sets
from workbench.jobs.api import open_workspace
from workbench.pages.head_difference_view import another_command
from workbench.places import PROJECT, Places
from workbench.state import Selection

PAGE = "workbench/pages/heads.py"


@pytest.fixture(scope="module")
def captures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads") / "captures"
    make_run(folder / "first", branches=("cond", "uncond"))
    make_run(folder / "second", seed=1)
    return folder


@pytest.fixture
def at(open_page, captures):
    """at(**link) runs the page on these captures."""
    return lambda **link: open_page(PAGE, captures, **link)


def words(test: AppTest) -> str:
    shown = [*test.title, *test.header, *test.markdown, *test.caption, *test.error, *test.code]
    return "\n".join(str(one.value) for one in shown).replace("\\", "")


def alive(test: AppTest) -> AppTest:
    assert not test.exception and not [error.value for error in test.error]
    return test


def link_of(test: AppTest) -> dict[str, str]:
    return {name: values[0] if isinstance(values, list) else values for name, values in test.query_params.items()}


def components(test: AppTest) -> list[str]:
    return [one.proto.component_name.split(".")[-1] for one in test.get("bidi_component")]


def charts(test: AppTest) -> list[str]:
    return [one.proto.id for one in test.get("plotly_chart")]


def test_heads_by_any_two_metrics_and_a_colour(at):
    test = alive(at(view="scatter", x="value_norm", y="ratio", color="importance", branch="uncond"))
    assert any("head_scatter" in one for one in charts(test)) and "head_grid" not in components(test)
    assert "n = 6 samples" in words(test) and "Over all samples and steps: importance (Eq. 3)" in words(test)
    # Entropy was not captured in this run, so it is not offered.
    assert "entropy" not in test.selectbox(key="y_input").options
    alive(test.selectbox(key="color_input").set_value("role").run())
    assert "color" not in link_of(test) and link_of(test)["x"] == "value_norm"
    alive(test.segmented_control(key="view_input").set_value("grid").run())
    assert "head_grid" in components(test) and "view" not in link_of(test)
    # A link to a metric that this run lacks shows another, and the page lives.
    assert "head_scatter" in "".join(charts(alive(at(view="scatter", x="entropy", color="entropy"))))


def test_the_grid_in_order_of_ratios_keeps_the_pinned_head(at):
    test = alive(at(order="ratio", block="4", head="9"))
    assert any("Block 4, head 9" in html.proto.body for html in test.get("html"))
    assert test.selectbox(key="order_input").value == "ratio"


def test_two_runs_are_subtracted(at, captures):
    test = alive(at(view="difference", run="captures/first", **{"with": "captures/second"}))
    assert "difference_grid" in components(test)
    assert "of 80 heads differ beyond their 95 % interval" in words(test) and "paired over 6 prompts" in words(test)
    alive(test.selectbox(key="x_input").set_value("value_norm").run())
    assert link_of(test)["x"] == "value_norm"


def test_a_run_without_another_to_subtract_says_which_command_makes_one(open_page, tmp_path):
    make_run(tmp_path / "alone" / "run")
    test = alive(open_page(PAGE, tmp_path / "alone", view="difference"))
    command = next(code.value for code in test.code if code.value.startswith("pare capture"))
    cli.check_words("capture", shlex.split(command)[2:])
    assert "difference_grid" not in components(test)
    # Sample i has seed + i, so that the next seeds are those after all of them.
    run, given = Run.open(tmp_path / "alone" / "run"), dict(pairwise(shlex.split(command)))
    assert int(given["--seed"]) > max(sample.seed for sample in run.manifest.samples) and given["--samples"] == "6"
    assert given["--prompts"] == "prompts.txt" and given["--frames"] == str(run.manifest.clip["frames"])
    demo = another_command(Run.open(PROJECT / "data" / "runs" / "demo"), Places(tmp_path))
    assert " --seed 200 " in demo and "--guidance 3" in demo and "--prompts" not in demo


def test_the_view_and_the_order_of_heads_draw_their_part_alone(at):
    test = alive(at())
    assert "mask_sliders" in components(test)
    test = alive(test.selectbox(key="order_input").set_value("ratio").run())
    assert "head_grid" in components(test) and not {"mask_sliders", "frame_map"} & set(components(test))
    assert link_of(test)["order"] == "ratio"
    test = alive(test.run())
    assert "mask_sliders" in components(test) and test.selectbox(key="order_input").value == "ratio"


def test_scores_of_the_stored_answer_are_told_from_those_of_the_run(open_page, tmp_path):
    shutil.copytree(PROJECT / "data" / "evidence", tmp_path / "data" / "evidence")
    text = words(alive(open_page(PAGE, PROJECT / "data" / "runs", run="runs/demo")))
    assert "ablation effect" in text and "Those that run the model are Evidence's answer" in text


def test_a_set_of_heads_is_saved_loaded_exported_and_deleted(at, tmp_path):
    test = alive(at(run="captures/first", block="4", head="9", pick="1.2-3.4"))
    alive(test.button(key="pick_head").click().run())
    assert link_of(test)["pick"] == "1.2-3.4-4.9"
    test.selectbox(key="set_source").set_value("picked heads (3)")
    test.text_input(key="set_name").set_value("By hand")
    saved = alive(next(button for button in test.button if button.label == "Save").click().run())
    assert link_of(saved)["set"] == "by-hand" and "3 of 80 heads, 0 to 1 in a block" in words(saved)
    found = head_sets.load(tmp_path / "workspace", "by-hand")
    assert found.members == ((1, 2), (3, 4), (4, 9)) and found.made_from["link"]["pick"] == "1.2-3.4-4.9"
    again = saved.text_input(key="set_name").set_value("by hand")
    next(button for button in saved.button if button.label == "Save").click()
    assert "which is there" in again.run().error[0].value.replace("\\", "")
    gone = alive(saved.button(key="delete_set").click().run())
    assert "set" not in link_of(gone) and not head_sets.names(tmp_path / "workspace")


def test_a_link_to_a_set_that_is_gone_says_so(at):
    test = at(set="nowhere")
    assert not test.exception and "set of heads: got nowhere" in test.error[0].value.replace("\\", "")


def test_the_mask_of_a_set_is_without_it(captures, tmp_path):
    from workbench.pages.head_sets_panel import set_mask

    run = Run.open(captures / "first")
    made = head_sets.of_run(run, "one", head_sets.as_array(run, [(2, 3)]), {})
    content, mask = set_mask(run, Places(tmp_path / "workspace"), made)
    assert np.argwhere(~mask.self_heads).tolist() == [[2, 3]]
    (tmp_path / "m.safetensors").write_bytes(content)
    assert np.array_equal(masks.load(tmp_path / "m.safetensors").self_heads, mask.self_heads)
    assert list((tmp_path / "workspace").iterdir()) == []


def test_ablating_a_head_asks_for_the_same_prompt_and_seed_with_it_and_without(open_page, tmp_path):
    test = alive(open_page(PAGE, PROJECT / "data" / "runs", run="runs/demo", block="3", head="7"))
    assert "Removing it alone saves" in words(test) and "| PARE (Eq. 3) |" in words(test)
    test = alive(test.button(key="ablate_head").click().run())
    jobs = open_workspace(tmp_path / "workspace").list(command="generate")
    dense, masked = sorted((job.arguments for job in jobs), key=lambda arguments: "mask" in arguments)
    for name in ("model", "prompt", "seed", "steps"):
        assert dense[name] == masked[name]
    mask = masks.load(masked["mask"])
    assert np.argwhere(~mask.self_heads).tolist() == [[3, 7]] and mask.cross_heads.all() and mask.neurons.all()
    # Progress stands below the button that is gone, where each job can be cancelled.
    assert "without block 3, head 7" in words(test) and "ablate_head" not in [button.key for button in test.button]
    assert [button.key for button in test.button if button.label == "Cancel"] == [
        f"cancel-ablate_head-{job.id}" for job in sorted(jobs, key=lambda job: "mask" in job.arguments)
    ]
    # Another head needs only its own half.
    other = alive(open_page(PAGE, PROJECT / "data" / "runs", run="runs/demo", block="2", head="1"))
    alive(other.button(key="ablate_head").click().run())
    assert len(open_workspace(tmp_path / "workspace").list(command="generate")) == 3


def test_the_steps_of_an_ablation_are_chosen_beside_it_and_come_back(open_page, tmp_path):
    page = {"run": "runs/demo", "block": "3", "head": "7"}
    test = alive(open_page(PAGE, PROJECT / "data" / "runs", **page))
    usual = next(caption.value for caption in test.caption if "Ablate this head" in caption.value)
    test = alive(test.number_input(key="ablate_head_steps").set_value(2).run())
    cheaper = next(caption.value for caption in test.caption if "Ablate this head" in caption.value)
    assert cheaper != usual
    alive(test.button(key="ablate_head").click().run())
    jobs = open_workspace(tmp_path / "workspace").list(command="generate")
    assert [job.arguments["steps"] for job in jobs] == [2, 2]
    # Another session, such as after a reload, shows what was asked for last.
    again = alive(open_page(PAGE, PROJECT / "data" / "runs", **page))
    assert again.number_input(key="ablate_head_steps").value == 2
    assert "without block 3, head 7" in words(again)


def test_a_model_that_is_not_here_cannot_be_ablated(at):
    test = alive(at(run="captures/first"))
    assert "Ablating needs the model" in words(test) and "ablate_head" not in [button.key for button in test.button]


@pytest.mark.parametrize("page", ["heads", "blocks", "prune", "route"])
def test_every_page_says_what_filters_it(open_page, captures, page):
    test = alive(open_page(f"workbench/pages/{page}.py", captures, run="captures/first", sample="2", steps="1-3"))
    text = words(test)
    if page == "route":
        # What an importance router would do is the same for every sample.
        assert "Nothing of the selection filters this page" in text
        return
    assert "This page is filtered by" in text and "sample (2 of 6)" in text and "steps (1–3 of 0–9)" in text


@pytest.mark.parametrize(
    "name",
    [
        "components.head_grid.cells", "components.mask_sliders.value", "head_sets", "teacher_videos",
        "pages.generate_panel", "pages.head_card", "pages.head_scatter_view", "pages.head_sets_panel",
    ],
)  # fmt: skip
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"workbench.{name}"))
    assert found.attempted and not found.failed


def test_picked_heads_are_in_the_link():
    assert Selection(picked=((3, 7), (4, 1))).to_query() == {"pick": "3.7-4.1"}
