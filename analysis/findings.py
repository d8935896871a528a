"""One sentence of finding, computed from the open run: where a role concentrates, which heads and blocks change most."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.special import stdtrit

SHARE = 2 / 3
"""A role concentrates where this share of its heads lies in at most half of the blocks, in a row."""
LEVEL = 0.01
"""… and where heads dealt at random to the blocks do so less often than this."""
SHUFFLES = 2000
LEVEL_OF_CHANGE = 0.05
FEW = 8
"""Samples below which a bootstrap interval is clearly too narrow, and one that holds over all steps too wide to use."""


@dataclass(frozen=True)
class Concentration:
    """The shortest range of blocks that holds SHARE of a role's heads, of which there are `inside` of `heads`.

    `grid` is the model's (blocks, heads in each), `seed` that of the deals that `chance` makes.
    """

    first: int
    last: int
    inside: int
    heads: int
    grid: tuple[int, int]
    seed: int = 0

    @property
    def blocks(self) -> int:
        return self.last - self.first + 1

    @property
    def chance(self) -> float:
        """The share of SHUFFLES random deals of as many heads to the same blocks whose shortest range is as short."""
        return _chance(self.grid, self.heads, self.blocks, self.seed)


def concentration(members: np.ndarray, seed: int = 0) -> Concentration | None:
    """Where the heads marked true in `members` [block, head] lie; None when there is none.

    >>> members = np.zeros((8, 10), bool); members[4:6, :8] = True
    >>> found = concentration(members)
    >>> found.first, found.last, found.inside, found.heads, found.chance < 0.01
    (4, 5, 16, 16, True)
    """
    per_block = members.sum(axis=1)
    heads = int(per_block.sum())
    if heads == 0:
        return None
    return Concentration(*_shortest(per_block, _needed(heads)), heads, members.shape, seed)


def _needed(heads: int) -> int:
    return int(np.ceil(SHARE * heads - 1e-9))


# A page says the same finding again at every change of something else.
@lru_cache(maxsize=64)
def _chance(grid: tuple[int, int], heads: int, length: int, seed: int) -> float:
    blocks, size = grid
    deals = np.random.default_rng(seed).multivariate_hypergeometric([size] * blocks, heads, size=SHUFFLES)
    # A deal does as well where a range of this length holds as many: no need to know its own shortest one.
    return float(np.mean(_contents(deals, length).max(axis=1) >= _needed(heads)))


def changing_heads(mean: np.ndarray, error: np.ndarray, tau_s: float, tau_t: float, samples: int) -> np.ndarray:
    """Heads [block, head] whose role at one step differs from that at another, beyond their 95 % intervals.

    `mean` and `error` [step, block, head] are the ratio and its standard error over `samples`. A step counts for a role
    only when its interval lies wholly inside the role. The intervals hold together over all steps (Student's t,
    Bonferroni); an unknown error (one sample) counts as 0.
    """
    quantile = stdtrit(samples - 1, 1 - LEVEL_OF_CHANGE / 2 / len(mean)) if samples > 1 else 0.0
    margin = quantile * np.nan_to_num(error)
    low, high = mean - margin, mean + margin
    certain = np.stack([low > tau_s, (low >= tau_t) & (high <= tau_s), high < tau_t])
    return certain.any(axis=1).sum(axis=0) > 1


def finding(
    ratio: np.ndarray,
    mean: np.ndarray,
    error: np.ndarray,
    *,
    tau_s: float,
    tau_t: float,
    samples: int,
    marked: np.ndarray | None = None,
) -> str:
    r"""The sentence for a view: `ratio` [block, head] overall, `mean` and `error` [step, block, head], n samples.

    `marked` [block, head] are uniform heads and first-frame sinks; how many of the temporal ones are is said.

    >>> ratio = np.full((8, 10), 0.5); ratio[4:6, :8] = 0.1
    >>> finding(ratio, ratio[None], np.zeros((1, 8, 10)), tau_s=0.7, tau_t=0.3, samples=4)
    'Temporal heads concentrate in blocks 4–5 (16 of 16, chance gives 4). n\xa0=\xa04\xa0samples.'
    """
    seen = ~np.isnan(ratio)
    if not seen.any():
        return "Nothing was captured in this part of the run."
    roles = {"Temporal": ratio < tau_t, "Spatial": ratio > tau_s}
    parts = [_where(roles)]
    odd = 0 if marked is None else int((roles["Temporal"] & marked).sum())
    if odd:
        what = "one is uniform or a first-frame sink" if odd == 1 else "ones are uniform or first-frame sinks"
        parts.append(f"{odd} temporal {what}")
    if len(mean) > 1:
        changed = int(changing_heads(mean, error, tau_s, tau_t, samples).sum())
        verb = "changes" if changed == 1 else "change"
        certainty = " beyond the 95 % intervals" if samples > 1 else ""
        if not changed and 1 < samples < FEW:
            # Their intervals are so wide that none could.
            parts.append("too few samples to tell which heads change role with the timestep")
        else:
            parts.append(f"{changed or 'none'} of {int(seen.sum())} {verb} role with the timestep{certainty}")
    return "; ".join(parts) + f". n\u00a0=\u00a0{samples}\u00a0sample{'s' if samples != 1 else ''}."


def block_finding(by_block: pd.DataFrame, part: str | None = None, *, turns: bool = False) -> str:
    r"""The sentence for a lens: which block changes its input most and which least, with intervals and n.

    `by_block` has columns `block`, `mean`, `low`, `high` (over samples) and `n`; means are norms over the input's norm,
    of the block or of the `part` named. With `turns` they are cosines, and the lowest one changes most.

    >>> frame = pd.DataFrame({"block": [0, 1], "mean": [0.2, 1.5], "low": [0.1, 1.25], "high": [0.3, 1.75], "n": 4})
    >>> print(block_finding(frame).replace("\xa0", " "))
    Block 1 changes its input most, by 1.5 [1.25, 1.75] times its norm; block 0 least, by 0.2 [0.1, 0.3]. n = 4 samples.
    """
    known = by_block.dropna(subset=["mean"])
    if known.empty:
        return "Nothing was captured in this part of the run."
    large, small = known.loc[known["mean"].idxmax()], known.loc[known["mean"].idxmin()]
    most, least = (_block_and_value(row) for row in ((small, large) if turns else (large, small)))
    if part:
        words = f"{part} adds most in block {most[0]}, {most[1]} times the input's norm"
        rest = f"least in block {least[0]}, {least[1]}"
    elif turns:
        words = f"Block {most[0]} turns its input most, to a cosine of {most[1]}"
        rest = f"block {least[0]} least, {least[1]}"
    else:
        words = f"Block {most[0]} changes its input most, by {most[1]} times its norm"
        rest = f"block {least[0]} least, by {least[1]}"
    samples = int(known["n"].min())
    end = f". n\u00a0=\u00a0{samples}\u00a0sample{'s' if samples != 1 else ''}."
    return words + (f"; {rest}" if len(known) > 1 else "") + end


def _block_and_value(row: pd.Series) -> tuple[int, str]:
    interval = "" if np.isnan(row["low"]) else f" [{row['low']:.3g}, {row['high']:.3g}]"
    return int(row["block"]), f"{row['mean']:.3g}{interval}"


def _where(roles: dict[str, np.ndarray]) -> str:
    total = {name: int(members.sum()) for name, members in roles.items()}
    if not any(total.values()):
        return "All heads are mixed"
    for name, members in roles.items():
        blocks = len(members)
        found = concentration(members)
        if found and found.heads > 2 and found.blocks <= blocks / 2 and found.chance < LEVEL:
            place = f"block {found.first}" if found.blocks == 1 else f"blocks {found.first}–{found.last}"
            expected = found.heads * found.blocks / blocks
            return f"{name} heads concentrate in {place} ({found.inside} of {found.heads}, chance gives {expected:.2g})"
    counts = " and ".join(f"{total[name]} {name.lower()}" for name in ("Spatial", "Temporal"))
    return f"{counts} head{'s' if total['Temporal'] != 1 else ''}, no more concentrated in any blocks than by chance"


def _shortest(per_block: np.ndarray, needed: int) -> tuple[int, int, int]:
    """First and last block and content of the shortest range of `per_block` [block] with `needed` heads."""
    for length in range(1, len(per_block) + 1):
        contents = _contents(per_block[None], length)[0]
        first = int(contents.argmax())
        if contents[first] >= needed:
            return first, first + length - 1, int(contents[first])
    raise ValueError(f"{needed} heads needed, {per_block.sum()} there")


def _contents(per_block: np.ndarray, length: int) -> np.ndarray:
    """Heads in every range of `length` blocks [deal, first block] of `per_block` [deal, block]."""
    sums = np.concatenate([np.zeros((len(per_block), 1), int), per_block.cumsum(axis=1)], axis=1)
    return np.asarray(sums[:, length:] - sums[:, :-length])
