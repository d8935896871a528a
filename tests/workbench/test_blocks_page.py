"""The Blocks page in every state, and what the Heads page shows of marks and frame maps."""

import base64
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.block_runs import block_runs
from analysis.block_values import LENSES, block_values
from analysis.findings import block_finding
from analysis.roles import classify
from analysis.routes import write_routes
from analysis.runs import Run
from pare.depth.budget import BudgetSchedule
from pare.depth.decision import redecide
from pare.depth.table import DecisionTable
from pare.video import write_video
from tests.runs_fixture import make_run
from tests.sampled_run import SINK_HEAD, UNIFORM_HEAD, make_sampled_run
from tests.workbench.test_prune_page import work_off
from workbench import cli
from workbench.jobs.api import open_workspace
from workbench.pages.route_plan import bounds, decisions_of
from workbench.pages.text import capture_command
from workbench.places import PROJECT
from workbench.state import Selection

HEADS, BLOCKS = "workbench/pages/heads.py", "workbench/pages/blocks.py"


@pytest.fixture(scope="session")
def captures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("blocks") / "captures"
    make_sampled_run(folder / "full")
    make_run(folder / "plain")
    make_run(folder / "single", 3, 4, steps=1, samples=1, num_frames=5)
    return folder


@pytest.fixture
def at(tmp_path, monkeypatch, captures):
    """at(page, **link) runs a page on these captures."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("PARE_DATA", str(tmp_path / "data"))

    def run(page: str = BLOCKS, name: str = "full", folder: Path = captures, **link: str) -> AppTest:
        monkeypatch.setenv("PARE_FOLDERS", str(folder))
        test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
        test.switch_page(page)
        for key, text in ({"run": f"captures/{name}"} | link).items():
            test.query_params[key] = text
        return alive(test.run())

    return run


def alive(test: AppTest) -> AppTest:
    assert not test.exception and not [error.value for error in test.error]
    return test


def title(test: AppTest) -> str:
    return test.title[0].value.replace("\\", "")


def words(test: AppTest) -> str:
    return "\n".join(str(one.value) for one in [*test.header, *test.markdown, *test.caption]).replace("\\", "")


def components(test: AppTest) -> list[str]:
    return [one.proto.component_name.split(".")[-1] for one in test.get("bidi_component")]


def figure(test: AppTest, name: str) -> dict:
    for chart in test.get("plotly_chart"):
        spec = json.loads(chart.proto.spec)
        if any(name in trace.get("name", trace.get("hovertemplate", "")) for trace in spec["data"]):
            return spec
    raise AssertionError(f"no figure with {name}")


def link_of(test: AppTest) -> dict[str, str]:
    return {name: values[0] if isinstance(values, list) else values for name, values in test.query_params.items()}


@pytest.mark.parametrize("lens", LENSES)
def test_every_lens_has_its_finding_and_map(at, captures, lens):
    test = at(lens=lens)
    run = Run.open(captures / "full")
    part = {"self": "Self-attention", "cross": "Cross-attention", "ffn": "The feed-forward network"}.get(lens)
    assert title(test) == block_finding(block_values(run, lens).by_block(), part, turns=lens == "cosine")
    assert components(test) == ["copy_button", "block_map", "head_grid"]
    assert test.segmented_control(key="lens_input").value == lens
    names = [trace["name"] for trace in figure(test, "Whole block")["data"]]
    assert names == ["Whole block", "Self-attention", "Cross-attention", "Feed-forward"]


def test_the_lens_is_in_the_link(at):
    test = at()
    alive(test.segmented_control(key="lens_input").set_value("ffn").run())
    assert link_of(test) == {"run": "captures/full", "lens": "ffn"}
    assert "feed-forward" in title(test)


def test_a_chosen_block_shows_its_heads_and_reaches_the_head_grid(at, captures):
    test = at(ts="0.6")
    run = Run.open(captures / "full")
    first = int(block_values(run).by_block()["mean"].idxmax())
    assert test.number_input(key="block_input").value == first
    alive(test.number_input(key="block_input").set_value(5).run())
    assert link_of(test) == {"run": "captures/full", "ts": "0.6", "block": "5"}
    letters = classify(run.array("self/ratio").astype(float).mean(axis=(0, 1, 2))[5], 0.6, 0.3)
    counts = [
        f"{(letters == letter).sum()} {role}"
        for letter, role in zip("SMT", ("spatial", "mixed", "temporal"), strict=True)
    ]
    assert f"Heads of block 5: {', '.join(counts)}" in words(test)
    whole = next(trace for trace in figure(test, "Whole block")["data"] if trace["name"] == "Whole block")
    shown = np.frombuffer(base64.b64decode(whole["y"]["bdata"]), whole["y"]["dtype"])
    np.testing.assert_allclose(shown, block_values(run).of_block(5)["mean"], rtol=1e-6)
    (link,) = (one for one in test.get("page_link") if "in Heads" in one.proto.label)
    assert "block=5" in link.proto.query_string and "ts=0.6" in link.proto.query_string
    alive(test.switch_page(HEADS).run())
    assert any("Block 5, head " in html.proto.body for html in test.get("html"))


def test_the_router_of_a_block_is_told_as_it_was_recorded_or_would_be(at, captures, tmp_path):
    run = Run.open(captures / "full")
    ran = decisions_of(run).ran[0]
    text = words(at(block="3"))
    low, high = bounds(run, decisions_of(run), Selection())
    assert f"K from {low} to {high} would run block 3 at {ran[:, 3].sum()} of {len(ran)} timesteps" in text
    again = redecide(decisions_of(run).scores[0], BudgetSchedule.linear(4, 5), timesteps=decisions_of(run).timesteps)
    often = again.ran[:, 3].sum()
    assert f"K from 4 to 5 would run block 3 at {often} of {len(ran)}" in words(at(block="3", kmin="4", kmax="5"))
    assert "no router decides on block 0" in words(at(block="0"))
    folder = tmp_path / "captures" / "routed"
    shutil.copytree(captures / "full", folder)
    routes = routes_of(run, np.random.default_rng(0).random((6, len(run.timesteps), run.geometry.blocks)) < 0.6)
    write_routes(folder, routes, Run.open(folder).identity)
    test = at(name="routed", folder=tmp_path / "captures", block="3")
    table = block_runs(Run.open(folder).routes(), 3)
    assert (
        f"ran block 3 in **{routes[routes['block'] == 3]['ran'].mean():.0%}** of the steps of all 6 samples"
        in words(test)
    )
    (chart,) = (one for one in test.get("plotly_chart") if "block_router" in one.proto.id)
    shown = json.loads(chart.proto.spec)["data"][0]["y"]
    np.testing.assert_allclose(np.frombuffer(base64.b64decode(shown["bdata"]), shown["dtype"]), table["ran"])


def routes_of(run: Run, ran: np.ndarray) -> pd.DataFrame:
    """Decisions [sample, step, block] as a run keeps them."""
    sample, step, block = np.indices(ran.shape)
    columns = {
        "sample": sample, "step": step, "timestep": run.timesteps[step], "block": block, "score": ran.astype(float),
        "ran": ran, "distance": np.zeros(ran.shape), "asked": np.ones(ran.shape), "achieved": np.ones(ran.shape),
    }  # fmt: skip
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def test_a_block_is_left_out_of_the_video_of_the_same_prompt_and_seed(open_page, tmp_path):
    page = {"run": "runs/demo", "block": "3"}
    test = alive(open_page(BLOCKS, PROJECT / "data" / "runs", **page))
    test = alive(test.button(key="ablate_block").click().run())
    jobs = open_workspace(tmp_path / "workspace").list(command="generate")
    dense, without = sorted((job.arguments for job in jobs), key=lambda arguments: arguments["router"] != "none")
    for name in ("model", "prompt", "seed", "steps"):
        assert dense[name] == without[name]
    table = DecisionTable.load(without["router"])
    assert np.argwhere(~table.ran).tolist() == [[0, 3]] and "mask" not in without
    assert "without block 3" in words(test) and "ablate_block" not in [button.key for button in test.button]
    made = open_workspace(tmp_path / "workspace")

    def generated(job, folder: Path) -> dict:
        write_video(np.full((17, 48, 48, 3), 9, np.uint8), folder / job.arguments["out"], 8, {})
        return {}

    work_off(made, generated)
    test = alive(open_page(BLOCKS, PROJECT / "data" / "runs", **page))
    assert "player" in components(test) and "Without block 3" in words(test)
    command = next(one.proto.json for one in test.get("bidi_component") if "--router" in one.proto.json)
    assert Path(without["router"]).name in command and "without.mp4" in command
    for block in ("0", "7"):
        always = alive(open_page(BLOCKS, PROJECT / "data" / "runs", **page | {"block": block}))
        assert "always run" in words(always) and "ablate_block" not in [button.key for button in always.button]


def test_filters_change_what_is_shown(at, captures):
    test = at(sample="2", branch="cond", steps="1-3")
    part = block_values(Run.open(captures / "full"), sample=2, branch="cond", steps=[1, 2, 3])
    assert title(test) == block_finding(part.by_block())
    assert "n\u00a0=\u00a01\u00a0sample." in title(test)


def test_a_run_without_the_parts_says_how_to_capture_them(at, captures):
    test = at(name="plain", lens="ffn")
    assert title(test) == "Feed-forward was not captured in this run"
    assert "block_map" not in components(test)
    assert "Not captured in this run: self-attention, cross-attention, feed-forward" in words(test)
    command = capture_command(Run.open(captures / "plain"))
    assert [code.value for code in test.code] == [command, command]
    line = shlex.split(command)
    assert cli.check_words(line[1], line[2:]) is None
    whole = at(name="plain")
    assert components(whole) == ["copy_button", "block_map", "head_grid"]


def test_one_step_and_one_sample_have_no_interval(at):
    test = at(name="single")
    assert "[" not in title(test) and "n\u00a0=\u00a01\u00a0sample." in title(test)
    assert "nan" not in (title(test) + words(test)).lower()


@pytest.mark.parametrize("page", [BLOCKS, HEADS])
def test_a_sample_that_is_missing_shows_as_missing(at, page, tmp_path):
    run = make_sampled_run(tmp_path / "captures" / "partial", 3, 4, steps=2, samples=3)
    (run.folder / "summary.safetensors").unlink()
    (run.folder / "samples" / "00002.safetensors").unlink()
    test = at(page, "partial", folder=tmp_path / "captures", sample="2")
    assert title(test) == "Nothing was captured in this part of the run."


@pytest.mark.parametrize(("cell", "name"), [(UNIFORM_HEAD, "uniform"), (SINK_HEAD, "first-frame sink")])
def test_a_marked_head_is_never_called_temporal_alone(at, cell, name):
    test = at(HEADS, block=str(cell[0]), head=str(cell[1]))
    bodies = "".join(html.proto.body for html in test.get("html"))
    assert f"Block {cell[0]}, head {cell[1]} · temporal · {name}" in bodies
    text = words(test)
    assert re.search(r"entropy \d\.\d+ ± \d\.\d+ nats, uniform log 324 = 5\.78", text)
    assert re.search(r"first-frame share 0\.\d+ ± 0\.\d+, uniform 1/9 = 0\.111", text)
    assert f"**{name[0].upper()}{name[1:]}**" in text
    assert "2 temporal ones are uniform or first-frame sinks" in title(test)


def test_the_card_has_a_frame_map_or_says_why_not(at):
    test = at(HEADS, block="3", head="3")
    assert "frame_map" in components(test)
    assert "Mean of t 950, 850 · n = 6 samples" in words(test)
    for link in ({"branch": "uncond"}, {"steps": "5-6"}):
        assert "Frame map: not captured in this part of the run." in words(at(HEADS, **link))
    plain = words(at(HEADS, name="plain"))
    assert re.search(
        r"Frame map: not captured in this run\. `pare capture random --mode calibration --out .*plain-again`", plain
    )


def test_both_branches_are_lines_apart(at):
    lines = [trace["name"] for trace in figure(at(HEADS), "cond")["data"]]
    assert {"cond", "uncond"} <= set(lines)
    one = [trace["name"] for trace in figure(at(HEADS, branch="cond"), "ratio")["data"]]
    assert "cond" not in one and "ratio" in one


def test_gaps_of_the_histogram_are_one_click_away(at, tmp_path):
    assert not [button for button in at(HEADS).button if button.key == "use_gaps"]
    ratio = np.linspace(0.2, 0.35, 80).reshape(8, 10)
    ratio[:, 5:] += 0.6
    make_sampled_run(tmp_path / "captures" / "groups", samples=2, ratio=ratio)
    test = at(HEADS, "groups", folder=tmp_path / "captures")
    button = test.button(key="use_gaps")
    tau_s, tau_t = map(float, re.findall(r"τ[st] (0\.\d+)", button.label))
    assert 0.35 < tau_t < 0.5 < tau_s < 0.8
    alive(button.click().run())
    link = link_of(test)
    assert (float(link["ts"]), float(link["tt"])) == (tau_s, tau_t)
    assert not [button for button in test.button if button.key == "use_gaps"]
    # Thresholds elsewhere in the same gaps part the heads alike: nothing to suggest.
    same = at(HEADS, "groups", folder=tmp_path / "captures", ts="0.78", tt="0.38")
    assert not [button for button in same.button if button.key == "use_gaps"]


def test_a_runs_video_plays_beside_the_frame_map(at, tmp_path):
    assert "player" not in components(at(HEADS))
    make_sampled_run(tmp_path / "captures" / "seen", 3, 4, steps=2, samples=3, videos=2)
    test = at(HEADS, "seen", folder=tmp_path / "captures", vf="5", block="1", head="1")
    assert {"player", "frame_map"} <= set(components(test))
    assert link_of(test)["vf"] == "5"
    assert "player" in components(at(HEADS, "seen", folder=tmp_path / "captures", sample="1"))
    without = at(HEADS, "seen", folder=tmp_path / "captures", sample="2")
    assert "player" in components(without) and "Sample 2 has no video here" in words(without)
    (tmp_path / "captures" / "seen" / "videos" / "00000.mp4").write_bytes(b"no video")
    broken = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
    broken.query_params["run"] = "captures/seen"
    broken.run()
    assert not broken.exception and "which cannot be decoded" in broken.error[0].value.replace("\\", "")
