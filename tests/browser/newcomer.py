"""A newcomer's path through the app on the bundled run: from the first look to a report, one stage after the other.

The test and the pictures of the tour walk it. Stages assert what the page itself says; what they return is for the test
to hold against the files.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.browser.waiting import PATIENCE_MS, drawn, idle, next_frame

Shot = Callable[..., None]
"""shot(name, *locators): a picture of what these cover."""
TAU_T, RATIO = 0.2, 0.2
BLOCK, HEAD = 1, 3
"""The head that moves the velocity most when it is off."""
BLOCKS, HEADS = 8, 10
HALF = BLOCKS // 2
LAST = 16
"""The last video frame, where what an ablation changed shows most."""
WAITS = 3 * PATIENCE_MS
"""For what a job makes while other work is on the machine."""


@dataclass
class Walked:
    """What the pages said on the way, by stage."""

    counts: str = ""
    tau_t: float = 0.0
    mask: str = ""
    student: str = ""
    sizes: list[list[str]] = field(default_factory=list)
    measured: list[list[str]] = field(default_factory=list)
    report: Path = Path()


def walk(page: Page, address: str, folder: Path, *, steps: int, shot: Shot = lambda name, *parts: None) -> Walked:
    """Walk the whole path in `page`; videos of the forms take `steps` steps, and the report is saved in `folder`."""
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: sent.append(payload)))
    walked = Walked()
    first_look(page, address, shot)
    walked.counts, walked.tau_t = drag_a_threshold(page, sent, shot)
    pin(page, shot)
    ablate(page, shot)
    walked.mask = make_a_mask(page, shot)
    preview(page, steps, shot)
    walked.student = prune(page, shot)
    walked.sizes = compare_students(page, shot)
    route_at_half(page, steps, shot)
    walked.measured = compare_videos(page, shot)
    walked.report = report(page, folder, shot)
    return walked


def first_look(page: Page, address: str, shot: Shot) -> None:
    """Everything of the first minute, with no click."""
    page.goto(address)
    settled(page)
    assert "temporal heads" in page.locator("h1").inner_text()
    expect(page.locator(".ratios canvas")).to_be_visible()
    expect(card(page)).to_contain_text(re.compile(r"Block \d, head \d"))
    expect(page.get_by_role("heading", name="Residual per block and timestep")).to_be_visible()
    expect(page.locator(".st-key-run_video .player[data-shown='0']")).to_be_visible()
    shot("first-look")
    residual = page.get_by_role("heading", name="Residual per block and timestep")
    shot("first-videos", residual, page.locator(".st-key-run_video .player"))


def drag_a_threshold(page: Page, sent: list[object], shot: Shot) -> tuple[str, float]:
    """Move τt to the left; roles follow in the browser, nothing is sent before the release."""
    handle, counts = page.locator(".handle[data-threshold='1']"), page.locator(".head-grid .counts")
    before = counts.inner_text()
    grip, plot = handle.locator("span").bounding_box(), page.locator(".ratios canvas").bounding_box()
    assert grip and plot
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    # The ratio's axis is nearly as wide as the canvas; a few steps back and forth find the value.
    page.mouse.move(x, y)
    sent.clear()
    page.mouse.down()
    moved = 0.0
    while value(handle) > TAU_T + 0.004:
        moved += 2
        assert moved < plot["width"], "the handle does not follow the pointer"
        page.mouse.move(x - moved, y)
        next_frame(page)
    assert counts.inner_text() != before
    assert sent == [], "a drag sends nothing"
    shot("threshold", page.locator(".head-grid"))
    page.mouse.up()
    page.wait_for_url(re.compile(r"[?&]tt=0\.2"))
    settled(page)
    assert len(sent) == 1
    return counts.inner_text(), value(handle)


def value(handle: Locator) -> float:
    return float(handle.get_attribute("aria-valuenow") or "nan")


def pin(page: Page, shot: Shot) -> None:
    """A click on another head shows its card."""
    page.locator(".head-grid .cells").scroll_into_view_if_needed()
    click_head(page, BLOCK, HEAD)
    page.wait_for_url(re.compile(rf"[?&]block={BLOCK}&head={HEAD}(&|$)"))
    settled(page)
    expect(card(page)).to_contain_text(f"Block {BLOCK}, head {HEAD}")
    expect(card(page)).to_contain_text("Importance by")
    shot("pinned", card(page))


def card(page: Page) -> Locator:
    return page.locator(".st-key-head_card")


def click_head(page: Page, block: int, head: int) -> None:
    """Points at the head, reads where the pointer is, and clicks."""
    cells = page.locator(".head-grid .cells")
    box = cells.locator("canvas").bounding_box()
    assert box
    left, top = 42, 42
    width, height = (box["width"] - left - 4) / HEADS, (box["height"] - top - 4) / BLOCKS
    x, y = box["x"] + left + (head + 0.5) * width, box["y"] + top + (block + 0.5) * height
    page.mouse.move(x, y)
    expect(page.locator(".head-grid .readout")).to_contain_text(f"block {block}, head {head}")
    page.mouse.click(x, y)


def ablate(page: Page, shot: Shot) -> None:
    """The same prompt and seed without the pinned head, beside the teacher's video."""
    page.get_by_role("button", name="Ablate this head").click()
    # The job shows itself while it runs.
    expect(page.locator(".st-key-head_card").get_by_text(f"without block {BLOCK}, head {HEAD}")).to_be_visible()
    player = page.locator(".st-key-ablation_player .player")
    plays(player, ("dense", f"without block {BLOCK}, head {HEAD}"))
    settled(page)
    rest(page, player, "End", LAST)
    shot("ablated", page.get_by_role("heading", name=f"Without block {BLOCK}, head {HEAD}"), player)


