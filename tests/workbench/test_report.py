"""A report: one page with everything inside, every text escaped, the same bytes again, and one line for bad input."""

import doctest
import importlib
import json
import re
import shlex
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from analysis.aggregate import read_cells
from analysis.figures.heads import head_grid
from analysis.findings import finding
from analysis.head_view import default_head
from analysis.marks import head_marks
from analysis.runs import Run
from pare import mask as masks
from pare.errors import InputError
from pare.versions import versions
from tests.sampled_run import make_sampled_run
from workbench import cli
from workbench.commands.mask import mask as make_mask
from workbench.commands.report import report
from workbench.pages.head_card import protected_scores
from workbench.pages.prune_plan import mask_arguments, planned
from workbench.report.build import build_report
from workbench.report.cut import Cut
from workbench.report.page import figure_json, render_report, table_html
from workbench.report.part import Part, Report
from workbench.state import Selection

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \"' &lt; <!-- {{7*7}} \u2028 ünï"
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, texts, and whether every element is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return "\n".join(text for tag, text in self.texts if tag not in ("script", "style"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A run with everything, whose first prompt and whose settings are hostile."""
    made = make_sampled_run(tmp_path_factory.mktemp("report") / "a <b>run</b>", samples=4, videos=2)
    path = made.folder / "run.json"
    document = json.loads(path.read_text())
    document["samples"][0]["prompt"] = HOSTILE
    document["settings"]["negative_prompt"] = HOSTILE
    document["model"]["model_id"] = HOSTILE
    path.write_text(json.dumps(document))
    # Files name the run by its run.json, so the samples are written once more under the new one.
    return rewritten(made, path.read_bytes())


def rewritten(made: Run, manifest: bytes) -> Run:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from analysis.run_files import run_identity

    for path in made.folder.rglob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            metadata = {**(file.metadata() or {}), "run": run_identity(manifest)}
            arrays = {name: file.get_tensor(name) for name in list(file.keys())}
        save_file(arrays, path, metadata=metadata)
    return Run.open(made.folder)


@pytest.fixture(scope="module")
def page(run) -> str:
    return render_report(build_report(run, Selection(block=3, head=1), link="http://127.0.0.1:8501/?block=3&head=1"))


def test_every_text_is_shown_and_none_is_code(page):
    reader = Reader(page)
    assert not reader.open
    figures = [attributes for attributes in reader.all("div") if attributes.get("class") == "figure"]
    kinds = [attributes.get("type") for attributes in reader.all("script")]
    assert (
        kinds.count("application/json") == len(figures) >= 7
        and kinds.count(None) == 2
        and len(kinds) == len(figures) + 2
    )
    assert not reader.all("img") and not reader.all("b")
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    # As the prompt of a sample, the caption of its video, a setting, and the model's name.
    assert reader.text().count(HOSTILE) >= 4
    assert all("<" not in text for tag, text in reader.texts if tag == "script" and text.startswith('{"data"'))


def test_nothing_is_fetched(page):
    reader = Reader(page)
    addresses = [
        (tag, value)
        for tag, attributes in reader.elements
        for name, value in attributes.items()
        if name in ("src", "href", "action", "data", "poster", "srcset")
    ]
    assert {(tag, value.split(":")[0]) for tag, value in addresses} == {
        ("link", "data"),
        ("video", "data"),
        ("a", "http"),
    }
    (policy,) = (each["content"] for each in reader.all("meta") if "http-equiv" in each)
    assert policy.startswith("default-src 'none'") and "http" not in policy and "connect-src" not in policy
    own = "".join(text for tag, text in reader.texts if tag == "style")
    assert "url(" not in own and "@import" not in own
    assert "prefers-color-scheme: dark" in own and "@media print" in own


def test_it_says_what_the_page_says_and_what_made_it(run, page):
    cells, text = read_cells(run), Reader(page).text()
    sentence = finding(
        cells.by_head(),
        cells.by_step(),
        cells.error_by_step(),
        tau_s=0.7,
        tau_t=0.3,
        samples=4,
        marked=head_marks(run).any,
    )
    assert sentence in text
    for part in (
        run.hash,
        str(run.manifest.model["config_hash"]),
        str(run.manifest.model["weight_hash"]),
        "n = 4 samples",
    ):
        assert part in text
    assert all(number in text for number in versions().values())
    assert "pare report" in text and "--block 3 --head 1" in text and "http://127.0.0.1:8501/?block=3&head=1" in text
    assert re.search(rf"Ratio r\n{cells.by_head()[3, 1]:.3f} \[\d\.\d+, \d\.\d+\], n = 4", text)


def test_the_figures_inside_are_those_of_the_run(run, page):
    inside = [json.loads(text) for tag, text in Reader(page).texts if tag == "script" and text.startswith('{"data"')]
    built = build_report(run, Selection(block=3, head=1))
    figures = [part.figure for part in built.parts if part.figure is not None]
    assert inside == [json.loads(figure_json(figure)) for figure in figures]
    (table,) = (part.table for part in built.parts if part.title == "Role of every head")
    expected = json.loads(figure_json(head_grid(table, tau_s=0.7, tau_t=0.3)))
    assert inside[0]["data"] == expected["data"]
    np.testing.assert_allclose(table["ratio"], read_cells(run).by_head().ravel())
    assert set(table["n"]) == {4}


def test_the_same_report_is_the_same_bytes(run, tmp_path):
    first, second = (report(run.folder, out=tmp_path / name / "r.html", tau_s=0.6) for name in ("a", "b"))
    assert (tmp_path / "a/r.html").read_bytes() == (tmp_path / "b/r.html").read_bytes()
    assert first["bytes"] == (tmp_path / "a/r.html").stat().st_size == second["bytes"]
    assert first["videos"] == 2 and first["left_out"] is None


def test_nothing_pinned_shows_the_head_that_the_page_shows(run):
    scores = protected_scores(run, Selection())
    block, head = default_head(read_cells(run).by_head(), scores, Selection().tau_t)
    titles = [part.title for part in build_report(run, Selection()).parts]
    assert any(f"lock {block}, head {head}" in title for title in titles), titles


def test_videos_are_inside_up_to_a_size_and_named_beyond_it(run):
    paths = list(run.videos.values())
    whole = Reader(render_report(build_report(run, Selection())))
    assert [b64decode(each["src"].split(",")[1]) for each in whole.all("video")] == [
        path.read_bytes() for path in paths
    ]
    size = paths[0].stat().st_size
    less = Reader(render_report(build_report(run, Selection(), most_video_bytes=size)))
    assert len(less.all("video")) == 1
    assert "1 of 2 videos" in less.text() and paths[1].name in less.text()
    one = Reader(render_report(build_report(run, Selection(sample=1))))
    assert len(one.all("video")) == 1 and "Sample 1, seed 1" in one.text()


def test_the_videos_of_a_page_come_first_and_each_once(run):
    first, second = run.videos.values()
    html = Reader(render_report(build_report(run, Selection(), videos=[(second, "without block 1: a red 7, seed 1")])))
    assert [b64decode(each["src"].split(",")[1]) for each in html.all("video")] == [
        path.read_bytes() for path in (second, first)
    ]
    assert "without block 1: a red 7, seed 1" in html.text()


def test_a_mask_is_shown_with_what_it_removes(run, tmp_path):
    path = tmp_path / "m.safetensors"
    make_mask(run.folder, out=path, neurons="none", ratio=0.5)
    made = build_report(run, Selection(), cut=None)
    assert "removed" not in made.parts[0].table
    told = report(run.folder, out=tmp_path / "r.html", mask=path)
    assert told["parts"][-1] == "Mask"
    text = Reader((tmp_path / "r.html").read_text()).text()
    removed = int((~masks.load(path).self_heads).sum())
    assert f"{removed} heads that the mask removes are crossed" in text and "--mask" in text
    other = make_sampled_run(tmp_path / "other", blocks=3)
    with pytest.raises(InputError, match="of model random"):
        report(other.folder, out=tmp_path / "no.html", mask=path)
    assert not (tmp_path / "no.html").exists()


def test_the_commands_of_a_report_with_unwritten_settings_make_its_mask_and_the_report(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    selection = Selection(block=2, ratio=0.5, alpha=2.0, tau_t=0.25, neurons="none")
    cut = Cut.of_plan(planned(run, selection), mask_arguments(selection), run.geometry)
    shown = build_report(run, selection, cut=cut)
    lines = [shlex.split(line) for line in shown.command.splitlines()]
    assert [words[:2] for words in lines] == [["pare", "mask"], ["pare", "report"]]
    for words in lines:
        assert cli.main(words[1:]) == 0
    assert np.array_equal(masks.load(tmp_path / "mask.safetensors").self_heads, cut.self_heads)
    again = Reader((tmp_path / "report.html").read_text()).text()
    assert f"{(~cut.self_heads).sum()} heads that the mask removes are crossed" in again and shown.finding in again


@pytest.mark.parametrize(
    "flags",
    [
        ["--head", "1"],
        ["--block", "99"],
        ["--block", "1", "--head", "-1"],
        ["--sample", "9"],
        ["--branch", "third"],
        ["--steps", "4-2"],
        ["--steps", "x"],
        ["--lens", "x"],
        ["--tau-s", "0.1"],
        ["--mask", "missing.safetensors"],
        ["--max-videos", "-1"],
        ["--out", "/"],
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(run, tmp_path, capsys, flags):
    assert cli.main(["report", str(run.folder), "--out", str(tmp_path / "r.html"), *flags]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert all(part in said.err for part in ("got ", "; expected ", "; fix: "))
    assert not list(tmp_path.iterdir())


def test_a_run_without_everything_has_a_shorter_report(tmp_path, capsys):
    from tests.runs_fixture import make_run

    run = make_run(tmp_path / "plain", 3, 4, steps=1, samples=1, num_frames=1)
    assert cli.main(["report", str(run.folder), "--out", str(tmp_path / "r.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert "n\u00a0=\u00a01\u00a0sample." in told["finding"]
    assert "Whole block by timestep" in told["parts"] and not any("frames look" in part for part in told["parts"])
    for path in (run.folder / "samples").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no finished sample"):
        report(run.folder, out=tmp_path / "s.html")


def test_long_tables_say_what_they_leave_out():
    assert "The first 3 of 5 rows" in table_html(pd.DataFrame({"x": range(5)}), most=3)
    assert table_html(pd.DataFrame({"x": [0.5, np.nan], "y": [True, False]})).count("<td") == 4


def test_numbers_without_a_figure_are_open_and_commands_are_code():
    shown = Part("Sizes", "See `pare <info>`.", facts=[("By", "`pare mask`")], table=pd.DataFrame({"block": [1]}))
    empty = Report("t", "f", "pare report", None, "", {"Differs": [], "A": [("Run", "a")]}, [shown])
    text = render_report(empty)
    assert "<summary>Numbers</summary>" not in text and '<td class="number">1</td>' in text
    assert "<code>pare &lt;info&gt;</code>" in text and "<dd><code>pare mask</code></dd>" in text
    assert "Differs" not in text and "<details open><summary>A</summary>" in text


def test_a_figure_cannot_end_its_script():
    text = figure_json(go.Figure(layout={"title": {"text": HOSTILE}}))
    assert "<" not in text and json.loads(text)["layout"]["title"]["text"] == HOSTILE


@pytest.mark.parametrize(
    "name",
    ["components.picture_buttons.component", "pages.chart", "pages.report_button", "pages.student_folder", "recipes",
     "report.cut", "report.page", "video_recipes"],
)  # fmt: skip
def test_examples(name):
    found = doctest.testmod(importlib.import_module(f"workbench.{name}"))
    assert found.attempted and not found.failed
