"""The sweep's numbers: of every look, a value per held-out sample or per video; few enough to come with the project."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pare.errors import InputError
from pare.files import write_bytes
from pare.geometry import DEMO, read_json
from workbench.demo.sweep.cells import Plan, cells

SCHEMA, VALUES, DENSE = "pare-sweep-values/1", "sweep-values.json", "teacher.json"
STORE = DEMO.parent / "results"
MEASURES = ("flow_loss", "flow_magnitude", "flow_error")
DIGITS = 5
TEACHER = "teacher"

Values = Mapping[str, np.ndarray]


def measured(seen: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """From an observation: a number per held-out sample (flow loss: against the data, mean over σ) or per video (motion and flow
    error, px/frame); NaN where there is none.

    >>> {name: found.tolist() for name, found in measured({"flow_loss": {"0.5": {"data": [1.0]}, "0.9": {"data": [2.0]}},
    ...     "videos": [{"values": {"flow_magnitude": 0.25}}]}).items()}
    {'flow_loss': [1.5], 'flow_magnitude': [0.25], 'flow_error': [nan]}
    """
    found = {"flow_loss": np.mean([errors["data"] for errors in seen["flow_loss"].values()], axis=0)}
    for name in MEASURES[1:]:
        each = [video["values"].get(name) for video in seen["videos"]]
        found[name] = np.array([np.nan if value is None else value for value in each], float)
    return found


def read_values(folder: Path, plan: Plan) -> dict[tuple[str, int], Values]:
    """What a folder of a sweep holds so far, to five digits, or what was kept: by cell and step; the teacher's under ("teacher", 0)

    InputError for kept values of another plan.
    """
    kept = folder / VALUES
    if kept.is_file():
        return _read_kept(kept, plan)
    paths = {(cell.name, step): cell.observation(folder, step) for cell in cells(plan) for step in plan.steps}
    paths[TEACHER, 0] = folder / DENSE
    return {
        key: {
            name: np.array([_rounded(value) for value in found], float)
            for name, found in measured(read_json(path)).items()
        }
        for key, path in paths.items()
        if path.is_file()
    }


def keep_values(values: Mapping[tuple[str, int], Values], plan: Plan, folder: Path = STORE) -> None:
    """Write them to `folder`, a line per look."""
    lines = [
        json.dumps(
            [
                name,
                step,
                {measure: [None if np.isnan(value) else value for value in found] for measure, found in each.items()},
            ]
        )
        for (name, step), each in values.items()
    ]
    head = f'{{"schema": "{SCHEMA}",\n"plan": {json.dumps(asdict(plan))},\n"looks": [\n'
    write_bytes(folder / VALUES, (head + ",\n".join(lines) + "\n]}\n").encode())


def _read_kept(path: Path, plan: Plan) -> dict[tuple[str, int], Values]:
    document = read_json(path)
    if document["plan"] != json.loads(json.dumps(asdict(plan))):
        raise InputError(
            "--out", got=f"{path}, a sweep of {document['plan']}", expected=f"one of {asdict(plan)}",
            fix="give the numbers it was made with, or the folder of another sweep",
        )  # fmt: skip
    return {
        (name, step): {measure: np.array(found, float) for measure, found in each.items()}
        for name, step, each in document["looks"]
    }


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
