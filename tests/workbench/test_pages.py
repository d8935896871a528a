"""Every page on an empty workspace, on a run and on damaged ones: it says what to do and never breaks."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.aggregate import read_cells
from analysis.findings import finding
from analysis.head_view import default_head
from analysis.runs import Run
from tests.runs_fixture import make_run
from workbench import cli
from workbench.commands.mask import mask as mask_command
from workbench.jobs.api import open_workspace
from workbench.pages.mask_panel import export_mask, head_plan, removed_heads
from workbench.places import PROJECT, Places
from workbench.state import Selection

PAGES = {name: f"workbench/pages/{name}.py" for name in ("heads", "blocks", "prune", "route", "runs", "jobs")}


@pytest.fixture(scope="session")
def fixture_runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("captures")
    make_run(folder / "first", branches=("cond", "uncond"))
    make_run(folder / "second", 4, 6, steps=1, samples=1, num_frames=5)
    return folder


@pytest.fixture
def at(tmp_path, monkeypatch):
    """at(page, folder, **link) runs a page on the workspace tmp_path/workspace."""
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("workbench.jobs.api.Jobs.ensure_worker", lambda *_, **__: None)

    def run(page: str, folder: Path | None = None, **link: str) -> AppTest:
        monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
        monkeypatch.setenv("PARE_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("PARE_FOLDERS", str(folder or ""))
        test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
        test.switch_page(PAGES[page])
        for name, text in link.items():
            test.query_params[name] = text
        return test.run()

    return run


def words(test: AppTest) -> str:
    shown = [*test.title, *test.markdown, *test.code, *test.caption, *test.error, *test.warning]
    return "\n".join(str(one.value) for one in shown).replace("\\", "")


def link_of(test: AppTest) -> dict[str, str]:
    return {name: values[0] if isinstance(values, list) else values for name, values in test.query_params.items()}


def alive(test: AppTest, errors: int = 0) -> None:
    assert not test.exception
    assert len(test.error) == errors, [error.value for error in test.error]
    for error in test.error:
        line = error.value.replace("\\", "")
        assert "\n" not in line and all(part in line for part in ("got ", "; expected ", "; fix: "))


@pytest.mark.parametrize("page", PAGES)
def test_an_empty_workspace_says_which_command_fills_it(at, page, tmp_path):
    test = at(page)
    alive(test)
    command = "pare jobs submit" if page == "jobs" else "pare capture demo --out"
    (code,) = [shlex.split(code.value) for code in test.code if command in code.value]
    cli.check_words(code[1], code[2:])
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("damage", ["no json", "foreign", "summary", "sample", "weights", "no samples"])
def test_a_damaged_run_is_one_line_and_the_page_lives(at, page, damage, tmp_path):
    run = make_run(tmp_path / "captures" / "bad", 3, 4, steps=2, samples=2)
    files = {"summary": "summary.safetensors", "sample": "samples/00001.safetensors", "weights": "weights.safetensors"}
    target = files.get(damage, "run.json")
    if damage == "no samples":
        (run.folder / "summary.safetensors").unlink()
        for path in (run.folder / "samples").iterdir():
            path.unlink()
    else:
        (run.folder / target).write_bytes(b'{"schema": "other/9"}' if damage == "foreign" else b"\x00damaged")
    make_run(tmp_path / "captures" / "good", 3, 4, steps=2, samples=2)
    test = at(page, tmp_path / "captures", run="captures/bad")
    assert not test.exception
    if damage == "no samples":
        alive(test)
        assert page not in ("heads", "blocks") or "--resume" in words(test)
    elif page == "heads" or damage in ("no json", "foreign"):
        assert test.error
        alive(test, len(test.error))
    again = test.selectbox(key="run_picker").set_value("captures/good").run()
    assert not again.exception
    if page == "heads":
        alive(again)
        assert len(again.get("bidi_component")) >= 1


@pytest.mark.parametrize("page", PAGES)
def test_every_page_shows_a_run(at, page, fixture_runs):
    alive(at(page, fixture_runs))


def test_the_first_look_needs_no_click(at, fixture_runs):
    test = at("heads", fixture_runs)
    cells = read_cells(Run.open(fixture_runs / "first"))
    expected = finding(
        cells.by_head(), cells.by_step(), cells.error_by_step(), tau_s=0.7, tau_t=0.3, samples=cells.samples
    )
    assert test.title[0].value.replace("\\", "") == expected
    assert len(test.get("plotly_chart")) == 4
    text = words(test)
    assert "n = 6 samples" in text and "uniform 1/9 = 0.111" in text
    assert "| PARE (Eq. 3) |" in text and "of 80 |" in text
    assert "mask_sliders" in [one.proto.component_name.split(".")[-1] for one in test.get("bidi_component")]


def test_a_link_is_the_view(at, fixture_runs):
    link = {"run": "first", "block": "4", "head": "9", "steps": "2-5", "branch": "uncond", "sample": "3"}
    link |= {"ts": "0.8", "tt": "0.2", "alpha": "2", "p": "0.5"}
    link["run"] = f"{fixture_runs.name}/first"
    test = at("heads", fixture_runs, **link)
    alive(test)
    assert link_of(test) == link
    assert test.selectbox(key="branch_filter").value == "uncond"
    assert test.slider(key="step_filter").value == (2, 5)
    assert test.selectbox(key="sample_filter").value == 3
    text = words(test)
    cells = read_cells(Run.open(fixture_runs / "first"), sample=3, branch="uncond", steps=[2, 3, 4, 5])
    assert f"r = {cells.by_head()[4, 9]:.3f}" in text and "n = 1 sample" in text
    assert "The mask uses all samples and steps" in text


def test_widgets_change_the_link_and_other_pages_keep_it(at, fixture_runs):
    test = at("heads", fixture_runs, p="0.4")
    test.slider(key="step_filter").set_value((0, 3)).run()
    assert link_of(test) == {"run": f"{fixture_runs.name}/first", "p": "0.4", "steps": "0-3"}
    test.switch_page(PAGES["jobs"]).run()
    test.switch_page(PAGES["heads"]).run()
    alive(test)
    assert test.slider(key="step_filter").value == (0, 3) and link_of(test)["p"] == "0.4"
    test.slider(key="step_filter").set_value((0, 9)).run()
    assert link_of(test) == {"run": f"{fixture_runs.name}/first", "p": "0.4"}


def test_a_bad_link_falls_back_and_says_so(at, fixture_runs):
    test = at("heads", fixture_runs, run="../../etc", block="99", head="1", ts="<b>x</b>", bogus="$x$ :red[y]")
    alive(test)
    assert len(test.warning) == 4
    shown = [warning.value for warning in test.warning]
    assert any(r"\<b\>x\<\/b\>" in text or r"\<b\>x\</b\>" in text for text in shown)
    test.run()
    assert not test.warning


def test_the_pinned_head_comes_from_the_grid(at, fixture_runs):
    test = at("heads", fixture_runs, block="2", head="3")
    alive(test)
    assert any("Block 2, head 3" in html.proto.body for html in test.get("html"))


def test_one_click_opens_a_run(at, fixture_runs):
    test = at("runs", fixture_runs)
    name = f"{fixture_runs.name}/second"
    text = words(test)
    assert "8 × 10 heads" in text and "4 × 6 heads" in text and "calibration" in text
    test.button(key=f"open-{name}").click().run()
    alive(test)
    assert link_of(test)["run"] == name


def test_a_run_of_one_sample_and_step_has_no_interval(at, fixture_runs):
    test = at("heads", fixture_runs, run=f"{fixture_runs.name}/second")
    alive(test)
    text = words(test)
    assert "n = 1 sample" in text and "nan" not in text.lower()
    assert not [box for box in test.selectbox if box.key == "sample_filter"]


def test_a_prompt_becomes_a_job_that_can_be_cancelled(at, tmp_path):
    (tmp_path / "models" / "one").mkdir(parents=True)
    (tmp_path / "models" / "one" / "model_index.json").write_text("{}")
    test = at("heads", tmp_path / "models")
    assert "20 steps of demo on cpu: 146.6 GFLOP, " in words(test)
    # A form sends its fields together, with its button.
    test.selectbox(key="generate_model").set_value("models/one")
    test.text_input(key="prompt").set_value("a blue 3 *standing* still")
    test.button[0].click().run()
    alive(test)
    (job,) = open_workspace(tmp_path / "workspace").list()
    assert (job.command, job.arguments["prompt"]) == ("generate", "a blue 3 *standing* still")
    assert Path(job.arguments["model"]) == (tmp_path / "models" / "one").resolve()
    test.button(key=f"cancel-{job.id}").click().run()
    alive(test)
    assert open_workspace(tmp_path / "workspace").status(job.id).state == "cancelled"
    assert "Cancelled" in words(test)
    # What was asked for last is in the fields again, in a session that never typed it.
    again = at("heads", tmp_path / "models")
    assert again.text_input(key="prompt").value == "a blue 3 *standing* still"
    assert again.selectbox(key="generate_model").value == "models/one"


def test_generating_is_folded_away_until_it_is_asked_for_or_has_made_something(at, tmp_path):
    make_run(tmp_path / "folder" / "run")
    (tmp_path / "folder" / "model").mkdir()
    (tmp_path / "folder" / "model" / "model_index.json").write_text("{}")

    def shown(test: AppTest) -> bool:
        alive(test)
        return "generate_model" in [box.key for box in test.selectbox]

    test = at("heads", tmp_path / "folder")
    assert not shown(test)
    test.session_state["generate_panel"] = True
    assert shown(test.run())
    arguments = {"model": "demo", "prompt": "a", "out": "v.mp4"}
    open_workspace(tmp_path / "workspace").submit("generate", arguments, start=False)
    assert shown(at("heads", tmp_path / "folder"))


def test_a_job_can_be_cancelled_resumed_and_read(at, tmp_path):
    jobs = open_workspace(tmp_path / "workspace")
    job = jobs.submit("generate", {"model": "demo", "prompt": "a <b>7</b>", "out": "v.mp4"}, start=False)
    test = at("jobs")
    alive(test)
    text = words(test)
    assert "queued" in text and "a <b>7</b>" in text
    test.button(key=f"cancel-{job}").click().run()
    assert "cancelled" in words(test)
    test.button(key=f"resume-{job}").click().run()
    alive(test)
    assert jobs.status(job).state == "queued"
    test.toggle(key=f"log-{job}").set_value(True).run()
    assert any("The log is empty" in code.value for code in test.code)


def test_the_app_never_imports_torch(fixture_runs, tmp_path):
    script = f"""
