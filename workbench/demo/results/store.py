"""Scores that come with the project, so that a table goes on where another machine left it: `data/results`.

Students and videos are large and can be made again; what was measured of them is small. A new folder of results begins with the
scores that are stored, where they are of the same model, run, prompts and budget.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from pare.files import write_bytes
from pare.geometry import DEMO, read_json

STORE = DEMO.parent / "results"
RECORD, SCORES = "results.json", "scores"
SMALL = ("seconds.json", "students.json", "failed.json")
# What does not change what a score is.
FREE = ("versions", "named")


def take(folder: Path, store: Path = STORE) -> int:
    """Copy stored scores that `folder` does not have into it; how many. None where the store is of another table."""
    if not same_table(folder, store):
        return 0
    missing = [path for path in _files(store) if not (folder / path.relative_to(store)).is_file()]
    for path in missing:
        target = folder / path.relative_to(store)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return sum(path.parent.name == SCORES for path in missing)


def keep(folder: Path, store: Path = STORE) -> None:
    """Make the store what a folder of results holds; one of another table is replaced whole."""
    if folder.resolve() == store.resolve():
        return
    if store.is_dir() and not same_table(folder, store):
        shutil.rmtree(store)
    for path in [folder / RECORD, *_files(folder)]:
        write_bytes(store / path.relative_to(folder), path.read_bytes())


def same_table(folder: Path, store: Path) -> bool:
    """Whether both are results of the same model, run, prompts, budget and settings."""
    records = [read_json(each / RECORD) if (each / RECORD).is_file() else None for each in (folder, store)]
    first, second = ({k: v for k, v in each.items() if k not in FREE} if each else None for each in records)
    return first is not None and first == second


def compact(scores: dict) -> bytes:
    """The scores of an evaluation as JSON, a line per video, numbers to six digits.

    >>> compact({"name": "a", "videos": [{"seed": 0, "values": {"psnr": 1 / 3}}]}).decode().splitlines()[1:3]
    ['"videos": [', '{"seed": 0, "values": {"psnr": 0.333333}}']
    """
    videos = [
        video | {"values": {name: _rounded(value) for name, value in video["values"].items()}}
        for video in scores["videos"]
    ]
    head = [f"{json.dumps(name)}: {json.dumps(value)}," for name, value in scores.items() if name != "videos"]
    lines = ",\n".join(json.dumps(video, ensure_ascii=False, allow_nan=False) for video in videos)
    first = head[0] if head else ""
    return "\n".join(["{" + first, *head[1:], '"videos": [', lines, "]}"]).encode() + b"\n"


def _rounded(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / SCORES).glob("*.json"))
    yield from (folder / name for name in SMALL if (folder / name).is_file())
