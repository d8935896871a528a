"""Pictures of the app for the documents: `python -m tests.browser.tour`, on the bundled model, in some minutes.

A newcomer's path (tests/browser/newcomer.py) is walked in a fresh workspace and its stages go to `OUT/tour`; then every
page, with what the path has made, goes to `OUT/pages`, light and dark.
"""

import argparse
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from tests.browser.conftest import CHROMIUM_ARGS, CHROMIUM_NAMES, ROOT, Servers
from tests.browser.newcomer import BLOCK, HEAD, settled, walk
from tests.browser.waiting import PATIENCE_MS
from tests.ports import find_free_port
from workbench.jobs.api import open_workspace

WIDTH, HEIGHT, MARGIN = 1440, 900, 16
COLOURS, COMMON = 256, 32
STEPS = 20
TRAINING = (
    ("--samples", "96"),
    ("--train-steps", "40", "--batch", "8", "--warmup", "10", "--validate-every", "10", "--held-out", "16"),
)
"""A short training, so that the Train page has one to show: the flags of its samples and its own."""
PAGES = {
    "heads": f"?block={BLOCK}&head={HEAD}",
    "blocks": "blocks?block=1",
    "prune": "prune",
    "route": "route",
    "train": "train",
    "compare": "compare",
    "evidence": "evidence?ask=premise",
    "runs": "runs",
    "jobs": "jobs",
    "doctor": "doctor",
}
"""Page → its link; Compare's is where the path has been."""


def save(page: Page, path: Path, parts: tuple[Locator, ...] = ()) -> None:
    """A picture of the window, or of what the parts cover with a margin, in few colours."""
    clip = None
    if not parts and page.get_by_test_id("stMain").count():
        # A click below has scrolled there.
        page.get_by_test_id("stMain").evaluate("(main) => main.scrollTo(0, 0)")
    if parts:
        if not all(inside(page, part) for part in parts):
            # What lies below would have to be scrolled to; a taller window has it at once.
            page.set_viewport_size({"width": WIDTH, "height": content_height(page)})
            settled(page)
        clip = around([box for part in parts if (box := part.first.bounding_box())], page)
    picture = Image.open(BytesIO(page.screenshot(clip=clip) if clip else page.screenshot()))
    path.parent.mkdir(parents=True, exist_ok=True)
    few = in_few_colours(picture.convert("RGB"))
    few.save(path, optimize=True)
    if page.viewport_size != {"width": WIDTH, "height": HEIGHT}:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        settled(page)
    print(f"{path} · {path.stat().st_size / 1000:.0f} kB", file=sys.stderr)


def in_few_colours(picture: Image.Image) -> Image.Image:
    """The picture with a palette: its commonest colours as they are, the others by the nearest of a few."""
    pixels = np.asarray(picture, np.uint32) @ [1 << 16, 1 << 8, 1]
    found, places, counts = np.unique(pixels, return_inverse=True, return_counts=True)
    colours = found[:, None] >> np.array([16, 8, 0]) & 255
    rest = picture.quantize(COLOURS - COMMON, method=Image.Quantize.MAXCOVERAGE).getpalette() or []
    palette = np.concatenate([colours[np.argsort(-counts)[:COMMON]], np.reshape(rest, (-1, 3))])
    nearest = ((colours[:, None].astype(int) - palette) ** 2).sum(axis=2).argmin(axis=1)
    few = Image.fromarray(nearest.astype(np.uint8)[places].reshape(pixels.shape), "P")
    few.putpalette(palette.astype(np.uint8).tobytes())
    return few


def inside(page: Page, part: Locator) -> bool:
    box = part.first.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= HEIGHT


def content_height(page: Page) -> int:
    return math.ceil(page.get_by_test_id("stMain").evaluate("(main) => main.scrollHeight"))


