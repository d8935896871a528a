"""What every scorer says of one head, and where that puts it among all heads."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.scores import Scores


@dataclass(frozen=True)
class Rank:
    """One head's score by one scorer, with its 95 % interval over `n` samples (NaN, 0 where none is involved).

    `in_block` of `heads` and `in_all` of `all_heads` count from 1, the highest score; a tie shares the better place.
    """

    scorer: str
    score: float
    low: float
    high: float
    n: int
    in_block: int
    heads: int
    in_all: int
    all_heads: int


def rank_of(values: np.ndarray, block: int, head: int) -> tuple[int, int, int, int] | None:
    """Places of a head of `values` [block, head]: in its block, of how many, in all, of how many; None where it has none.

    >>> rank_of(np.array([[3.0, 1.0], [2.0, np.nan]]), 1, 0)
    (1, 1, 2, 3)
    """
    own = values[block, head]
    if np.isnan(own):
        return None
    within = values[block]
    return (
        int(np.sum(within > own)) + 1,
        int(np.sum(~np.isnan(within))),
        int(np.sum(values > own)) + 1,
        int(np.sum(~np.isnan(values))),
    )


def ranks(scores: Mapping[str, Scores], block: int, head: int) -> list[Rank]:
    """The self-attention head's score, interval and places by each of the named scorers that has one for it.

    >>> given = {"demo": Scores("demo", {"self": np.array([[3.0, 1.0], [2.0, 4.0]])})}
    >>> [(one.score, one.in_block, one.in_all) for one in ranks(given, 0, 0)]
    [(3.0, 1, 2)]
    """
    found = []
    for name, each in scores.items():
        values = each.score("self")
        places = rank_of(values, block, head)
        if places is not None:
            # The same draws of samples as for all heads, which would take long for a large model.
            own = replace(each, values={"self": each.values["self"][..., block : block + 1, head : head + 1]})
            low, high = (float(end[0, 0]) for end in own.interval("self"))
            found.append(Rank(name, float(values[block, head]), low, high, own.scored, *places))
    return found


def rank_table(found: list[Rank]) -> pd.DataFrame:
    """The same as one row per scorer."""
    return pd.DataFrame([vars(one) for one in found], columns=list(Rank.__dataclass_fields__))
