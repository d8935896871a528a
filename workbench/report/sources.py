"""What a report is about, told by what lies at the paths that it is given."""

import json
from collections.abc import Sequence
from pathlib import Path

from analysis.evidence.answer import FILE, QUESTIONS, SCHEMA
from pare.errors import InputError
from pare.geometry import DEMO
from pare.mask import is_mask
from workbench.places import VIDEOS
from workbench.training_record import RECORD

COMPARED = ("runs", "masks", "students", "videos")
KINDS = ("run", "answers", "training", *COMPARED)
EXPECTED = "a run, a training, answers of pare evidence, or two runs, masks, models or sets of videos"


def kind_of(paths: Sequence[Path], asked: str | None = None) -> str:
    """One of `KINDS`; `asked` chooses where two folders can be compared in several ways.

    Raises InputError where the paths are nothing that can be reported.
    """
    for path in paths:
        if not path.exists():
            raise InputError(str(path), got="no such file or folder", expected=EXPECTED, fix="check the path")
    if asked is not None:
        if asked not in COMPARED or len(paths) != 2:
            got = asked if asked not in COMPARED else f"{len(paths)} source{'s' if len(paths) != 1 else ''}"
            raise InputError("--kind", got=got, expected=f"two sources and one of {', '.join(COMPARED)}", fix="A B")
        return asked
    if all(answers_at(path) for path in paths):
        return "answers"
    if len(paths) == 1 and (paths[0] / "run.json").is_file():
        return "run"
    if len(paths) == 1 and training_at(paths[0]) is not None:
        return "training"
    if len(paths) == 2:
        for kind in COMPARED:
            if all(_is(path, kind) for path in paths):
                return kind
    names = " and ".join(str(path) for path in paths)
    fix = "pare report RUN --mask MASK" if len(paths) == 1 and is_mask(paths[0]) else "pare report --help"
    raise InputError(names, got="nothing that a report is made of", expected=EXPECTED, fix=fix)


def source_at(name: str | Path) -> Path:
    """Where a source lies; `demo` is the bundled model here too, unless something else is called so.

    >>> source_at("demo").parts[-2:]
    ('data', 'demo')
    """
    path = Path(name).expanduser()
    return DEMO if str(name) == "demo" and not path.exists() else path


def answers_at(path: Path) -> list[Path]:
    """The answers in a file, in a folder that `pare evidence` wrote, or side by side in one."""
    if path.is_file():
        return [path] if _is_answer(path) else []
    if (path / FILE).is_file():
        return [path / FILE]
    found = [each for name in QUESTIONS for each in (path / f"{name}.json", path / name / FILE)]
    return [each for each in found if each.is_file()]


def training_at(path: Path) -> Path | None:
    """The folder of a training, given it or the one that its student is written to."""
    return next((each for each in (path, path / "training") if (each / RECORD).is_file()), None)


def _is(path: Path, kind: str) -> bool:
    if kind == "masks":
        return path.is_file() and is_mask(path)
    if kind == "videos":
        return path.suffix in VIDEOS or (path / "evaluation.json").is_file() or _has_videos(path)
    return (path / {"runs": "run.json", "students": "model_index.json"}[kind]).is_file()


def _has_videos(path: Path) -> bool:
    return path.is_dir() and any(each.suffix in VIDEOS for each in path.iterdir())


def _is_answer(path: Path) -> bool:
    if path.suffix != ".json":
        return False
    try:
        about = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return path.name == FILE
    return isinstance(about, dict) and (about.get("schema") == SCHEMA or path.name == FILE)
