"""The workbench in a real browser, on a small run and a small model with random weights."""

import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from analysis.importance import mean_ratio
from analysis.roles import classify, role_counts
from analysis.runs import Run
from pare import mask as masks
from tests.browser.waiting import PATIENCE_MS, drawn, next_frame, press_at_once, resized
from tests.runs_fixture import make_run
from workbench.jobs.api import State, open_workspace
from workbench.pages.mask_panel import head_plan
from workbench.state import Selection


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="module")
def slow_model(folder: Path, tiny_folder: Path) -> Path:
    """The tiny model with videos so large that a thousand steps outlast any test."""
    model = Path(shutil.copytree(tiny_folder, folder / "model"))
    defaults = json.loads((model / "defaults.json").read_text())
    (model / "defaults.json").write_text(json.dumps(defaults | {"height": 128, "width": 128, "frames": 33}))
    return model


@pytest.fixture(scope="module")
def start(serve, folder: Path, slow_model: Path) -> Iterator[Callable[[int], str]]:
    """start(port) serves the app there and returns its address."""
    make_run(folder / "captures" / "first", branches=("cond", "uncond"))
    (folder / "data").mkdir()
    environment = {
        "PARE_WORKSPACE": str(folder / "workspace"),
        "PARE_FOLDERS": f"{folder / 'captures'}:{slow_model}",
        "PARE_DATA": str(folder / "data"),
    }
    yield lambda port: serve.start([sys.executable, "-m", "workbench.server", str(port)], port, environment)
    # Workers outlive their server by design, so the tests end theirs.
    for worker in open_workspace(folder / "workspace").workers():
        if worker.alive:
            os.kill(worker.identity.pid, signal.SIGTERM)


@pytest.fixture(scope="module")
def address(start, free_port) -> str:
    return start(free_port())


@pytest.fixture
def heads(page: Page, address: str) -> Page:
    """The Heads page as it opens; `.sent` lists what it sends over its WebSocket, `.foreign` what it asks elsewhere."""
    page.sent, page.foreign = [], []
    page.on("websocket", lambda socket: socket.on("framesent", lambda payload: page.sent.append(payload)))
    page.on("request", lambda request: None if _own(request.url, address) else page.foreign.append(request.url))
    page.goto(address)
    opened(page)
    return page


def _own(url: str, address: str) -> bool:
    return url.startswith((address, address.replace("http", "ws"), "data:", "blob:"))


def opened(page: Page) -> None:
    drawn(page)
    page.locator(".cells canvas").wait_for()
    page.locator(".js-plotly-plot").first.wait_for()
    page.sent = getattr(page, "sent", [])
    page.sent.clear()


def pinned(page: Page) -> Locator:
    return page.locator("[data-testid=stHtml]", has_text=re.compile(r"Block \d+, head \d+"))


def card(page: Page) -> str:
    return pinned(page).inner_text()


def thresholds(page: Page) -> tuple[float, float]:
    handles = (page.locator(f".handle[data-threshold='{which}']") for which in (0, 1))
    spatial, temporal = (float(handle.get_attribute("aria-valuenow")) for handle in handles)
    return spatial, temporal


def view(page: Page) -> dict[str, object]:
    return {
        "finding": page.locator("h1").inner_text(),
        "card": card(page),
        "thresholds": thresholds(page),
        "counts": page.locator(".counts").inner_text(),
    }


def test_the_first_look_needs_no_click_no_scroll_and_no_network(heads):
    assert len(heads.locator("h1").inner_text()) > 40
    grid = heads.locator(".cells canvas").bounding_box()
    ratios = heads.locator(".ratios canvas").bounding_box()
    for box in (grid, ratios):
        assert box["y"] > 0 and box["y"] + box["height"] <= 900 and box["x"] + box["width"] <= 1440
    assert re.search(r"Block \d, head \d", card(heads))
    assert heads.foreign == []


def test_what_takes_a_narrow_chart_out_stands_clear_of_its_axis(heads):
    chart = heads.locator(".st-key-chart_ratio_over_timesteps")
    name = chart.locator(".xtitle").bounding_box()
    button = chart.get_by_role("button", name="Take out").bounding_box()
    assert chart.bounding_box()["width"] < 300, "this chart is the narrow one"
    assert button["y"] >= name["y"] + name["height"] or button["x"] >= name["x"] + name["width"] + 8