def plays(player: Locator, labels: tuple[str, str]) -> None:
    """Both videos are on one transport, of one prompt and seed, with numbers of how they differ."""
    expect(player).to_have_attribute("data-shown", re.compile(r"\d+"), timeout=WAITS)
    expect(player.locator(".pairing")).to_have_text("paired")
    for label in labels:
        expect(player.locator("figure", has_text=label).first).to_be_visible()
    expect(player.locator(".lines")).to_contain_text(re.compile(r"PSNR of this frame, .+ against dense [\d.]+ dB"))


def rest(page: Page, player: Locator, key: str, frame: int) -> None:
    """Moves the player to a video frame, which the link takes over."""
    player.locator(".strip").focus()
    page.keyboard.press(key)
    expect(player).to_have_attribute("data-shown", str(frame))
    page.wait_for_url(re.compile(rf"[?&]vf={frame}(&|$)") if frame else re.compile(r"^((?!vf=).)*$"))
    settled(page)


def make_a_mask(page: Page, shot: Shot) -> str:
    """On the Prune page, with the threshold from before, p is set and the mask is made as a job."""
    go(page, "Prune")
    assert f"tt={value(page.locator('''.handle[data-threshold='1']''')):g}" in page.url
    ratio = page.get_by_role("spinbutton", name="Pruning ratio p")
    ratio.fill(f"{RATIO:g}")
    ratio.press("Enter")
    page.wait_for_url(re.compile(rf"[?&]p={RATIO:g}(&|$)"))
    settled(page)
    stays = round(HEADS * (1 - RATIO))
    expect(page.locator("h1")).to_contain_text(f"p = {RATIO:g} keeps {stays} of {HEADS} heads")
    shot("prune")
    page.get_by_role("button", name="Make the mask").click()
    made = page.get_by_text(re.compile(r"Made: keeps \d+ self-attention heads"))
    expect(made).to_be_visible(timeout=WAITS)
    settled(page)
    return made.inner_text()


def preview(page: Page, steps: int, shot: Shot) -> None:
    """Dense and masked videos of one prompt and seed, as two jobs."""
    set_steps(page, steps)
    page.get_by_role("button", name="Generate both").click()
    player = page.locator(".st-key-preview_player .player")
    plays(player, ("dense", "masked"))
    settled(page)
    rest(page, player, "Home", 0)
    shot("masked", page.locator(".st-key-mask_step"), page.locator(".st-key-student_step"), player)


def set_steps(page: Page, steps: int) -> None:
    box = page.get_by_role("spinbutton", name="Steps")
    if box.input_value() != str(steps):
        box.fill(str(steps))
        box.press("Enter")
        idle(page)
        settled(page)


