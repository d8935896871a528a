"""Write files so that a reader finds the old content, the new content or nothing: never a half."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pare.errors import InputError


def check_output(path: str | Path, flag: str = "--out") -> None:
    """Raises `InputError` unless `path` names a file that could be written; for use before long work.

    >>> check_output("table.csv")
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(flag, got=f"{path}, a folder", expected="a file name", fix="add a name")
    parent = next(each for each in path.absolute().parents if each.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise InputError(
            flag, got=path, expected="a place that can be written", fix=f"choose another folder than {parent}"
        )


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it onto `path` when the block ends well, remove it otherwise.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "note.txt") as temporary:
    ...     _ = temporary.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['note.txt']
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            str(path), got=error.strerror, expected="a place that can be written", fix="choose another folder"
        ) from error
    # The name keeps its ending, since encoders choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def lies_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a path stays below a folder, whatever `..` and symbolic links say.

    >>> lies_inside("run/videos/0.mp4", "run"), lies_inside("run/../other.mp4", "run")
    (True, False)
    """
    return Path(path).resolve().is_relative_to(Path(folder).resolve())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path` in one piece (a temporary name beside it, then a rename)."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
