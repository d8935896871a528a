"""What one forward gave, and how the forwards of a sample become its arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from analysis.manifest import Statistic


@dataclass
class Pass:
    """What one forward of the transformer gave, first axis block; NaN where a block did not run.

    Statistics are float32 [block, head] or [block], a frame map is float16 [block, head, frame_q, frame_k] and absent
    where its step or branch is not kept.
    """

    step: int
    branch: str
    timestep: float
    sigma: float
    num_frames: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def stack_passes(
    passes: list[Pass],
    steps: int,
    branches: tuple[str, ...],
    statistics: Mapping[str, Statistic] | None = None,
) -> dict[str, np.ndarray]:
    """One sample's arrays [step, branch, block, …] from its passes; NaN where a pass is missing.

    With `statistics` exactly those are given, each with the steps and branches that it names.
    """
    described = statistics or {}
    arrays = {name: np.full(each.shape, np.nan, each.dtype) for name, each in described.items()}
    for each in passes:
        for name, values in each.arrays.items():
            if statistics is None and name not in arrays:
                arrays[name] = np.full((steps, len(branches), *values.shape), np.nan, values.dtype)
            only = described.get(name)
            own_steps = range(steps) if only is None or only.steps is None else only.steps
            own_branches = branches if only is None or only.branches is None else only.branches
            if name in arrays and each.step in own_steps and each.branch in own_branches:
                arrays[name][own_steps.index(each.step), own_branches.index(each.branch)] = values
    return arrays