def around(boxes: list, page: Page) -> dict:
    """The rectangle around these boxes with a margin, as far as the window has it."""
    size = page.viewport_size or {"width": WIDTH, "height": HEIGHT}
    left, top = (max(0.0, min(box[side] for box in boxes) - MARGIN) for side in ("x", "y"))
    right = min(size["width"], max(box["x"] + box["width"] for box in boxes) + MARGIN)
    bottom = min(size["height"], max(box["y"] + box["height"] for box in boxes) + MARGIN)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def take_tour(browser: Browser, address: str, out: Path, steps: int) -> dict[str, str]:
    """Walk the path; returns the link of every stage that was pictured."""
    page = open_page(browser, "light")
    links: dict[str, str] = {}

    def shot(name: str, *parts: Locator) -> None:
        links[name] = page.url.removeprefix(f"{address}/")
        save(page, out / f"{name}.png", parts)

    with tempfile.TemporaryDirectory() as folder:
        walk(page, address, Path(folder), steps=steps, shot=shot)
    page.context.close()
    return links


def take_pages(browser: Browser, address: str, out: Path, links: dict[str, str]) -> None:
    """Every page in both themes."""
    for scheme in ("light", "dark"):
        page = open_page(browser, scheme)
        for name, link in (PAGES | links).items():
            page.goto(f"{address}/{link}")
            settled(page)
            expect(page.locator("h1")).not_to_contain_text(re.compile("Asking this machine"))
            settled(page)
            save(page, out / f"{name}-{scheme}.png")
        page.context.close()


def open_page(browser: Browser, scheme: str) -> Page:
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE_MS)
    return context.new_page()


def train(workspace: Path) -> None:
    """A short training of the path's student, by the command line."""
    (student,) = workspace.glob("jobs/*/artefacts/student")
    data, samples = workspace / "samples", TRAINING[0]
    pare("distill", "data", "demo", *samples, "--out", str(data))
    flags = ("--student", str(student), "--data", str(data), "--out", str(workspace / "trainings" / "width"))
    pare("distill", "width", "demo", *flags, *TRAINING[1])


def pare(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "workbench", *words], cwd=ROOT, check=True, stdin=subprocess.DEVNULL)


@contextmanager
def served(workspace: Path) -> Iterator[str]:
    """The app on a fresh workspace, as `make app` starts it; both are gone afterwards."""
    port = find_free_port()
    with tempfile.TemporaryDirectory() as logs:
        servers = Servers(Path(logs))
        argv = [sys.executable, "-m", "workbench", "app", "--port", str(port), "--workspace", workspace.name]
        try:
            yield servers.start(argv, port, {"BROWSER": "true"})
        finally:
            servers.stop_all()
            workers = [worker for worker in open_workspace(workspace).workers() if worker.alive]
            for worker in workers:
                os.kill(worker.identity.pid, signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE_MS / 1000
            while any(worker.alive for worker in open_workspace(workspace).workers()) and time.monotonic() < deadline:
                # A worker that ends still writes in the folder.
                time.sleep(0.2)
            shutil.rmtree(workspace)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.tour", description=__doc__.split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument(
        "--only", choices=("tour", "pages"), help="take these pictures alone; the path is walked anyway"
    )
    parser.add_argument("--steps", type=int, default=STEPS, help="denoising steps of the videos")
    arguments = parser.parse_args()
    # Paths are shown as they are from here, so that pictures name no folder of the machine.
    workspace = ROOT / "workspace"
    if workspace.exists():
        parser.exit(2, f"workspace: got {workspace}; expected none yet, for it is shown as new; fix: move it away\n")
    executable = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    expect.set_options(timeout=PATIENCE_MS)
    with served(workspace) as address, sync_playwright() as playwright, tempfile.TemporaryDirectory() as unwanted:
        browser = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_ARGS), timeout=PATIENCE_MS)
        places = {
            name: arguments.out / name if arguments.only in (None, name) else Path(unwanted)
            for name in ("tour", "pages")
        }
        links = take_tour(browser, address, places["tour"], arguments.steps)
        if arguments.only != "tour":
            train(workspace)
            take_pages(browser, address, places["pages"], {"compare": links["compare-videos"]})
        browser.close()


if __name__ == "__main__":
    main()
