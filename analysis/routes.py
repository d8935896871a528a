"""Decisions as a part of a run: which blocks ran at which step, with their scores, as one Parquet table."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from analysis.runs import Run
from analysis.selection import Where, choose, within
from pare.errors import InputError
from pare.files import replacing

NAME = "routes.parquet"
# Sample by sample until the run is finished.
PARTS = "routes"
COLUMNS = ("sample", "step", "timestep", "block", "score", "ran", "distance", "asked", "achieved")


def routes_frame(sample: int, decisions: Sequence[Any], row: int = 0) -> pd.DataFrame:
    """One row per step and block from what `routing_summary` returns, of one sample of its batch (`row`).

    Columns: sample, step, timestep, block, score, ran, distance (to the flip; NaN where there is none), and the shares
    of blocks asked for and achieved at the step.
    """
    steps, blocks = len(decisions), len(decisions[0].ran[row]) if decisions else 0
    per_step = {
        "step": np.array([each.step for each in decisions], np.int32),
        "timestep": np.array([each.timestep[row] for each in decisions], float),
        "asked": np.array([each.asked[row] for each in decisions], float),
        "achieved": np.array([each.achieved[row] for each in decisions], float),
    }
    columns: dict[str, np.ndarray] = {name: np.repeat(values, blocks) for name, values in per_step.items()}
    columns["sample"] = np.full(steps * blocks, sample, np.int32)
    columns["block"] = np.tile(np.arange(blocks, dtype=np.int32), steps)
    for name, attribute in (("score", "scores"), ("ran", "ran"), ("distance", "distance")):
        values = [np.asarray(getattr(each, attribute)[row]) for each in decisions]
        columns[name] = np.concatenate(values) if values else np.empty(0)
    return pd.DataFrame({name: columns[name] for name in COLUMNS})


def write_part(folder: Path, index: int, frame: pd.DataFrame, run: str) -> None:
    """Keep the decisions of one sample until `join_parts`; `run` is the identity of the run."""
    _write(folder / PARTS / f"{index:05d}.parquet", frame, run)


def join_parts(folder: Path, samples: int, run: str) -> None:
    """Make the run's one table of the parts of all its samples, and remove them; nothing where there are none."""
    parts = sorted((folder / PARTS).glob("[0-9]*.parquet"))
    if not parts:
        return
    if len(parts) != samples:
        raise ValueError(f"decisions of {len(parts)} samples, the run has {samples}")
    write_routes(folder, pd.concat([_read(path, run) for path in parts], ignore_index=True), run)
    shutil.rmtree(folder / PARTS)


def write_routes(folder: Path, frame: pd.DataFrame, run: str) -> None:
    """Write the run's table in one piece."""
    _write(folder / NAME, frame, run)


def has_routes(run: Run) -> bool:
    """Whether decisions were recorded."""
    return (run.folder / NAME).is_file() or any((run.folder / PARTS).glob("[0-9]*.parquet"))


def read_routes(run: Run, samples: Sequence[int] | None = None, **where: Unpack[Where]) -> pd.DataFrame:
    """The decisions of a run, one row per sample, step and block; of finished samples only.

    `samples`, `steps`, `t_min` and `t_max` choose rows, as for `Run.blocks`. Raises InputError for a run without them.
    """
    if not has_routes(run):
        raise InputError(
            str(run.folder),
            got="a run without decisions",
            expected=f"a run with {NAME}",
            fix="pare route MODEL --out RUN",
        )
    finished = run.finished
    chosen = finished if samples is None else within("sample", samples, len(run.manifest.samples))
    steps, _ = choose(run.manifest, where)
    whole = run.folder / NAME
    paths = [whole] if whole.is_file() else sorted((run.folder / PARTS).glob("[0-9]*.parquet"))
    frame = pd.concat([_read(path, run.identity) for path in paths], ignore_index=True)
    kept = frame["sample"].isin([each for each in chosen if each in finished]) & frame["step"].isin(steps)
    return frame[kept].reset_index(drop=True)


def route_array(frame: pd.DataFrame, column: str) -> np.ndarray:
    """One column of the table as [sample, step, block], in ascending order of each.

    >>> frame = pd.DataFrame({"sample": [0, 0], "step": [3, 3], "block": [0, 1], "ran": [True, False]})
    >>> route_array(frame, "ran").tolist()
    [[[True, False]]]
    """
    ordered = frame.sort_values(["sample", "step", "block"], kind="stable")
    shape = tuple(ordered[name].nunique() for name in ("sample", "step", "block"))
    if len(ordered) != np.prod(shape) or ordered.duplicated(["sample", "step", "block"]).any():
        raise InputError(
            "routes", got="cells that are missing", expected="every block at every step", fix="record again"
        )
    return ordered[column].to_numpy().reshape(shape)


def _write(path: Path, frame: pd.DataFrame, run: str) -> None:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    # The same decisions give the same bytes; the run's identity says whose they are.
    table = table.replace_schema_metadata({"run": run})
    with replacing(path) as temporary:
        pq.write_table(table, temporary)


def _read(path: Path, run: str) -> pd.DataFrame:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(str(path), got=error, expected="a Parquet table", fix="record the run again") from error
    metadata = table.schema.metadata or {}
    if metadata.get(b"run", b"").decode() != run or missing_columns(table.column_names):
        raise InputError(str(path), got="a table of another run", expected="files of one run", fix="record it again")
    return table.to_pandas()


def missing_columns(names: Sequence[str]) -> list[str]:
    """Columns of the table of decisions that are not among these."""
    return [name for name in COLUMNS if name not in names]
