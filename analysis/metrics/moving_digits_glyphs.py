"""Which digit a glyph shows: nearest neighbours among the training scans, drawn the way the clips draw them."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter
from sklearn.neighbors import NearestNeighbors

from analysis.metrics.moving_digits_factors import glyph, scans
from analysis.metrics.moving_digits_track import crops

NEIGHBOURS = 5
# Copies of every training scan: the blur of each in pixels, all with their own sub-pixel place.
COPIES = (0.0, 0.6, 0.0, 0.0, 0.6, 0.0)
# Standard deviation in pixels by which a copy's centre is misjudged.
JITTER = 0.7
# Mean distance to the neighbours beyond which a glyph is no digit. Between unit features; of training scans classified by
# the other half of the training scans, one in a thousand lies further out.
FARTHEST = 0.5


@dataclass(frozen=True)
class GlyphReader:
    """A fitted classifier of aligned glyphs of one size."""

    digit_size: int
    neighbours: NearestNeighbors
    labels: Int[np.ndarray, " glyphs"]

    def votes(self, features: Float[np.ndarray, "glyphs features"]) -> Float[np.ndarray, "glyphs 10"]:
        """Share of the nearest training glyphs that are each digit; all zero for a glyph that is unlike any digit."""
        distances, indices = self.neighbours.kneighbors(features)
        shares = (self.labels[indices][..., None] == np.arange(10)).mean(1)
        return np.where(distances.mean(1)[:, None] <= FARTHEST, shares, 0.0)


def glyph_features(
    coverage: Float[np.ndarray, "glyphs height width"], centres: Float[np.ndarray, "glyphs 2"], digit_size: int
) -> Float[np.ndarray, "glyphs features"]:
    """The square around the centre (x, y), a third wider than the glyph's, at half resolution, as a vector of length 1."""
    side = 2 * round(digit_size * 2 / 3)
    square = crops(coverage, centres, side)
    half = square.reshape(len(square), side // 2, 2, side // 2, 2).mean((2, 4)).reshape(len(square), -1)
    return half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-9)


@cache
def glyph_reader(digit_size: int, held_out_scans: int, seed: int) -> GlyphReader:
    """The classifier fitted on the training scans of a split (see `scans`); a function of its arguments, a few seconds once."""
    images, labels = scans(held_out_scans, seed, False)
    glyphs = np.stack([glyph(image, digit_size) for image in images])
    rng = np.random.default_rng(seed)
    x = y = np.arange(digit_size + 8)
    features = []
    for blur in COPIES:
        place = (digit_size - 1) / 2 + rng.random((len(glyphs), 2))
        coverage = gaussian_filter(crops(glyphs, place, digit_size + 8), (0, blur, blur))
        centres = np.stack([coverage.sum(1) @ x, coverage.sum(2) @ y], -1) / coverage.sum((1, 2))[:, None]
        features.append(glyph_features(coverage, centres + rng.normal(0, JITTER, centres.shape), digit_size))
    neighbours = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute")
    neighbours.fit(np.concatenate(features).astype(np.float32))
    return GlyphReader(digit_size, neighbours, np.tile(labels, len(COPIES)))
