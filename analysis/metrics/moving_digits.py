"""The oracle of moving digits: what a decoded video shows, read from its pixels alone.

`read` says digit, colour, first direction, speed and how constant the digit stays; `score` compares that with what was asked for.
What cannot be read is None. Only training scans are used, so the oracle can be checked on clips of held-out scans.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

from analysis.metrics.moving_digits_factors import COLOURS, DIRECTIONS, DigitSettings, Factors
from analysis.metrics.moving_digits_glyphs import glyph_features, glyph_reader
from analysis.metrics.moving_digits_track import Track, track
from pare.errors import InputError

# A clip is readable when at least this share of its frames shows one digit-sized thing.
READABLE = 0.75
# Further than this from every colour of the table (RGB, 0..1) is none of them; the closest two of the table are 0.6 apart.
FARTHEST_COLOUR = 0.3
# Share of the votes of all frames that the digit must have.
MAJORITY = 0.5
# Consistency from which on a digit counts as constant: clips lie above 0.99, a change into another digit halfway below 0.95.
CONSISTENT = 0.95
# Angles that still count as the direction asked for: half the step between the eight directions.
TOLERANCE = 22.5


@dataclass(frozen=True)
class Reading:
    """What a video shows; None where it cannot be told.

    `angle` is the first direction in degrees, 0 to the right and 90 up, `direction` the nearest of the eight; both are None
    for a digit that stands still at first. `pixels_per_frame` is the path's mean length, `consistency` in 0..1, `frames_seen` the
    share of frames that show one digit-sized thing. Confidences in 0..1: share of the votes for the digit; 1 - d1/d2 for the
    distances to the nearest two colours; share of the first frames' motion that lies on a straight, even path.
    """

    digit: int | None
    digit_confidence: float
    colour: str | None
    colour_confidence: float
    angle: float | None
    direction: str | None
    direction_confidence: float
    speed: str | None
    pixels_per_frame: float | None
    consistency: float | None
    frames_seen: float


def read(video: UInt8[np.ndarray, "frames height width 3"], settings: DigitSettings) -> Reading:
    """What the decoded frames show; a function of its arguments alone.

    Args: `settings`: glyph size and speeds in pixels and the split of the scans, as the clips were drawn with.
    Errors: `InputError` for anything but uint8 RGB frames, at least `first_direction_frames` of them.

    >>> from types import SimpleNamespace
    >>> split = dict(held_out_scans=297, seed=20260)
    >>> settings = SimpleNamespace(digit_size=24, slow=0.8, fast=2.0, first_direction_frames=6, **split)
    >>> read(np.zeros((17, 48, 48, 3), np.uint8), settings).digit is None
    True
    """
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3:
        got = f"{video.dtype} {list(video.shape)}"
        raise InputError("video", got=got, expected="uint8 [frames, height, width, 3]", fix="decode it to RGB frames")
    if len(video) < settings.first_direction_frames:
        expected = f"at least {settings.first_direction_frames}, which tell the first direction"
        raise InputError("video", got=f"{len(video)} frames", expected=expected, fix="read a longer video")
    seen = track(video, settings.digit_size)
    frames_seen = float(seen.present.mean())
    if frames_seen < READABLE or seen.colour is None:
        return Reading(None, 0.0, None, 0.0, None, None, 0.0, None, None, None, frames_seen)
    features = np.zeros((len(video), (2 * round(settings.digit_size * 2 / 3)) ** 2 // 4))
    here = seen.present
    features[here] = glyph_features(seen.coverage[here], seen.centres[here], settings.digit_size)
    digit, digit_confidence = _digit(features[here], len(video), settings)
    colour, colour_confidence = nearest_colour(seen.colour)
    angle, direction_confidence = first_direction(seen, settings)
    pixels_per_frame = path_speed(seen, settings.digit_size)
    return Reading(
        digit,
        digit_confidence,
        colour,
        colour_confidence,
        angle,
        None if angle is None else nearest_direction(angle),
        direction_confidence,
        None if pixels_per_frame is None else speed_class(pixels_per_frame, settings),
        pixels_per_frame,
        consistency(features, np.nan_to_num(seen.colours), here),
        frames_seen,
    )


def score(reading: Reading, factors: Factors) -> dict[str, bool | float | None]:
    """Whether each attribute is as asked for; what cannot be read is wrong.

    `direction` is right within 22.5 degrees, and None where a still digit was asked for (its stillness counts under `speed`);
    `consistent` is whether `consistency` reaches its bar.
    """
    direction: bool | None = None
    if factors.direction is not None:
        direction = reading.angle is not None and (
            angle_between(reading.angle, direction_angle(factors.direction)) <= TOLERANCE
        )
    return {
        "digit": reading.digit == factors.digit,
        "colour": reading.colour == factors.colour,
        "direction": direction,
        "speed": reading.speed == factors.speed,
        "consistent": reading.consistency is not None and reading.consistency >= CONSISTENT,
        "consistency": reading.consistency,
    }


def direction_angle(direction: str) -> float:
    """Degrees of one of the eight directions, 0 to the right and 90 up.

    >>> direction_angle("up and left")
    135.0
    """
    right, down = DIRECTIONS[direction]
    return math.degrees(math.atan2(-down, right))


def angle_between(a: float, b: float) -> float:
    """The angle between two directions in degrees, 0 to 180.

    >>> angle_between(170.0, -170.0)
    20.0
    """
    return abs((a - b + 180) % 360 - 180)


def nearest_direction(angle: float) -> str:
    """The nearest of the eight directions.

    >>> nearest_direction(100.0)
    'up'
    """
    return min(DIRECTIONS, key=lambda name: angle_between(angle, direction_angle(name)))


def nearest_colour(colour: Float[np.ndarray, " 3"]) -> tuple[str | None, float]:
    """The name of an RGB colour in 0..1 and the confidence 1 - d1/d2; None when it is far from all of the table.

    >>> nearest_colour(np.array([0.9, 0.2, 0.1]))[0], nearest_colour(np.array([0.6, 0.6, 0.6]))[0]
    ('red', None)
    """
    distances = {name: float(np.linalg.norm(colour - np.array(value))) for name, value in COLOURS.items()}
    first, second = sorted(distances, key=lambda name: distances[name])[:2]
    name = first if distances[first] <= FARTHEST_COLOUR else None
    return name, 1 - distances[first] / distances[second] if name else 0.0


def first_direction(seen: Track, settings: DigitSettings) -> tuple[float | None, float]:
    """Angle and straightness of the least-squares velocity over the first frames; None when slower than half of slow.

    All of these frames but one must show the digit.
    """
    count = settings.first_direction_frames
    here = np.flatnonzero(seen.present[:count])
    if len(here) < count - 1:
        return None, 0.0
    centres = seen.centres[here] - seen.centres[here].mean(0)
    times = here - here.mean()
    velocity = times @ centres / (times @ times)
    if math.hypot(*velocity) < settings.slow / 2:
        return None, 0.0
    left = centres - times[:, None] * velocity
    return math.degrees(math.atan2(-velocity[1], velocity[0])), float(1 - (left**2).sum() / (centres**2).sum())


def path_speed(seen: Track, digit_size: int) -> float | None:
    """Length of the path in pixels per frame, over all pairs of frames two apart, so that turning back hardly shortens it.

    Two apart, since a decoder that makes several frames of one latent frame lets neighbours tremble. A jump of more than half a
    glyph is no motion; None when too many pairs jump or miss the digit.
    """
    lengths = np.hypot(*(seen.centres[2:] - seen.centres[:-2]).T)
    good = seen.present[2:] & seen.present[:-2] & (np.nan_to_num(lengths, nan=np.inf) <= digit_size / 2)
    return float(lengths[good].mean()) / 2 if good.mean() >= READABLE else None


def speed_class(pixels_per_frame: float, settings: DigitSettings) -> str:
    """Still below half of slow, fast above the middle between slow and fast."""
    if pixels_per_frame < settings.slow / 2:
        return "still"
    return "slow" if pixels_per_frame < (settings.slow + settings.fast) / 2 else "fast"


def consistency(
    features: Float[np.ndarray, "frames features"],
    colours: Float[np.ndarray, "frames 3"],
    present: Bool[np.ndarray, " frames"],
) -> float | None:
    """How much the digit stays itself: mean over frames t > 1 of (s(t, 1) + s(t, t - 1)) / 2, as VBench's subject consistency.

    s is the cosine of two aligned glyphs times the cosine of their colours, and 0 where a frame shows no digit. None when fewer
    than two frames show one. Source: Huang et al., VBench (CVPR 2024), with pixels in place of DINO features.
    """
    if present.sum() < 2:
        return None
    units = colours / np.maximum(np.linalg.norm(colours, axis=1, keepdims=True), 1e-9)
    shown = np.where(present, 1.0, 0.0)
    first = (features[1:] @ features[0]) * (units[1:] @ units[0]) * shown[1:] * shown[0]
    before = (features[1:] * features[:-1]).sum(1) * (units[1:] * units[:-1]).sum(1) * shown[1:] * shown[:-1]
    return float(np.clip((first + before).mean() / 2, 0, 1))


def _digit(
    features: Float[np.ndarray, "seen features"], frames: int, settings: DigitSettings
) -> tuple[int | None, float]:
    reader = glyph_reader(settings.digit_size, settings.held_out_scans, settings.seed)
    # Frames without a digit count as votes for none.
    shares = reader.votes(features.astype(np.float32)).sum(0) / frames
    best = int(shares.argmax())
    return (best if shares[best] > MAJORITY else None), float(shares[best])