def test_dragging_a_threshold_sends_nothing_until_released(heads, idle):
    handle = heads.locator(".handle[data-threshold='1']")
    before, counts = thresholds(heads)[1], heads.locator(".counts").inner_text()
    box = heads.locator(".ratios canvas").bounding_box()
    grip = handle.locator("span").bounding_box()
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    heads.mouse.move(x, y)
    heads.mouse.down()
    for step in range(1, 21):
        heads.mouse.move(x + step * box["width"] / 200, y)
    next_frame(heads)
    assert thresholds(heads)[1] > before + 0.05
    assert heads.locator(".counts").inner_text() != counts
    assert heads.sent == []
    heads.mouse.up()
    heads.wait_for_url(re.compile(r"[?&]tt=0\.[34]"))
    idle(heads)
    assert len(heads.sent) == 1
    assert f"tt={thresholds(heads)[1]:g}" in heads.url
    expect(heads.locator("[data-testid=stAlert]")).to_have_count(0)


def test_pinning_by_mouse_and_keyboard_changes_the_card_and_the_link(heads, idle):
    first, entries = card(heads), heads.evaluate("history.length")
    box = heads.locator(".cells canvas").bounding_box()
    heads.mouse.click(box["x"] + box["width"] * 0.93, box["y"] + box["height"] * 0.93)
    heads.wait_for_url(re.compile(r"block=7&head=9|head=9"))
    idle(heads)
    # Block and head are one step of the Back button, not two.
    assert heads.evaluate("history.length") == entries + 1
    expect(pinned(heads)).to_contain_text("Block 7, head 9")
    assert card(heads) != first
    heads.locator(".cells").focus()
    heads.keyboard.press("ArrowUp")
    heads.keyboard.press("ArrowLeft")
    heads.keyboard.press("Enter")
    expect(pinned(heads)).to_contain_text("Block 6, head 8")
    heads.wait_for_url(re.compile(r"block=6&head=8"))


def test_p_and_thresholds_are_counted_while_they_move(heads, folder):
    run = Run.open(folder / "captures" / "first")
    slider, words = heads.get_by_role("slider", name="Pruning ratio p"), heads.locator(".mask-sliders .words")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    heads.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + box["height"] / 2)
    heads.mouse.down()
    for step in range(1, 9):
        heads.mouse.move(box["x"] + box["width"] * (0.3 + step / 20), box["y"] + box["height"] / 2)
    next_frame(heads)
    now, before = float(slider.input_value()), words.inner_text()
    assert now > 0.5 and "p=" not in heads.url and heads.sent == []
    found = head_plan(run, Selection(ratio=now))
    assert f"Removes {int((~found.self_heads).sum())} self-attention heads" in before
    for name in ("parameters", "flops"):
        size = heads.locator(f".mask-sliders tr[data-name={name}]").get_attribute("data-size")
        assert float(size) == found.predicted[name]
    heads.mouse.up()
    heads.wait_for_url(re.compile(rf"[?&]p={now:g}"))
    drawn(heads)
    heads.sent.clear()
    # A threshold is followed as it moves, too: other heads are temporal, so others are removed.
    grip = heads.locator(".handle[data-threshold='1'] span")
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    heads.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    heads.mouse.down()
    heads.mouse.move(box["x"] + box["width"] / 2 + 120, box["y"] + box["height"] / 2, steps=6)
    next_frame(heads)
    tau_s, tau_t = thresholds(heads)
    letters = classify(mean_ratio(run), tau_s, tau_t)
    removed = ~head_plan(run, Selection(ratio=now, tau_s=tau_s, tau_t=tau_t)).self_heads
    counts = ", ".join(f"{count} {role}" for role, count in role_counts(letters[removed]).items())
    assert counts in words.inner_text() and counts not in before and heads.sent == []
    heads.mouse.up()
    heads.wait_for_url(re.compile(r"[?&]tt="))


def test_a_point_of_the_scatter_pins_its_head(page, address):
    page.goto(f"{address}/?view=scatter&x=value_norm&color=importance")
    drawn(page)
    before = card(page)
    points = page.locator(".st-key-chart_head_scatter .scatterlayer .points path")
    # Points may lie over one another: the last but the pinned one's ring is on top.
    points.nth(points.count() - 2).click(force=True)
    page.wait_for_url(re.compile(r"[?&]block=\d&head=\d"))
    expect(pinned(page)).not_to_have_text(before)
    drawn(page)
    expect(page.locator("[data-testid=stAlert]")).to_have_count(0)


