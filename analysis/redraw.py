"""How often a bootstrap draws every sample: the draws that all intervals over samples share."""

from functools import lru_cache

import numpy as np

DRAWS = 1000


def drawn_counts(samples: int, seed: int = 0, draws: int = DRAWS) -> np.ndarray:
    """Counts float64 [draw, sample] of `samples` redrawn whole with replacement; every row sums to `samples`.

    >>> drawn_counts(3, draws=2).sum(axis=1).tolist()
    [3.0, 3.0]
    """
    return _drawn(samples, seed, draws).astype(float)


# Drawing takes ten times as long as what is done with it, and a page asks for the same draws for all its intervals.
@lru_cache(maxsize=16)
def _drawn(samples: int, seed: int, draws: int) -> np.ndarray:
    counts = np.random.default_rng(seed).multinomial(samples, np.full(samples, 1 / samples), size=draws)
    # A small type: held for as long as the process lives.
    return counts.astype(np.uint16 if samples <= np.iinfo(np.uint16).max else np.int64)
