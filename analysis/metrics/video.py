"""All video metrics by name: per frame for a strip, and one number per video. Motion and appearance stay apart."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from analysis.metrics.appearance import psnr, sharpness, ssim
from analysis.metrics.flicker import flicker
from analysis.metrics.flow import end_point_error, fastest_flow, flow_magnitude, optical_flow, still_share, warp_error
from analysis.metrics.pixels import Video, check_same_shape, check_video

Group: TypeAlias = Literal["motion", "steadiness", "appearance"]
Series: TypeAlias = dict[str, Float[np.ndarray, " frames"]]


@dataclass(frozen=True)
class Metric:
    """What a number is: its group, its unit, and whether it needs two videos of one seed.

    `better` is "higher" or "lower" where one end is better in itself; None where it depends on what was asked for.
    """

    group: Group
    unit: str
    title: str
    better: Literal["higher", "lower"] | None = None
    two: bool = False


METRICS: dict[str, Metric] = {
    "flow_magnitude": Metric("motion", "px/frame", "optical flow, mean"),
    "fastest_flow": Metric("motion", "px/frame", "optical flow, fastest 5 %"),
    "still_share": Metric("motion", "share", "still pixels"),
    "flow_error": Metric("motion", "px/frame", "flow end-point error", "lower", two=True),
    "warp_error": Metric("steadiness", "0..1²", "warp error", "lower"),
    "flicker": Metric("steadiness", "0..1", "flicker", "lower"),
    "sharpness": Metric("appearance", "0..1", "sharpness"),
    "psnr": Metric("appearance", "dB", "PSNR", "higher", two=True),
    "ssim": Metric("appearance", "0..1", "SSIM", "higher", two=True),
}


@dataclass(frozen=True)
class Measured:
    """One video's metrics: `series` [frames] by name, NaN where a frame has none, and the flow they came from."""

    series: Series
    flow: Float[np.ndarray, "pairs 2 rows columns"]

    @property
    def summary(self) -> dict[str, float]:
        """One number per metric: the mean over the frames that have it."""
        return summary(self.series)


def measure(video: Video) -> Measured:
    """Every metric of one video uint8 or float in 0..1 [frames, height, width, 3], at least three frames.

    What belongs to a pair of frames stands at the later one, so frame 0 has no motion.

    >>> still = np.random.default_rng(0).random((3, 16, 16, 3))[:1].repeat(3, axis=0)
    >>> found = measure(still).summary
    >>> found["flow_magnitude"], found["still_share"], found["flicker"]
    (0.0, 1.0, 0.0)
    """
    check_video(video, frames=3)
    flow, back = optical_flow(video), optical_flow(video, backward=True)
    count = len(video)
    series = {
        "flow_magnitude": _padded(flow_magnitude(flow), count),
        "fastest_flow": _padded(fastest_flow(flow), count),
        "still_share": _padded(still_share(flow), count),
        "warp_error": _padded(warp_error(video, flow, back), count),
        "flicker": np.concatenate([[np.nan], flicker(video), [np.nan]]),
        "sharpness": sharpness(video),
    }
    return Measured(series, flow)


def measure_pair(a: Video, b: Video, measured_a: Measured, measured_b: Measured) -> Series:
    """Metrics of two videos of one prompt and seed: `psnr` and `ssim` of every frame, `flow_error` from the second on.

    `measured_a` and `measured_b` are `measure` of each. Raises `InputError` for videos of different sizes.
    """
    check_same_shape(a, b)
    error = end_point_error(measured_a.flow, measured_b.flow)
    return {"flow_error": _padded(error, len(a)), "psnr": psnr(a, b), "ssim": ssim(a, b)}


def summary(series: Series) -> dict[str, float]:
    """The mean over the frames that have a number; NaN where none has.

    >>> summary({"flicker": np.array([np.nan, 0.5, 0.25])})
    {'flicker': 0.375}
    """
    there = {name: values[~np.isnan(values)] for name, values in series.items()}
    return {name: float(values.mean()) if len(values) else float("nan") for name, values in there.items()}


def _padded(pairs: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([np.full(count - len(pairs), np.nan), pairs])
