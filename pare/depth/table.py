"""Decision tables: which blocks run at which timestep, as a file to replay and to edit by hand."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pare.depth.budget import BudgetSchedule
from pare.errors import InputError
from pare.files import replacing, write_bytes

SCHEMA = "pare-routes/1"
# What a table in Parquet must have; a run's routes.parquet has these and more.
COLUMNS = ("timestep", "block", "ran")


@dataclass(frozen=True, eq=False)
class DecisionTable:
    """`ran` [steps, blocks] at `timesteps` [steps], noisiest first; `scores` [steps, blocks] where they are known.

    The first and the last block run at every step. Raises InputError otherwise.

    >>> table = DecisionTable((900.0, 300.0), np.array([[True, True, True], [True, False, True]]))
    >>> table.counts, table.at(250.0)
    ((3, 2), 1)
    """

    timesteps: tuple[int | float, ...]
    ran: np.ndarray
    scores: np.ndarray | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.timesteps)
        shapes = [each.shape for each in (self.ran, self.scores) if each is not None]
        if self.ran.dtype != np.bool_ or self.ran.ndim != 2 or any(s != (steps, self.ran.shape[1]) for s in shapes):
            raise _wrong(f"shapes {shapes} for {steps} timesteps", "booleans [steps, blocks]")
        if not steps or not self.ran.shape[1]:
            raise _wrong("nothing", "at least one step and one block")
        if not all(math.isfinite(t) and 0 <= t <= 1000 for t in self.timesteps):
            raise _wrong("a timestep outside of 0 to 1000", "timesteps t")
        if any(later >= earlier for earlier, later in zip(self.timesteps, self.timesteps[1:], strict=False)):
            raise _wrong(f"timesteps {list(self.timesteps)[:4]}, …", "falling timesteps, each once")
        if not self.ran[:, [0, -1]].all():
            step = int(np.flatnonzero(~self.ran[:, [0, -1]].all(axis=1))[0])
            raise _wrong(f"step {step} without the first or the last block", "both, which always run")

    @property
    def blocks(self) -> int:
        """Blocks of the model that the table is for."""
        return self.ran.shape[1]

    @property
    def counts(self) -> tuple[int, ...]:
        """How many blocks run at every step."""
        return tuple(int(each) for each in self.ran.sum(axis=1))

    @property
    def budget(self) -> BudgetSchedule:
        """The schedule that these decisions are."""
        return BudgetSchedule.by_timestep(self.timesteps, self.counts)

    def at(self, timestep: int | float) -> int:
        """Index of the step whose timestep is nearest."""
        return int(np.argmin(np.abs(np.array(self.timesteps) - timestep)))

    def save(self, path: str | Path) -> Path:
        """Write the table, as Parquet where the name says so, else as JSON."""
        if Path(path).suffix == ".parquet":
            with replacing(path) as temporary:
                self._frame().to_parquet(temporary, index=False)
            return Path(path)
        write_bytes(path, self.to_json())
        return Path(path)

    def to_json(self) -> bytes:
        """The table as the JSON file that `load` reads."""
        content: dict[str, Any] = {"schema": SCHEMA, "about": self.about, "timesteps": list(self.timesteps)}
        content["ran"] = self.ran.astype(int).tolist()
        if self.scores is not None:
            content["scores"] = self.scores.tolist()
        return json.dumps(content, indent=1, allow_nan=False).encode() + b"\n"

    @classmethod
    def load(cls, path: str | Path, sample: int | None = None) -> "DecisionTable":
        """Read a table from JSON or Parquet; of a table of several samples, `sample` (the first one unless given).

        Raises InputError for a missing file, missing columns, cells that are not there, and decisions that no model can
        carry out.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError("--router", got=f"{path}, no such file", expected="a decision table", fix="check the path")
        return _from_parquet(path, sample) if path.suffix == ".parquet" else _from_json(path)

    def _frame(self) -> Any:
        import pandas as pd

        steps, blocks = self.ran.shape
        columns = {
            "step": np.repeat(np.arange(steps), blocks),
            "timestep": np.repeat(np.array(self.timesteps), blocks),
            "block": np.tile(np.arange(blocks), steps),
            "ran": self.ran.ravel(),
        }
        return pd.DataFrame(columns | ({} if self.scores is None else {"score": self.scores.ravel()}))


def _from_json(path: Path) -> DecisionTable:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise _wrong(f"{path}, not JSON", f"{SCHEMA} as JSON or Parquet") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise _wrong(f"{path}, which does not say {SCHEMA}", f"a table of schema {SCHEMA}")
    ran: Any = content.get("ran")
    if not _rows(ran) or any(cell not in (0, 1) for row in ran for cell in row):
        raise _wrong(f"{path}, decisions other than 0 and 1", "rows of 0 and 1 of one length, a row per timestep")
    scores: Any = content.get("scores")
    if scores is not None and not (_rows(scores) and all(_number(cell) for row in scores for cell in row)):
        raise _wrong(f"{path}, scores that are not numbers", "rows of numbers, a row per timestep")
    timesteps = content.get("timesteps")
    if not isinstance(timesteps, list) or not all(_number(t) for t in timesteps):
        raise _wrong(f"{path}, timesteps that are not numbers", "a list of timesteps")
    about = content.get("about")
    return DecisionTable(
        tuple(float(t) for t in timesteps),
        np.array(ran, bool),
        None if scores is None else np.array(scores, float),
        about if isinstance(about, dict) else {},
    )


def _from_parquet(path: Path, sample: int | None) -> DecisionTable:
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise _wrong(f"{path}, which cannot be read", "a Parquet table") from error
    if missing := [name for name in COLUMNS if name not in frame]:
        raise _wrong(f"{path} without {', '.join(missing)}", f"columns {', '.join(COLUMNS)}")
    if "sample" in frame:
        there = frame["sample"].unique()
        chosen = there[0] if sample is None and len(there) else sample
        frame = frame[frame["sample"] == chosen]
        if frame.empty:
            raise _wrong(f"{path} without sample {sample}", "a sample of the table")
    if frame[list(COLUMNS)].isna().any(axis=None) or not frame["ran"].isin([0, 1]).all():
        raise _wrong(f"{path}, cells without a decision", "true or false everywhere")
    if frame.duplicated(["timestep", "block"]).any():
        raise _wrong(f"{path}, several decisions for one block and timestep", "one each")
    ran = frame.pivot(index="timestep", columns="block", values="ran").sort_index(ascending=False)
    if ran.isna().any(axis=None) or list(ran.columns) != list(range(len(ran.columns))):
        raise _wrong(f"{path}, blocks that are missing at some timestep", "every block at every timestep")
    scores = None
    if "score" in frame and frame["score"].notna().all():
        scores = frame.pivot(index="timestep", columns="block", values="score").sort_index(ascending=False)
    return DecisionTable(
        tuple(float(t) for t in ran.index),
        ran.to_numpy().astype(bool),
        None if scores is None else scores.to_numpy().astype(float),
    )


def _rows(values: Any) -> bool:
    """Whether this is a list of lists of one length."""
    if not isinstance(values, list) or not values or not all(isinstance(row, list) for row in values):
        return False
    return len({len(row) for row in values}) == 1


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(got: str, expected: str) -> InputError:
    return InputError("decision table", got=got, expected=expected, fix="write one with pare route, or edit that")
