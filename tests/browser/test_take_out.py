"""What leaves the app in a real browser: pictures and a table of a chart, and a report that opens with no network."""

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from analysis.block_values import block_values
from tests.browser.waiting import drawn
from tests.sampled_run import make_sampled_run

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("take_out")


@pytest.fixture(scope="module")
def run(folder):
    return make_sampled_run(folder / "captures" / "full", videos=1)


@pytest.fixture(scope="module")
def address(serve, folder, run, free_port) -> str:
    (folder / "data").mkdir()
    environment = {
        "PARE_WORKSPACE": str(folder / "workspace"),
        "PARE_FOLDERS": str(folder / "captures"),
        "PARE_DATA": str(folder / "data"),
    }
    port = free_port()
    return serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)


def saved(page: Page, button: Locator, folder: Path) -> Path:
    """What a click on `button` downloads, under its own name."""
    with page.expect_download() as waiting:
        button.click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_pictures_table_and_report_leave_the_app_and_open_offline(page, new_page, address, run, tmp_path):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{address}/blocks?block=2&head=1")
    drawn(page)
    map_corner = page.locator(".st-key-corner_block_map")
    map_corner.get_by_role("button", name="Take out").click()
    popover = page.locator("[data-testid=stPopoverBody]")
    expect(popover.get_by_text("figure = residual_map(")).to_be_visible()
    assert not [url for url in asked if "plotly.min.js" in url], "plotly.js is fetched when it is needed, not before"

    png = saved(page, popover.get_by_role("button", name="PNG"), tmp_path)
    assert png.name == "full-blocks-residual.png"
    with Image.open(png) as picture:
        assert picture.format == "PNG" and picture.size == (1800, 800)
        colours = picture.convert("RGB").getcolors(1_000_000)
        assert len(colours) > 60 and max(colours)[1] == (255, 255, 255)

    svg = ElementTree.parse(saved(page, popover.get_by_role("button", name="SVG"), tmp_path)).getroot()
    assert svg.tag == f"{SVG}svg" and (svg.get("width"), svg.get("height")) == ("900", "400")
    assert svg.find(f"{SVG}title").text.startswith("Whole block: ")
    assert "timestep t" in ElementTree.tostring(svg, "unicode", "text")

    table = pd.read_csv(saved(page, popover.get_by_role("button", name="CSV"), tmp_path))
    pd.testing.assert_frame_equal(table, block_values(run).table(), check_dtype=False)
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)
    page.keyboard.press("Escape")

    report = saved(page, page.locator(".st-key-report").get_by_role("button", name="Report"), tmp_path)
    assert report.name == "full-report.html"
    opens_offline(new_page(scheme="dark"), report)


VIDEO_WIDTH = """() => new Promise((done) => {
    const video = document.querySelector("video");
    const tell = () => done(video.videoWidth);
    if (video.readyState >= 1) tell();
    else video.addEventListener("loadedmetadata", tell);
})"""


def opens_offline(page: Page, report: Path) -> None:
    """The file draws all its figures and plays its video with no network, no request and nothing said in the console."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url.split(":")[0]))
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.context.set_offline(True)
    page.goto(report.as_uri())
    expect(page.locator(".figure .main-svg").first).to_be_visible()
    assert page.locator(".figure").count() >= 8
    assert page.evaluate("[...document.querySelectorAll('.figure')].every((one) => one.querySelector('.main-svg'))")
    assert page.evaluate(VIDEO_WIDTH) == 48
    expect(page.get_by_role("link")).to_contain_text("block=2")
    # Axes are drawn in the ink of the page, which is light on the dark. (The page's policy forbids playwright to wait
    # by evaluating text inside it.)
    tick = page.locator(".figure .xtick text").first
    expect(tick).to_have_css("fill", "rgb(230, 237, 243)")
    page.emulate_media(color_scheme="light")
    expect(tick).to_have_css("fill", "rgb(27, 31, 36)")
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert not Axe().run(page).response["violations"]
    assert asked.count("file") == 1 and set(asked) <= {"file", "data", "blob"}
    assert not said