def prune(page: Page, shot: Shot) -> str:
    """The student, cut as a job."""
    page.get_by_role("button", name="Cut the student").click()
    made = page.get_by_text(re.compile(r"Made: [\d,]+ of [\d,]+ parameters"))
    expect(made).to_be_visible(timeout=WAITS)
    expect(page.get_by_role("heading", name="Error of the cut per block")).to_be_visible()
    settled(page)
    shot("student", page.locator(".st-key-mask_step"), page.locator(".st-key-student_step"))
    return made.inner_text()


def compare_students(page: Page, shot: Shot) -> list[list[str]]:
    """The student's own link leads to it beside the teacher."""
    page.get_by_role("link", name="Compare it with the teacher").click()
    expect(page.locator("h1")).to_contain_text(
        re.compile(r"^B \(student\) stores \d\d% of the parameters of A \(demo\)")
    )
    settled(page)
    assert f"p={RATIO:g}" in page.url and "tt=0.2" in page.url, "a link keeps the selection"
    tables = (page.locator(f".st-key-compare_table_student_{name}") for name in ("sizes", "settings"))
    shot("compare-student", page.locator("h1"), *tables)
    return rows(page.locator(".st-key-compare_table_student_sizes"))


def rows(table: Locator) -> list[list[str]]:
    """The cells of a table, without its head."""
    return [[cell.inner_text() for cell in row.locator("td").all()] for row in table.locator("tbody tr").all()]


def route_at_half(page: Page, steps: int, shot: Shot) -> None:
    """The budget's upper end down to its lower one, half the blocks, and a video with as many, beside the dense one."""
    go(page, "Route")
    low, high = (page.get_by_role("slider", name="Blocks that run").nth(end) for end in (0, 1))
    expect(low).to_have_value(f"{HALF}")
    # As far down as it goes: to the lower end.
    high.focus()
    page.keyboard.press("Home")
    expect(high).to_have_value(f"{HALF}")
    page.wait_for_url(re.compile(rf"[?&]kmin={HALF}&kmax={HALF}(&|$)"))
    settled(page)
    expect(page.locator("h1")).to_contain_text(f"{HALF:.2f} of {BLOCKS} blocks a step")
    expect(page.get_by_text("50.0%")).to_be_visible()
    shot("route", page.locator("h1"), page.locator(".lanes"), page.get_by_test_id("stCode").first)
    set_steps(page, steps)
    page.get_by_role("button", name="Generate at this budget").click()
    player = page.locator(".st-key-route_player .player")
    plays(player, ("dense", f"K from {HALF} to {HALF}"))
    settled(page)
    shot("routed", page.get_by_role("heading", name="Dense against routed"), player)


def compare_videos(page: Page, shot: Shot) -> list[list[str]]:
    """The player's own link leads to its videos, measured as a job."""
    page.get_by_role("link", name="Measure how they differ").click()
    expect(page.locator("h1")).to_contain_text("1 pair of videos, not scored yet")
    settled(page)
    page.get_by_role("button", name="Measure the pairs").click()
    between = page.locator(".st-key-compare_table_between")
    expect(between).to_be_visible(timeout=WAITS)
    settled(page)
    expect(page.locator("h1")).to_contain_text("one prompt does not tell a difference from chance")
    expect(page.locator(".st-key-compare_table_videos_making")).to_contain_text("importance")
    shot("compare-videos")
    return rows(between)


def report(page: Page, folder: Path, shot: Shot) -> Path:
    """From the Prune page, where the mask is, the whole selection leaves as one file, which opens with no network."""
    go(page, "Prune")
    with page.expect_download() as waiting:
        page.locator(".st-key-report").get_by_role("button", name="Report").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    page.context.set_offline(True)
    page.goto(path.as_uri())
    expect(page.locator(".figure .main-svg").first).to_be_visible()
    shot("report")
    return path


def go(page: Page, name: str) -> None:
    """To another page by the sidebar."""
    page.get_by_test_id("stSidebarNav").get_by_role("link", name=name).click()
    page.wait_for_url(re.compile(rf"/{name.lower()}(\?|$)"))
    settled(page)


def settled(page: Page) -> None:
    """The page is drawn, and says that nothing went wrong."""
    drawn(page)
    expect(page.locator("[data-testid=stAlert], [data-testid=stException]")).to_have_count(0)
