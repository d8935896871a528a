"""The Route page in a real browser on the bundled run: lanes are read, turned over, linked, and played as videos."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from analysis.block_values import block_importance
from analysis.runs import Run
from pare.depth.budget import BudgetSchedule
from pare.depth.decision import redecide
from pare.geometry import DEMO
from tests.browser.waiting import drawn, idle
from workbench.components.source import source
from workbench.jobs.api import open_workspace

LEFT, TOP, GAP, RIGHT, BOTTOM = 42, 24, 34, 12, 40


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("route") / "workspace"


@pytest.fixture(scope="module")
def address(serve, workspace, free_port):
    port = free_port()
    environment = {"PARE_WORKSPACE": str(workspace), "PARE_FOLDERS": ""}
    yield serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)
    # The worker outlives its server by design, so the tests end theirs.
    if workspace.is_dir():
        for worker in open_workspace(workspace).workers():
            if worker.alive:
                os.kill(worker.identity.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def decided():
    """Timesteps and decisions of the bundled run at the budget that the page shows first."""
    timesteps, importance = block_importance(Run.open(DEMO.parent / "runs" / "demo"))
    return timesteps, redecide(importance, BudgetSchedule.paper(importance.shape[1]), timesteps=timesteps).ran


def cell(page: Page, shape: tuple[int, int], step: int, block: int) -> tuple[float, float]:
    """The middle of a cell of the lanes on the screen: under the map, whose cells are 14 px high at most."""
    steps, blocks = shape
    box = page.locator(".lanes canvas").bounding_box()
    top = TOP + blocks * min(14, 210 // blocks) + GAP
    width, height = (box["width"] - LEFT - RIGHT) / steps, (box["height"] - top - BOTTOM) / blocks
    return box["x"] + LEFT + (step + 0.4) * width, box["y"] + top + (block + 0.4) * height


def test_a_decision_is_turned_over_linked_and_generated(page: Page, new_page, address, decided):
    timesteps, ran = decided
    page.goto(f"{address}/route?run=data/runs/demo")
    drawn(page)
    lanes, readout = page.locator(".lanes"), page.locator(".lanes .readout")
    expect(page.get_by_text("what an importance router would decide")).to_be_visible()
    expect(lanes).to_have_attribute("data-skipped", str(int((~ran).sum())))
    shown = page.locator(".lanes .legend .key:visible")
    expect(shown).to_have_text(["ran", "skipped", "always runs"])
    for step, block in ((0, 0), (2, 5), (9, 3)):
        page.mouse.move(*cell(page, ran.shape, step, block))
        words = "always runs" if block == 0 else "ran" if ran[step, block] else "skipped"
        expect(readout).to_contain_text(f"block {block} · t {timesteps[step]:.0f} · {words}")
    expect(readout).to_contain_text("from the flip")
    # The first block cannot be turned over; another one can, by mouse and by key.
    page.mouse.click(*cell(page, ran.shape, 4, 0))
    page.mouse.click(*cell(page, ran.shape, 4, 3))
    page.wait_for_url(re.compile(r"[?&]flip=4\.3(&|$)"))
    drawn(page)
    page.locator(".lanes .cells").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"[?&]flip=4\.3-4\.4(&|$)"))
    drawn(page)
    edited = ran.copy()
    edited[4, [3, 4]] = ~edited[4, [3, 4]]
    expect(lanes).to_have_attribute("data-edited", "2")
    expect(lanes).to_have_attribute("data-skipped", str(int((~edited).sum())))
    expect(page.get_by_role("heading", name=re.compile("2 turned over by hand"))).to_be_visible()
    other = new_page()
    other.goto(page.url)
    drawn(other)
    expect(other.locator(".lanes")).to_have_attribute("data-edited", "2")
    expect(other.locator(".lanes")).to_have_attribute("data-skipped", str(int((~edited).sum())))
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("2")
    steps.press("Enter")
    idle(page)
    page.get_by_role("button", name="Generate this table").click()
    expect(page.locator(".player[data-shown='0']")).to_be_visible()
    expect(page.locator(".pairing")).to_have_text("paired")
    # The budget's slider starts from decisions as they are made.
    drawn(page)
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_url(re.compile(r"[?&]kmin=3&kmax=7(&|$)"))
    drawn(page)
    expect(lanes).to_have_attribute("data-edited", "0")
    assert "flip=" not in page.url
    expect(page.locator("[data-testid=stAlert]")).to_have_count(0)


def test_the_lanes_pure_functions(page):
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.lanes = await import(url);
        }""",
        source("canvas.js", "lanes/draw.js"),
    )
    for with_change in ("true", "false"):
        layout = page.evaluate(f"window.layout = lanes.lanesLayout(640, 40, 50, {with_change})")
        assert layout["width"] <= 640 and layout["left"] == LEFT
        middle = "layout.left + 3.5 * layout.cellWidth, layout.top + 2.5 * layout.cellHeight"
        assert page.evaluate(f"lanes.cellAt(layout, {middle})")[:2] == [2, 3]
        for place in ("layout.left - 1, layout.top + 1", "layout.width + 9, layout.top + 1", "99, layout.height - 1"):
            assert page.evaluate(f"lanes.cellAt(layout, {place})") is None
    page.evaluate("window.layout = lanes.lanesLayout(640, 40, 50, true)")
    above = "layout.left + 3.5 * layout.cellWidth, layout.mapTop + 2.5 * layout.changeHeight"
    assert page.evaluate(f"lanes.cellAt(layout, {above})") == [2, 3, True]
    assert page.evaluate("[0, 1, 38, 39].map((block) => lanes.mayTurn(block, 40))") == [False, True, True, False]
