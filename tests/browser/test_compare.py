"""The Compare page in a real browser: B − A is read and a head chosen by mouse and keyboard, and the page passes a scan."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from analysis.run_difference import run_difference
from analysis.runs import Run
from tests.browser.waiting import drawn, resized
from tests.sampled_run import make_sampled_run
from workbench.components.source import source

LEFT, TOP = 42, 42


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("compare") / "captures"
    ratio = np.random.default_rng(0).uniform(0.1, 0.9, (8, 10))
    moved = ratio.copy()
    moved[4, 6] = 0.95 - moved[4, 6] / 10
    a, b = ((folder / name, seed, each) for name, seed, each in (("a", 0, ratio), ("b", 1, moved)))
    return tuple(make_sampled_run(path, samples=3, steps=3, seed=seed, ratio=each) for path, seed, each in (a, b))


@pytest.fixture(scope="module")
def address(serve, runs, free_port) -> str:
    folder: Path = runs[0].folder.parents[1]
    (folder / "data").mkdir()
    environment = {
        "PARE_WORKSPACE": str(folder / "workspace"),
        "PARE_FOLDERS": str(folder / "captures"),
        "PARE_DATA": str(folder / "data"),
    }
    port = free_port()
    return serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)


def opened(page: Page) -> Page:
    drawn(page)
    page.locator(".difference-grid canvas").wait_for()
    return page


def test_a_difference_is_read_by_pointer_and_keyboard_and_a_head_chosen(page, address, runs):
    page.goto(f"{address}/compare")
    opened(page)
    found = run_difference(*runs)
    grid = page.locator(".difference-grid")
    box = grid.locator("canvas").bounding_box()
    width, height = (box["width"] - LEFT - 4) / 10, (box["height"] - TOP - 4) / 8
    page.mouse.move(box["x"] + LEFT + 6.5 * width, box["y"] + TOP + 4.5 * height)
    sign = "+" if found.difference[4, 6] > 0 else "−"
    expect(grid.locator(".readout")).to_have_text(re.compile(rf"^block 4, head 6 · B − A \{sign}"))
    shown = float(re.search(r"B − A [+−]([\d.]+)", grid.locator(".readout").inner_text())[1])
    assert shown == pytest.approx(abs(found.difference[4, 6]), rel=5e-3)
    page.mouse.click(box["x"] + LEFT + 6.5 * width, box["y"] + TOP + 4.5 * height)
    page.wait_for_url(re.compile(r"[?&]block=4&head=6"))
    opened(page)
    grid.locator(".cells").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowLeft")
    expect(grid.locator(".live")).to_have_text(re.compile(r"^block 5, head 5 · B − A .*, B 0\.\d+ \w+ · n 3$"))
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"[?&]block=5&head=5"))
    expect(grid.locator("#cell")).to_have_attribute("aria-selected", "true")
    assert grid.locator(".cells").bounding_box()["y"] + grid.locator(".cells").bounding_box()["height"] < 900


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_passes_the_accessibility_scan(new_page, address, scheme):
    page = new_page(scheme=scheme)
    page.goto(f"{address}/compare")
    opened(page)
    for size in ((1440, 900), (1280, 720)):
        resized(page, *size)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_the_grids_pure_functions(page):
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.grid = await import(url);
        }""",
        source("canvas.js", "difference_grid/draw.js"),
    )
    layout = page.evaluate("window.layout = grid.gridLayout(600, 8, 10)")
    assert layout["width"] <= 600 and (layout["left"], layout["top"]) == (LEFT, TOP)
    middle = "layout.left + 3.5 * layout.cellWidth, layout.top + 2.5 * layout.cellHeight"
    assert page.evaluate(f"grid.headAt(layout, {middle})") == [2, 3]
    assert page.evaluate("grid.headAt(layout, 10, layout.top + 5)") is None
    assert page.evaluate("[0.1234, -2, 0, NaN].map(grid.signed)") == ["+0.123", "−2", "±0", "–"]
    words = "([value, clear, width]) => grid.cellWords(value, clear, width, 20)"
    cases = [
        ([0.254, 0, 50], "+.25"),
        ([-0.001, 0, 50], ".00"),
        ([-0.2, 1, 14], "−"),
        ([-0.2, 0, 14], ""),
        ([0.2, 1, 8], ""),
    ]
    for given, expected in cases:
        assert page.evaluate(words, given) == expected
