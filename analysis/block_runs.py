"""How often a router runs one block at every timestep, over the samples of a run."""

import pandas as pd

from analysis.metrics.proportions import wilson_interval
from pare.errors import InputError


def block_runs(routes: pd.DataFrame, block: int) -> pd.DataFrame:
    """The share of samples in which a block ran at every step: one row per step, noisiest first.

    `routes` are the decisions of a run (`Run.routes()`). Columns: step, timestep, ran (the share), low and high (its 95 %
    Wilson interval over samples), score (its mean) and n, the samples. Raises InputError for a block that the routes lack.

    >>> rows = [(s, 0, 500.0, 1, 0.5, s < 3) for s in range(4)]
    >>> found = block_runs(pd.DataFrame(rows, columns=["sample", "step", "timestep", "block", "score", "ran"]), 1)
    >>> found.round(3).to_dict("records")
    [{'step': 0, 'timestep': 500.0, 'ran': 0.75, 'low': 0.301, 'high': 0.954, 'score': 0.5, 'n': 4}]
    """
    own = routes[routes["block"] == block]
    if own.empty:
        got = (
            f"block {block} of blocks {routes['block'].min()} to {routes['block'].max()}"
            if len(routes)
            else "no decisions"
        )
        raise InputError("routes", got=got, expected="decisions on the block", fix="choose another block")
    rows = []
    for step, cells in own.groupby("step"):
        ran, n = int(cells["ran"].sum()), len(cells)
        low, high = wilson_interval(ran, n)
        rows.append(
            {
                "step": int(str(step)),
                "timestep": float(cells["timestep"].iloc[0]),
                "ran": ran / n,
                "low": low,
                "high": high,
                "score": float(cells["score"].mean()),
                "n": n,
            }
        )
    return pd.DataFrame(rows).sort_values("timestep", ascending=False, kind="stable", ignore_index=True)
