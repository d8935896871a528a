"""What a page costs its server: processor time of the script's thread at its first run and at every change of a widget.

The pages run in this process, without a browser, on Streamlit's test client: the script runs in a thread of its own, and
the calling thread reads what it has sent. So the script's time is that of the process less that of the caller.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from measuring.made_run import Size
from workbench.places import PROJECT, Places
from workbench.server import CONFIG

PAGES = ("heads", "blocks", "prune", "route", "compare")
PATIENCE_SECONDS = 600
IN_A_PART = {"view": ("view_input", "grid"), "order": ("order_input", "number")}
"""Name in the link → the widget that draws a part of the page alone, and what it shows first."""
Link = Mapping[str, str]


@dataclass
class Widget:
    """Processor milliseconds of a page's script per change of one widget, to values that it had not had and had had."""

    name: str
    new: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)


@dataclass
class PageWork:
    """Milliseconds of a page's first run with nothing cached (passed, processor) and the next, and of its widgets."""

    page: str
    opening: dict[str, list[float]]
    widgets: list[Widget] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)


def changes(page: str, size: Size) -> dict[str, list[dict[str, str]]]:
    """Every control of a page that is part of its view, with values to go through, in the words of a link.

    A widget's callback changes the selection, which the link mirrors; a changed link is read to the same effect, but draws
    the whole page, so that widgets that do not (`IN_A_PART`) are used themselves.
    """

    def one(name: str, values: list[Any]) -> list[dict[str, str]]:
        return [{name: str(value)} for value in values]

    last = size.steps - 1
    pins = [{"block": str(i % size.blocks), "head": str((3 * i + 1) % size.heads)} for i in range(8)]
    pages = ("heads", "blocks", "prune", "compare")
    every = {
        "pinned head": (("heads", "compare"), pins),
        "block": (("blocks",), one("block", [i % size.blocks for i in range(1, 8)])),
        "threshold": (("heads", "prune", "compare"), one("ts", [0.65, 0.6, 0.62, 0.71, 0.75, 0.8])),
        "p": (("heads", "prune"), one("p", [0.25, 0.35, 0.4, 0.45, 0.5])),
        "α": (("heads", "prune"), one("alpha", [1.2, 1.8, 2, 2.2, 2.5])),
        "steps": (pages, one("steps", [f"0-{max(0, last - i)}" for i in range(1, 1 + min(last, 5))])),
        "sample": ((*pages, "route"), one("sample", [(2 * i + 1) % size.samples for i in range(6)])),
        "branch": (pages, one("branch", list(size.branches[:2])) if len(size.branches) > 1 else []),
        "view": (("heads",), one("view", ["scatter"])),
        "order": (("heads",), one("order", ["ratio"])),
        "lens": (("blocks", "compare"), one("lens", ["cosine", "self", "cross"] if size.everything else ["cosine"])),
        "scorer": (("prune",), one("scorer", ["random", "projected_energy"] if size.everything else ["random"])),
        "allocation": (("prune",), one("alloc", ["global", "global-l2"])),
        "neurons": (("prune",), one("neurons", ["none", "random"])),
        "budget": (("route",), [{"kmin": "2", "kmax": str(size.blocks - i)} for i in range(min(4, size.blocks - 2))]),
        "edited decision": (("route",), one("flip", [f"{i % size.steps}.1" for i in range(4)] if size.blocks > 2 else [])),
    }  # fmt: skip
    return {name: values for name, (where, values) in every.items() if page in where and values}


class Page:
    """A page of the app in a session of its own; `link` says what it shows."""

    def __init__(self, name: str, places: Places, link: Link):
        # Pages read where they may read from the environment, and their settings are those of the app's own server.
        os.environ.update(places.environment())
        for option, value in CONFIG.items():
            config.set_option(option, value)
        self.name, self.link = name, dict(link)
        self._test = AppTest.from_file(str(PROJECT / "app.py"), default_timeout=PATIENCE_SECONDS)
        self._test.switch_page(f"workbench/pages/{name}.py")

    def run(self, **changed: str) -> tuple[float, float]:
        """Milliseconds of one run of the script with a changed link: those that passed, and those of processors."""
        self._test.query_params.clear()
        self._test.query_params.update(self.link | changed)
        return self._measured(self.link | changed, self._test)

    def change(self, **changed: str) -> tuple[float, float]:
        """The same for a new value of one widget of `IN_A_PART`."""
        ((name, value),) = changed.items()
        key = IN_A_PART[name][0]
        widget = next(one for one in (*self._test.selectbox, *self._test.get("button_group")) if one.key == key)
        return self._measured(changed, widget.set_value([value] if isinstance(widget.value, list) else value))

    def _measured(self, shown: Link, to_run: Any) -> tuple[float, float]:
        passed, every, mine = time.perf_counter(), time.process_time(), time.thread_time()
        to_run.run()
        script = time.process_time() - every - (time.thread_time() - mine)
        problems = [one.value for one in (*self._test.exception, *self._test.error, *self._test.warning)]
        if problems:
            raise RuntimeError(f"{self.name} at {dict(shown)}: {problems[0]}")
        return 1000 * (time.perf_counter() - passed), 1000 * script


def measure(
    name: str, places: Places, link: Link, size: Size, *, repeats: int, widgets: bool, say: Callable[[str], None]
) -> PageWork:
    """The work of one page: `repeats` openings and, with `widgets`, as many changes of each, to new and to known values."""
    say(f"{name}: opening")
    # What is imported and read once in a process is no part of it.
    Page(name, places, link).run()
    cold, warm = [], []
    for _ in range(repeats):
        st.cache_data.clear()
        st.cache_resource.clear()
        page = Page(name, places, link)
        cold.append(page.run())
        warm.append(Page(name, places, link).run())
    found = PageWork(
        name,
        {
            "cold passed": [one for one, _ in cold], "cold": [one for _, one in cold],
            "warm passed": [one for one, _ in warm], "warm": [one for _, one in warm],
        },
    )  # fmt: skip
    for widget, values in changes(name, size).items() if widgets else ():
        say(f"{name}: {widget}")
        own, first, change = Widget(widget), {}, page.run
        if widget in IN_A_PART:
            first, change = {widget: IN_A_PART[widget][1]}, page.change
        for value in values[:repeats]:
            own.new.append(change(**value)[1])
        # Back to what the page showed first, and to and fro.
        for value in ([first, values[0]] * repeats)[: max(2, repeats)]:
            own.again.append(change(**value)[1])
        page.run()
        found.widgets.append(own)
    return found
