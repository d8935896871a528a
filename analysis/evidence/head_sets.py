"""Which self-attention heads are switched off to test the premise: as many temporal, spatial, random and unimportant ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pare.errors import InputError

TEMPORAL, SPATIAL, RANDOM, UNIMPORTANT, MAGNITUDE = "temporal", "spatial", "random", "unimportant", "magnitude"
WORDS: Mapping[str, str] = {
    TEMPORAL: "most temporal (lowest ratio)",
    SPATIAL: "most spatial (highest ratio)",
    RANDOM: "random",
    UNIMPORTANT: "least important (Eq. 3)",
    MAGNITUDE: "smallest weights",
}


@dataclass(frozen=True, eq=False)
class HeadSet:
    """Heads (block, head) that are off together: `kind` of WORDS, how many, and which draw of a random set."""

    kind: str
    removed: int
    heads: tuple[tuple[int, int], ...]
    draw: int = 0

    @property
    def name(self) -> str:
        """Names its files.

        >>> HeadSet("random", 8, (), 1).name
        'random-8-1'
        """
        return f"{self.kind}-{self.removed}" + (f"-{self.draw}" if self.kind == RANDOM else "")

    def keep(self, shape: tuple[int, int]) -> np.ndarray:
        """True for heads that stay [block, head]."""
        kept = np.ones(shape, bool)
        for block, head in self.heads:
            kept[block, head] = False
        return kept


def head_sets(
    ratio: np.ndarray,
    scores: Mapping[str, np.ndarray],
    *,
    removed: Sequence[int],
    draws: int = 2,
    seed: int = 0,
) -> list[HeadSet]:
    """For every count in `removed`: the most temporal heads, the most spatial, `draws` random sets, and those that each of
    `scores` ([block, head] by kind) ranks lowest.

    `ratio` [block, head] is every head's mean. One head stays in every block, in all sets alike, since a mask keeps one.
    Raises InputError for a count that leaves no such choice, and ratios or scores that are missing.

    >>> found = head_sets(np.array([[0.1, 0.9, 0.5], [0.2, 0.8, 0.4]]), {}, removed=[2], draws=1)
    >>> [(each.name, each.heads) for each in found[:2]]
    [('temporal-2', ((0, 0), (1, 0))), ('spatial-2', ((0, 1), (1, 1)))]
    """
    ratio = np.asarray(ratio, float)
    blocks, heads = ratio.shape
    most = blocks * (heads - 1)
    orders = {TEMPORAL: ratio, SPATIAL: -ratio, **{kind: np.asarray(each, float) for kind, each in scores.items()}}
    for kind, values in orders.items():
        if not np.isfinite(values).all():
            raise InputError(f"{kind} heads", got="heads without a value", expected="one each", fix="another run")
    found = []
    for count in removed:
        if not 1 <= count <= most // 2:
            expected = f"1 to {most // 2}, so that two sets can differ"
            raise InputError("--remove", got=count, expected=expected, fix=f"--remove {max(1, ratio.size // 10)}")
        for kind in (TEMPORAL, SPATIAL):
            found.append(HeadSet(kind, count, lowest(orders[kind], count)))
        for draw in range(draws):
            generator = np.random.default_rng([seed, count, draw])
            found.append(HeadSet(RANDOM, count, lowest(generator.random(ratio.shape), count), draw))
        for kind in scores:
            found.append(HeadSet(kind, count, lowest(orders[kind], count)))
    return found


def lowest(values: np.ndarray, count: int) -> tuple[tuple[int, int], ...]:
    """The `count` heads with the smallest values, one head left in every block; sorted by block and head.

    >>> lowest(np.array([[1.0, 2.0], [3.0, 4.0]]), 2)
    ((0, 0), (1, 0))
    """
    blocks, heads = values.shape
    left = np.full(blocks, heads)
    chosen: list[tuple[int, int]] = []
    for index in np.argsort(values, axis=None, kind="stable"):
        block, head = divmod(int(index), heads)
        if left[block] > 1 and len(chosen) < count:
            left[block] -= 1
            chosen.append((block, head))
    return tuple(sorted(chosen))
