"""Scores that come with the project, so that a table goes on where another machine left it: `data/results`.

Students and videos are large and can be made again; what was measured of them is small. A new folder of results begins with the
scores that are stored, where they are of the same model, run, prompts and budget.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

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
    """Make the store what a folder of results holds; scores of another table are taken out of it."""
    if folder.resolve() == store.resolve():
        return
    if store.is_dir() and not same_table(folder, store):
        for path in list(_files(store)):
            path.unlink()
    for path in [folder / RECORD, *_files(folder)]:
        write_bytes(store / path.relative_to(folder), path.read_bytes())


def same_table(folder: Path, store: Path) -> bool:
    """Whether both are results of the same model, run, prompts, budget and settings."""
    records = [read_json(each / RECORD) if (each / RECORD).is_file() else None for each in (folder, store)]
    first, second = ({k: v for k, v in each.items() if k not in FREE} if each else None for each in records)
    return first is not None and first == second


def compact(scores: Mapping[str, Any]) -> bytes:
    """The scores of an evaluation as JSON: names once, then a line per video, numbers to six digits.

    >>> compact({"name": "a", "videos": [{"prompt": "p", "seed": 0, "values": {"psnr": 1 / 3}}]}).decode().splitlines()[1:4]
    ['"metrics": ["psnr"],', '"videos": [', '["p", 0, 0.333333]']
    """
    names = list(dict.fromkeys(name for video in scores["videos"] for name in video["values"]))
    rows = [
        [video["prompt"], video["seed"], *(_rounded(video["values"].get(name)) for name in names)]
        for video in scores["videos"]
    ]
    head = [f"{json.dumps(name)}: {json.dumps(value)}," for name, value in scores.items() if name != "videos"]
    head.append(f'"metrics": {json.dumps(names)},')
    lines = ",\n".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
    return "\n".join(["{" + head[0], *head[1:], '"videos": [', lines, "]}"]).encode() + b"\n"


def expand(document: Mapping[str, Any]) -> dict[str, Any]:
    """What `compact` was given, its numbers rounded; a metric that a video has not is not among its values.

    >>> expand(json.loads(compact({"name": "a", "videos": [{"prompt": "p", "seed": 0, "values": {"psnr": 0.5}}]})))
    {'name': 'a', 'videos': [{'prompt': 'p', 'seed': 0, 'values': {'psnr': 0.5}}]}
    """
    videos = [
        {
            "prompt": prompt,
            "seed": seed,
            "values": {
                name: value for name, value in zip(document["metrics"], values, strict=True) if value is not None
            },
        }
        for prompt, seed, *values in document["videos"]
    ]
    return {name: value for name, value in document.items() if name not in ("metrics", "videos")} | {"videos": videos}


def _rounded(value: object) -> object:
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _files(folder: Path) -> Iterator[Path]:
    yield from sorted((folder / SCORES).glob("*.json"))
    yield from (folder / name for name in SMALL if (folder / name).is_file())
