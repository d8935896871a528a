"""docs/results.md: text that stands, and blocks between markers that commands fill from what they measured."""

import re
from collections.abc import Mapping
from pathlib import Path

from pare.errors import InputError
from pare.files import write_bytes

PAGE = Path(__file__).parents[3] / "docs" / "results.md"
NOT_YET = "*Not measured yet.*"
BLOCKS = ("settings", "scores", "motion", "cost", "bars", "answers", "losses", "sweep", "students")


def write_page(blocks: Mapping[str, str], path: Path = PAGE) -> None:
    """Fill these blocks of the page; blocks that nobody ever filled say so.

    InputError for a page that is not there or lost its marks; it is left as it is.
    """
    if not path.is_file():
        raise InputError(
            "page", got=f"no {path}", expected="the page with its marks", fix="take it from the repository"
        )
    text = path.read_text("utf-8")
    for name, content in blocks.items():
        text = fill(text, name, content)
    for name in BLOCKS:
        text = re.sub(rf"<!-- {name} -->\s*<!-- /{name} -->", _marked(name, NOT_YET), text)
    write_bytes(path, text.encode())


def fill(text: str, name: str, content: str) -> str:
    """The text with the content between the marks of a block.

    >>> fill("a\\n<!-- x -->\\nold\\n<!-- /x -->\\nb", "x", "new")
    'a\\n<!-- x -->\\nnew\\n<!-- /x -->\\nb'
    """
    found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: _marked(name, content), text, flags=re.DOTALL)
    if found[1] != 1:
        raise InputError(
            "docs/results.md", got=f"{found[1]} places for {name}", expected="one, between its marks",
            fix="take the page from the repository",
        )  # fmt: skip
    return found[0]


def _marked(name: str, content: str) -> str:
    return f"<!-- {name} -->\n{content.strip()}\n<!-- /{name} -->"
