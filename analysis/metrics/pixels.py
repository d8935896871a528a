"""What every video metric reads: RGB frames, uint8 or float in 0..1."""

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8

from pare.errors import InputError

# Leading underscores: two videos may differ in size, which an InputError says better.
Video: TypeAlias = UInt8[np.ndarray, "_frames _height _width 3"] | Float[np.ndarray, "_frames _height _width 3"]
# Windows of the structural similarity are 11 pixels wide.
SMALLEST_SIDE = 11


def as_float(video: Video) -> Float[np.ndarray, "frames height width 3"]:
    """The frames in 0..1.

    >>> as_float(np.full((1, 1, 1, 3), 255, np.uint8)).tolist()
    [[[[1.0, 1.0, 1.0]]]]
    """
    return video / 255.0 if video.dtype == np.uint8 else np.asarray(video, float)


def check_video(video: Video, frames: int = 1) -> None:
    """Raises `InputError` unless `video` has at least `frames` frames of 11 x 11 pixels, floats within 0..1."""
    if len(video) < frames or min(video.shape[1:3]) < SMALLEST_SIDE:
        raise InputError(
            "video",
            got=f"{len(video)} frames of {video.shape[1]} x {video.shape[2]}",
            expected=f"at least {frames} of {SMALLEST_SIDE} x {SMALLEST_SIDE}",
            fix="use a longer or larger video",
        )
    # Not-a-number fails this comparison too.
    if video.dtype != np.uint8 and not (video.min() >= 0 and video.max() <= 1):
        raise InputError("video", got="values outside of 0..1", expected="uint8, or floats in 0..1", fix="clip them")


def check_same_shape(a: Video, b: Video) -> None:
    """Raises `InputError` unless both videos have one size and length."""
    check_video(a)
    check_video(b)
    if a.shape != b.shape:
        sizes = " and ".join(f"{len(each)} frames of {each.shape[1]} x {each.shape[2]}" for each in (a, b))
        raise InputError("two videos", got=sizes, expected="one size and length", fix="compare videos of one clip size")
