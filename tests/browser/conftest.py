"""A real Chromium and a real Streamlit server for the tests in this folder."""

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.browser import waiting
from tests.browser.waiting import PATIENCE_MS
from tests.ports import find_free_port

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SERVER_FLAGS = (
    "--server.headless=true",
    "--server.address=127.0.0.1",
    "--server.fileWatcherType=none",
    "--server.showEmailPrompt=false",
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=viewer",
)


class Servers:
    """Streamlit servers on free ports of 127.0.0.1; the same script with the same settings is started once."""

    def __init__(self, logs: Path):
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._urls: dict[tuple, str] = {}

    def __call__(
        self,
        script: str | Path,
        env: Mapping[str, str] | None = None,
        *,
        args: Sequence[str] = (),
        port: int | None = None,
    ) -> str:
        """The address of `python -m streamlit run SCRIPT [SERVER_FLAGS] -- ARGS`, once it answers."""
        settings = (str(script), tuple(sorted((env or {}).items())), tuple(args))
        if port is None and (url := self._urls.get(settings)) in self._running:
            return str(url)
        port = port or find_free_port()
        argv = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", *SERVER_FLAGS]
        url = self.start([*argv, *(["--", *args] if args else [])], port, env)
        self._urls[settings] = url
        return url

    def start(self, argv: Sequence[str], port: int, env: Mapping[str, str] | None = None, seconds: float = 240) -> str:
        """Run any command that serves Streamlit on `port`, and wait until it is healthy."""
        path = self._logs / f"server-{port}.log"
        with path.open("ab") as log:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        url = f"http://127.0.0.1:{port}"
        self._running[url] = process
        deadline = time.monotonic() + seconds
        while not _healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                self.stop(url)
                pytest.fail(f"the server did not come up: {argv}\n{path.read_text(errors='replace')[-3000:]}")
            time.sleep(0.1)
        return url

    def stop(self, url: str) -> None:
        """End one server; it may be started again on its port."""
        process = self._running.pop(url)
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def stop_all(self) -> None:
        for url in list(self._running):
            self.stop(url)


def _healthy(url: str) -> bool:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=2)
    try:
        connection.request("GET", "/_stcore/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """serve(script, env) starts that script and returns its address."""
    servers = Servers(tmp_path_factory.mktemp("servers"))
    yield servers
    servers.stop_all()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or any other on the path; these tests fail without one, they are never skipped."""
    executable = next((path for name in CHROMIUM_NAMES if (path := shutil.which(name))), None)
    if executable is None:
        pytest.fail(f"browser tests: got none of {', '.join(CHROMIUM_NAMES)}; expected one on PATH; "
                    "fix: apt-get install chromium")  # fmt: skip
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(CHROMIUM_ARGS), timeout=PATIENCE_MS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[Callable[..., Page]]:
    """new_page(width, height, scheme) opens a fresh profile; an uncaught error of any page's scripts fails the test."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_page(width: int = 1440, height: int = 900, scheme: str = "light") -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not errors, errors


@pytest.fixture
def page(new_page: Callable[..., Page]) -> Page:
    """A page of a fresh profile at 1440 x 900."""
    return new_page()


@pytest.fixture(scope="session")
def idle() -> Callable[[Page], None]:
    """idle(page) waits until the page is connected and its script has ended."""
    return waiting.idle
