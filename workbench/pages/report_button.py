"""The button beside a page's headline that gives its view away as one HTML file."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from analysis.runs import Run
from pare.video import read_metadata
from workbench.pages.shell import PLAYED_KEY
from workbench.report.build import build_report
from workbench.report.cut import Cut
from workbench.report.page import render_report
from workbench.report.part import Report
from workbench.state import Selection


def report_button(
    run: Run,
    selection: Selection,
    *,
    cut: Callable[[], Cut | None] | None = None,
    more: Callable[[], dict[str, Any]] | None = None,
) -> None:
    """A report of the selection, made at the click, as `pare report` makes it, with the videos that the page plays; `cut`
    adds the mask that a page shows, `more` what else `build_report` takes."""
    link = view_link(st.context.url, selection)
    # Filled by the players below; read at the click.
    played: dict[str, dict[str, Path]] = st.session_state[PLAYED_KEY]

    def make() -> Report:
        return build_report(
            run, selection, cut=cut() if cut else None, videos=shown(played), link=link, **(more() if more else {})
        )

    give_report(
        make,
        name=run.folder.name,
        help="One HTML file that opens offline: finding, figures with their numbers, videos, settings and versions.",
    )


def give_report(make: Callable[[], Report], *, name: str, help: str) -> None:
    """The button alone: `make` is called at the click, and what it makes is saved as `name`-report.html."""
    st.download_button(
        "Report",
        data=lambda: render_report(make()).encode(),
        file_name=f"{name}-report.html",
        mime="text/html",
        on_click="ignore",
        key="report",
        help=help,
    )


def shown(played: Mapping[str, Mapping[str, Path]]) -> list[tuple[Path, str]]:
    """The videos of the players of a page with their captions, each once: its label, prompt and seed.

    >>> shown({"player": {"dense": Path("none.mp4")}})
    []
    """
    found: dict[Path, str] = {}
    for videos in played.values():
        for label, path in videos.items():
            # A job's file may be gone since.
            if path.is_file():
                about = read_metadata(path)
                of = f": {about['prompt']}, seed {about.get('seed')}" if about.get("prompt") else ""
                found.setdefault(path, f"{label}{of}")
    return list(found.items())


def view_link(address: str | None, selection: Selection) -> str | None:
    """The address of a view on this server; None where the browser's is not known.

    >>> view_link("http://127.0.0.1:8501/blocks", Selection(block=2))
    'http://127.0.0.1:8501/blocks?block=2'
    """
    if not address:
        return None
    query = urlencode(selection.to_query())
    return f"{address}?{query}" if query else address
