"""What every report says of where it is from: versions, models, and the videos that it carries."""

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pare.versions import versions
from workbench.pages.text import file_size
from workbench.report.part import Clip

MOST_VIDEO_BYTES = 20_000_000
"""Bytes of videos that a report carries unless told otherwise; they grow by a third inside it."""
MODEL = {
    "model_id": "Model",
    "revision": "Revision",
    "config_hash": "Hash of the config",
    "weight_hash": "Hash of the weights",
}


def version_facts(made: Mapping[str, Any], words: str) -> list[tuple[str, str]]:
    """The versions that made what is reported ("captured with"), then those that write the report."""
    before = [(f"{words} {name}", str(number)) for name, number in sorted(made.items())]
    now = {**versions(), "plotly": version("plotly")}
    return [*before, *((f"this report by {name}", number) for name, number in sorted(now.items()))]


def model_facts(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A model's identity, as far as it is known.

    >>> model_facts({"model_id": "demo", "revision": None})
    [('Model', 'demo')]
    """
    return [(words, str(model[name])) for name, words in MODEL.items() if model.get(name)]


def setting_facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The settings that are one value each.

    >>> setting_facts({"batch": 4, "held_out": None, "timesteps": [1, 2], "learning_rate": 1e-4})
    [('batch', '4'), ('learning rate', '0.0001')]
    """
    simple = {name: value for name, value in settings.items() if isinstance(value, str | int | float)}
    return [(name.replace("_", " "), str(value)) for name, value in simple.items()]


def beside_facts(settings: Mapping[str, tuple[Any, Any]]) -> list[tuple[str, str]]:
    """What A and B were made with, name → (of A, of B): one value where they are alike.

    >>> beside_facts({"k_min": (None, 4.0), "steps": (20, 20), "base": (None, None)})
    [('k min', 'A none, B 4.0'), ('steps', '20 in both'), ('base', 'none in both')]
    """
    words = {
        name.replace("_", " "): ["none" if value is None else str(value) for value in both]
        for name, both in settings.items()
    }
    return [(name, f"{a} in both" if a == b else f"A {a}, B {b}") for name, (a, b) in words.items()]


def carried(videos: Iterable[tuple[Path, str]], most: int) -> tuple[list[Clip], str]:
    """The videos (file, caption) as clips, inside the report up to `most` bytes in all; and what is left out, if any is."""
    clips, left = [], most
    for path, caption in videos:
        size = path.stat().st_size
        inside = size <= left
        left -= size if inside else 0
        clips.append(Clip(path, caption, path.read_bytes() if inside else None))
    named = [clip for clip in clips if clip.content is None]
    if not named:
        return clips, ""
    size = sum(clip.path.stat().st_size for clip in named)
    return clips, (
        f"{len(named)} of {len(clips)} videos ({file_size(size)}) are not in this file, which carries up to "
        f"{file_size(most)} of videos."
    )
