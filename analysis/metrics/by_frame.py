"""Numbers for every video frame of videos beside each other: PSNR against the first, and change from the frame before."""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd

PSNR, CHANGE = "PSNR", "change from the frame before"
UNITS = {PSNR: "dB", CHANGE: "of 255"}


def frame_change(video: np.ndarray) -> np.ndarray:
    """Mean |frame − frame before| over pixels and channels, 0..255; the first frame has none.

    >>> frame_change(np.array([0, 2, 255], np.uint8).reshape(3, 1, 1, 1)).tolist()
    [nan, 2.0, 253.0]
    """
    values = [np.abs(after.astype(np.int16) - before).mean() for before, after in pairwise(video)]
    return np.array([np.nan, *values])


def frame_table(likeness: Mapping[str, np.ndarray], change: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row per number: `measure`, `unit`, `video`, `against` (the first video, for a PSNR), `video_frame`, `value`.

    `likeness` is the PSNR of every video but the first, `change` that of every video; frames without a value are left out.

    >>> frame_table({}, {"demo": np.array([np.nan, 2.0])}).values.tolist()
    [['change from the frame before', 'of 255', 'demo', '', 1, 2.0]]
    """
    first = next(iter(change), "")
    rows = [
        {"measure": measure, "unit": UNITS[measure], "video": video, "against": first if measure == PSNR else "",
         "video_frame": frame, "value": float(value)}
        for measure, lines in ((PSNR, likeness), (CHANGE, change))
        for video, values in lines.items()
        for frame, value in enumerate(values)
        if not np.isnan(value)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=["measure", "unit", "video", "against", "video_frame", "value"])


def measure_frames(videos: Mapping[str, np.ndarray], *, paired: bool) -> pd.DataFrame:
    """The `frame_table` of videos [frame, y, x, 3] of 0..255; with `paired` the others are compared with the first."""
    # scikit-image takes a while to import, and the rest of this file does without.
    from analysis.metrics.appearance import psnr

    frames = min(len(video) for video in videos.values())
    first, *others = videos
    likeness = {name: psnr(videos[first], videos[name]) for name in others} if paired else {}
    return frame_table(likeness, {name: frame_change(video)[:frames] for name, video in videos.items()})
