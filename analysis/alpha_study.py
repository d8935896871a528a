"""Which picks flip as the protection α of temporal heads (PARE, Eq. 5) grows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analysis.importance import protected

ALPHAS = tuple(round(1 + 0.05 * step, 2) for step in range(41))
"""1 to 3 in steps of 0.05."""


@dataclass(frozen=True, eq=False)
class AlphaStudy:
    """The heads that stay at every α: `kept` [alpha, block, head]; `roles` are their letters [block, head].

    The first α is the one that the others are held against, 1: no protection.
    """

    alphas: np.ndarray
    kept: np.ndarray
    roles: np.ndarray

    @property
    def flips(self) -> np.ndarray:
        """True where a head is kept at this α but not at the first, or the other way round: [alpha, block, head]."""
        return self.kept != self.kept[0]

    @property
    def flips_at(self) -> np.ndarray:
        """The smallest α of the study at which a head's pick has flipped [block, head]; NaN where it never does."""
        flips = self.flips
        return np.where(flips.any(axis=0), self.alphas[flips.argmax(axis=0)], np.nan)

    @property
    def per_block(self) -> np.ndarray:
        """How many picks have flipped [alpha, block]; half of them entered, half left, where each block keeps as many."""
        return self.flips.sum(axis=2)

    def to_json(self) -> dict[str, Any]:
        """The study for reading: flips per α, and every head that flips with the α at which it does."""
        at = self.flips_at
        blocks: list[dict[str, Any]] = []
        for block in range(at.shape[0]):
            heads = sorted(np.flatnonzero(~np.isnan(at[block])), key=lambda head: (at[block, head], head))
            listed = [
                {
                    "head": int(head),
                    "role": str(self.roles[block, head]),
                    "alpha": float(at[block, head]),
                    "to": "removed" if self.kept[0, block, head] else "kept",
                }
                for head in heads
            ]
            blocks.append({"block": block, "temporal": int((self.roles[block] == "T").sum()), "flips": listed})
        return {"alphas": self.alphas.tolist(), "flips": self.flips.sum(axis=(1, 2)).tolist(), "blocks": blocks}


def alpha_study(
    importance: np.ndarray,
    roles: np.ndarray,
    choose: Callable[[np.ndarray], np.ndarray],
    alphas: Sequence[float] = ALPHAS,
) -> AlphaStudy:
    """The picks of `choose` (protected scores [block, head] → True for heads that stay) at every α.

    `importance` [block, head] is before protection, `roles` the letters of `analysis.roles.classify`. A block whose
    heads are all temporal never flips under a uniform count, and the set of flips grows with α: a temporal head that
    is kept stays so, and one that is not temporal and is out stays out.

    >>> from pare.width.heads import select_heads
    >>> study = alpha_study(np.array([[3.0, 2.0]]), np.array([["S", "T"]]), lambda s: select_heads(s, 1), (1.0, 1.4, 2.0))
    >>> study.flips_at.tolist(), study.per_block.tolist()
    ([[2.0, 2.0]], [[0], [0], [2]])
    """
    kept = np.stack([choose(protected(importance, roles, alpha)) for alpha in alphas])
    return AlphaStudy(np.asarray(alphas, float), kept, np.asarray(roles))
