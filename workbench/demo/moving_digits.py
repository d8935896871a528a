"""Moving digits: videos of one coloured, scanned digit on a still textured background, with the caption that describes them.

The digit keeps one speed, turns back at the borders, and its first direction lasts at least six video frames; the caption names
digit, colour, first direction and speed. Digits are scikit-learn's 1,797 scans (8 x 8), split into training and held-out scans.

>>> from workbench.demo.settings import DataSettings
>>> clip = draw_clip(DataSettings(), seed=0, held_out=False)
>>> clip.video.shape, clip.factors.caption
((17, 48, 48, 3), 'a green 3 moving up and right, fast')
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import shift as shift_image
from scipy.ndimage import zoom

from analysis.metrics.moving_digits_factors import (
    BRIGHTEST_BACKGROUND,
    COLOURS,
    DIRECTIONS,
    SPEEDS,
    Factors,
    glyph,
    parse_caption,
    scans,
)
from workbench.demo.settings import DataSettings

__all__ = ["COLOURS", "DIRECTIONS", "SPEEDS", "Clip", "Factors", "draw_clip", "glyph", "parse_caption", "scans"]


@dataclass(frozen=True)
class Clip:
    """A drawn clip: `video` uint8 [frames, height, width, 3], its factors, and the digit's corner [frames, (x, y)] in pixels."""

    video: np.ndarray
    factors: Factors
    corners: np.ndarray


def draw_factors(settings: DataSettings, rng: np.random.Generator) -> Factors:
    """Factors drawn independently: digit, colour, stillness, then direction and speed."""
    digit, colour = int(rng.integers(10)), str(rng.choice(list(COLOURS)))
    if rng.random() < settings.still_share:
        return Factors(digit, colour, None, "still")
    return Factors(digit, colour, str(rng.choice(list(DIRECTIONS))), str(rng.choice(SPEEDS[1:])))


def background(settings: DataSettings, rng: np.random.Generator) -> np.ndarray:
    """A dark, smooth, slightly tinted texture [height, width, 3] in 0..1 that does not move."""
    coarse = rng.normal(size=(7, 7))
    texture = zoom(coarse, (settings.height / 7, settings.width / 7), order=3)
    tint = 0.2 + 0.06 * rng.random(3)
    return np.clip(tint * (1 + 0.35 * texture[..., None]), 0.02, BRIGHTEST_BACKGROUND)


def reflect(position: np.ndarray, room: float | np.ndarray) -> np.ndarray:
    """Positions folded into 0..room, as by walls that turn the motion back."""
    folded = np.mod(position, 2 * room)
    return np.where(folded > room, 2 * room - folded, folded)


def path(settings: DataSettings, factors: Factors, rng: np.random.Generator) -> np.ndarray:
    """The digit's corner (x, y) in every video frame [frames, 2]; the start leaves room for the first direction."""
    room = np.array([settings.width, settings.height], float) - settings.digit_size
    if factors.direction is None:
        return np.tile(rng.random(2) * room, (settings.frames, 1))
    unit = np.array(DIRECTIONS[factors.direction], float)
    velocity = unit / math.hypot(*unit) * (settings.fast if factors.speed == "fast" else settings.slow)
    reach = np.abs(velocity) * settings.first_direction_frames
    start = rng.random(2) * (room - reach) + np.where(velocity < 0, reach, 0)
    return reflect(start + np.arange(settings.frames)[:, None] * velocity, room)


def draw_clip(settings: DataSettings, seed: int, held_out: bool, factors: Factors | None = None) -> Clip:
    """The clip of a seed: a function of its arguments alone. With `factors`, that clip's look and path are still the seed's."""
    rng = np.random.default_rng([settings.seed, int(held_out), seed])
    drawn = draw_factors(settings, rng)
    factors = factors or drawn
    images, labels = scans(settings.held_out_scans, settings.seed, held_out)
    matching = np.flatnonzero(labels == factors.digit)
    mask = glyph(images[matching[rng.integers(len(matching))]], settings.digit_size)
    canvas = background(settings, rng)
    corners = path(settings, factors, rng)
    colour = np.array(COLOURS[factors.colour])
    padded = np.zeros((settings.height, settings.width))
    padded[: settings.digit_size, : settings.digit_size] = mask
    frames = []
    for x, y in corners:
        alpha = shift_image(padded, (y, x), order=1)[..., None]
        frames.append(canvas * (1 - alpha) + colour * alpha)
    video = np.round(np.stack(frames) * 255).astype(np.uint8)
    return Clip(video, factors, corners)
