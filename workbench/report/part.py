"""What a report is made of: parts with a figure, its words, its numbers and what makes them; and videos."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go


@dataclass(frozen=True, eq=False)
class Part:
    """One section: `words` says what is averaged over how many, `alt` what the figure shows, `facts` are name and value."""

    title: str
    words: str = ""
    facts: Sequence[tuple[str, str]] = ()
    figure: go.Figure | None = None
    alt: str = ""
    table: pd.DataFrame | None = None
    python: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Clip:
    """A video of the run: where it is, its caption, and whether the report carries it (`content`) or names it."""

    path: Path
    caption: str
    content: bytes | None


@dataclass(frozen=True, eq=False)
class Report:
    """Everything a report says, before it becomes a page; all texts are plain, whatever they hold.

    `about` are groups of facts: title → name and value. `left_out` says why videos are missing, "" where none is.
    """

    title: str
    finding: str
    command: str
    link: str | None
    query: str
    about: dict[str, Sequence[tuple[str, str]]]
    parts: Sequence[Part]
    clips: Sequence[Clip] = ()
    left_out: str = ""
    samples: pd.DataFrame = field(default_factory=pd.DataFrame)
