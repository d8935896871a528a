"""Markdown tables of measurements."""

from collections.abc import Mapping, Sequence
from typing import Any


def head(columns: Sequence[str]) -> str:
    """The first two lines of a table."""
    return "| " + " | ".join(columns) + " |\n|" + "---|" * len(columns)


def shape_cells(row: Mapping[str, Any]) -> list[str]:
    """Model, clip, tokens and way of a row."""
    return [
        f"{row['model']}, {row['blocks']} block{'' if row['blocks'] == 1 else 's'}",
        f"{row['height']} x {row['width']} x {row['frames']}",
        f"{row['tokens']:,}",
        row["way"],
    ]


def interval(quartiles: Mapping[str, float]) -> str:
    """A median with its quartiles in brackets."""
    return f"{quartiles['median']:.3f} [{quartiles['lower']:.3f}, {quartiles['upper']:.3f}]"
