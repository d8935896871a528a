"""What `run.json` says about a run: the schema `pare-run/1`."""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pare.errors import InputError

SCHEMA = "pare-run/1"
HEAD_AXES = ("step", "branch", "block", "head")
BLOCK_AXES = ("step", "branch", "block")
MAP_AXES = (*HEAD_AXES, "frame_q", "frame_k")

# Readers keep what they know and pass over what a later version added.
_READER = ConfigDict(extra="ignore", frozen=True)


class Statistic(BaseModel):
    """One array of every sample file: its axes in order, its shape, and how it was obtained.

    `steps`, `branches` and `samples` name the part of the run that was measured, when that is not all of it.
    """

    model_config = _READER
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Literal["float16", "float32", "int32"] = "float32"
    unit: str
    description: str
    method: str = "exact"
    steps: tuple[int, ...] | None = None
    branches: tuple[str, ...] | None = None
    samples: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _one_length_per_axis(self) -> "Statistic":
        if len(self.axes) != len(self.shape):
            raise ValueError(f"axes {self.axes} and shape {self.shape} differ in length")
        return self


class Sample(BaseModel):
    """One sample of a run: what was asked for, the seed, and the video (a path inside the run) where one is kept."""

    model_config = _READER
    prompt: str
    seed: int
    video: str | None = None
    source: str | None = None


class Manifest(BaseModel):
    """The content of `run.json`; the same command on the same machine writes the same bytes."""

    model_config = _READER
    schema_name: Literal["pare-run/1"] = Field("pare-run/1", alias="schema")
    model: dict[str, Any]
    geometry: dict[str, Any]
    clip: dict[str, Any]
    num_frames: int = Field(gt=0)
    tokens_per_frame: int = Field(gt=0)
    mode: Literal["calibration", "trajectory"]
    settings: dict[str, Any]
    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    branches: tuple[str, ...]
    samples: tuple[Sample, ...]
    statistics: dict[str, Statistic]
    # Means over all samples of the run, by name; their first axis is the block.
    moments: dict[str, Statistic] = {}
    # Of what is estimated from a part of the queries: how many rows were asked for and drawn per frame, and the seed.
    query_rows: dict[str, int] | None = None
    attention: dict[str, Any]
    versions: dict[str, str]

    @model_validator(mode="after")
    def _lengths_agree(self) -> "Manifest":
        if len(self.timesteps) != len(self.sigmas):
            raise ValueError(f"{len(self.timesteps)} timesteps but {len(self.sigmas)} sigmas")
        lengths = {"block": int(self.geometry["blocks"]), "head": int(self.geometry["heads"])}
        lengths |= {"frame_q": self.num_frames, "frame_k": self.num_frames}
        for name, statistic in {**self.moments, **self.statistics}.items():
            known = lengths | {
                "step": len(self.timesteps if statistic.steps is None else statistic.steps),
                "branch": len(self.branches if statistic.branches is None else statistic.branches),
            }
            for axis, length in zip(statistic.axes, statistic.shape, strict=True):
                if known.get(axis, length) != length:
                    raise ValueError(f"{name}: axis {axis} has length {length}, the run has {known[axis]}")
        return self

    def measured(self, sample: int) -> dict[str, Statistic]:
        """The statistics that this sample's file has."""
        return {name: each for name, each in self.statistics.items() if each.samples is None or sample in each.samples}

    def to_bytes(self) -> bytes:
        """The file's bytes: JSON, indented, keys in a fixed order, no NaN."""
        text = json.dumps(self.model_dump(by_alias=True, mode="json"), indent=1, allow_nan=False, ensure_ascii=False)
        return text.encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes, name: str) -> "Manifest":
        """Read `run.json`; `name` is what the error calls it. Raises InputError for anything else than `pare-run/1`."""
        try:
            document = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise InputError(name, got="not JSON", expected="a run's run.json", fix="capture the run again") from error
        schema = document.get("schema") if isinstance(document, dict) else None
        if schema != SCHEMA:
            raise InputError(name, got=f"schema {schema!r}", expected=SCHEMA, fix="give a folder that capture wrote")
        try:
            return cls.model_validate(document)
        except (ValidationError, KeyError) as error:
            raise InputError(name, got=_first(error), expected=f"a valid {SCHEMA}", fix="capture it again") from error


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors()[0]
        return f"{'.'.join(map(str, problem['loc'])) or 'content'}: {problem['msg']}"
    return f"no field {error}"
