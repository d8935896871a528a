"""The Prune page in every state: what it says is what `pare mask` makes, and its jobs are those of the settings."""

import doctest
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.figures.masks import error_per_block, kept_heads, kept_per_block
from analysis.runs import Run
from analysis.score_table import read_scores
from pare import mask as masks
from pare.video import write_video
from tests.runs_fixture import make_run
from tests.sampled_run import make_sampled_run
from workbench import cli
from workbench.commands.mask import mask as mask_command
from workbench.jobs.api import Job, Jobs, State, open_workspace
from workbench.jobs.folder import JobFolder
from workbench.jobs.process import Identity
from workbench.mask_plan import plan
from workbench.mask_settings import MaskSettings
from workbench.pages import prune_plan, prune_settings
from workbench.pages.prune_plan import live_plan, mask_arguments, planned
from workbench.pages.prune_settings import sized_by
from workbench.pages.text import command_line
from workbench.places import PROJECT
from workbench.state import Selection

PAGE = "workbench/pages/prune.py"
DEMO_RUN = PROJECT / "data" / "runs" / "demo"


@pytest.fixture(scope="module")
def captures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prune") / "captures"
    make_sampled_run(folder / "full")
    return folder


@pytest.fixture
def at(open_page, captures):
    """at(**link) runs the page on these captures."""

    def run(folder: Path | None = captures, **link: str) -> AppTest:
        return open_page(PAGE, folder, **link)

    return run


@pytest.mark.parametrize("module", [prune_plan, prune_settings])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def words(test: AppTest) -> str:
    shown = [*test.title, *test.header, *test.markdown, *test.caption, *test.error, *test.code]
    return "\n".join(str(one.value) for one in shown).replace("\\", "")


def alive(test: AppTest) -> AppTest:
    assert not test.exception and not [error.value for error in test.error]
    return test


def work_off(jobs: Jobs, do: Callable[[Job, Path], dict]) -> None:
    """Do all queued jobs as their worker would; do(job, artefacts folder) returns the command's result."""
    me = Identity.mine()
    assert jobs.store.take_device("cpu", me)
    while job := jobs.store.claim("cpu", me):
        folder = JobFolder(jobs.folder(job.id))
        folder.create()
        result = do(job, folder.artefacts)
        folder.complete(job, result)
        assert jobs.store.finish(job, State.DONE, None, result)
    jobs.store.leave_device("cpu", me, only_if_idle=False)


def link_of(test: AppTest) -> dict[str, str]:
    return {name: values[0] if isinstance(values, list) else values for name, values in test.query_params.items()}


def components(test: AppTest) -> list[str]:
    return [one.proto.component_name.split(".")[-1] for one in test.get("bidi_component")]


def test_without_a_run_the_page_says_which_command_makes_one(at, tmp_path):
    test = alive(at(None))
    assert any("pare capture demo --out" in code.value for code in test.code)
    assert not (tmp_path / "workspace").exists()


def test_a_damaged_run_leaves_the_page_alive(at, tmp_path):
    folder = tmp_path / "captures"
    make_run(folder / "damaged", 3, 4, steps=2, samples=2)
    (folder / "damaged" / "summary.safetensors").write_bytes(b"no tensors")
    for path in (folder / "damaged" / "samples").iterdir():
        path.write_bytes(b"nor here")
    test = at(folder)
    assert not test.exception and test.error
    (folder / "damaged" / "run.json").write_text("{")
    test = at(folder)
    assert not test.exception and "got" in test.error[0].value


def test_what_the_page_says_is_what_the_command_plans(at, captures):
    link = {"p": "0.4", "alpha": "2", "ts": "0.8", "tt": "0.25", "alloc": "global-l2"}
    test = alive(at(**link))
    selection = Selection(ratio=0.4, alpha=2.0, tau_s=0.8, tau_t=0.25, allocation="global-l2")
    asked = mask_command(captures / "full", dry_run=True, **mask_arguments(selection))
    guess = asked["predicted"]
    assert f"{guess['flop_ratio']:.0%} of the operations" in test.title[0].value.replace("\\", "")
    assert planned(Run.open(captures / "full"), selection).predicted["parameters"] == guess["parameters"]
    low, high = min(asked["counts"]["self_heads"]), max(asked["counts"]["self_heads"])
    assert low < high and f"{low} to {high} of 10 self-attention heads" in words(test)
    assert {"head_grid", "mask_sliders"} <= set(components(test))
    assert {name: link_of(test)[name] for name in link} == link


