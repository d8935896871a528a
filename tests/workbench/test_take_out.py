"""What every chart of every page gives away is what it shows: its Python makes the same figure and table, its command is one."""

import io
import re
import shlex
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from streamlit.testing.v1 import AppTest

from analysis.routes import write_routes
from analysis.runs import Run
from tests.sampled_run import make_sampled_run
from workbench import cli, recipes
from workbench.pages import chart
from workbench.pages.chart import Chart
from workbench.places import PROJECT
from workbench.state import Selection

PAGES = re.findall(r"workbench/pages/(\w+)\.py", (PROJECT / "app.py").read_text())
LEAST = {"heads": 5, "blocks": 3, "prune": 4, "route": 1}
"""Charts that a page has at least on a run with everything; the others may have none before something is chosen."""


@pytest.fixture(autouse=True)
def _here(monkeypatch):
    # The texts name a run as a person at the project's folder would.
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(go.Figure, "show", lambda self: None)


@pytest.fixture
def taken(tmp_path, monkeypatch):
    """taken(page, **link) opens every "Take out" of a page on the bundled data and returns what each one would give."""
    monkeypatch.setenv("PARE_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.delenv("PARE_DATA", raising=False)
    monkeypatch.setattr("workbench.jobs.api.Jobs.ensure_worker", lambda *_, **__: None)

    def open_all(page: str, folders: Path | None = None, **link: str) -> list[Chart]:
        monkeypatch.setenv("PARE_FOLDERS", str(folders or ""))
        found: dict[str, Chart] = {}
        shown = chart.show_ways

        def record(given: Chart) -> None:
            found[given.key] = given
            shown(given)

        monkeypatch.setattr(chart, "show_ways", record)
        test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=60)
        test.switch_page(f"workbench/pages/{page}.py")
        for name, text in link.items():
            test.query_params[name] = text
        test.run()
        assert not found, "nothing is made before it is opened"
        keys = [
            re.search(r"take_out_.*$", each.proto.id)[0] for each in test.get("popover") if "take_out_" in each.proto.id
        ]
        for key in keys:
            test.session_state[key] = True
        test.run()
        assert not test.exception and not [error.value for error in test.error]
        assert {f"take_out_{key}" for key in found} == set(keys)
        monkeypatch.setattr(chart, "show_ways", shown)
        return list(found.values())

    return open_all


def drawn(figure: go.Figure) -> dict[str, Any]:
    """A figure but for its height, which is the page's."""
    found = figure.to_plotly_json()
    found["layout"].pop("height", None)
    return found


def assert_alike(made: Any, shown: Any, where: str = "figure") -> None:
    """Equal, numbers but for rounding: the same sum need not end in the same bits twice."""
    if isinstance(shown, dict) and "bdata" in shown:
        left, right = (np.frombuffer(b64decode(each["bdata"]), each["dtype"]) for each in (made, shown))
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-9, err_msg=where)
    elif isinstance(shown, dict):
        assert set(made) == set(shown), where
        for name, value in shown.items():
            assert_alike(made[name], value, f"{where}.{name}")
    elif isinstance(shown, list | tuple) and len(shown) and isinstance(shown[0], dict):
        assert len(made) == len(shown), where
        for index, value in enumerate(shown):
            assert_alike(made[index], value, f"{where}[{index}]")
    elif (values := np.asarray(shown)).dtype.kind == "f":
        np.testing.assert_allclose(np.asarray(made, float), values, rtol=1e-6, atol=1e-9, err_msg=where)
    else:
        np.testing.assert_array_equal(np.asarray(made), values, err_msg=where)


def check(given: Chart) -> None:
    """The Python makes the chart's figure and table, and the command line is one of ours."""
    made: dict[str, Any] = {}
    exec(given.python, made)
    figure = given.figure() if callable(given.figure) else given.figure
    assert_alike(drawn(made["figure"]), drawn(figure))
    assert given.alt and re.fullmatch(r"[\w.-]+", given.name)
    if given.table is not None:
        table = given.table() if callable(given.table) else given.table
        pd.testing.assert_frame_equal(made["table"].reset_index(drop=True), table.reset_index(drop=True))
        again = pd.read_csv(io.BytesIO(chart.csv(given.table)))
        assert list(again.columns) == list(table.columns) and len(again) == len(table) > 0
    if given.command is not None:
        for line in given.command.splitlines():
            command = shlex.split(line)
            assert command[0] == "pare"
            cli.check_words(command[1], command[2:])


@pytest.mark.parametrize("page", PAGES)
def test_every_chart_of_a_page_is_made_again_by_its_own_words(taken, page):
    found = taken(page, run="data/runs/demo")
    assert len(found) >= LEAST.get(page, 0)
    for given in found:
        check(given)


