"""The sweep's tables: PARE's numbers, and the paired differences of the others to it."""

from collections.abc import Mapping

import numpy as np

from analysis.paired import mean_over_prompts, paired_difference
from workbench.demo.results.page import NOT_YET
from workbench.demo.results.tables import NONE, grid, interval, number
from workbench.demo.sweep.cells import METHODS, Cell, Plan, cells
from workbench.demo.sweep.values import TEACHER, Values

TITLES = {
    "flow_loss": ("Flow loss on held-out samples", 4),
    "flow_magnitude": ("Motion, px/frame", 3),
    "flow_error": ("Flow error against the teacher's video, px/frame", 3),
}
FIRST = next(iter(METHODS))


def sweep_text(looks: Mapping[tuple[str, int], Values], plan: Plan) -> str:
    """A table per measure, from what `values.read_values` found."""
    dense = looks.get((TEACHER, 0))
    looks = {key: found for key, found in looks.items() if key[0] != TEACHER}
    if not looks:
        return NOT_YET
    parts = []
    for measure, (title, digits) in TITLES.items():
        lines = []
        for ratio in plan.ratios:
            for step in plan.steps:
                row = [looks.get((Cell(method, ratio).name, step)) for method in METHODS]
                if any(row):
                    found = [None if each is None else each[measure] for each in row]
                    lines.append([f"{ratio:.0%}", str(step), *_cells(found, digits)])
        names = ["cut", "steps", FIRST, *(f"{method}: less {FIRST}" for method in list(METHODS)[1:])]
        teacher = ""
        if dense is not None and measure != "flow_error":
            teacher = f" The teacher's: {_mean(dense[measure], digits)}."
        n = len(next(iter(looks.values()))[measure])
        parts.append(f"**{title}** (n = {n}).{teacher}\n\n{grid(names, lines)}")
    missing = len(cells(plan)) * len(plan.steps) - len(looks)
    if missing:
        parts.append(f"{missing} of {len(cells(plan)) * len(plan.steps)} cells are not measured yet.")
    return "\n\n".join(parts)


def _cells(row: list[np.ndarray | None], digits: int) -> list[str]:
    first = row[0]
    texts = [NONE if first is None else _mean(first, digits)]
    for each in row[1:]:
        if each is None:
            texts.append(NONE)
        elif first is None:
            texts.append(_mean(each, digits))
        else:
            found = paired_difference(first, each)
            told = f"{number(found.difference, digits, sign=True)}{interval(found, digits, sign=True)}"
            texts.append(f"{number(found.mean_b, digits)}: {told}")
    return texts


def _mean(found: np.ndarray, digits: int) -> str:
    mean = mean_over_prompts(found)
    return f"{number(mean.mean, digits)}{interval(mean, digits)}"
