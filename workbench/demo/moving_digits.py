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
from functools import cache

import numpy as np
from scipy.ndimage import shift as shift_image
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

from workbench.demo.settings import DataSettings

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.15, 0.15),
    "green": (0.15, 0.85, 0.25),
    "blue": (0.25, 0.40, 1.00),
    "yellow": (0.95, 0.90, 0.15),
    "purple": (0.80, 0.25, 0.90),
    "white": (0.97, 0.97, 0.97),
}
# Unit steps (right, down) in pixels; diagonals keep the same speed.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "right": (1, 0),
    "down and right": (1, 1),
    "down": (0, 1),
    "down and left": (-1, 1),
    "left": (-1, 0),
    "up and left": (-1, -1),
    "up": (0, -1),
    "up and right": (1, -1),
}
SPEEDS = ("still", "slow", "fast")


@dataclass(frozen=True)
class Factors:
    """What a clip shows; `direction` is None for a still one."""

    digit: int
    colour: str
    direction: str | None
    speed: str

    @property
    def caption(self) -> str:
        """The caption, for example 'a red 7 moving up and left, fast' or 'a blue 3 standing still'."""
        if self.direction is None:
            return f"a {self.colour} {self.digit} standing still"
        return f"a {self.colour} {self.digit} moving {self.direction}, {self.speed}"


@dataclass(frozen=True)
class Clip:
    """A drawn clip: `video` uint8 [frames, height, width, 3], its factors, and the digit's corner [frames, (x, y)] in pixels."""

    video: np.ndarray
    factors: Factors
    corners: np.ndarray


def parse_caption(caption: str) -> Factors:
    """The factors that a caption names; raises ValueError for any other text.

    >>> parse_caption("a red 7 moving up and left, fast")
    Factors(digit=7, colour='red', direction='up and left', speed='fast')
    """
    _, colour, digit, rest = caption.split(" ", 3)
    if rest == "standing still":
        return Factors(int(digit), colour, None, "still")
    direction, speed = rest.removeprefix("moving ").split(", ")
    factors = Factors(int(digit), colour, direction, speed)
    if colour not in COLOURS or direction not in DIRECTIONS or speed not in SPEEDS or factors.caption != caption:
        raise ValueError(f"not a moving-digits caption: {caption!r}")
    return factors


@cache
def scans(held_out_scans: int, seed: int, held_out: bool) -> tuple[np.ndarray, np.ndarray]:
    """Scanned digits as masks in 0..1 [scans, 8, 8] and their labels; the two splits never share a scan."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    chosen = order[:held_out_scans] if held_out else order[held_out_scans:]
    return data.images[chosen] / 16.0, data.target[chosen]


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
    return np.clip(tint * (1 + 0.35 * texture[..., None]), 0.02, 0.45)


def glyph(scan: np.ndarray, size: int) -> np.ndarray:
    """A scan [8, 8] enlarged to a smooth mask [size, size] in 0..1 with crisp edges."""
    large = zoom(scan, size / scan.shape[0], order=3, grid_mode=True, mode="grid-constant")
    return np.clip((large - 0.3) / 0.35, 0, 1)


def reflect(position: np.ndarray, room: float) -> np.ndarray:
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
