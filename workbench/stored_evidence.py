"""Which answers there are to the method's questions for the model of a run: measured here, or stored with the demo."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from analysis.evidence.answer import FILE, QUESTIONS, Answer, read_answer
from pare.errors import InputError
from workbench.places import Places

STORED = "evidence"
"""The folder of data/ with the demo's answers, a file per question."""
State: TypeAlias = Literal["here", "other run", "stale", "damaged", "none"]


@dataclass(frozen=True, eq=False)
class Found:
    """The best answer to one question for a model.

    `here`: of this run, or with nothing but the model behind it; `other run`: of this model and another run; both have
    the `answer`. `stale`: only one of other weights under the model's name, `damaged`: only one that cannot be read;
    `problem` says so in one line. `stored` with the demo, or measured since; `path` is its file.
    """

    question: str
    state: State
    answer: Answer | None = None
    path: Path | None = None
    stored: bool = False
    problem: str = ""


def find_answers(places: Places, model: Mapping[str, Any], run_hash: str | None, names: list[str]) -> dict[str, Found]:
    """The best answer to each question for a `model` (an identity) and its run; `names` are `places.answers()`.

    Answers of this run come before those of another, the newest first, and what was measured before what is stored. An
    answer of other weights is never handed out.
    """
    candidates = [(places.find(name) / FILE, False) for name in names]
    candidates.sort(key=lambda each: each[0].stat().st_mtime_ns, reverse=True)
    candidates += [(path, True) for each in QUESTIONS if (path := places.data / STORED / f"{each}.json").is_file()]
    found = {each: Found(each, "none") for each in QUESTIONS}
    order: tuple[State, ...] = ("none", "damaged", "stale", "other run", "here")
    for path, stored in candidates:
        for each in _judged(path, stored, model, run_hash):
            if order.index(each.state) > order.index(found[each.question].state):
                found[each.question] = each
    return found


def _judged(path: Path, stored: bool, model: Mapping[str, Any], run_hash: str | None) -> list[Found]:
    try:
        answer = read_answer(path)
    except InputError as error:
        # Only a stored answer says by its name what it was about.
        known = [path.stem] if stored and path.stem in QUESTIONS else []
        return [Found(each, "damaged", path=path, stored=stored, problem=str(error)) for each in known]
    about = answer.source.get("model") or {}
    if about.get("model_id") != model.get("model_id"):
        return []
    if any(about.get(name) != model.get(name) for name in ("config_hash", "weight_hash")):
        hashes = [str(each.get("weight_hash"))[:12] for each in (about, model)]
        problem = f"An answer of other weights was found ({hashes[0]}, here {hashes[1]}): it is stale, and not shown."
        return [Found(answer.question, "stale", path=path, stored=stored, problem=problem)]
    own = (answer.source.get("run") or {}).get("hash")
    state: State = "here" if own is None or own == run_hash else "other run"
    return [Found(answer.question, state, answer, path, stored)]


def label(found: Found) -> str:
    """Where an answer is from: its model, run, n and versions, in one line.

    >>> label(Found("roles", "none"))
    'not measured'
    """
    answer = found.answer
    if answer is None:
        return {"stale": "stale", "damaged": "unreadable"}.get(found.state, "not measured")
    about = answer.source.get("model") or {}
    run = answer.source.get("run") or {}
    parts = ["stored with the demo" if found.stored else "measured here"]
    parts.append(f"model {about.get('model_id')} ({str(about.get('weight_hash'))[:12]})")
    if run:
        other = ", not the open one" if found.state == "other run" else ""
        parts.append(f"run {run.get('name')}, {run.get('samples')} samples{other}")
    parts.append(", ".join(_counted(count, name) for name, count in answer.n.items()))
    versions = [f"{name} {answer.versions[name]}" for name in ("pare-workbench", "torch") if name in answer.versions]
    return " · ".join([*parts, ", ".join(versions)])


def _counted(count: int, names: str) -> str:
    return f"{count} {names.removesuffix('s') if count == 1 else names}"