def test_a_copied_link_reproduces_the_view_in_another_browser(heads, new_page, idle):
    press_at_once(heads.locator(".handle[data-threshold='0']"), "ArrowLeft", 5)
    heads.wait_for_url(re.compile(r"ts=0\.\d+"))
    heads.locator(".cells").focus()
    heads.keyboard.press("ArrowDown")
    heads.keyboard.press("Enter")
    heads.wait_for_url(re.compile(r"block=\d"))
    ratio = heads.get_by_role("spinbutton", name="Pruning ratio p")
    ratio.fill("0.5")
    ratio.press("Enter")
    heads.wait_for_url(re.compile(r"p=0\.5"))
    heads.get_by_text("Keeps 5 of 10").wait_for()
    idle(heads)
    heads.context.grant_permissions(["clipboard-read", "clipboard-write"])
    heads.get_by_role("button", name="Copy link").click()
    expect(heads.get_by_role("button", name="Copied")).to_be_visible()
    link = heads.evaluate("navigator.clipboard.readText()")
    assert link == heads.url
    other = new_page()
    other.goto(link)
    opened(other)
    other.get_by_text("Keeps 5 of 10").wait_for()
    assert view(other) == view(heads)
    assert other.url == heads.url


def test_back_shows_the_head_before_in_the_grid_and_on_the_card(heads, idle):
    card, readout = heads.locator(".st-key-head_card"), heads.locator(".head-grid .readout")
    pinned: list[str] = []
    for _ in range(2):
        before = heads.url
        heads.locator(".cells").focus()
        heads.keyboard.press("ArrowUp")
        heads.keyboard.press("Enter")
        heads.wait_for_url(lambda url, before=before: "block=" in url and url != before)
        block, head = re.search(r"block=(\d+)&head=(\d+)", heads.url).groups()
        pinned.append(f"lock {block}, head {head}")
        expect(card).to_contain_text(f"B{pinned[-1]} ")
        idle(heads)
    heads.locator(".cells").blur()
    assert pinned[0] != pinned[1]
    heads.go_back()
    expect(card).to_contain_text(f"B{pinned[0]} ")
    expect(readout).to_contain_text(f"b{pinned[0]} ")


def test_a_bad_link_says_so_and_shows_the_page(page, address):
    page.goto(f"{address}/?block=99&head=1&ts=2&run=../../etc")
    opened(page)
    expect(page.locator("[data-testid=stAlert]")).to_have_count(3)
    assert len(page.locator("h1").inner_text()) > 40


def test_the_mask_and_its_json_load(heads, folder):
    with heads.expect_download() as waiting:
        heads.get_by_role("button", name="Mask (.safetensors)").click()
    path = folder / "mask.safetensors"
    waiting.value.save_as(path)
    mask = masks.load(path)
    assert mask.self_heads.shape == (8, 10) and (mask.self_heads.sum(axis=1) == 7).all()
    assert mask.metadata["settings"]["ratio"] == 0.3
    with heads.expect_download() as waiting:
        heads.get_by_role("button", name="JSON").click()
    waiting.value.save_as(folder / "mask.json")
    assert json.loads((folder / "mask.json").read_text())["counts"]["self_heads"] == [7] * 8
    assert [path.name for path in (folder / "workspace").glob(".mask-*")] == []


def unfold(page) -> None:
    """Open the panel that generates, which is open where something was generated."""
    panel = page.locator(".st-key-generate_panel details")
    if panel.get_attribute("open") is None:
        panel.locator("summary").click()
    expect(page.get_by_role("button", name="Generate", exact=True)).to_be_visible()


def test_a_generation_runs_survives_a_reload_is_cancelled_and_the_next_one_plays(heads, idle):
    unfold(heads)
    heads.get_by_role("spinbutton", name="Steps").fill("998")
    heads.get_by_role("button", name="Generate", exact=True).click()
    expect(heads.get_by_text(re.compile(r"of 998"))).to_be_visible()
    heads.reload()
    expect(heads.get_by_text(re.compile(r"of 998"))).to_be_visible()
    heads.get_by_role("button", name="Cancel").click()
    expect(heads.get_by_text(re.compile(r"Cancelled after \d+ of 998"))).to_be_visible()
    idle(heads)
    heads.get_by_role("spinbutton", name="Steps").fill("2")
    heads.get_by_role("button", name="Generate", exact=True).click()
    heads.locator("video").wait_for()
    heads.wait_for_function("document.querySelector('video').readyState >= 2")
    video = heads.evaluate(
        "(({error, videoWidth, duration}) => [error, videoWidth, duration])(document.querySelector('video'))"
    )
    assert video[0] is None and video[1] > 0 and video[2] > 0
    assert "/api/video/workspace/jobs/" in heads.locator("video").get_attribute("src")


