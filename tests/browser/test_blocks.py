"""The Blocks page in a real browser: the map is read and chosen from by mouse and keyboard, and leads to the head grid."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from analysis.block_values import block_values
from analysis.figures.style import contrast
from tests.browser.waiting import drawn, resized
from tests.sampled_run import UNIFORM_HEAD, make_sampled_run
from workbench.components.source import source

LEFT, TOP = 42, 72


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("blocks")


@pytest.fixture(scope="module")
def run(folder):
    return make_sampled_run(folder / "captures" / "full")


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


def opened(page: Page) -> Page:
    drawn(page)
    page.locator(".block-map canvas").wait_for()
    return page


@pytest.fixture
def blocks(page: Page, address: str) -> Page:
    page.goto(f"{address}/blocks")
    return opened(page)


def cell(page: Page, run, block: int, step: int) -> tuple[float, float]:
    """The middle of a cell on the screen: the map's canvas ends 132 px right of and 40 px below its cells."""
    box = page.locator(".block-map canvas").bounding_box()
    width = (box["width"] - LEFT - 132) / len(run.timesteps)
    height = (box["height"] - TOP - 40) / run.geometry.blocks
    return box["x"] + LEFT + (step + 0.5) * width, box["y"] + TOP + (block + 0.5) * height


def test_a_cell_is_read_under_the_pointer_and_its_block_chosen_by_a_click(blocks, run):
    values = block_values(run).cells()
    readout = blocks.locator(".block-map .readout")
    for block, step in ((0, 0), (3, 7), (7, 9)):
        blocks.mouse.move(*cell(blocks, run, block, step))
        expect(readout).to_contain_text(f"block {block} · t {run.timesteps[step]:.0f} · ")
        shown = float(re.search(r"t \d+ · ([\d.]+) · n 6", readout.inner_text())[1])
        assert shown == pytest.approx(values[step, block], rel=5e-3)
    blocks.mouse.click(*cell(blocks, run, 3, 4))
    blocks.wait_for_url(re.compile(r"[?&]block=3"))
    expect(blocks.get_by_role("heading", name=re.compile(r"Heads of block 3:"))).to_be_visible()
    expect(blocks.get_by_role("spinbutton", name="Block")).to_have_value("3")


def test_the_keyboard_chooses_a_block_too(blocks, run):
    cells = blocks.locator(".block-map .cells")
    cells.focus()
    first = int(np.argmax(block_values(run).by_block()["mean"]))
    moves = ["ArrowUp"] * 2 if first > 4 else ["ArrowDown"] * 2
    for key in [*moves, "ArrowRight"]:
        blocks.keyboard.press(key)
    wanted = first + (2 if moves[0] == "ArrowDown" else -2)
    expect(blocks.locator(".block-map .live")).to_contain_text(f"block {wanted} · t {run.timesteps[1]:.0f}")
    blocks.keyboard.press("Enter")
    blocks.wait_for_url(re.compile(rf"[?&]block={wanted}"))
    expect(blocks.locator(".block-map #cell")).to_have_attribute("aria-selected", "true")


def test_blocks_lead_to_heads_and_back_with_one_selection(blocks, run, idle):
    block, head = UNIFORM_HEAD
    blocks.mouse.click(*cell(blocks, run, block, 0))
    blocks.wait_for_url(re.compile(rf"[?&]block={block}"))
    idle(blocks)
    row = blocks.locator(".head-grid .cells canvas")
    box = row.bounding_box()
    width = (box["width"] - 44) / run.geometry.heads
    blocks.mouse.click(box["x"] + 42 + (head + 0.4) * width, box["y"] + box["height"] - 20)
    blocks.wait_for_url(re.compile(rf"[?&]head={head}"))
    expect(blocks.locator(".head-grid .readout")).to_have_text(
        re.compile(rf"block {block}, head {head} · ratio 0\.1\d · temporal · uniform")
    )
    # The link carries the head once the page has run to its end.
    idle(blocks)
    blocks.get_by_role("link", name=f"Open block {block} in Heads").click()
    card = blocks.locator("[data-testid=stHtml]", has_text=re.compile(r"Block \d+, head \d+"))
    expect(card).to_contain_text(f"Block {block}, head {head} · temporal · uniform")
    expect(blocks.locator(".marks")).to_contain_text("first-frame sink")
    assert f"block={block}" in blocks.url and f"head={head}" in blocks.url
    blocks.get_by_role("link", name="Blocks", exact=True).click()
    opened(blocks)
    expect(blocks.get_by_role("heading", name=re.compile(rf"Heads of block {block}:"))).to_be_visible()