import sys
from streamlit.testing.v1 import AppTest
test = AppTest.from_file({str(PROJECT / "app.py")!r}, default_timeout=60).run()
assert not test.exception and not test.error, (test.exception, test.error)
for page in {[*PAGES.values(), "workbench/pages/train.py"]!r}:
    test.switch_page(page).run()
    assert not test.exception and not test.error
import workbench.server
heavy = {{"torch", "diffusers", "transformers", "captum", "accelerate", "peft"}} & set(sys.modules)
assert not heavy, heavy
"""
    environment = {
        **os.environ,
        "PARE_WORKSPACE": str(tmp_path / "workspace"),
        "PARE_FOLDERS": str(fixture_runs),
        "PYTHONPATH": str(PROJECT),
    }
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]


def test_mean_of_nothing_is_no_head():
    assert default_head(np.full((2, 2), np.nan), None, 0.3) is None
    assert default_head(np.array([[0.9, 0.8]]), None, 0.3) == (0, 1)


def test_the_exported_mask_is_the_commands_own(fixture_runs, tmp_path):
    run, places = Run.open(fixture_runs / "first"), Places(tmp_path / "workspace")
    selection = Selection(ratio=0.4, tau_s=0.6, tau_t=0.2, alpha=2.0, branch="uncond")
    content, shown = export_mask(run, selection, places)
    mask_command(
        run.folder,
        out=tmp_path / "m.safetensors",
        ratio=0.4,
        tau_s=0.6,
        tau_t=0.2,
        alpha=2.0,
        branch="uncond",
        neurons="none",
    )
    assert (tmp_path / "m.safetensors").read_bytes() == content
    assert np.array_equal(~shown.self_heads, removed_heads(head_plan(run, selection)))
    assert list(places.workspace.iterdir()) == []


def test_a_capture_at_work_shows_what_is_there(at, tmp_path):
    run = make_run(tmp_path / "captures" / "partial", 3, 4, steps=2, samples=3)
    (run.folder / "summary.safetensors").unlink()
    (run.folder / "samples" / "00002.safetensors").unlink()
    test = at("heads", tmp_path / "captures")
    alive(test)
    assert "n = 2 samples" in test.title[0].value.replace("\\", "").replace("\u00a0", " ")
    missing = at("heads", tmp_path / "captures", sample="2", block="1", head="1")
    alive(missing)
    assert "Nothing was captured" in missing.title[0].value
    assert "Not captured in this part of the run" in words(missing)
    assert "2 of 3" in words(at("runs", tmp_path / "captures"))


def test_the_ends_of_every_range_are_shown(at, fixture_runs):
    for link in (
        {"p": "0.99", "alpha": "100", "ts": "1", "tt": "0"},
        {"p": "0.01", "alpha": "1", "ts": "0.01", "tt": "0"},
    ):
        test = at("heads", fixture_runs, **link)
        alive(test)
        assert not test.warning
        test.toggle(key="show_removed").set_value(True).run()
        alive(test)


def test_a_video_plays_without_the_routes_too(tmp_path, monkeypatch):
    monkeypatch.delenv("PARE_ROUTES", raising=False)
    (tmp_path / "v.mp4").write_bytes(b"video")

    def page(folder: str) -> None:
        from pathlib import Path

        from workbench.pages.job_view import show_video
        from workbench.places import Places

        show_video(Places(Path(folder)), Path(folder) / "v.mp4", 'a "red" <7>')

    plain = AppTest.from_function(page, args=(str(tmp_path),)).run()
    assert not plain.exception and len(plain.get("video")) == 1
    monkeypatch.setenv("PARE_ROUTES", "1")
    routed = AppTest.from_function(page, args=(str(tmp_path),)).run()
    (html,) = routed.get("html")
    assert 'src="/api/video/workspace/v.mp4"' in html.proto.body
    assert "a &quot;red&quot; &lt;7&gt;" in html.proto.body


def test_the_bundled_run_opens_with_no_click(tmp_path, monkeypatch):
    for name in ("PARE_DATA", "PARE_FOLDERS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60).run()
    alive(test)
    assert "n = 200 samples" in words(test)
    assert "data/runs/demo" in [box.value for box in test.selectbox] or "demo" in words(test)


def test_another_run_is_opened_without_what_only_the_first_one_has(at, tmp_path):
    make_run(tmp_path / "captures" / "long", 3, 4, steps=8, samples=5, branches=("cond", "uncond"))
    make_run(tmp_path / "captures" / "short", 2, 3, steps=2, samples=2)
    link = {"steps": "5-7", "branch": "uncond", "sample": "4", "block": "2", "head": "3", "tt": "0.2"}
    test = at("heads", tmp_path / "captures", run="captures/long", **link)
    alive(test)
    assert not test.warning
    again = test.selectbox(key="run_picker").set_value("captures/short").run()
    alive(again)
    # Nobody typed a link that could be wrong.
    assert not again.warning
    assert again.session_state["shown_selection"].tau_t == 0.2