@pytest.mark.parametrize("page", sorted(LEAST))
def test_the_words_name_the_part_of_the_run_that_is_shown(taken, page):
    found = taken(
        page, run="data/runs/demo", steps="2-4", block="3", head="1", ts="0.6", tt="0.2", lens="cosine", p="0.5"
    )
    for given in found:
        check(given)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A folder with two runs that were measured alike."""
    folder = tmp_path_factory.mktemp("pair")
    for seed, name in enumerate("ab"):
        make_sampled_run(folder / name, blocks=4, steps=4, samples=3, seed=seed)
    return folder


@pytest.mark.parametrize("view", ["scatter", "difference"])
def test_other_views_of_all_heads_are_made_again_too(taken, pair, view):
    # "with" is the run that a difference is taken to.
    names = [f"{pair.name}/{name}" for name in "ab"]
    found = taken("heads", pair, run=names[0], view=view, steps="0-2", **{"with": names[1]})
    assert any(view in given.python for given in found)
    for given in found:
        check(given)


@pytest.fixture(scope="module")
def routed(tmp_path_factory) -> Path:
    """A folder with a run of three samples whose router looked at the content."""
    folder = tmp_path_factory.mktemp("routed")
    run = make_sampled_run(folder / "run", blocks=6, steps=4, samples=3)
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(3, 4, 6))
    sample, step, block = np.indices(scores.shape)
    ran = (scores > 0) | (block == 0) | (block == 5)
    columns = {
        "sample": sample,
        "step": step,
        "timestep": run.timesteps[step],
        "block": block,
        "score": scores,
        "ran": ran,
    }
    columns |= {"distance": np.full(scores.shape, 0.5), "asked": ran.mean(axis=2, keepdims=True) + 0 * scores}
    columns["achieved"] = columns["asked"]
    frame = pd.DataFrame({name: np.asarray(values).ravel() for name, values in columns.items()})
    write_routes(run.folder, frame.astype({"sample": "int32", "step": "int32", "block": "int32"}), run.identity)
    return folder


@pytest.mark.parametrize("link", [{"sample": "1"}, {"vs": "2"}, {"kmin": "3", "kmax": "5", "flip": "1.2-2.3"}])
def test_recorded_decisions_are_made_again_too(taken, routed, link):
    found = taken("route", routed, run=f"{routed.name}/run", **link)
    assert {"lanes_recorded", "disagreement"} <= {given.key for given in found}
    for given in found:
        check(given)


def test_the_router_of_a_block_is_made_again_too(taken, routed):
    found = {given.key: given for given in taken("blocks", routed, run=f"{routed.name}/run", block="2")}
    check(found["block_router"])


def test_a_mask_file_and_a_missing_table_have_words_too(tmp_path):
    run = Run.open("data/runs/demo")
    path = tmp_path / "it's a mask.safetensors"
    assert cli.main(["mask", "data/runs/demo", "--neurons", "none", "--out", str(path)]) == 0
    made: dict[str, Any] = {}
    for text in (recipes.head_grid(run, Selection(), mask_file=path), recipes.kept_in_mask(run, path)):
        exec(text, made)
    assert set(made["table"]["part"]) == {"self_heads", "cross_heads", "neurons"}
    assert made["counts"]["self_heads"] == [7] * 8


def test_the_command_of_a_filtered_view_gives_the_numbers_of_the_view(taken, tmp_path, capsys):
    link = {"run": "data/runs/demo", "steps": "2-4", "sample": "7", "tt": "0.2"}
    (grid,) = [given for given in taken("heads", **link) if given.key == "head_grid"]
    words = shlex.split(str(grid.command))
    assert cli.main([*words[1:], "--csv", str(tmp_path / "heads.csv")]) == 0
    assert "over 1 sample x 3 timesteps" in capsys.readouterr().out
    made = pd.read_csv(tmp_path / "heads.csv", keep_default_na=False).sort_values(["block", "head"])
    table = grid.table() if callable(grid.table) else grid.table
    shown = table.sort_values(["block", "head"])
    assert made["role"].tolist() == shown["role"].tolist()
    np.testing.assert_allclose(made["ratio"], shown["ratio"], rtol=1e-6)


def test_a_hostile_folder_stays_inside_its_quotes(tmp_path):
    name = "it's \"; raise SystemExit('no') #"
    run = make_sampled_run(tmp_path / name, blocks=3, steps=2, samples=2)
    made: dict[str, Any] = {}
    exec(recipes.roles_per_block(run, Selection()), made)
    assert len(made["table"]) == 3
    assert shlex.split(recipes.report_command(run, Selection()))[2] == str(run.folder)


def test_png_and_svg_are_offered_where_the_server_has_what_draws_them(taken, monkeypatch):
    buttons: list[dict[str, Any]] = []
    monkeypatch.setattr(chart, "picture_buttons", lambda figure, **given: buttons.append(given))
    taken("blocks", run="data/runs/demo")
    assert not buttons
    monkeypatch.setenv("PARE_ROUTES", "1")
    taken("blocks", run="data/runs/demo")
    assert len(buttons) == 3 and len({each["name"] for each in buttons}) == 3
    assert all(each["script"].startswith("/api/plotly.min.js?v=") for each in buttons)


def test_a_student_leaves_as_its_folder_with_its_card(tmp_path):
    folder = tmp_path / "my student"
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "weights.safetensors").write_bytes(b"0" * 2500)
    (folder / "vae").symlink_to(tmp_path)

    def page(path: str) -> None:
        from pathlib import Path

        from workbench.pages.student_folder import show_student_folder

        show_student_folder(Path(path), key="student")

    test = AppTest.from_function(page, args=(str(folder),)).run()
    assert not test.exception and not test.get("download_button")
    assert test.code[0].value == str(folder) and "2.5 kB" in test.caption[0].value
    (folder / "README.md").write_text("# A student\n")
    test.run()
    assert [each.proto.label for each in test.get("download_button")] == ["Card (.md)"]
    assert "with its card" in test.caption[0].value and len(test.get("bidi_component")) == 2