def test_a_link_reproduces_the_lens_and_the_block(blocks, new_page, run):
    blocks.get_by_role("button", name="Feed-forward").or_(blocks.get_by_role("radio", name="Feed-forward")).click()
    blocks.wait_for_url(re.compile(r"[?&]lens=ffn"))
    blocks.mouse.click(*cell(blocks, run, 2, 2))
    blocks.wait_for_url(re.compile(r"[?&]block=2"))
    opened(blocks)
    other = new_page()
    other.goto(blocks.url)
    opened(other)
    for place in ("h1", ".block-map .scale"):
        assert other.locator(place).inner_text() == blocks.locator(place).inner_text()
    blocks.mouse.move(0, 0)
    expect(blocks.locator(".block-map .readout")).to_have_text(other.locator(".block-map .readout").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_passes_the_accessibility_scan(new_page, address, scheme):
    page = new_page(scheme=scheme)
    page.goto(f"{address}/blocks")
    for size in ((1440, 900), (1280, 720), (900, 700)):
        resized(page, *size)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


FILLS = """() => {
    const background = getComputedStyle(document.querySelector("[data-testid=stApp]")).backgroundColor;
    const texts = [...document.querySelectorAll(".js-plotly-plot .main-svg text")].filter((text) => text.textContent.trim());
    return [background, texts.map((text) => [text.textContent, getComputedStyle(text).fill])];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_of_charts_have_contrast(new_page, address, scheme):
    page = new_page(scheme=scheme)
    page.goto(f"{address}/blocks")
    opened(page)
    background, texts = page.evaluate(FILLS)
    # The scan of accessibility does not read the text of an SVG.
    faint = {words: fill for words, fill in texts if contrast(hex_colour(fill), hex_colour(background)) < 4.5}
    assert "timestep t" in dict(texts) and faint == {}


def hex_colour(colour: str) -> str:
    """The `#rrggbb` of a computed `rgb(…)`."""
    return "#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", colour)[:3])


def test_the_maps_pure_functions(page):
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.map = await import(url);
        }""",
        source("canvas.js", "block_map/draw.js"),
    )
    layout = page.evaluate("window.layout = map.mapLayout(640, 8, 10)")
    assert layout["width"] <= 640 and layout["top"] == TOP and layout["left"] == LEFT
    middle = "layout.left + 3.5 * layout.cellWidth, layout.top + 2.5 * layout.cellHeight"
    assert page.evaluate(f"map.placeAt(layout, {middle})") == [2, 3]
    assert page.evaluate("map.placeAt(layout, layout.marginal + 5, layout.top + 1)") == [0, None]
    assert page.evaluate("map.placeAt(layout, 100, layout.top - 5)") is None
    palette = ["#000000", "#808080", "#ffffff"]
    colours = page.evaluate(
        "(palette) => [-1, 0, 0.25, 1, 2].map((share) => map.paletteColour(palette, share))", palette
    )
    assert [int(re.search(r"\d+", colour)[0]) for colour in colours] == [0, 0, 64, 255, 255]
    assert page.evaluate("[0.12345, 0, 12.5, NaN].map(map.formatNumber)") == ["0.123", "0", "12.5", "–"]
