"""A folder of videos and what is said of each: captions.csv, captions.jsonl, or a .txt beside every video."""

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pare.errors import InputError

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")
TABLES = ("captions.csv", "captions.jsonl")
FILE_NAMES = ("file", "file_name", "video", "path")
TEXT_NAMES = ("caption", "text", "prompt")


def read_captions(folder: str | Path) -> list[tuple[Path, str]]:
    """(video, caption) of every video that has one, in the order of the table, else by name.

    `captions.csv` and `captions.jsonl` have a column file (or file_name, video, path; relative to the folder) and a column
    caption (or text, prompt); without either, `clip.txt` holds the caption of `clip.mp4`. Raises `InputError` for a
    missing folder, video or caption.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "a.mp4").write_bytes(b""), (folder / "a.txt").write_text("a red 7")
    >>> [(video.name, caption) for video, caption in read_captions(folder)]
    [('a.mp4', 'a red 7')]
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise InputError(
            "--videos", got=f"{folder}, no such folder", expected="a folder of videos", fix="check the path"
        )
    for name, read in zip(TABLES, (_csv_rows, _json_rows), strict=True):
        if (path / name).is_file():
            return _from_table(path, path / name, read(path / name))
    videos = sorted(each for each in path.iterdir() if each.suffix.lower() in VIDEOS)
    if not videos:
        raise InputError(
            "--videos", got=f"{folder}, no video in it", expected=f"files {', '.join(VIDEOS)}", fix="add some"
        )
    return [(video, _sidecar(video)) for video in videos]


def _csv_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _json_rows(path: Path) -> Iterable[Mapping[str, Any]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(
                f"{path.name}, line {number}", got="no JSON", expected="an object", fix="mend the line"
            ) from error
        if not isinstance(row, dict):
            raise InputError(f"{path.name}, line {number}", got="no object", expected="an object", fix="mend the line")
        yield row


def _from_table(folder: Path, table: Path, rows: Iterable[Mapping[str, Any]]) -> list[tuple[Path, str]]:
    found = []
    for number, row in enumerate(rows, 1):
        file = next((row[name] for name in FILE_NAMES if row.get(name)), None)
        caption = next((row[name] for name in TEXT_NAMES if row.get(name)), None)
        if not isinstance(file, str) or not isinstance(caption, str) or not caption.strip():
            raise InputError(
                f"{table.name}, row {number}",
                got=f"columns {', '.join(map(str, row))}",
                expected="a file and a caption",
                fix="name the columns file and caption",
            )
        video = folder / file
        if Path(file).is_absolute() or ".." in Path(file).parts or "\0" in file:
            got = f"{file[:80]!r}, which leaves the folder"
            raise InputError(
                f"{table.name}, row {number}", got=got, expected="a path inside it", fix="move the video in"
            )
        if not video.is_file():
            raise InputError(
                f"{table.name}, row {number}", got=f"{file}, no such file", expected="a video", fix="mend it"
            )
        found.append((video, caption.strip()))
    if not found:
        raise InputError(str(table), got="no rows", expected="a file and a caption a row", fix="add some")
    return found


def _sidecar(video: Path) -> str:
    path = video.with_suffix(".txt")
    caption = path.read_text("utf-8").strip() if path.is_file() else ""
    if not caption:
        raise InputError(
            "--videos",
            got=f"{video.name} without a caption",
            expected=f"{path.name}, captions.csv or captions.jsonl",
            fix=f"write what it shows into {path.name}",
        )
    return caption
