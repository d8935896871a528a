"""Two scored sets of videos: which pair, what is sorted first, and what is missing or damaged."""

import numpy as np
import pandas as pd
import pytest

from analysis.paired import paired_difference, spread_over_prompts
from analysis.score_comparison import numbers, pair_scores, pairs_by_change, score_table
from pare.errors import InputError

METRICS = [
    {"metric": name, "group": "motion", "title": name, "unit": "px"} for name in ("large", "small", "still", "gone")
]


def scored(seed: int, shift: float, rows: int = 12) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    own = np.random.default_rng(0).normal(size=rows)
    return pd.DataFrame(
        {
            "prompt": [f"p{i // 2}" for i in range(rows)],
            "seed": range(rows),
            # In its own unit the change of `small` is the larger one.
            "large": own + 3 * shift,
            "small": 1000 * (own + 0.1 * shift) + generator.normal(size=rows),
            "still": np.ones(rows),
            "right": generator.random(rows) < 0.5,
        }
    )


def test_metrics_are_sorted_by_effect_and_carry_paired_numbers():
    a, b = scored(1, 0.0), scored(2, 1.0).iloc[2:]
    pairs = pair_scores(a, b)
    assert len(pairs) == 10 and pairs["prompt"].tolist() == a["prompt"].iloc[2:].tolist()
    table = score_table(pairs, METRICS, seed=5)
    assert table["metric"].tolist() == ["large", "small", "still"]
    for name in ("large", "small"):
        row = table.set_index("metric").loc[name]
        both = [pairs[f"{name}_{side}"].to_numpy() for side in ("a", "b")]
        expected = paired_difference(*both, pairs["prompt"].tolist(), seed=5)
        assert (row["n"], row["prompts"], row["difference"]) == (10, 5, expected.difference)
        assert (row["low"], row["high"], row["clear"]) == (expected.low, expected.high, expected.clear)
        assert row["effect"] == pytest.approx(row["difference"] / spread_over_prompts(*both, pairs["prompt"].tolist()))
    assert np.isnan(table["effect"].iloc[-1])


def test_the_spread_is_that_of_the_prompts_written_out():
    generator = np.random.default_rng(3)
    a, b, prompts = generator.normal(size=9), generator.normal(size=9), list("aabbccdde")
    b[8] = np.nan
    means = [[np.mean([v for v, p in zip(x, prompts, strict=True) if p == name]) for name in "abcd"] for x in (a, b)]
    variances = [sum((m - np.mean(each)) ** 2 for m in each) / 3 for each in means]
    assert spread_over_prompts(a, b, prompts) == pytest.approx(np.sqrt(sum(variances) / 2))
    assert np.isnan(spread_over_prompts(a, b, ["x"] * 9))


def test_right_and_wrong_are_numbers_and_words_are_refused():
    assert numbers(pd.Series(["True", "False", None, 2])).tolist()[:2] == [1.0, 0.0]
    with pytest.raises(InputError, match="scores, sharpness"):
        numbers(pd.Series(["high"], name="sharpness"))


def test_worst_first_follows_the_better_end_and_missing_ones_come_last():
    pairs = pd.DataFrame({"prompt": list("abc"), "m_a": [1.0, 1.0, 1.0], "m_b": [0.5, 3.0, np.nan]})
    orders = {better: pairs_by_change(pairs, "m", better)["prompt"].tolist() for better in (None, "higher", "lower")}
    assert orders == {None: ["b", "a", "c"], "higher": ["a", "b", "c"], "lower": ["b", "a", "c"]}


def test_a_prompt_and_seed_that_come_twice_are_refused():
    a = scored(1, 0.0)
    with pytest.raises(InputError, match="twice"):
        pair_scores(pd.concat([a, a.iloc[:1]]), a)
