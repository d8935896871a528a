"""The one selection: what the person is looking at, as one object that lives in the link.

Every page reads it and writes it through `current` and `update`; nothing else touches the query string. A link copied
from the address bar therefore reproduces the view in another browser. A value in a link that does not fit the open run
falls back to its default, and a one-line note says so.
"""

import math
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from analysis.block_values import LENSES
from analysis.evidence.answer import QUESTIONS
from analysis.head_metrics import METRICS
from pare.width.budget import TARGETS
from pare.width.heads import ALLOCATIONS
from workbench.mask_plan import NEURON_SCORERS

SESSION_KEY = "selection"
"""Where the selection lives in a session."""
RATIO_RANGE = (0.01, 0.99)
ALPHA_RANGE = (1.0, 100.0)
RUN_SCORERS = ("pare", "projected_energy", "temporal_attention", "random")
"""What the app ranks heads by from a run alone."""
MEASURED_SCORERS = ("effect", "magnitude", "gate_gradient", "gate_taylor", "integrated_gradients")
"""What it ranks by once `pare evidence scores` has measured it, as columns of that answer."""
SCORERS = (*RUN_SCORERS, *MEASURED_SCORERS)
COMPARED = ("runs", "masks", "students", "videos")
"""What the Compare page sets side by side."""
VIEWS = ("grid", "scatter", "difference")
"""How the Heads page shows all heads."""
ORDERS = ("number", "ratio")
COLORS = ("role", *METRICS)
MOST_PICKED = 200
"""Heads that a link may name one by one; larger sets are saved under a name."""
SET_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
MOST_EDITS = 400
"""Cells of a route that a link may turn over."""
LONGEST_TRAINING = 10_000_000
"""Training steps that a link may name; a page shows the nearest validation."""
LONGEST = 10_000
"""Video frames that a link may name; a player rests on its last frame where its videos are shorter."""


@dataclass(frozen=True)
class Facts:
    """What the open run and the places allow: the bounds that every value of a link is checked against.

    `runs` are the names of all runs, `files` says of any `place/relative/path` whether something is there.
    """

    run: str | None = None
    blocks: int = 0
    heads: int = 0
    steps: int = 0
    samples: int = 0
    branches: tuple[str, ...] = ()
    runs: Container[str] = ()
    files: Container[str] = ()


class Link(Protocol):
    """The query string of a page, as `st.query_params` holds it; `from_dict` replaces all of it in one write."""

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str, /) -> str: ...

    def from_dict(self, params: dict[str, str], /) -> None: ...