def test_a_job_outlives_the_server_and_two_tabs_agree(heads, serve, start, address, idle):
    unfold(heads)
    heads.get_by_role("spinbutton", name="Steps").fill("999")
    heads.get_by_role("button", name="Generate", exact=True).click()
    expect(heads.get_by_text(re.compile(r"of 999"))).to_be_visible()
    tab = heads.context.new_page()
    tab.goto(f"{address}/jobs")
    expect(tab.get_by_text(re.compile(r"of 999"))).to_be_visible()
    serve.stop(address)
    assert start(int(address.rsplit(":", 1)[1])) == address
    tab.goto(f"{address}/jobs")
    expect(tab.get_by_text(re.compile(r"of 999"))).to_be_visible()
    tab.goto(f"{address}/runs")
    expect(tab.get_by_text("1 job running")).to_be_visible()
    heads.goto(address)
    expect(heads.get_by_text(re.compile(r"of 999"))).to_be_visible()
    tab.goto(f"{address}/jobs")
    tab.get_by_role("button", name="Cancel").click()
    expect(heads.get_by_text(re.compile(r"Cancelled after \d+ of 999"))).to_be_visible()
    expect(tab.get_by_role("button", name="Resume").first).to_be_visible()


def test_a_cancelled_capture_is_resumed_by_its_button_and_does_no_sample_twice(
    page, serve, start, folder, slow_model, address
):
    jobs, samples = open_workspace(folder / "workspace"), 40
    # A sample takes a fifth of a second here: many of them leave time to cancel amid them on any machine.
    size = {"height": 64, "width": 64, "frames": 17, "steps": 3}
    words = {"model": str(slow_model), "out": "run", "prompts": ["a red 7", "a blue 3"], "samples": samples, **size}
    job = jobs.submit("capture", words, "cpu")
    run = jobs.folder(job) / "artefacts" / "run"
    assert soon(lambda: len(written(run)) >= 2), jobs.log(job)
    jobs.cancel(job)
    cancelled = jobs.wait(job, PATIENCE_MS / 1000)
    assert (cancelled.state, cancelled.attempt) == (State.CANCELLED, 1)
    before = written(run)
    assert 2 <= len(before) < samples, "it was cancelled amid its samples"
    # As after a reboot: neither the server that is asked to go on nor the worker is the one of before.
    serve.stop(address)
    for worker in jobs.workers():
        if worker.alive:
            os.kill(worker.identity.pid, signal.SIGTERM)
    assert soon(lambda: not any(worker.alive for worker in jobs.workers()))
    assert start(int(address.rsplit(":", 1)[1])) == address
    page.goto(f"{address}/jobs")
    drawn(page)
    box = page.locator(f".st-key-job-{job}")
    expect(box).to_contain_text(re.compile(rf"cancelled.*Cancelled after {cancelled.done} of {cancelled.total}", re.S))
    expect(box).not_to_contain_text("attempt")
    box.get_by_role("button", name="Resume").click()
    expect(box).to_contain_text("attempt 2")
    expect(box).to_contain_text(re.compile(rf"done.*Done in .*{samples} samples written", re.S))
    expect(box.get_by_role("button", name=re.compile("Resume|Cancel"))).to_have_count(0)
    expect(page.locator("[data-testid=stAlert], [data-testid=stException]")).to_have_count(0)

    done = jobs.status(job)
    assert (done.state, done.attempt, done.result["samples"]) == (State.DONE, 2, samples)
    path = [(event.state, event.attempt) for event in jobs.events(job)]
    assert path[-3:] == [(State.QUEUED, 2), (State.RUNNING, 2), (State.DONE, 2)] and (State.CANCELLED, 1) in path
    # The files of before are the same ones, and what was measured was measured once.
    after = written(run)
    assert {name: after[name] for name in before} == before and len(after) == samples
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["pending"] for line in log if line["event"] == "start"] == [samples, samples - len(before)]
    assert sorted(line["index"] for line in log if line["event"] == "sample") == list(range(samples))
    assert Run.open(run).finished == tuple(range(samples))


def soon(true: Callable[[], bool]) -> bool:
    """Whether it becomes true before patience ends."""
    end = time.monotonic() + PATIENCE_MS / 1000
    while not (found := true()) and time.monotonic() < end:
        time.sleep(0.02)
    return found


def written(run: Path) -> dict[str, tuple[int, int]]:
    """The sample files of a run by name, each with what it would have anew if it were written again."""
    stats = {path.name: path.stat() for path in (run / "samples").glob("[0-9]*.safetensors")}
    return {name: (about.st_ino, about.st_mtime_ns) for name, about in stats.items()}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["", "route", "train", "evidence", "runs", "jobs", "doctor"])
def test_every_page_fits_shows_no_error_and_passes_the_accessibility_scan(new_page, address, scheme, name):
    page = new_page(scheme=scheme)
    page.goto(f"{address}/{name}")
    for size in ((1440, 900), (1280, 720)):
        resized(page, *size)
        expect(page.locator("[data-testid=stAlert], [data-testid=stException]")).to_have_count(0)
        found = Axe().run(page).response["violations"]
        assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []
    dark = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", dark)[:3])) < 80) == (scheme == "dark")
