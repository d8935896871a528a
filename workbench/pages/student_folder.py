"""A finished student as files: where it is, how large, its card, and the commands that take it along."""

import shlex
from pathlib import Path

import streamlit as st

from pare.files import lies_inside
from workbench.components.copy_button.component import copy_button
from workbench.pages.text import file_size, short_path

CARD = "README.md"


def show_student_folder(folder: Path, *, key: str) -> None:
    """The folder's path and size, and what takes it along."""
    st.code(short_path(folder), language=None, wrap_lines=True)
    card = folder / CARD
    st.caption(f"{file_size(folder_size(folder))}, a diffusers folder" + (" with its card" if card.is_file() else ""))
    student_buttons(folder, key=key)


def student_buttons(folder: Path, *, key: str) -> None:
    """The student's card to download, and for the clipboard its path and the command that copies it."""
    card = folder / CARD
    with st.container(horizontal=True):
        if card.is_file() and lies_inside(card, folder):
            st.download_button(
                "Card (.md)",
                data=card.read_bytes,
                file_name=f"{folder.name}-card.md",
                mime="text/markdown",
                on_click="ignore",
                key=f"{key}_card",
            )
        copy_button("Copy path", str(folder.resolve()), key=f"{key}_path")
        copy_button("Copy as cp command", copy_command(folder), key=f"{key}_copy")


def copy_command(folder: Path) -> str:
    """The command that puts a copy of the folder where the shell is.

    Parts that the folder only links to are copied whole.

    >>> copy_command(Path("my jobs/student"))
    "cp -rL 'my jobs/student' student-copy"
    """
    return shlex.join(["cp", "-rL", short_path(folder), f"{folder.name}-copy"])


def folder_size(folder: Path) -> int:
    """Bytes of a folder's own files; what it links to does not count."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