class Selection(BaseModel):
    """What is looked at (run, block, head, lens, steps, branch, sample, video frame), and the settings of a mask.

    `versus` is a second sample beside it; `edits` are the (step, block) cells of a route that were turned over by hand.
    `compared` is a second run, B, the open one being A; of the other things that are compared (`kind`), `left` is A,
    `right` is B, and `pair` is the pair of their videos that is shown.
    All heads are shown as a `view`: a grid in an `order`, or a scatter of two metrics `x` and `y` with a `color`;
    `training` is the one that is watched, at the validation of `training_step`.
    `question` is the one that Evidence shows.
    `picked` are (block, head) put together by hand, `head_set` is the name of a saved set of heads.
    A mask is sized by p (`ratio`), or by a `target` (parameters, flops or gib) of so much (`target_value`).

    None means: not chosen, so the page shows everything (all steps, branches, samples) or its own default block and
    head. A block may be chosen alone, a head only with its block.

    >>> Selection(block=3, head=7, tau_s=0.8).to_query()
    {'block': '3', 'head': '7', 'ts': '0.8'}
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str | None = None
    block: int | None = None
    head: int | None = None
    lens: str = "residual"
    first_step: int | None = None
    last_step: int | None = None
    branch: str | None = None
    sample: int | None = None
    video_frame: int = 0
    tau_s: float = 0.7
    tau_t: float = 0.3
    alpha: float = 1.5
    ratio: float = 0.3
    k_min: int | None = None
    k_max: int | None = None
    scorer: str = "pare"
    allocation: str = "uniform"
    neurons: str = "pare"
    target: str | None = None
    target_value: float | None = None
    versus: int | None = None
    question: str = "roles"
    edits: tuple[tuple[int, int], ...] = ()
    compared: str | None = None
    kind: str | None = None
    left: str | None = None
    right: str | None = None
    pair: int | None = None
    view: str = "grid"
    order: str = "number"
    x: str = "ratio"
    y: str = "importance"
    color: str = "role"
    picked: tuple[tuple[int, int], ...] = ()
    head_set: str | None = None
    training: str | None = None
    training_step: int | None = None

    def changed(self, **values: Any) -> "Selection":
        """The same selection with these fields replaced."""
        return Selection(**{**self.model_dump(), **values})

    def to_query(self) -> dict[str, str]:
        """Short, stable names for a link; what equals its default is left out."""
        pairs = {
            name: _text(value)
            for name, field in _FIELD_OF.items()
            if (value := getattr(self, field)) != Selection.model_fields[field].default
        }
        if self.first_step is not None and self.last_step is not None:
            pairs["steps"] = f"{self.first_step}-{self.last_step}"
        if self.target is not None and self.target_value is not None:
            pairs["target"] = f"{self.target}:{_text(self.target_value)}"
        if self.edits:
            pairs["flip"] = "-".join(f"{step}.{block}" for step, block in self.edits)
        if self.picked:
            pairs["pick"] = "-".join(f"{block}.{head}" for block, head in self.picked)
        return pairs


_FIELD_OF = {
    "run": "run",
    "block": "block",
    "head": "head",
    "lens": "lens",
    "branch": "branch",
    "sample": "sample",
    "vf": "video_frame",
    "ts": "tau_s",
    "tt": "tau_t",
    "alpha": "alpha",
    "p": "ratio",
    "kmin": "k_min",
    "kmax": "k_max",
    "scorer": "scorer",
    "alloc": "allocation",
    "neurons": "neurons",
    "vs": "versus",
    "ask": "question",
    "with": "compared",
    "kind": "kind",
    "a": "left",
    "b": "right",
    "pair": "pair",
    "view": "view",
    "order": "order",
    "x": "x",
    "y": "y",
    "color": "color",
    "set": "head_set",
    "training": "training",
    "at": "training_step",
}
"""Name in the link → field; `steps` (first-last) and `target` (kind:value) stand for two fields each,
`flip` (step.block-step.block…) for the edits, `pick` (block.head-block.head…) for the picked heads."""


def from_query(params: Mapping[str, str], facts: Facts) -> tuple[Selection, list[str]]:
    """The selection that a link asks for, checked against the open run, and one note per value that fell back.

    >>> selection, notes = from_query({"block": "2", "head": "99"}, Facts(blocks=8, heads=10, steps=4, samples=1))
    >>> selection.block, selection.head, notes
    (None, None, ["head=99: expected a whole number from 0 to 9; showing the page's own head"])
    """
    notes: list[str] = []
    values: dict[str, Any] = {}
    for name, text in params.items():
        reader = _READERS.get(name)
        if reader is None:
            notes.append(f"{_short(name)}: no such name in a link; ignored")
            continue
        try:
            values |= reader(text, facts)
        except _Unfit as unfit:
            notes.append(f"{name}={_short(text)}: expected {unfit}; {_FALLBACK[name]}")
    if "head" in params and not {"block", "head"} <= set(values):
        if not any(note.startswith(("block=", "head=")) for note in notes):
            notes.append("head: expected with its block in a link; showing the page's own head")
        values.pop("block", None)
        values.pop("head", None)
    wanted = Selection(**{"run": facts.run, **values})
    if not wanted.tau_t <= wanted.tau_s:
        notes.append(f"ts={wanted.tau_s:g}, tt={wanted.tau_t:g}: expected tt up to ts; using 0.7 and 0.3")
        wanted = wanted.changed(tau_s=0.7, tau_t=0.3)
    if wanted.k_min is not None and wanted.k_max is not None and wanted.k_min > wanted.k_max:
        notes.append(f"kmin={wanted.k_min}, kmax={wanted.k_max}: expected kmin up to kmax; using the default budget")
        wanted = wanted.changed(k_min=None, k_max=None)
    return wanted, notes


def current(session: MutableMapping[Any, Any], params: Link, facts: Facts) -> tuple[Selection, list[str]]:
    """The selection of this session, read from the link when the link is news, and mirrored back into it.

    A session opens with its link. Afterwards the session leads: changing pages drops the query string, so it is
    written again. An address edited by hand or reached by the Back button differs from what was mirrored last and
    is read again. Opening another run keeps what still fits.
    """
    asked = {name: params[name] for name in params}
    kept: dict[str, str] | None = session.get(SESSION_KEY)
    query = asked if kept is None or (asked and asked != kept) else kept
    selection, notes = from_query(query, facts)
    update(session, params, selection)
    return selection, notes


def requested_run(session: Mapping[Any, Any], params: Mapping[str, str]) -> str | None:
    """The run that the link or the session asks for, unchecked, so that a page can open it before it reads the rest."""
    kept: dict[str, str] = session.get(SESSION_KEY) or {}
    return params.get("run") if params else kept.get("run")


def update(session: MutableMapping[Any, Any], params: Link, selection: Selection) -> None:
    """Keep a selection in the session and mirror it in the link, at once and only where it differs.

    A browser keeps one entry of its history per write: what one action changes is one step of its Back button.
    """
    query = selection.to_query()
    session[SESSION_KEY] = query
    if {name: params[name] for name in params} != query:
        params.from_dict(query)


class _Unfit(Exception):
    """A text that is no value of its field; carries what was expected."""


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _index(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < size):
        raise _Unfit(f"a whole number from 0 to {size - 1}" if size else "no value, since no run is open")
    return int(text)


def _number(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise _Unfit(f"a number from {low:g} to {high:g}")
    return value


def _count(text: str, size: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= size):
        raise _Unfit(f"a whole number from 1 to {size}" if size else "no value, since no run is open")
    return int(text)


def _run(text: str, facts: Facts) -> dict[str, Any]:
    if text != facts.run:
        raise _Unfit("a run found in the workspace, in data/ or in a folder named at start")
    return {"run": text}


def _compared(text: str, facts: Facts) -> dict[str, Any]:
    if text not in facts.runs:
        raise _Unfit("a run found in the workspace, in data/ or in a folder named at start")
    return {"compared": text}


def _file(field: str) -> Callable[[str, Facts], dict[str, Any]]:
    def read(text: str, facts: Facts) -> dict[str, Any]:
        if text not in facts.files:
            raise _Unfit("something in the workspace, in data/ or in a folder named at start")
        return {field: text}

    return read


def _training(text: str, _: Facts) -> dict[str, Any]:
    # Which ones there are is known on their page alone, where one that is gone falls back.
    if len(text) > 300 or any(part in ("", ".", "..") for part in text.split("/")):
        raise _Unfit("place/folder of a training")
    return {"training": text}


def _one_of(field: str, choices: Iterable[str]) -> Callable[[str, Facts], dict[str, Any]]:
    def read(text: str, _: Facts) -> dict[str, Any]:
        if text not in choices:
            raise _Unfit(" or ".join(choices))
        return {field: text}

    return read


def _target(text: str, _: Facts) -> dict[str, Any]:
    kind, _colon, value = text.partition(":")
    try:
        if kind not in TARGETS:
            raise _Unfit("")
        return {"target": kind, "target_value": _number(value, 1e-9, 1e18)}
    except _Unfit:
        raise _Unfit(f"{' or '.join(TARGETS)}, a colon and a number above 0") from None


def _edits(text: str, facts: Facts) -> dict[str, Any]:
    parts = text.split("-")
    try:
        if len(parts) > MOST_EDITS:
            raise _Unfit("")
        pairs = [part.split(".") for part in parts]
        found = {(_index(step, facts.steps), _index(block, facts.blocks)) for step, block in pairs}
        # The first and the last block always run.
        if len(found) < len(parts) or any(block in (0, facts.blocks - 1) for _, block in found):
            raise _Unfit("")
    except (_Unfit, ValueError):
        inner = facts.blocks - 2
        raise _Unfit(
            f"step.block-step.block with steps to {facts.steps - 1} and blocks from 1 to {inner}"
            if inner > 0
            else "no value, since no block may be skipped"
        ) from None
    return {"edits": tuple(sorted(found))}


def _picked(text: str, facts: Facts) -> dict[str, Any]:
    parts = text.split("-")
    try:
        if len(parts) > MOST_PICKED:
            raise _Unfit("")
        pairs = [part.split(".") for part in parts]
        found = {(_index(block, facts.blocks), _index(head, facts.heads)) for block, head in pairs}
    except (_Unfit, ValueError):
        raise _Unfit(
            f"block.head-block.head with blocks to {facts.blocks - 1} and heads to {facts.heads - 1}, "
            f"{MOST_PICKED} at most"
            if facts.heads
            else "no value, since no run is open"
        ) from None
    return {"picked": tuple(sorted(found))}


def _set_name(text: str, _: Facts) -> dict[str, Any]:
    if SET_NAME.fullmatch(text) is None:
        raise _Unfit("the name of a saved set of heads")
    return {"head_set": text}


def _branch(text: str, facts: Facts) -> dict[str, Any]:
    if text not in facts.branches:
        raise _Unfit(" or ".join(facts.branches) if facts.branches else "no value, since no run is open")
    return {"branch": text}


def _steps(text: str, facts: Facts) -> dict[str, Any]:
    first, _, last = text.partition("-")
    try:
        low, high = _index(first, facts.steps), _index(last or first, facts.steps)
    except _Unfit:
        low, high = 1, 0
    if low > high:
        raise _Unfit(f"first-last within 0-{facts.steps - 1}" if facts.steps else "no value, since no run is open")
    return {"first_step": low, "last_step": high}


_READERS: dict[str, Callable[[str, Facts], dict[str, Any]]] = {
    "run": _run,
    "block": lambda text, facts: {"block": _index(text, facts.blocks)},
    "head": lambda text, facts: {"head": _index(text, facts.heads)},
    "steps": _steps,
    "lens": _one_of("lens", LENSES),
    "branch": _branch,
    "sample": lambda text, facts: {"sample": _index(text, facts.samples)},
    "vf": lambda text, _: {"video_frame": _index(text, LONGEST)},
    "ts": lambda text, _: {"tau_s": _number(text, 0, 1)},
    "tt": lambda text, _: {"tau_t": _number(text, 0, 1)},
    "alpha": lambda text, _: {"alpha": _number(text, *ALPHA_RANGE)},
    "p": lambda text, _: {"ratio": _number(text, *RATIO_RANGE)},
    "kmin": lambda text, facts: {"k_min": _count(text, facts.blocks)},
    "kmax": lambda text, facts: {"k_max": _count(text, facts.blocks)},
    "scorer": _one_of("scorer", SCORERS),
    "alloc": _one_of("allocation", ALLOCATIONS),
    "neurons": _one_of("neurons", NEURON_SCORERS),
    "target": _target,
    "vs": lambda text, facts: {"versus": _index(text, facts.samples)},
    "ask": _one_of("question", QUESTIONS),
    "flip": _edits,
    "with": _compared,
    "kind": _one_of("kind", COMPARED),
    "a": _file("left"),
    "b": _file("right"),
    "pair": lambda text, _: {"pair": _index(text, LONGEST)},
    "view": _one_of("view", VIEWS),
    "order": _one_of("order", ORDERS),
    "x": _one_of("x", METRICS),
    "y": _one_of("y", METRICS),
    "color": _one_of("color", COLORS),
    "pick": _picked,
    "set": _set_name,
    "training": _training,
    "at": lambda text, _: {"training_step": _index(text, LONGEST_TRAINING)},
}

_FALLBACK = {
    "run": "showing the default run",
    "block": "showing the page's own head",
    "head": "showing the page's own head",
    "lens": "showing the whole block",
    "steps": "showing all steps",
    "branch": "showing all branches",
    "sample": "showing all samples",
    "ts": "using 0.7",
    "tt": "using 0.3",
    "alpha": "using 1.5",
    "p": "using 0.3",
    "kmin": "using the default budget",
    "kmax": "using the default budget",
    "vf": "showing the first video frame",
    "scorer": "ranking by Eq. 3",
    "alloc": "keeping as many heads in every block",
    "neurons": "choosing neurons as PARE does",
    "target": "using p",
    "vs": "showing one sample",
    "ask": "showing the first question",
    "flip": "showing the decisions as they are made",
    "with": "comparing with the page's own run",
    "kind": "comparing what there is",
    "a": "comparing the page's own choice",
    "b": "comparing with the page's own choice",
    "pair": "showing the page's own pair",
    "view": "showing the grid",
    "order": "showing heads by number",
    "x": "showing the ratio across",
    "y": "showing importance upwards",
    "color": "colouring by role",
    "pick": "picking no heads",
    "set": "showing no saved set",
    "training": "showing the newest training",
    "at": "showing the last validation",
}
