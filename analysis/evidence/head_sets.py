"""Which self-attention heads are switched off to test the premise: in every block as many temporal, spatial, random ones."""

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
    """Heads (block, head) that are off together: `kind` of WORDS, how many of every block, and the draw of a random set."""

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
    """For every count in `removed`, so many heads of every block: the most temporal ones, the most spatial, `draws` random
    sets, and those that each of `scores` ([block, head] by kind) ranks lowest.

    `ratio` [block, head] is every head's mean. Sets take as many of every block, since blocks differ more than heads do:
    a set that emptied the first block would do most damage whatever its heads are. Raises InputError for a count above
    half of a block, where two sets would share heads, and for ratios or scores that are missing.

    >>> found = head_sets(np.array([[0.1, 0.9, 0.5], [0.2, 0.8, 0.4]]), {}, removed=[1], draws=1)
    >>> [(each.name, each.heads) for each in found[:2]]
    [('temporal-1', ((0, 0), (1, 0))), ('spatial-1', ((0, 1), (1, 1)))]
    """
    ratio = np.asarray(ratio, float)
    most = ratio.shape[1] // 2
    orders = {TEMPORAL: ratio, SPATIAL: -ratio, **{kind: np.asarray(each, float) for kind, each in scores.items()}}
    for kind, values in orders.items():
        if not np.isfinite(values).all():
            raise InputError(f"{kind} heads", got="heads without a value", expected="one each", fix="another run")
    found = []
    for count in removed:
        if not 1 <= count <= most:
            expected = f"1 to {most} heads of every block, so that two sets can differ"
            raise InputError("--remove", got=count, expected=expected, fix="--remove 1")
        for kind in (TEMPORAL, SPATIAL):
            found.append(HeadSet(kind, count, lowest(orders[kind], count)))
        for draw in range(draws):
            generator = np.random.default_rng([seed, count, draw])
            found.append(HeadSet(RANDOM, count, lowest(generator.random(ratio.shape), count), draw))
        for kind in scores:
            found.append(HeadSet(kind, count, lowest(orders[kind], count)))
    return found


def lowest(values: np.ndarray, count: int) -> tuple[tuple[int, int], ...]:
    """The `count` heads of every block with the smallest values, a tie to the lower index; sorted by block and head.

    >>> lowest(np.array([[2.0, 1.0, 3.0], [3.0, 4.0, 0.0]]), 2)
    ((0, 0), (0, 1), (1, 0), (1, 2))
    """
    order = np.argsort(values, axis=1, kind="stable")[:, :count]
    return tuple((block, int(head)) for block, row in enumerate(order) for head in np.sort(row))
