"""Flicker: brightness of the whole frame that goes up and down."""

import numpy as np
from jaxtyping import Float
from skimage.color import rgb2gray

from analysis.metrics.pixels import Video, as_float, check_video


def flicker(video: Video) -> Float[np.ndarray, " inner_frames"]:
    """|b(t−1) − 2·b(t) + b(t+1)| / 4 for every frame but the first and last, b the mean luminance of a frame in 0..1.

    A brightness that alternates by ± a gives a; a steady fade, and motion inside the frame, give nothing. Flicker of a
    part of the frame is in `warp_error`. Raises `InputError` below three frames.

    >>> grey = 0.5 + 0.1 * (-1.0) ** np.arange(4)
    >>> flicker(np.tile(grey[:, None, None, None], (1, 16, 16, 3))).round(6).tolist()
    [0.1, 0.1]
    """
    check_video(video, frames=3)
    brightness = rgb2gray(as_float(video)).mean(axis=(1, 2))
    return np.abs(np.diff(brightness, n=2)) / 4
