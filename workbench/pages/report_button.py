"""The button beside a page's headline that gives its view away as one HTML file."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from analysis.runs import Run
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
    """A report of the selection, made at the click, as `pare report` makes it; `cut` adds the mask that a page shows, `more`
    what else `build_report` takes."""
    link = view_link(st.context.url, selection)
    give_report(
        lambda: build_report(run, selection, cut=cut() if cut else None, link=link, **(more() if more else {})),
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


def view_link(address: str | None, selection: Selection) -> str | None:
    """The address of a view on this server; None where the browser's is not known.

    >>> view_link("http://127.0.0.1:8501/blocks", Selection(block=2))
    'http://127.0.0.1:8501/blocks?block=2'
    """
    if not address:
        return None
    query = urlencode(selection.to_query())
    return f"{address}?{query}" if query else address
