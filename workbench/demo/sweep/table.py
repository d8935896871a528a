"""The sweep's tables: PARE's numbers, and the paired differences of the others to it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analysis.paired import mean_over_prompts, paired_difference
from pare.geometry import read_json
from workbench.demo.results.page import NOT_YET
from workbench.demo.results.tables import NONE, grid, interval, number
from workbench.demo.sweep.cells import METHODS, Cell, Plan, cells

Observed = Mapping[tuple[Cell, int], Mapping[str, Any]]
MEASURES = {
    "flow loss on held-out samples": ("flow_loss", 4),
    "motion, px/frame": ("flow_magnitude", 3),
    "flow error against the teacher's video, px/frame": ("flow_error", 3),
}
FIRST = next(iter(METHODS))


def read_observed(folder: Path, plan: Plan) -> dict[tuple[Cell, int], dict[str, Any]]:
    """What is there so far."""
    found = {}
    for cell in cells(plan):
        for step in plan.steps:
            path = cell.observation(folder, step)
            if path.is_file():
                found[cell, step] = read_json(path)
    return found


def values(seen: Mapping[str, Any], measure: str) -> np.ndarray:
    """A number per held-out sample (flow loss: against the data, mean over σ) or per video; NaN where there is none."""
    if measure == "flow_loss":
        return np.mean([errors["data"] for errors in seen["flow_loss"].values()], axis=0)
    found = [each["values"].get(measure) for each in seen["videos"]]
    return np.array([np.nan if value is None else value for value in found], float)


def sweep_text(observed: Observed, plan: Plan, dense: Mapping[str, Any] | None) -> str:
    """A table per measure; `dense` is what was seen of the teacher."""
    if not observed:
        return NOT_YET
    parts = []
    for title, (measure, digits) in MEASURES.items():
        lines = []
        for ratio in plan.ratios:
            for step in plan.steps:
                row = [observed.get((Cell(method, ratio), step)) for method in METHODS]
                if any(row):
                    lines.append([f"{ratio:.0%}", str(step), *_cells(row, measure, digits)])
        names = ["cut", "steps", FIRST, *(f"{method}: less {FIRST}" for method in list(METHODS)[1:])]
        teacher = ""
        if dense is not None and measure != "flow_error":
            found = mean_over_prompts(values(dense, measure))
            teacher = f" The teacher's: {number(found.mean, digits)}{interval(found, digits)}."
        n = len(values(next(iter(observed.values())), measure))
        parts.append(f"**{title[0].upper()}{title[1:]}** (n = {n}).{teacher}\n\n{grid(names, lines)}")
    missing = len(cells(plan)) * len(plan.steps) - len(observed)
    if missing:
        parts.append(f"{missing} of {len(cells(plan)) * len(plan.steps)} cells are not measured yet.")
    return "\n\n".join(parts)


def _cells(row: list[Mapping[str, Any] | None], measure: str, digits: int) -> list[str]:
    first = None if row[0] is None else values(row[0], measure)
    texts = [NONE if first is None else _mean(first, digits)]
    for seen in row[1:]:
        if seen is None:
            texts.append(NONE)
        elif first is None:
            texts.append(_mean(values(seen, measure), digits))
        else:
            found = paired_difference(first, values(seen, measure))
            told = f"{number(found.difference, digits, sign=True)}{interval(found, digits, sign=True)}"
            texts.append(f"{number(found.mean_b, digits)}: {told}")
    return texts


def _mean(found: np.ndarray, digits: int) -> str:
    mean = mean_over_prompts(found)
    return f"{number(mean.mean, digits)}{interval(mean, digits)}"
