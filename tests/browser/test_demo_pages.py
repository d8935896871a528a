"""Pages on the bundled data in a real browser: what a link opens is there, fits, passes a scan, and is in sight at once."""

import re
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from analysis.evidence.answer import QUESTIONS
from pare.geometry import DEMO
from tests.browser.waiting import drawn, resized
from workbench.commands.mask import mask
from workbench.state import COMPARED, VIEWS

CHARTS = {
    "roles": "agreement",
    "premise": "motion",
    "alpha": "picks",
    "scores": "correlations",
    "routes": "attributes",
    "averages": "roles",
}
"""Question of Evidence → the chart that answers it, by which a page with the answer is told from one without."""
EVIDENCE = {
    f"evidence?ask={question}": f".st-key-chart_evidence_{chart} .main-svg" for question, chart in CHARTS.items()
}
# Of the bundled runs only those along trajectories have the same timesteps, so that they can be subtracted.
HEADS = {
    "?view=scatter&x=value_norm&color=importance": ".st-key-chart_head_scatter .main-svg",
    "?run=data/runs/demo-videos&view=difference&with=data/runs/demo-joint": ".difference-grid canvas",
}
COMPARE = {
    "compare?kind=masks&a=workspace/masks/a.safetensors&b=workspace/masks/b.safetensors": (
        ".st-key-chart_agreement_self_heads .main-svg"
    ),
    "compare?kind=students&a=data/demo&b=data/students/width": ".st-key-compare_table_student_scores table",
    "compare?kind=videos&a=data/evaluations/demo&b=data/evaluations/width": ".st-key-compare_player .player[data-shown]",
}
"""Link → what is on its page only where the link was followed and all of its data was found."""


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory, free_port) -> str:
    workspace: Path = tmp_path_factory.mktemp("demo-pages") / "workspace"
    (workspace / "masks").mkdir(parents=True)
    # No mask is bundled. The demo's own are made in a second.
    for name, ratio in (("a", 0.3), ("b", 0.5)):
        mask(DEMO.parent / "runs" / "demo", out=workspace / "masks" / f"{name}.safetensors", ratio=ratio, device="cpu")
    port = free_port()
    environment = {"PARE_WORKSPACE": str(workspace), "PARE_FOLDERS": ""}
    return serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)


def opened(page: Page, address: str, link: str, shown: str) -> None:
    """Go to the link's page and wait until what it is about is there, and nothing says that something went wrong."""
    page.goto(f"{address}/{link}")
    drawn(page)
    expect(page.locator(shown).first).to_be_visible()
    drawn(page)
    expect(page.locator("[data-testid=stAlert], [data-testid=stException]")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("link", EVIDENCE | HEADS | COMPARE)
def test_every_question_view_and_kind_fits_and_passes_the_accessibility_scan(new_page, address, scheme, link):
    page = new_page(scheme=scheme)
    opened(page, address, link, (EVIDENCE | HEADS | COMPARE)[link])
    # What a smaller window moves is the same in both.
    for size in ((1440, 900), (1280, 720)) if scheme == "light" else ((1440, 900),):
        resized(page, *size)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_no_question_view_or_kind_is_left_out():
    # The head grid and the comparison of runs are scanned on runs that their tests make (test_app.py, test_compare.py).
    assert set(CHARTS) == set(QUESTIONS)
    assert {found for link in HEADS for found in re.findall(r"[?&]view=(\w+)", link)} == set(VIEWS) - {"grid"}
    assert {found for link in COMPARE for found in re.findall(r"[?&]kind=(\w+)", link)} == set(COMPARED) - {"runs"}


@pytest.mark.parametrize(
    ("link", "main"),
    [
        *((link, shown.removesuffix(" .main-svg") + " .js-plotly-plot") for link, shown in EVIDENCE.items()),
        ("prune?run=data/runs/demo", ".cells canvas"),
        ("prune?run=data/runs/demo", ".ratios canvas"),
        ("route?run=data/runs/demo", ".lanes canvas"),
        # With recorded decisions there are two sets of lanes, under a box that chooses the sample.
        ("route?run=data/runs/demo-joint", ".lanes canvas"),
    ],
)
def test_what_a_page_is_about_is_in_sight_without_scrolling(page, address, link, main):
    opened(page, address, link, main)
    boxes = [one.bounding_box() for one in page.locator(main).all()]
    assert boxes
    for box in boxes:
        assert box is not None and box["width"] > 100 and box["height"] > 100, "it is drawn at a size to be read at"
        assert box["y"] > 0 and box["y"] + box["height"] <= 900
        assert box["x"] > 0 and box["x"] + box["width"] <= 1440