def test_a_target_finds_p_and_an_impossible_one_says_so(at, captures):
    test = alive(at(target="flops:2e+09"))
    found = planned(Run.open(captures / "full"), Selection(target="flops", target_value=2e9))
    assert found.predicted["flops"] <= 2e9 and found.settings.ratio > 0
    assert f"p = {found.settings.ratio:.4g} keeps" in words(test)
    low = at(target="gib:1e-06")
    assert not low.exception and "expected at least" in low.error[0].value.replace("\\", "")
    assert low.title[0].value == "No mask at these settings"
    # The controls stay, so another target can be typed.
    low.number_input(key="target_input").set_value(5.0)
    assert "keeps" in alive(low.run()).title[0].value


def test_another_kind_of_size_starts_from_what_is_predicted(captures):
    run = Run.open(captures / "full")
    before = planned(run, Selection(ratio=0.35))
    for kind in ("parameters", "flops", "gib"):
        wanted = sized_by(kind, Selection(ratio=0.35), {}, before.predicted)
        linked = Selection(**wanted).to_query()["target"]
        assert float(linked.split(":")[1]) == wanted["target_value"]
        after = planned(run, Selection(**wanted))
        assert after.counts == before.counts


def test_the_random_control_is_not_protected(at, captures):
    assert mask_arguments(Selection(scorer="random", alpha=2.0))["alpha"] is None
    alive(at(scorer="random", alpha="2"))
    run = Run.open(captures / "full")
    assert not live_plan(run, Selection(scorer="random", alpha=2.0)).protects and live_plan(run, Selection()).protects
    found = plan(Run.open(captures / "full"), MaskSettings.of(scorer="random"))
    assert not found.flips.any()


def test_widgets_change_the_selection(at):
    test = alive(at(p="0.5", alpha="2"))
    lacking = test.selectbox(key="scorer_input").set_value("projected_energy").run()
    assert not lacking.exception and "capture a run that has it" in lacking.error[0].value
    alive(test.selectbox(key="scorer_input").set_value("random").run())
    alive(test.selectbox(key="neurons_input").set_value("none").run())
    link = link_of(test)
    assert (link["p"], link["alpha"], link["scorer"], link["neurons"]) == ("0.5", "2", "random", "none")
    assert "640 of 640 neurons" in words(test)


def test_heads_are_ranked_by_what_was_measured_for_evidence(demo, at, tmp_path):
    test = alive(demo(neurons="none", scorer="gate_gradient", p="0.4"))
    assert test.selectbox(key="scorer_input").value == "gate_gradient" and link_of(test)["scorer"] == "gate_gradient"
    test = alive(test.button(key="submit_mask").click().run())
    made: list[masks.Mask] = []

    def do(job: Job, out: Path) -> dict:
        result = mask_command(**job.arguments)
        made.append(masks.load(job.arguments["out"]))
        return result

    work_off(open_workspace(tmp_path / "workspace"), do)
    assert made[0].metadata["settings"]["scorer"] == "scores.json#gate_gradient"
    scores = read_scores(PROJECT / "data" / "evidence" / "scores.json#gate_gradient", Run.open(DEMO_RUN).geometry)
    np.testing.assert_array_equal(made[0].self_heads.sum(axis=1), np.full(8, 6))
    roles = planned(Run.open(DEMO_RUN), Selection()).roles
    ranked = scores.score("self") * np.where(roles == "T", 1.5, 1)
    lowest = np.sort(np.argsort(ranked, axis=1)[:, :4])
    np.testing.assert_array_equal(np.argwhere(~made[0].self_heads)[:, 1].reshape(-1, 4), lowest)
    assert "Mask (.safetensors)" in [
        each.label for each in alive(demo(neurons="none", scorer="gate_gradient", p="0.4")).get("download_button")
    ]
    # A link to a scorer that was not measured on this model says how to measure it, and the controls stay.
    test = at(scorer="effect")
    assert not test.exception and "pare evidence scores" in test.error[0].value.replace("\\", "")
    alive(test.selectbox(key="scorer_input").set_value("temporal_attention").run())


def test_a_run_of_a_model_that_is_not_here_says_what_is_missing(at):
    test = alive(at())
    assert "keep all" in words(test) and not [button for button in test.button if button.key == "submit_mask"]
    heads_only = alive(at(neurons="none"))
    assert heads_only.button(key="submit_mask")
    assert "Where the weights are" in words(heads_only)


