"""The app's own server and a real Chromium: from an address to the painted grid, from a drag to the painted frame."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlencode

import psutil
from playwright.sync_api import Browser, BrowserContext, Locator, Page, WebSocket, sync_playwright

from pare.errors import InputError
from workbench.places import PROJECT, Places

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
PATIENCE_MS = 300_000
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
# Runs before the page's own scripts. Of a frame's callbacks the first is this one: inputs before it belong to the frame,
# which is painted when a message posted in it arrives or the next frame begins. Frames are asked for only while a button
# is held.
WATCH = """(() => {
    const seen = window.benchmark = { first: null, waits: [], gaps: [] };
    let input = null, own = null, last = null, held = false;
    const { port1, port2 } = new MessageChannel();
    const clear = CanvasRenderingContext2D.prototype.clearRect;
    CanvasRenderingContext2D.prototype.clearRect = function (...box) {
        if (this.canvas.closest(".head-grid .cells")) {
            if (own) own.drawn = true;
            if (seen.first === null) port2.postMessage("first");
        }
        return clear.apply(this, box);
    };
    const painted = () => {
        if (own?.drawn) seen.waits.push(performance.now() - own.input);
        own = null;
    };
    port1.onmessage = ({ data }) => {
        if (data === "first") seen.first ??= performance.now();
        else if (data === own?.number) painted();
    };
    const frame = (now) => {
        painted();
        if (!held) return;
        requestAnimationFrame(frame);
        if (last !== null) seen.gaps.push(now - last);
        last = now;
        if (input === null) return;
        own = { input, number: now, drawn: false };
        input = null;
        port2.postMessage(now);
    };
    addEventListener("pointermove", (event) => { if (event.buttons) input ??= performance.now(); }, true);
    addEventListener("pointerup", () => { held = false; }, true);
    addEventListener("pointerdown", () => {
        [held, last, input, own] = [true, null, null, null];
        requestAnimationFrame(frame);
    }, true);
})();"""


@dataclass(frozen=True)
class Opened:
    """The Heads page of a run: milliseconds to its painted grid, and the lengths of all messages of its WebSocket."""

    page: Page
    painted: float
    sent: list[int]
    received: list[int]


@dataclass(frozen=True)
class Drag:
    """Milliseconds from every input to the painted frame, between frames, and what went over the WebSocket meanwhile."""

    waits: list[float]
    gaps: list[float]
    bytes_sent: int
    bytes_received: int


@dataclass(frozen=True)
class Pins:
    """Milliseconds from the key that pins a head to its card, and processor milliseconds of the server per pin."""

    passed: list[float]
    server: float


@contextmanager
def served(places: Places) -> Iterator[tuple[str, psutil.Process]]:
    """The app's server on a free port, from its start to its end: its address and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.server", str(port)],
        cwd=PROJECT,
        env={**os.environ, **places.environment()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not _healthy(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server on port {port} did not come up")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium or another one on the path. Raises `InputError` where there is none."""
    executable = next((path for name in NAMES if (path := shutil.which(name))), None)
    if executable is None:
        raise InputError("browser", got="none", expected=f"one of {', '.join(NAMES)}", fix="apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS), timeout=PATIENCE_MS)
        yield browser
        browser.close()


@contextmanager
def opened(browser: Browser, address: str, run: str) -> Iterator[Opened]:
    """The Heads page of a run in a fresh profile, once all of it is there."""
    sent: list[int] = []
    received: list[int] = []

    def listen(socket: WebSocket) -> None:
        socket.on("framesent", lambda payload: sent.append(len(payload)))
        socket.on("framereceived", lambda payload: received.append(len(payload)))

    context: BrowserContext = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.on("websocket", listen)
    page.goto(f"{address}/?{urlencode({'run': run})}")
    page.wait_for_function("window.benchmark.first !== null")
    idle(page)
    yield Opened(page, page.evaluate("window.benchmark.first"), sent, received)
    context.close()


def idle(page: Page) -> None:
    """Wait until the page is connected and its script has ended."""
    page.wait_for_selector(IDLE)


def drag(view: Opened, moves: int) -> Drag:
    """Drag the temporal threshold to and fro over a third of its range, and let go where it began."""
    page = view.page
    box = _box(page.locator(".ratios canvas"))
    grip = _box(page.locator(".handle[data-threshold='1'] span"))
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    view.sent.clear()
    view.received.clear()
    for move in range(1, moves + 1):
        # A step is wider than the threshold's own, so that every one of them recolours.
        page.mouse.move(x + box["width"] / 3 * (1 - abs(2 * move / moves - 1)), y)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    went, came = sum(view.sent), sum(view.received)
    page.mouse.up()
    idle(page)
    waits, gaps = page.evaluate("[window.benchmark.waits, window.benchmark.gaps]")
    return Drag(waits, gaps, went, came)


def pins(view: Opened, server: psutil.Process, count: int) -> Pins:
    """Pin the heads of the first column one after the other by keyboard, waiting for each one's card."""
    page = view.page
    cells = page.locator(".head-grid .cells")
    cells.focus()
    page.keyboard.press("Control+Home")
    passed, before = [], sum(server.cpu_times()[:2])
    for _ in range(count):
        page.keyboard.press("ArrowDown")
        words = page.locator(".head-grid .live").inner_text().split(" · ")[0]
        start = time.perf_counter()
        page.keyboard.press("Enter")
        page.locator("[data-testid=stHtml]", has_text=words[0].upper() + words[1:]).wait_for()
        passed.append(1000 * (time.perf_counter() - start))
        idle(page)
    return Pins(passed, 1000 * (sum(server.cpu_times()[:2]) - before) / count)


def _box(locator: Locator) -> dict[str, float]:
    locator.scroll_into_view_if_needed()
    box = locator.bounding_box()
    if box is None:
        raise RuntimeError(f"{locator} is not on the screen")
    return dict(box)


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(f"127.0.0.1:{port}", timeout=2)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()
