"""Conditions to wait for in a browser: what a test needs, never a time that some machine needs."""

from playwright.sync_api import Locator, Page

# Longer than any busy machine needs; only a failure waits so long.
PATIENCE_MS = 180_000
IDLE = "[data-testid=stApp][data-test-connection-state=CONNECTED][data-test-script-state=notRunning]"
CONTENT = "[data-testid=stMain] :is(h1, [data-testid=stText])"
# No placeholder left, every component shown (they hide until they are filled), every figure there, fonts loaded, and no
# transition on its way (a spinner's animation never ends).
DRAWN = """() => !document.querySelector("[data-testid=stSkeleton]")
    && [...document.querySelectorAll("[data-testid=stBidiComponentIsolated]")]
        .every((host) => host.shadowRoot?.querySelector("div > div > *")?.hidden === false)
    && [...document.querySelectorAll("[data-testid=stPlotlyChart]")]
        .every((chart) => !chart.checkVisibility() || chart.querySelector(".js-plotly-plot .main-svg"))
    && document.fonts.status === "loaded"
    && document.getAnimations().every(({ playState, effect }) =>
        playState !== "running" || effect.getComputedTiming().iterations === Infinity)"""


def idle(page: Page) -> None:
    """Wait until the page is connected and its script has ended."""
    page.wait_for_selector(IDLE, timeout=PATIENCE_MS)


def drawn(page: Page) -> None:
    """Wait until the page's script has ended and all that it sent is on the screen."""
    page.wait_for_selector(CONTENT, timeout=PATIENCE_MS)
    idle(page)
    page.wait_for_function(DRAWN, timeout=PATIENCE_MS)


def resized(page: Page, width: int, height: int) -> None:
    """Give the window another size and wait until the page has taken it on and has nothing to scroll sideways."""
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_function(f"innerWidth === {width}")
    next_frame(page)
    drawn(page)
    main = "document.querySelector('[data-testid=stMain]')"
    page.wait_for_function(f"{main}.scrollWidth === {main}.clientWidth")


def next_frame(page: Page) -> None:
    """Wait until what has happened in the page is drawn, and what it sends at once is sent."""
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def press_at_once(locator: Locator, key: str, times: int) -> None:
    """The key reaches the focused element several times with no time between, however busy the machine is."""
    locator.focus()
    locator.evaluate(
        """(element, [key, times]) => {
            for (let i = 0; i < times; i += 1) {
                element.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
            }
        }""",
        [key, times],
    )
