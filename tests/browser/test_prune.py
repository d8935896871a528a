"""The Prune page in a real browser on the bundled run: from a threshold to a mask, a preview in step and a student."""

import os
import re
import signal
import sys
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.waiting import drawn, idle
from workbench.jobs.api import open_workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("prune") / "workspace"


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


def test_from_a_threshold_to_a_student(page: Page, address):
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(payload)))
    page.goto(f"{address}/prune?run=data/runs/demo")
    drawn(page)
    title = page.locator("h1")
    expect(title).to_contain_text("p = 0.3 keeps 7 of 10 heads and 448 of 640 neurons in every block")
    expect(page.locator(".marks")).to_contain_text("removed")
    # Thresholds move in the browser; the mask follows their release.
    sent.clear()
    handle = page.locator(".handle[data-threshold='1'] span").bounding_box()
    x, y = handle["x"] + handle["width"] / 2, handle["y"] + handle["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 60, y, steps=5)
    expect(page.locator(".handle[data-threshold='1']")).not_to_have_attribute("aria-valuenow", "0.3")
    assert sent == []
    page.mouse.up()
    page.wait_for_url(re.compile(r"[?&]tt=0\.[12]"))
    drawn(page)
    page.get_by_role("slider", name="Pruning ratio p").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url(re.compile(r"[?&]p=0\.31"))
    drawn(page)
    page.get_by_role("button", name="Make the mask").click()
    expect(page.get_by_text(re.compile("Made: keeps 56 self-attention heads"))).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="JSON").click()
    assert download.value.suggested_filename == "demo-p0.31.json"
    steps = page.get_by_role("spinbutton", name="Steps")
    steps.fill("2")
    steps.press("Enter")
    idle(page)
    page.get_by_role("button", name="Generate both").click()
    expect(page.locator(".player[data-shown='0']")).to_be_visible()
    expect(page.locator(".pairing")).to_have_text("paired")
    expect(page.locator(".player .lines")).to_contain_text(
        re.compile(r"PSNR of this frame, masked against dense [\d.]+ dB")
    )
    page.locator(".strip").focus()
    page.keyboard.press("End")
    expect(page.locator(".player[data-shown='16']")).to_be_visible()
    page.wait_for_url(re.compile(r"[?&]vf=16"))
    drawn(page)
    page.get_by_role("button", name="Cut the student").click()
    expect(page.get_by_role("heading", name="Error of the cut per block")).to_be_visible()
    # Reload and another tab find all of it again.
    page.reload()
    drawn(page)
    expect(page.locator(".player[data-shown='16']")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Made: [\d,]+ of [\d,]+ parameters"))).to_be_visible()
    expect(page.locator("[data-testid=stAlert]")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_passes_the_accessibility_scan(new_page, address, scheme):
    page = new_page(1280, 720, scheme)
    page.goto(f"{address}/prune?run=data/runs/demo")
    drawn(page)
    main = "document.querySelector('[data-testid=stMain]')"
    assert page.evaluate(f"{main}.scrollWidth - {main}.clientWidth") == 0
    found = Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
