"""An answer to one of the method's questions: a verdict computed by a stated rule, the tables behind it, and its origin."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pare.errors import InputError
from pare.files import replacing, write_bytes

SCHEMA = "pare-evidence/1"
FILE, TABLES = "evidence.json", "tables"
Verdict: TypeAlias = Literal["yes", "no", "undecided"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

QUESTIONS: Mapping[str, str] = {
    "roles": "Do the roles of heads hold over timesteps, prompts, seeds and branches?",
    "premise": "Does switching off temporal heads hurt motion more, and appearance less, than as many other heads?",
    "alpha": "Does the protection α change which heads stay?",
    "scores": "Does Eq. 3 predict what switching a head off does, and which scores do?",
    "routes": "Do routes follow the content?",
    "averages": "Do averages hide something?",
}
"""The questions by their word on the command line, in the order in which they are shown."""
NEEDS_MODEL = ("premise", "scores")
"""Questions that run the model; the others read a run."""


@dataclass(frozen=True, eq=False)
class Answer:
    """One answered question.

    `verdict` says whether the `claim` holds, decided by the `rule` from the numbers alone; `sentence` says so with the
    numbers. `tables` are tidy, each number with its n and interval. `n` counts what was measured, `notes` say what the
    answer does not show. `source` (model, run), `settings`, `command` and `versions` say what made it.
    """

    question: str
    claim: str
    verdict: Verdict
    sentence: str
    rule: str
    measured: str
    n: Mapping[str, int]
    tables: Mapping[str, pd.DataFrame]
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The question in words."""
        return QUESTIONS[self.question]

    @property
    def limits(self) -> tuple[str, ...]:
        """In a few words each, what the verdict leaves out although the question asks for it."""
        found = []
        if self.question == "roles" and "factors" in self.tables:
            factors = self.tables["factors"]
            still = factors.loc[factors["holds"] == "not varied", "factor"]
            found += [f"{' and '.join(still)} not varied"] if len(still) else []
        if self.question == "routes" and self.settings.get("recorded") is False:
            found.append("by block norms, no router recorded")
        return tuple(found)

    def made_by(
        self, *, source: Mapping[str, Any], settings: Mapping[str, Any], command: str, versions: Mapping[str, str]
    ) -> "Answer":
        """The same answer with its origin; `settings` join those that it has."""
        joined = {**settings, **self.settings}
        return replace(self, source=dict(source), settings=joined, command=command, versions=dict(versions))

    def to_json(self) -> dict[str, Any]:
        """As JSON values: tables as columns and rows, numbers to six digits, not-a-number as null."""
        return {
            "schema": SCHEMA,
            "question": self.question,
            "title": self.title,
            **{name: getattr(self, name) for name in ("claim", "verdict", "sentence", "rule", "measured", "command")},
            "notes": list(self.notes),
            **{name: _plain(getattr(self, name)) for name in ("n", "settings", "source", "versions")},
            "tables": {
                name: {"columns": list(table.columns), "rows": _plain(table.astype(object).to_numpy().tolist())}
                for name, table in self.tables.items()
            },
        }

    def to_bytes(self) -> bytes:
        """The file's bytes: JSON, a table row a line."""
        document = self.to_json()
        tables = document.pop("tables")
        head = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        parts = []
        for name, table in tables.items():
            rows = ",\n   ".join(json.dumps(row, ensure_ascii=False, allow_nan=False) for row in table["rows"])
            columns = json.dumps(table["columns"], ensure_ascii=False)
            parts.append(f'  {json.dumps(name)}: {{"columns": {columns}, "rows": [\n   {rows}\n  ]}}')
        return (head[:-2] + ',\n "tables": {\n' + ",\n".join(parts) + "\n }\n}\n").encode()


class _Table(BaseModel):
    columns: list[str]
    rows: list[list[Any]]

    @model_validator(mode="after")
    def _whole(self) -> "_Table":
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("a row with other columns")
        return self


class _Document(BaseModel):
    """What a reader insists on; later versions may add to it."""

    model_config = ConfigDict(extra="ignore")
    question: Literal["roles", "premise", "alpha", "scores", "routes", "averages"]
    claim: str
    verdict: Verdict
    sentence: str
    rule: str
    measured: str
    notes: list[str]
    n: dict[str, int]
    settings: dict[str, Any]
    source: dict[str, Any]
    command: str
    versions: dict[str, str]
    tables: dict[str, _Table]


def read_answer(path: str | Path) -> Answer:
    """Read an `evidence.json`. Raises InputError for a missing, damaged or foreign file."""
    path = Path(path)
    again = "measure it again with pare evidence"
    if not path.is_file():
        raise InputError(str(path), got="no such file", expected="an answer", fix=again)
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(str(path), got="not JSON", expected=f"an answer, {SCHEMA}", fix=again) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise InputError(str(path), got=f"schema {schema!r}", expected=SCHEMA, fix=again)
    try:
        read = _Document.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        got = f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"
        raise InputError(str(path), got=got, expected=f"a whole {SCHEMA}", fix=again) from error
    fields = {name: getattr(read, name) for name in _Document.model_fields if name not in ("tables", "notes")}
    tables = {name: pd.DataFrame(table.rows, columns=table.columns) for name, table in read.tables.items()}
    return Answer(**fields, notes=tuple(read.notes), tables=tables)


def write_answer(answer: Answer, folder: str | Path) -> Path:
    """Write `tables/NAME.csv` and `.parquet`, then `evidence.json` into a folder; returns the last one's path.

    The tables hold every digit, `evidence.json` six.
    """
    folder = Path(folder)
    for name, table in answer.tables.items():
        with replacing(folder / TABLES / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
        with replacing(folder / TABLES / f"{name}.parquet") as temporary:
            table.to_parquet(temporary, index=False)
    write_bytes(folder / FILE, answer.to_bytes())
    return folder / FILE


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if np.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)
