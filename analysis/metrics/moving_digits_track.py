"""Find the digit in a moving-digits video: its colour, how much of every pixel it covers, and its centre to a fraction of a pixel.

A pixel is background b plus coverage α of colour c: p = (1 − α)·b + α·c, so α = (p − b)·(c − b) / |c − b|².
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from skimage.measure import label

# Brighter than every background, darker than every colour (the largest of the three channels).
SALIENT = 0.5
# In brighter videos: this far from the middling brightness (the background's) to that of the brightest pixels (the digit's).
SALIENT_SHARE = 0.4
# Pixels around the salient ones that the digit's soft edge may reach; wider takes in errors of the background.
EDGE = 2
# A frame shows a digit when its coverage, as a share of the glyph's square, lies in this range, and no pixel of it lies
# further out than the glyph's square reaches. Training clips: 0.22 to 0.43.
COVERAGE = (0.06, 0.6)
# Salient pieces below this share of all are specks.
SPECK = 0.04


@dataclass(frozen=True)
class Track:
    """The digit over time: coverage 0..1, centre (x, y) in pixels, which frames show one digit-sized thing, colours in 0..1.

    `colour` is the clip's (None where nothing is bright), `colours` the mean over the covered pixels of each frame.
    """

    coverage: Float[np.ndarray, "frames height width"]
    centres: Float[np.ndarray, "frames 2"]
    present: Bool[np.ndarray, " frames"]
    colours: Float[np.ndarray, "frames 3"]
    colour: Float[np.ndarray, " 3"] | None


def salient(pixels: Float[np.ndarray, "frames height width 3"]) -> Bool[np.ndarray, "frames height width"]:
    """Where some channel is brighter than any background, without single specks."""
    brightness = pixels.max(-1)
    middling, brightest = np.quantile(brightness, (0.5, 0.99))
    bright = brightness > max(SALIENT, middling + SALIENT_SHARE * (brightest - middling))
    for frame in bright:
        pieces = label(frame, connectivity=2)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        frame &= (sizes >= SPECK * sizes.sum())[pieces]
    return bright


def still_background(
    pixels: Float[np.ndarray, "frames height width 3"], covered: Bool[np.ndarray, "frames height width"]
) -> Float[np.ndarray, "height width 3"]:
    """The picture behind the digit: the mean over uncovered frames, and where there is none the smoothed surroundings."""
    seen = (~covered).astype(float)
    count = seen.sum(0)
    total = np.einsum("fyx,fyxc->yxc", seen, pixels)
    weight = gaussian_filter((count > 0).astype(float), 3.0)[..., None]
    mean = total / np.maximum(count, 1)[..., None]
    smooth = gaussian_filter(mean, (3.0, 3.0, 0.0)) / np.maximum(weight, 1e-6)
    return np.where(count[..., None] > 0, mean, smooth)


def digit_colour(
    pixels: Float[np.ndarray, "frames height width 3"], covered: Bool[np.ndarray, "frames height width"]
) -> Float[np.ndarray, " 3"] | None:
    """The median colour of the brightest half of the salient pixels (their inside, without the soft edge); None without any."""
    inside = pixels[covered]
    if not len(inside):
        return None
    brightness = inside.max(-1)
    return np.median(inside[brightness >= np.median(brightness)], axis=0)


def track(video: UInt8[np.ndarray, "frames height width 3"], digit_size: int) -> Track:
    """Follow the one coloured digit of a video with a dark background; it may stand still.

    Args: decoded video frames; `digit_size`: side of the glyph's square in pixels.
    """
    pixels = video / 255.0
    bright = salient(pixels)
    near = maximum_filter(bright, (1, 2 * EDGE + 1, 2 * EDGE + 1))
    colour = digit_colour(pixels, bright)
    frames, height, width = bright.shape
    if colour is None:
        nowhere, nothing = np.full((frames, 2), np.nan), np.full((frames, 3), np.nan)
        return Track(np.zeros(bright.shape), nowhere, np.zeros(frames, bool), nothing, None)
    behind = still_background(pixels, near)
    toward = colour - behind
    coverage = np.einsum("fyxc,yxc->fyx", pixels - behind, toward) / np.maximum((toward**2).sum(-1), 1e-6)
    coverage = np.where(near, np.clip(coverage, 0, 1), 0)
    mass = coverage.sum((1, 2))
    safe = np.maximum(mass, 1e-9)
    y, x = np.arange(height), np.arange(width)
    centres = np.stack([coverage.sum(1) @ x, coverage.sum(2) @ y], -1) / safe[:, None]
    share = mass / digit_size**2
    distance = np.maximum(abs(x - centres[:, :1])[:, None, :], abs(y - centres[:, 1:])[:, :, None])
    outside = (bright & (distance > 0.75 * digit_size)).any((1, 2))
    present = (share > COVERAGE[0]) & (share < COVERAGE[1]) & ~outside
    colours = np.einsum("fyx,fyxc->fc", coverage, pixels) / safe[:, None]
    there = mass[:, None] > 0
    return Track(coverage, np.where(there, centres, np.nan), present, np.where(there, colours, np.nan), colour)


def crops(
    images: Float[np.ndarray, "images height width"], centres: Float[np.ndarray, "images 2"], size: int
) -> Float[np.ndarray, "images size size"]:
    """Squares of `size` pixels around the centres (x, y), read between pixels by linear interpolation, zero outside.

    >>> crops(np.eye(5)[None], np.array([[2.0, 2.0]]), 3)[0].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    offset = np.arange(size) - (size - 1) / 2
    number = np.broadcast_to(np.arange(len(images))[:, None, None], (len(images), size, size))
    y = np.broadcast_to(centres[:, 1, None, None] + offset[:, None], number.shape)
    x = np.broadcast_to(centres[:, 0, None, None] + offset[None, :], number.shape)
    return map_coordinates(images, [number, y, x], order=1, mode="constant")
