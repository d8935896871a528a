"""Scores of heads as tables: CSV, Parquet, the JSON lines of a sweep or an answer of `pare evidence scores`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.evidence.answer import read_answer
from analysis.scores import Scores
from pare.errors import InputError
from pare.files import replacing
from pare.geometry import Geometry

ENDINGS = (".csv", ".parquet", ".jsonl", ".json")
COLUMN = "#"
"""What stands between a file and the column of it that is the score."""
KINDS = ("self", "cross")


def is_table(name: str) -> bool:
    """Whether this names a file of scores, by its ending.

    >>> is_table("taylor.csv"), is_table("evidence.json#gate_gradient"), is_table("pare")
    (True, True, False)
    """
    return table_file(name)[0].suffix in ENDINGS


def table_file(name: str | Path) -> tuple[Path, str]:
    """The file of a table of scores and the column that is the score: `FILE` or `FILE#COLUMN`.

    >>> table_file("evidence.json#gate_gradient")
    (PosixPath('evidence.json'), 'gate_gradient')
    """
    if Path(name).is_file():
        return Path(name), "score"
    path, _, column = str(name).partition(COLUMN)
    return Path(path), column or "score"


def score_table(scores: Scores) -> pd.DataFrame:
    """One row per head: kind, block, head, score, its 95 % interval over samples (low, high) and their n.

    >>> score_table(Scores("demo", {"self": np.array([[1.0, 2.0]])}))[["kind", "block", "head", "score"]].values.tolist()
    [['self', 0, 0, 1.0], ['self', 0, 1, 2.0]]
    """
    tables = []
    for kind in scores.values:
        values = scores.score(kind)
        low, high = scores.interval(kind)
        block, head = np.indices(values.shape)
        columns = {"kind": kind, "block": block.ravel(), "head": head.ravel(), "score": values.ravel()}
        tables.append(pd.DataFrame({**columns, "low": low.ravel(), "high": high.ravel(), "n": scores.scored}))
    return pd.concat(tables, ignore_index=True)


def write_scores(scores: Scores, path: str | Path) -> Path:
    """Write `score_table` as CSV or Parquet, by the file's ending; `read_scores` and `pare mask --scorer` read it."""
    path = Path(path)
    if path.suffix not in (".csv", ".parquet"):
        raise InputError(str(path), got=path.suffix or "no ending", expected=".csv or .parquet", fix="rename it")
    table = score_table(scores)
    with replacing(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    return path


def read_scores(path: str | Path, geometry: Geometry) -> Scores:
    """Scores of every head of a model from a table with columns block, head, score and, where there are both, kind.

    `FILE#COLUMN` takes another column as the score. Without `kind` they are of self-attention. Several rows of one head
    (samples, timesteps) are averaged. A sweep's JSON lines are read by their `change`, one head off at a time; an answer of
    `pare evidence scores` (`evidence.json`) has a column per scorer, and `effect`. Raises InputError for another file, a
    head that the model does not have, and a head that has no row.
    """
    path, column = table_file(path)
    if not path.is_file():
        raise InputError("--scorer", got=f"{path}, no such file", expected="a table of scores", fix="check the path")
    table = _read(path)
    if missing := [name for name in ("block", "head", column) if name not in table.columns]:
        got = f"no column {', '.join(missing)}"
        expected = "block, head, score and perhaps kind" if column == "score" else ", ".join(map(str, table.columns))
        raise InputError(str(path), got=got, expected=expected, fix=f"name the columns so, or {path}#COLUMN")
    table = table.assign(score=table[column])
    kinds = table["kind"] if "kind" in table.columns else pd.Series("self", index=table.index)
    values = {}
    for kind in KINDS:
        if (kinds == kind).any():
            values[kind] = _grid(table[kinds == kind], kind, geometry, path)
    if unknown := sorted(set(kinds.astype(str)) - set(KINDS)):
        raise InputError(str(path), got=f"kind {', '.join(unknown)}", expected="self or cross", fix="mend the column")
    if not values:
        raise InputError(str(path), got="no rows", expected="one per head", fix="write the table again")
    return Scores(path.name if column == "score" else f"{path.name}{COLUMN}{column}", values)


def _grid(rows: pd.DataFrame, kind: str, geometry: Geometry, path: Path) -> np.ndarray:
    for name, size in (("block", geometry.blocks), ("head", geometry.heads)):
        outside = ~rows[name].isin(range(size))
        if outside.any():
            got = f"{kind} {name} {rows[name][outside].iloc[0]}"
            raise InputError(str(path), got=got, expected=f"0 to {size - 1}", fix="use scores of this model")
    score = pd.to_numeric(rows["score"], errors="coerce")
    mean = score.groupby([rows["block"].astype(int), rows["head"].astype(int)]).mean()
    every = pd.MultiIndex.from_product([range(geometry.blocks), range(geometry.heads)])
    grid = mean.reindex(every).to_numpy(float).reshape(geometry.blocks, geometry.heads)
    if not np.isfinite(grid).all():
        block, head = np.argwhere(~np.isfinite(grid))[0]
        got = f"no finite score for {kind} block {block} head {head}"
        raise InputError(str(path), got=got, expected="one per head", fix="score every head")
    return grid


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            return pd.read_csv(path)
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".jsonl":
            return _read_sweep(path)
        if path.suffix == ".json":
            return _read_answer(path)
    except (ValueError, OSError, LookupError, TypeError) as error:
        raise InputError(str(path), got=error, expected="a table of scores", fix="write it again") from error
    raise InputError(str(path), got=path.suffix, expected=f"one of {', '.join(ENDINGS)}", fix="another file")


def _read_answer(path: Path) -> pd.DataFrame:
    tables = read_answer(path).tables
    if "heads" not in tables:
        raise InputError(
            str(path),
            got="an answer without scores of heads",
            expected="one of pare evidence scores",
            fix="another file",
        )
    return tables["heads"]


def _read_sweep(path: Path) -> pd.DataFrame:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    sets: dict[str, Any] = lines[0]["settings"]["head_sets"]
    alone = {name: heads[0] for name, heads in sets.items() if len(heads) == 1}
    rows = [(*alone[row["head_set"]], row["change"]) for row in lines[1:] if row["head_set"] in alone]
    return pd.DataFrame(rows, columns=["kind", "block", "head", "score"])
