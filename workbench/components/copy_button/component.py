"""The copy button on a Streamlit page: works in the browser alone, sends nothing back."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamlit.components.v2.types import ComponentRenderer


def copy_button(label: str, text: str | None, *, key: str) -> None:
    """Show a button that copies `text`; None copies the address of the page as it is when clicked."""
    _renderer()(key=key, data={"label": label, "text": text}, width="content")


@cache
def _renderer() -> ComponentRenderer:
    """Registered once per process; Streamlit itself registers it again on a new runtime."""
    import streamlit as st

    folder = files("workbench.components.copy_button")
    html, css, js = (folder.joinpath(f"copy_button.{end}").read_text(encoding="utf-8") for end in ("html", "css", "js"))
    return st.components.v2.component("pare-workbench.copy_button", html=html, css=css, js=js)
