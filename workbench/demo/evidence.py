"""Makes the demo model's stored answers: `python -m workbench.demo.evidence`.

Every question is asked of the bundled model and its run, in a folder per question under `--work`, where a stopped command
goes on; what it found is then stored as `data/evidence/QUESTION.json`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.evidence.answer import FILE, NEEDS_MODEL, QUESTIONS, read_answer
from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO
from pare.progress import Progress, silent
from workbench.commands.evidence import evidence
from workbench.stored_evidence import STORED

LARGEST = 300_000
"""Bytes of all stored answers together."""
SAMPLES = {"premise": 24, "scores": 4}
# Half the steps buy twice the prompts, and what an interval needs is prompts.
SETTINGS: dict[str, dict[str, Any]] = {"premise": {"steps": 10, "draws": 1}}


def store_answers(
    out: Path,
    work: Path,
    *,
    model: str = "demo",
    only: tuple[str, ...] = tuple(QUESTIONS),
    samples: dict[str, int] | None = None,
    progress: Callable[[str], Progress] = lambda question: silent,
    **settings: Any,
) -> dict[str, str]:
    """Answer the questions `only` and store their answers in `out`; returns the verdicts by question.

    `samples` are prompts of the questions that run the model; `settings` go to `evidence`. Raises InputError where `work`
    holds answers of another model or other settings.
    """
    counts = SAMPLES | (samples or {})
    verdicts = {}
    for question in only:
        folder = work / question
        usual = SETTINGS.get(question, {})
        own = (
            {"samples": counts[question], "keep_videos": False, **usual, **settings} if question in NEEDS_MODEL else {}
        )
        if "run" in settings:
            own["run"] = settings["run"]
        found = evidence(question, model, out=folder, resume=folder.exists(), progress=progress(question), **own)[
            "answers"
        ][question]
        write_bytes(out / f"{question}.json", (folder / FILE).read_bytes())
        verdicts[question] = found["sentence"]
    size = sum(path.stat().st_size for path in out.glob("*.json"))
    if size > LARGEST:
        raise InputError(str(out), got=f"{size:,} bytes", expected=f"at most {LARGEST:,}", fix="smaller tables")
    return verdicts


def results_table(folder: Path) -> str:
    """The stored answers as a Markdown table: what `docs/evidence.md` shows."""
    lines = ["| question | answer | n |", "|---|---|---|"]
    for question in QUESTIONS:
        if (folder / f"{question}.json").is_file():
            answer = read_answer(folder / f"{question}.json")
            counts = ", ".join(f"{count} {name}" for name, count in answer.n.items())
            lines.append(f"| `{question}` | {answer.sentence} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m workbench.demo.evidence", description=(__doc__ or "").split("\n\n")[0]
    )
    parser.add_argument("--out", type=Path, default=DEMO.parent / STORED)
    parser.add_argument("--work", type=Path, default=Path("build") / STORED)
    parser.add_argument("--only", choices=tuple(QUESTIONS), nargs="+", default=list(QUESTIONS))
    for question, count in SAMPLES.items():
        parser.add_argument(f"--{question}", type=int, default=count, help=f"prompts of this question ({count})")
    arguments = parser.parse_args()
    from workbench.demo.report import StageReport

    counts = {question: getattr(arguments, question) for question in SAMPLES}
    try:
        store_answers(
            arguments.out,
            arguments.work,
            only=tuple(arguments.only),
            samples=counts,
            progress=lambda question: StageReport(question, sys.stderr),
        )
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    print(results_table(arguments.out))


if __name__ == "__main__":
    main()
