"""The frame map and the player of the Heads page in a real browser: each shows where the other is, without the server."""

import re
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.browser.waiting import drawn
from tests.sampled_run import make_sampled_run


@pytest.fixture(scope="module")
def address(serve, tmp_path_factory, free_port) -> str:
    folder = tmp_path_factory.mktemp("linked")
    make_sampled_run(folder / "captures" / "seen", 3, 4, steps=2, samples=2, videos=1)
    (folder / "data").mkdir()
    environment = {
        "PARE_WORKSPACE": str(folder / "workspace"),
        "PARE_FOLDERS": str(folder / "captures"),
        "PARE_DATA": str(folder / "data"),
    }
    port = free_port()
    return serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)


def test_a_frame_of_the_video_is_marked_in_the_map_and_a_click_there_seeks(page: Page, address):
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(payload)))
    # The map and the player beneath it at once, so that the mouse reaches both.
    page.set_viewport_size({"width": 1440, "height": 1600})
    page.goto(f"{address}/?vf=5&block=1&head=1")
    drawn(page)
    frame_map, player = page.locator(".frame-map"), page.locator(".player")
    expect(page.locator(".player[data-shown='5']")).to_be_visible()
    expect(frame_map).to_have_attribute("data-frame", "3")
    drawn(page)
    sent.clear()
    # While the cursor is held, the mark follows and nothing is sent.
    box = page.locator(".strip canvas").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 12, box["y"] + 20)
    expect(frame_map).to_have_attribute("data-frame", "8")
    assert sent == []
    page.mouse.up()
    page.wait_for_url(re.compile(r"[?&]vf=16"))
    drawn(page)
    cells = page.locator(".frame-map .cells")
    cells.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"[?&]vf=1(&|$)"))
    expect(player).to_have_attribute("data-shown", "1")
    expect(frame_map).to_have_attribute("data-frame", "1")
    canvas = page.locator(".frame-map canvas").bounding_box()
    page.mouse.click(canvas["x"] + 60, canvas["y"] + 24 + (canvas["height"] - 28) * 6.5 / 9)
    expect(player).to_have_attribute("data-shown", "11")
    page.wait_for_url(re.compile(r"[?&]vf=11"))
