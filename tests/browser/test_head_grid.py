"""The head grid on a real Streamlit page in a real browser."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import CDPSession, Page, expect

from analysis.roles import classify, flips
from tests.browser.waiting import drawn, next_frame, press_at_once
from workbench.components.head_grid.cells import FIRST_FRAME_SINK, FLIPPED, UNIFORM
from workbench.components.head_grid.value import MIN_GAP

# Whether Streamlit has taken on a colour scheme.
PAGE_IS = """(scheme) => {
    const app = document.querySelector("[data-testid=stApp]");
    const red = Number(getComputedStyle(app).backgroundColor.match(/[0-9]+/)[0]);
    return (red < 80) === (scheme === "dark");
}"""
HARNESS = Path(__file__).with_name("harness_head_grid.py")
ROLE_COLOURS = {"S": (0, 114, 178), "M": (153, 153, 153), "T": (213, 94, 0)}


def heads_frame(blocks: int, heads: int, marks: bool = False) -> pd.DataFrame:
    """A made-up model: two populations of heads, none exactly on a threshold."""
    random = np.random.default_rng(7)
    block, head = (axis.ravel() for axis in np.indices((blocks, heads)))
    wide = random.beta(2 + 3 * np.sin(np.pi * block / blocks), 2.5)
    ratio = np.where(random.random(block.size) < 0.7, wide, random.beta(1.5, 9, block.size))
    frame = pd.DataFrame({"block": block, "head": head, "ratio": ratio.astype(np.float32)})
    if marks:
        frame.loc[[3, 4, 27], "ratio"] = np.nan
        frame["removed"] = np.isin(np.arange(len(frame)), [2, 6, 22, 46, 50])
        frame["flags"] = 0
        frame.loc[[19, 44, 65], "flags"] = FIRST_FRAME_SINK
        frame.loc[[12, 33], "flags"] = UNIFORM
    return frame


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("frames")


@pytest.fixture
def open_grid(page: Page, serve, frames: Path):
    """open_grid(frame) shows it; .sent lists what the page has sent over its WebSocket since."""
    page.sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: page.sent.append(payload)))

    def show(frame: pd.DataFrame) -> Page:
        # One file per content, so that tests with the same heads share a server.
        path = frames / f"{pd.util.hash_pandas_object(frame).sum()}.parquet"
        frame.to_parquet(path)
        page.goto(serve(HARNESS, {"GRID_FRAME": str(path)}))
        drawn(page)
        expect(page.locator(".handle[data-threshold='0']")).to_have_attribute("aria-valuenow", "0.7")
        page.sent.clear()
        return page

    return show


def cell_centre(page: Page, frame: pd.DataFrame, block: int, head: int) -> tuple[float, float]:
    """Where a cell lies on the screen, read from the canvas: the grid fills it right of and below its labels."""
    box = page.locator(".cells canvas").bounding_box()
    blocks, heads = frame["block"].max() + 1, frame["head"].max() + 1
    width, height = (box["width"] - 44) / heads, (box["height"] - 42) / blocks
    return box["x"] + 42 + (head + 0.4) * width, box["y"] + 40 + (block + 0.3) * height


def pixel(page: Page, x: float, y: float) -> tuple[int, ...]:
    return tuple(
        page.evaluate(
            """([x, y]) => {
                const canvas = document.querySelector("[data-testid=stBidiComponentIsolated]").shadowRoot
                    .querySelector(".cells canvas");
                const box = canvas.getBoundingClientRect(), scale = canvas.width / box.width;
                const at = [(x - box.left) * scale, (y - box.top) * scale].map(Math.round);
                return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
            }""",
            [x, y],
        )
    )


def cells_picture(page: Page) -> str:
    """Every pixel of the cells, as a PNG in base64."""
    return page.locator(".head-grid .cells canvas").evaluate("(canvas) => canvas.toDataURL()")


def shown_counts(page: Page) -> dict[str, int]:
    return {letter: int(page.locator(f".counts [data-role={letter}] b").inner_text()) for letter in "SMT"}


def shown_threshold(page: Page, which: int) -> float:
    return float(page.locator(f".handle[data-threshold='{which}']").get_attribute("aria-valuenow"))


def test_a_click_pins_the_cell_under_it_and_sends_one_message(open_grid, idle):
    frame = heads_frame(8, 10)
    page = open_grid(frame)
    for count, (block, head) in enumerate([(3, 7), (0, 0), (7, 9)], start=1):
        page.sent.clear()
        page.mouse.click(*cell_centre(page, frame, block, head))
        expect(
            page.get_by_text(re.compile(f"kept .*block={block}, head={head}.* after {count} changes"))
        ).to_be_visible()
        idle(page)
        assert len(page.sent) == 1
        expect(page.locator(".readout")).to_contain_text(f"block {block}, head {head} · ratio ")
        expect(page.get_by_text(re.compile(f"returned .*block={block}, head={head}"))).to_be_visible()


def test_pinning_the_same_head_again_sends_nothing_and_python_may_move_the_pin(open_grid, idle):
    frame = heads_frame(8, 10)
    page = open_grid(frame)
    page.mouse.click(*cell_centre(page, frame, 2, 2))
    expect(page.get_by_text("after 1 changes")).to_be_visible()
    idle(page)
    page.sent.clear()
    page.mouse.click(*cell_centre(page, frame, 2, 2))
    next_frame(page)
    assert page.sent == []
    page.get_by_role("button", name="Reset").click()
    expect(page.get_by_text("block=None, head=None) after 1 changes")).to_be_visible()
    idle(page)
    # The same cell as before counts as a new choice, since Python had dropped it.
    page.mouse.click(*cell_centre(page, frame, 2, 2))
    expect(page.get_by_text("block=2, head=2) after 2 changes")).to_be_visible()


def test_arrow_keys_move_and_enter_pins(open_grid):
    page = open_grid(heads_frame(8, 10))
    page.locator(".cells").focus()
    for key in ["ArrowDown", "ArrowDown", "ArrowRight", "End", "ArrowLeft"]:
        page.keyboard.press(key)
    expect(page.locator(".live")).to_contain_text("block 2, head 8 · ratio ")
    expect(page.locator("#cell")).to_have_attribute("aria-colindex", "9")
    expect(page.locator("#cell")).to_have_attribute("aria-selected", "false")
    assert page.sent == []
    page.keyboard.press("Enter")
    expect(page.get_by_text("block=2, head=8) after 1 changes")).to_be_visible()
    expect(page.locator("#cell")).to_have_attribute("aria-selected", "true")
    assert len(page.sent) == 1
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("block=1, head=8) after 2 changes")).to_be_visible()
    # Python's answer does not pull the focus back to the pinned head.
    expect(page.locator("#cell")).to_have_attribute("aria-colindex", "8")
    expect(page.locator(".readout")).to_contain_text("block 1, head 7 ")


@pytest.mark.parametrize("which", [0, 1])
def test_dragging_recolours_without_a_message_and_release_sends_one(open_grid, idle, which):
    frame = heads_frame(8, 10)
    page = open_grid(frame)
    box = page.locator(f".handle[data-threshold='{which}'] span").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    seen = set()
    for offset in range(0, 130, 6):
        page.mouse.move(x + (-offset if which == 0 else offset), y + offset / 3)
        next_frame(page)
        thresholds = shown_threshold(page, 0), shown_threshold(page, 1)
        seen.add(thresholds)
        roles = classify(frame["ratio"].to_numpy(), *thresholds)
        assert shown_counts(page) == {letter: int((roles == letter).sum()) for letter in "SMT"}
        near = flips(frame["ratio"].to_numpy(), *thresholds)
        told = "role flips" if near.sum() == 1 else "roles flip"
        assert page.locator(".flips").inner_text() == f"{near.sum()} {told} if a threshold moves by 0.02"
    for row in frame.sample(8, random_state=0).itertuples():
        # A corner of the cell, beside its letter.
        at = cell_centre(page, frame, row.block, row.head)
        assert pixel(page, at[0] - 12, at[1] - 4) == ROLE_COLOURS[roles[row.block * 10 + row.head]]
    assert len(seen) > 10
    assert page.sent == []
    page.mouse.up()
    tau_s, tau_t = thresholds
    expect(page.get_by_text(re.compile(f"kept .*tau_s={tau_s:g}, tau_t={tau_t:g},.* after 1 changes"))).to_be_visible()
    idle(page)
    next_frame(page)
    assert len(page.sent) == 1
    assert (shown_threshold(page, 0), shown_threshold(page, 1)) == thresholds


@pytest.mark.parametrize(("blocks", "heads", "scale"), [(8, 10, 1), (40, 40, 2), (100, 40, 1), (8, 10, 1.5)])
def test_cells_drawn_one_by_one_look_as_all_drawn_at_once(open_grid, blocks, heads, scale):
    """Cells of every size and mark, with room between them and without, on screens of several scales."""
    frame = heads_frame(blocks, heads, marks=True)
    frame.loc[[13, 20, 46, 65], "flags"] |= FLIPPED
    page = open_grid(frame)
    screen = page.context.new_cdp_session(page)
    page.locator(".handle[data-threshold='0']").focus()
    show_at(page, screen, scale)
    seen = [cells_picture(page)]
    for _ in range(12):
        page.keyboard.press("ArrowLeft")
        next_frame(page)
        seen.append(cells_picture(page))
    assert len(set(seen)) > 6
    # Another scale draws everything anew, there and back.
    show_at(page, screen, scale + 1)
    assert cells_picture(page) not in seen
    show_at(page, screen, scale)
    assert cells_picture(page) == seen[-1]


def show_at(page: Page, screen: CDPSession, scale: float) -> None:
    """As on a screen with so many pixels per CSS pixel; keys draw it, since an emulated screen does not tell its change."""
    size = {"width": 1280, "height": 900, "deviceScaleFactor": scale, "mobile": False}
    screen.send("Emulation.setDeviceMetricsOverride", size)
    page.wait_for_function("scale => devicePixelRatio === scale", arg=scale, timeout=20_000)
    for key in ("ArrowRight", "ArrowLeft"):
        page.keyboard.press(key)
        next_frame(page)


def test_thresholds_cannot_cross_and_escape_takes_a_drag_back(open_grid):
    page = open_grid(heads_frame(8, 10))
    box = page.locator(".handle[data-threshold='0'] span").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 900, y, steps=5)
    next_frame(page)
    assert shown_threshold(page, 0) == pytest.approx(0.3 + MIN_GAP)
    page.keyboard.press("Escape")
    next_frame(page)
    assert shown_threshold(page, 0) == 0.7
    page.mouse.up()
    next_frame(page)
    assert page.sent == []


def test_keys_move_a_threshold_and_send_one_message_when_they_rest(open_grid, idle):
    page = open_grid(heads_frame(8, 10))
    press_at_once(page.locator(".handle[data-threshold='1']"), "ArrowRight", 5)
    expect(page.locator(".handle[data-threshold='1']")).to_have_attribute("aria-valuenow", "0.35")
    expect(page.get_by_text("tau_t=0.35, block=None, head=None) after 1 changes")).to_be_visible()
    idle(page)
    assert len(page.sent) == 1
    expect(page.locator(".live")).to_contain_text("τt 0.35, τs 0.70: ")


def test_the_value_survives_reruns_and_remounts_and_python_can_reset_it(open_grid, idle):
    frame = heads_frame(8, 10)
    page = open_grid(frame)
    page.locator(".handle[data-threshold='0']").focus()
    page.keyboard.press("PageDown")
    page.mouse.click(*cell_centre(page, frame, 5, 1))
    expect(page.get_by_text("tau_s=0.65, tau_t=0.3, block=5, head=1) after 2 changes")).to_be_visible()
    page.get_by_role("button", name="Run again").click()
    idle(page)
    assert shown_threshold(page, 0) == 0.65
    toggle = page.locator("[data-testid=stSidebar] label", has_text="Show")
    toggle.click()
    expect(page.locator(".cells")).to_have_count(0)
    toggle.click()
    expect(page.locator(".handle[data-threshold='0']")).to_have_attribute("aria-valuenow", "0.65")
    expect(page.locator(".readout")).to_contain_text("block 5, head 1 · ratio ")
    expect(page.get_by_text("head=1) after 2 changes")).to_be_visible()
    page.get_by_role("button", name="Reset").click()
    expect(page.locator(".handle[data-threshold='0']")).to_have_attribute("aria-valuenow", "0.7")
    expect(page.locator(".readout")).to_contain_text("Point at a head")


def test_what_a_screen_reader_needs_is_there(open_grid):
    page = open_grid(heads_frame(8, 10, marks=True))
    grid = page.get_by_role("grid", name="Roles of all heads, block by block")
    expect(grid).to_have_attribute("aria-rowcount", "8")
    expect(grid).to_have_attribute("aria-colcount", "10")
    expect(grid).to_have_attribute("aria-activedescendant", "cell")
    expect(page.locator(".live")).to_have_attribute("aria-live", "polite")
    for name, low, high, now, text in [
        ("Spatial threshold", "0.31", "1", "0.7", "0.70, "),
        ("Temporal threshold", "0", "0.69", "0.3", "0.30, "),
    ]:
        slider = page.get_by_role("slider", name=name)
        expect(slider).to_have_attribute("aria-valuemin", low)
        expect(slider).to_have_attribute("aria-valuemax", high)
        expect(slider).to_have_attribute("aria-valuenow", now)
        expect(slider).to_have_attribute("aria-valuetext", re.compile(re.escape(text) + r"\d+ (spatial|temporal)"))
    expect(page.get_by_role("img", name=re.compile(r"Histogram of 77 ratios: .* spatial"))).to_be_visible()
    assert page.locator(".marks li").all_inner_texts() == ["not captured", "removed", "first-frame sink", "uniform"]
    page.locator(".cells").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".live")).to_contain_text(re.compile(r"block 0, head 2 · ratio .* · removed"))
    page.keyboard.press("ArrowRight")
    expect(page.locator(".live")).to_have_text("block 0, head 3 · not captured")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_accessibility_finding_inside_the_component(open_grid, scheme):
    page = open_grid(heads_frame(8, 10, marks=True))
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(PAGE_IS, arg=scheme)
    drawn(page)
    next_frame(page)
    findings = Axe().run(page, context={"include": [["[data-testid=stBidiComponentIsolated]"]]}).response["violations"]
    assert [(finding["id"], finding["nodes"][0]["html"]) for finding in findings] == []


def test_a_change_of_theme_redraws_labels_and_keeps_role_colours(open_grid):
    frame = heads_frame(8, 10)
    page = open_grid(frame)
    roles = classify(frame["ratio"].to_numpy(), 0.7, 0.3)

    def wait_for_labels(test: str) -> None:
        page.wait_for_function(
            """(test) => {
                const canvas = document.querySelector("[data-testid=stBidiComponentIsolated]").shadowRoot
                    .querySelector(".cells canvas");
                const { data } = canvas.getContext("2d").getImageData(0, 60, 40, canvas.height - 60);
                let sum = 0, ink = 0;
                for (let i = 0; i < data.length; i += 4) { sum += data[i] * data[i + 3]; ink += data[i + 3]; }
                return test === "dark" ? sum / ink < 130 : sum / ink > 150;
            }""",
            arg=test,
        )

    page.emulate_media(color_scheme="light")
    wait_for_labels("dark")
    page.emulate_media(color_scheme="dark")
    wait_for_labels("bright")
    at = cell_centre(page, frame, 3, 7)
    assert pixel(page, at[0] - 12, at[1] - 4) == ROLE_COLOURS[roles[37]]
    assert page.sent == []


def test_a_narrow_page_stacks_both_views_without_overflow(open_grid):
    page = open_grid(heads_frame(40, 40))
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(
        """() => {
            const find = (selector) => document.querySelector("[data-testid=stBidiComponentIsolated]").shadowRoot
                .querySelector(selector).getBoundingClientRect();
            return find(".ratios canvas").y > find(".cells canvas").bottom && find(".head-grid").width < 700;
        }"""
    )
    drawn(page)
    next_frame(page)
    cells, ratios, root = (
        page.locator(selector).bounding_box() for selector in (".cells canvas", ".ratios canvas", ".head-grid")
    )
    assert ratios["y"] > cells["y"] + cells["height"]
    assert cells["width"] <= root["width"] and ratios["width"] <= root["width"]


def test_recolouring_40_by_40_while_dragging(open_grid, capsys):
    frame = heads_frame(40, 40)
    page = open_grid(frame)
    page.evaluate(
        """() => {
            const schedule = window.requestAnimationFrame.bind(window);
            window.costs = [];
            window.requestAnimationFrame = (draw) => schedule((time) => {
                const start = performance.now();
                draw(time);
                window.costs.push(performance.now() - start);
            });
        }"""
    )
    box = page.locator(".handle[data-threshold='0'] span").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for offset in range(60):
        page.mouse.move(x - offset * 2, y)
    next_frame(page)
    costs = np.array(page.evaluate("() => window.costs"))
    page.mouse.up()
    assert len(costs) >= 10
    roles = classify(frame["ratio"].to_numpy(), shown_threshold(page, 0), 0.3)
    assert shown_counts(page) == {letter: int((roles == letter).sum()) for letter in "SMT"}
    median, high = np.percentile(costs, [50, 95])
    with capsys.disabled():
        print(
            f"\n40 x 40 heads recoloured: median {median:.1f} ms, p95 {high:.1f} ms of {len(costs)} frames (goal 16.7)"
        )
