"""What a moving-digits clip is made of: the words of its caption, the colours, the scans and how a scan becomes a glyph.

The demo model's data are drawn from these facts and the oracle reads them back; both import this file.
"""

from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

# RGB in 0..1. The largest channel of every colour lies well above the brightest background.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.95, 0.15, 0.15),
    "green": (0.15, 0.85, 0.25),
    "blue": (0.25, 0.40, 1.00),
    "yellow": (0.95, 0.90, 0.15),
    "purple": (0.80, 0.25, 0.90),
    "white": (0.97, 0.97, 0.97),
}
BRIGHTEST_BACKGROUND = 0.45
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


@runtime_checkable
class DigitSettings(Protocol):
    """The numbers behind the clips: glyph size in pixels, speeds in pixels per video frame, the split of the scans."""

    @property
    def digit_size(self) -> int: ...
    @property
    def slow(self) -> float: ...
    @property
    def fast(self) -> float: ...
    @property
    def first_direction_frames(self) -> int: ...
    @property
    def held_out_scans(self) -> int: ...
    @property
    def seed(self) -> int: ...


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


def parse_caption(caption: str) -> Factors:
    """The factors that a caption names; raises ValueError for any other text.

    >>> parse_caption("a red 7 moving up and left, fast")
    Factors(digit=7, colour='red', direction='up and left', speed='fast')
    """
    try:
        _, colour, digit, rest = caption.split(" ", 3)
        if rest == "standing still":
            factors = Factors(int(digit), colour, None, "still")
        else:
            direction, speed = rest.removeprefix("moving ").split(", ")
            factors = Factors(int(digit), colour, direction, speed)
    except ValueError:
        factors = None
    if (
        factors is None
        or factors.digit not in range(10)
        or factors.colour not in COLOURS
        or factors.direction not in (None, *DIRECTIONS)
        or factors.speed not in (SPEEDS[:1] if factors.direction is None else SPEEDS[1:])
        or factors.caption != caption
    ):
        raise ValueError(f"not a moving-digits caption: {caption!r}")
    return factors


@cache
def scans(
    held_out_scans: int, seed: int, held_out: bool
) -> tuple[Float[np.ndarray, "scans 8 8"], Int[np.ndarray, " scans"]]:
    """Scanned digits as masks in 0..1 [scans, 8, 8] and their labels; the two splits never share a scan."""
    data = load_digits()
    order = np.random.default_rng(seed).permutation(len(data.target))
    chosen = order[:held_out_scans] if held_out else order[held_out_scans:]
    return data.images[chosen] / 16.0, data.target[chosen]


def glyph(scan: Float[np.ndarray, "8 8"], size: int) -> Float[np.ndarray, "size size"]:
    """A scan [8, 8] enlarged to a smooth mask [size, size] in 0..1 with crisp edges."""
    large = zoom(scan, size / scan.shape[0], order=3, grid_mode=True, mode="grid-constant")
    return np.clip((large - 0.3) / 0.35, 0, 1)