def test_the_mask_is_a_job_and_its_file_then_is_offered(at, tmp_path, captures):
    test = alive(at(neurons="none", p="0.5"))
    alive(test.button(key="submit_mask").click().run())
    jobs = open_workspace(tmp_path / "workspace")
    (job,) = jobs.list()
    assert (job.command, job.arguments["ratio"], job.arguments["neurons"]) == ("mask", 0.5, "none")
    assert not [button for button in test.button if button.key == "submit_mask"]
    work_off(jobs, lambda job, out: mask_command(**job.arguments))
    test = alive(at(neurons="none", p="0.5"))
    made = masks.load(jobs.artefacts(job.id)[0])
    assert f"keeps {made.self_heads.sum()} self-attention heads" in words(test)
    assert {button.proto.id for button in test.get("download_button")}
    # Another setting is another mask.
    assert alive(at(neurons="none", p="0.45")).button(key="submit_mask")


@pytest.fixture
def demo(at, monkeypatch, tmp_path) -> Callable[..., AppTest]:
    """The page on the bundled run, whose model is here."""

    def run(**link: str) -> AppTest:
        monkeypatch.setenv("PARE_DATA", str(PROJECT / "data"))
        test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
        test.switch_page(PAGE)
        for key, text in ({"run": "data/runs/demo"} | link).items():
            test.query_params[key] = text
        return test.run()

    at(None)
    return run


def test_preview_and_student_follow_the_mask(demo, tmp_path):
    def do(job: Job, out: Path) -> dict:
        if job.command == "mask":
            return mask_command(**job.arguments)
        if job.command == "generate":
            frames = np.full((17, 48, 48, 3), 90 if "mask" in job.arguments else 100, np.uint8)
            about = {"prompt": job.arguments["prompt"], "settings": {"seed": job.arguments["seed"]}}
            write_video(frames, job.arguments["out"], 8, about)
            return {}
        (out / "student").mkdir()
        errors = [{"dense": 0.2, "masking": 0.01}] * 8
        return {"errors": errors, "parameters": 5, "dense_parameters": 10, "notes": ["folded"]}

    test = alive(demo(neurons="none"))
    assert test.button(key="submit_preview").disabled and test.button(key="submit_prune").disabled
    assert re.search(r"2 videos on \w+: [\d.]+ GFLOP", words(test))
    alive(test.button(key="submit_mask").click().run())
    jobs = open_workspace(tmp_path / "workspace")
    work_off(jobs, do)
    test = alive(demo(neurons="none"))
    test.number_input(key="preview_steps").set_value(3)
    alive(test.run())
    alive(test.button(key="submit_preview").click().run())
    alive(test.button(key="submit_prune").click().run())
    queued = {(job.command, "mask" in job.arguments): job for job in jobs.list(active=True)}
    assert set(queued) == {("generate", False), ("generate", True), ("prune", True)}
    dense, masked = queued[("generate", False)].arguments, queued[("generate", True)].arguments
    assert all(dense[name] == masked[name] for name in ("model", "prompt", "seed", "steps")) and dense["steps"] == 3
    assert masked["mask"] == queued[("prune", True)].arguments["mask"]
    assert "player" not in components(test)
    work_off(jobs, do)
    # In a new session too: the preview that was made last shows again.
    test = alive(demo(neurons="none"))
    assert "player" in components(test) and test.number_input(key="preview_steps").value == 3
    assert "5 of 10 parameters (50%)" in words(test) and "folded" in words(test)
    assert "Error of the cut per block" in words(test)
    # Another seed needs both videos again, another mask nothing of this.
    alive(test.number_input(key="preview_seed").set_value(7).run())
    assert test.button(key="submit_preview").label == "Generate both" and "player" not in components(test)
    assert "player" not in components(alive(demo(neurons="none", p="0.5")))


def test_commands_on_the_page_are_commands(demo):
    selection = Selection(ratio=0.4, scorer="random", target="gib", target_value=0.01)
    for flags in (mask_arguments(selection), mask_arguments(Selection())):
        line = shlex.split(command_line("mask", "RUN", "--dry-run", **flags))
        assert cli.check_words(line[1], line[2:]) is None


def test_figures_say_what_stays():
    bars = kept_per_block({"self_heads": [7, 6], "neurons": [8, 4]}, {"self_heads": 10, "neurons": 16}).data
    assert [list(bar.y) for bar in bars] == [[0.7, 0.6], [0.5, 0.25]]
    keep = np.array([[True, False], [True, True]])
    heat, rim, cross = kept_heads(keep, np.array([[4.0, 1.0], [0.0, 0.0]])).data
    np.testing.assert_array_equal(heat.z, [[1, 0.25], [0, 0]])
    assert (list(cross.x), list(cross.y)) == ([1], [0]) == (list(rim.x), list(rim.y))
    dense, masking = error_per_block([{"dense": 0.1, "masking": 0.0}, {"dense": 0.2, "masking": 1e-7}]).data
    assert list(dense.y) == [0.1, 0.2] and np.isnan(masking.y[0]) and masking.y[1] == 1e-7
