"""Two scored sets of videos: which belong together, and every metric's B − A, sorted by how large it is between prompts."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from analysis.paired import paired_difference, spread_over_prompts
from pare.errors import InputError

KEY = ["prompt", "seed"]
COLUMNS = ("metric", "group", "title", "unit", "n", "prompts", "mean_a", "mean_b", "difference", "low", "high", "clear",
           "effect", "effect_low", "effect_high")  # fmt: skip


def pair_scores(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """One row per prompt and seed that both tables have, in A's order; all other columns twice, ending in `_a` and `_b`.

    Raises `InputError` for a table that has a prompt and seed twice.

    >>> a = pd.DataFrame({"prompt": ["x", "y"], "seed": [0, 1], "flicker": [0.5, 0.75]})
    >>> pair_scores(a, a.iloc[1:])[["prompt", "flicker_a", "flicker_b"]].values.tolist()
    [['y', 0.75, 0.75]]
    """
    for side, table in (("A", a), ("B", b)):
        if (again := table.duplicated(KEY)).any():
            prompt, seed = table.loc[again, KEY].iloc[0]
            raise InputError(
                side, got=f"{prompt!r} of seed {seed} twice", expected="one video of each", fix="remove one"
            )
    names = {side: [name for name in table.columns if name not in KEY] for side, table in (("a", a), ("b", b))}
    left, right = (
        table.rename(columns={name: f"{name}_{side}" for name in names[side]}) for side, table in (("a", a), ("b", b))
    )
    return left.merge(right, on=KEY, how="inner", sort=False)


def score_table(pairs: pd.DataFrame, metrics: Sequence[Mapping[str, Any]], *, seed: int = 0) -> pd.DataFrame:
    """One row per metric of `metrics` (metric, group, title, unit) that both sides of `pairs` have, largest effect first.

    Means, B − A and its interval are those of `analysis.paired.paired_difference` over prompts; the effect is B − A over
    `spread_over_prompts`, NaN where prompts do not differ at all. Missing values leave their pair out.
    """
    prompts = pairs["prompt"].tolist()
    rows = []
    for metric in metrics:
        columns = [f"{metric['metric']}_{side}" for side in ("a", "b")]
        if not set(columns) <= set(pairs.columns):
            continue
        a, b = (numbers(pairs[column]) for column in columns)
        found = paired_difference(a, b, prompts, seed=seed)
        about = {name: metric[name] for name in ("metric", "group", "title", "unit")}
        rows.append(about | asdict(found) | {"clear": found.clear, "spread": spread_over_prompts(a, b, prompts)})
    return sorted_by_effect(rows)


def sorted_by_effect(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The rows that `score_table` or `pare compare` made of metrics of one video, largest |effect| first.

    >>> row = {"metric": "flicker", "group": "steadiness", "title": "flicker", "unit": "0..1", "n": 3, "prompts": 3}
    >>> row |= {"mean_a": 0.5, "mean_b": 1.5, "difference": 1.0, "low": 0.5, "high": None, "clear": True, "spread": 2.0}
    >>> sorted_by_effect([row])[["effect", "effect_low"]].values.tolist()
    [[0.5, 0.25]]
    """
    frame = pd.DataFrame(list(rows), columns=[*COLUMNS[:-3], "spread"])
    for name in ("mean_a", "mean_b", "difference", "low", "high", "spread"):
        frame[name] = pd.to_numeric(frame[name], errors="coerce").astype(float)
    spread = frame["spread"].where(frame["spread"] > 0)
    frame = frame.assign(
        effect=frame["difference"] / spread, effect_low=frame["low"] / spread, effect_high=frame["high"] / spread
    )
    order = np.argsort(-frame["effect"].abs().fillna(-1.0).to_numpy(), kind="stable")
    return frame.iloc[order][list(COLUMNS)].reset_index(drop=True)


def pairs_by_change(pairs: pd.DataFrame, metric: str, better: str | None = None) -> pd.DataFrame:
    """The pairs with their `change` B − A of a metric, worst first: B farthest on the wrong side, else largest |change|.

    `better` says which end of the metric is better, "higher" or "lower", None where neither is. Pairs without a value
    come last.

    >>> pairs = pd.DataFrame({"prompt": ["x", "y"], "seed": [0, 0], "m_a": [1.0, 1.0], "m_b": [1.5, 0.75]})
    >>> [pairs_by_change(pairs, "m", better)["prompt"].tolist() for better in (None, "higher")]
    [['x', 'y'], ['y', 'x']]
    """
    change = numbers(pairs[f"{metric}_b"]) - numbers(pairs[f"{metric}_a"])
    bad = {"higher": -change, "lower": change}.get(better or "", np.abs(change))
    order = np.argsort(np.where(np.isnan(bad), np.inf, -bad), kind="stable")
    return pairs.assign(change=change).iloc[order]


def numbers(column: pd.Series) -> np.ndarray:
    """A column of scores as floats: right is 1, wrong is 0, what is missing is NaN. Raises `InputError` for words.

    >>> numbers(pd.Series([True, None, 0.5])).tolist()
    [1.0, nan, 0.5]
    """
    words = {"True": 1.0, "False": 0.0, True: 1.0, False: 0.0}
    try:
        return np.array([np.nan if pd.isna(each) else float(words.get(each, each)) for each in column], float)
    except (TypeError, ValueError) as error:
        raise InputError(f"scores, {column.name}", got=error, expected="numbers", fix="evaluate again") from error
