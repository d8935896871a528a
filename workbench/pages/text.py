"""Words and numbers as pages show them: escaped, short, with their units."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from analysis.runs import Run

_MADE = re.compile(r"[^/]+/jobs/([a-z0-9-]+)-\d{4}(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)-[0-9a-f]{6}/artefacts/(.+)")
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:^=&])")


def plain(text: object) -> str:
    """Text that Streamlit's Markdown shows as it is, on one line, whatever it holds.

    >>> plain("a *b* $c$ :red[d]")
    'a \\\\*b\\\\* \\\\$c\\\\$ \\\\:red\\\\[d\\\\]'
    """
    # A non-breaking space holds a number and its unit together, so only the breaking kinds are folded.
    return _MARKUP.sub(r"\\\1", re.sub(r"[ \t\r\n\f\v]+", " ", str(text)).strip())


def readable_names(names: Iterable[str]) -> Callable[[str], str]:
    """How names of the places read in a box: what a job made by what it is and when, all others as they are.

    >>> made = "workspace/jobs/generate-20261130-071020-c9b193/artefacts/dense.mp4"
    >>> list(map(readable_names(["data/demo", made]), ["data/demo", made]))
    ['data/demo', 'dense.mp4 · generate 11-30 07:10:20']
    """
    words = {name: _MADE.sub(r"\7 · \1 \2-\3 \4:\5:\6", name) for name in names}
    # Two jobs of one second would read alike, and a box tells its entries by what they read.
    often: Counter[str | None] = Counter(words.values())
    return lambda name: words[name] if often[words.get(name)] == 1 else name


def duration(seconds: float | None) -> str:
    """A time span for people; nothing for an unknown one.

    >>> [duration(s) for s in (None, 4.2, 90, 5400)]
    ['', '4 s', '1 min 30 s', '1 h 30 min']
    """
    if seconds is None:
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def file_size(count: float) -> str:
    """Bytes for people, in powers of 1000.

    >>> [file_size(n) for n in (12, 3_400, 5_600_000)]
    ['12 B', '3.4 kB', '5.6 MB']
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.2g} {unit}"


def command_line(command: str, *words: object, **flags: object) -> str:
    """A `pare` command that a shell takes as it is; flags that are None are left out.

    >>> command_line("mask", "my run", out="m.safetensors", tau_s=0.7, branch=None)
    "pare mask 'my run' --out m.safetensors --tau-s 0.7"
    """
    parts = ["pare", command, *map(str, words)]
    for name, value in flags.items():
        if value is not None:
            parts += [f"--{name.replace('_', '-')}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(parts)


def capture_command(run: Run) -> str:
    """The command that captures what a run was made from again, with all statistics that are cheap."""
    folder = short_path(run.folder.with_name(run.folder.name + "-again"))
    return command_line("capture", run.model_id, mode=run.manifest.mode, out=folder)


def short_path(path: Path) -> str:
    """A path as a person would type it here: relative where it lies below the current folder."""
    here = Path(os.getcwd())
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
