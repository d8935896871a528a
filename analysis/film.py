"""Real videos as a model's clips: as many video frames as it makes, at its rate and size, nothing stretched."""

import math
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import UInt8

from pare.errors import InputError
from pare.video import read_video


def frame_indices(frames: int, fps: int | float, own_fps: int | float) -> np.ndarray:
    """Which video frames of a video with `own_fps` are nearest in time to `frames` frames at `fps`, from its start.

    A slower video repeats frames, a faster one is thinned. A video that names no rate (0 or NaN) is taken frame by
    frame.

    >>> frame_indices(5, fps=8, own_fps=24).tolist(), frame_indices(5, fps=8, own_fps=4).tolist()
    ([0, 3, 6, 9, 12], [0, 1, 1, 2, 2])
    """
    if not (math.isfinite(own_fps) and own_fps > 0):
        return np.arange(frames)
    return np.floor(np.arange(frames) * own_fps / fps + 0.5).astype(int)


def fill_frame(
    frames: UInt8[np.ndarray, "frames height width 3"], height: int, width: int
) -> UInt8[np.ndarray, "frames new_height new_width 3"]:
    """Frames of another size, proportions kept: resized until they cover height x width, the rest cut off alike.

    >>> fill_frame(np.zeros((1, 20, 60, 3), np.uint8), 16, 24).shape
    (1, 16, 24, 3)
    """
    own_height, own_width = frames.shape[1:3]
    scale = max(height / own_height, width / own_width)
    covering = max(height, round(own_height * scale)), max(width, round(own_width * scale))
    pixels = rearrange(torch.from_numpy(frames), "f h w c -> f c h w")
    if covering != (own_height, own_width):
        resized = torch.nn.functional.interpolate(pixels.float(), covering, mode="bilinear", antialias=True)
        pixels = resized.round().clamp(0, 255).to(torch.uint8)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    cut = pixels[:, :, top : top + height, left : left + width]
    return rearrange(cut, "f c h w -> f h w c").contiguous().numpy()


def read_clip(
    path: Path, *, height: int, width: int, frames: int, fps: int | float
) -> UInt8[np.ndarray, "frames height width 3"]:
    """The start of a video as a clip of this size, length and rate. Raises InputError where the video is too short."""
    found, own_fps, _ = read_video(path, seconds=frames / fps)
    indices = frame_indices(frames, fps, own_fps)
    if indices[-1] >= len(found):
        raise InputError(
            str(path),
            got=f"{len(found)} video frames at {own_fps:g} a second",
            expected=f"at least {indices[-1] + 1}, for {frames} at {fps:g} a second",
            fix="longer videos, a smaller --frames or a larger --fps",
        )
    return fill_frame(found[indices], height, width)
