"""The rows that a head grid shows: every head with its ratio and the flags of its marks."""

import numpy as np
import pandas as pd

from analysis.marks import HeadMarks
from workbench.components.head_grid.cells import FIRST_FRAME_SINK, UNIFORM


def grid_frame(ratio: np.ndarray, marks: HeadMarks | None) -> pd.DataFrame:
    """What the head grid shows of `ratio` [block, head]: one row per head, with the flags of its marks."""
    block, head = np.indices(ratio.shape)
    frame = pd.DataFrame({"block": block.ravel(), "head": head.ravel(), "ratio": np.clip(ratio, 0, 1).ravel()})
    if marks is not None:
        frame["flags"] = (UNIFORM * marks.uniform + FIRST_FRAME_SINK * marks.first_frame_sink).ravel()
    return frame
