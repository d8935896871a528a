"""The texts that components are made of: HTML, CSS and JavaScript beside their Python."""

from importlib.resources import files


def source(*names: str) -> str:
    """The text of these files, one after the other; names are relative to this package.

    >>> source("canvas.js").startswith("//")
    True
    """
    folder = files("workbench.components")
    return "\n".join(folder.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)
