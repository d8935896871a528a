"""The video player on a real Streamlit page in a real browser; every video frame carries its number as its brightness."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from pare.video import write_video
from tests.browser.waiting import drawn
from workbench.components.source import source

HARNESS = Path(__file__).with_name("harness_player.py")
FRAMES, LEVEL = 17, 14
FIND = """[...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
    .map((host) => host.shadowRoot.querySelector(".player")).find(Boolean)"""


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> list[str]:
    """Two videos whose frame n is LEVEL·n bright everywhere, the second one with a darker right half; one other seed."""
    folder = tmp_path_factory.mktemp("videos")
    frames = np.broadcast_to((LEVEL * np.arange(FRAMES, dtype=np.uint8))[:, None, None, None], (FRAMES, 48, 48, 3))
    half = frames.copy()
    half[:, :, 24:] = half[:, :, 24:] // 2
    paths = []
    for name, content, seed in (("dense", frames, 0), ("masked", half, 0), ("other", frames, 1)):
        write_video(np.ascontiguousarray(content), folder / f"{name}.mp4", 8, {"prompt": "a red 7", "seed": seed})
        paths.append(str(folder / f"{name}.mp4"))
    return paths


@pytest.fixture
def open_player(page: Page, serve):
    """open_player(paths) shows them; .sent lists what the page has sent over its WebSocket since."""
    page.sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: page.sent.append(payload)))

    def show(paths: list[str]) -> Page:
        page.goto(serve(HARNESS, {"PLAYER_VIDEOS": json.dumps(paths)}))
        drawn(page)
        expect(page.locator(".player[data-shown='0']")).to_be_visible()
        page.sent.clear()
        return page

    return show


def seen(page: Page) -> list[float]:
    """The frame numbers that the pictures show, from the brightness of their left halves."""
    return page.evaluate(
        f"""[...({FIND}).querySelectorAll('figure:not([hidden]) canvas')].map((canvas) =>
            canvas.getContext('2d').getImageData(10, 24, 1, 1).data[0] / {LEVEL})"""
    )


def rests_on(page: Page, frame: int) -> None:
    expect(page.locator(f".player[data-shown='{frame}']")).to_be_visible()
    expect(page.locator(".strip")).to_have_attribute("aria-valuenow", str(frame))
    assert np.abs(np.array(seen(page)) - frame).max() < 0.3, seen(page)


def test_every_way_to_a_frame_shows_that_frame_of_both_videos(open_player, videos):
    page = open_player(videos[:2])
    expect(page.locator(".pairing")).to_have_text("paired")
    strip = page.locator(".strip")
    strip.focus()
    for key, frame in [("ArrowRight", 1), (".", 2), ("PageUp", 3), ("End", 16), ("ArrowRight", 16), ("PageDown", 13),
                       (",", 12), ("Home", 0)]:  # fmt: skip
        page.keyboard.press(key)
        rests_on(page, frame)
    expect(page.get_by_text("kept 0 after", exact=False)).to_be_hidden()
    page.locator(".forward").click()
    rests_on(page, 1)
    # How many messages the keys made depends on how fast they came.
    expect(page.get_by_text(re.compile(r"^kept 1 after \d+ changes"))).to_be_visible()
    expect(strip).to_have_attribute(
        "aria-valuetext", re.compile("frame 1 of 0–16 · latent frame 1 · 0.13 s, brightness dense 1")
    )
    box = page.locator(".strip canvas").bounding_box()
    page.sent.clear()
    page.mouse.move(box["x"] + 8 + 0.1 * (box["width"] - 16), box["y"] + 20)
    page.mouse.down()
    for share in (0.3, 0.5, 0.62):
        page.mouse.move(box["x"] + 8 + share * (box["width"] - 16), box["y"] + 20)
    rests_on(page, 10)
    assert page.sent == []
    page.mouse.up()
    expect(page.get_by_text(re.compile("^kept 10 after 2 changes"))).to_be_visible()
    page.get_by_role("button", name="Frame 3").click()
    rests_on(page, 3)


def test_playing_keeps_both_videos_on_one_frame_and_sends_nothing(open_player, videos):
    page = open_player(videos[:2])
    page.locator(".speed").select_option("2")
    page.evaluate(
        f"""() => {{
            const player = {FIND};
            window.pairs = [];
            const look = () => {{
                const seen = [...player.querySelectorAll('figure canvas')].map((canvas) =>
                    Math.round(canvas.getContext('2d').getImageData(10, 24, 1, 1).data[0] / {LEVEL}));
                window.pairs.push([Number(player.dataset.shown), ...seen]);
                if (window.pairs.length < 2000) requestAnimationFrame(look);
            }};
            look();
        }}"""
    )
    page.locator(".strip").focus()
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    # Long enough to loop: until the first frame comes again.
    page.wait_for_function(
        """() => {
            const shown = window.pairs.map(([frame]) => frame), last = shown.lastIndexOf(16);
            return last > 0 && shown.slice(last).some((frame) => frame > 0 && frame < 8);
        }"""
    )
    assert page.sent == []
    pairs = np.array(page.evaluate("window.pairs"))
    assert (pairs[:, 1] == pairs[:, 2]).all() and (pairs[:, 0] == pairs[:, 1]).all()
    assert len(np.unique(pairs[:, 0])) > 8
    page.keyboard.press("Space")
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    expect(page.get_by_text(re.compile(r"^kept \d+ after 1 changes"))).to_be_visible()
    rests_on(page, int(page.locator(".player").get_attribute("data-shown")))


def test_wipe_and_difference_compare_the_same_frame(open_player, videos):
    page = open_player(videos[:2])
    page.locator(".strip").focus()
    page.keyboard.press("End")
    rests_on(page, 16)
    right = f"({FIND}).querySelector('figure canvas').getContext('2d').getImageData(40, 24, 1, 1).data[0]"

    def becomes(value: float, near: float) -> None:
        page.wait_for_function(f"Math.abs({right} - {value}) <= {near}")

    page.get_by_role("button", name="Wipe").click()
    becomes(16 * LEVEL / 2, 4)
    wipe = page.get_by_role("slider", name="Wipe")
    wipe.focus()
    page.keyboard.press("End")
    expect(wipe).to_have_attribute("aria-valuenow", "100")
    becomes(16 * LEVEL, 4)
    page.get_by_role("button", name="Difference").click()
    # 4 x (224 - 112) is past white; on frame 2 it is 4 x 14.
    becomes(255, 0)
    assert seen(page)[0] * LEVEL < 12
    page.locator(".strip").focus()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".player[data-shown='2']")).to_be_visible()
    becomes(4 * LEVEL, 16)


def test_videos_of_other_seeds_say_so_and_pass_the_accessibility_scan(open_player, videos):
    page = open_player(videos)
    expect(page.locator(".pairing")).to_have_text("not paired: other seed")
    page.get_by_role("button", name="Wipe").click()
    page.locator(".against select").select_option(label="other")
    expect(page.locator("figcaption").first).to_have_text("dense | other")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_the_players_pure_functions(page):
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.player = await import(url);
        }""",
        source("canvas.js", "echo.js", "player/timing.js"),
    )
    for fps in (8, 16, 23.976, 30):
        assert page.evaluate(
            "(fps) => [...Array(500).keys()].every((n) => player.frameAt(player.timeOf(n, fps), fps, 500) === n"
            " && player.frameOfStamp(n / fps, fps, 500) === n)",
            fps,
        )
    assert page.evaluate("player.commonFrame([[1, 2, 3], [0, 1, 2]])") == 2
    assert page.evaluate("player.commonFrame([[3], [1, 2]])") is None
    assert page.evaluate("[0, 0.1, -0.1, 1, 2].map(player.catchUp)") == pytest.approx([1, 0.9, 1.1, 0.8, None])
    assert page.evaluate("[0, 1, 2, 9].map((frame) => player.firstOf([0, 1, 1, 2, 2], frame))") == [0, 1, 3, 3]
    layout = page.evaluate("player.stageLayout(700, 2, 48, 48)")
    assert layout == {"columns": 2, "scale": 7, "width": 336, "height": 336}
    assert page.evaluate("player.stageLayout(700, 2, 832, 480)")["width"] == 344
    assert page.evaluate("player.stageLayout(700, 4, 832, 480)")["columns"] == 2
    assert page.evaluate("player.stripLimits([[1, 5, Infinity, NaN]], false)") == [1, 5]
    assert page.evaluate("player.stripLimits([[NaN]], true)") == [0, 1]
    # An echo that was overtaken is no news; a value that someone else chose is.
    assert page.evaluate(
        """() => {
            const echo = new player.Echo(), said = [echo.isNews(0)];
            echo.send(5);
            echo.send(7);
            return [...said, echo.isNews(5), echo.isNews(7), echo.isNews(7), echo.isNews(2), echo.isNews(2)];
        }"""
    ) == [True, False, False, False, True, False]
