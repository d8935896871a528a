"""Answers whose numbers come from running a model: the premise and the scores, on tables made to have each verdict."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from analysis.evidence import premise, scores
from analysis.evidence.head_sets import HeadSet, head_sets, lowest
from analysis.figures import evidence as figures
from analysis.figures import style
from analysis.roles import bootstrap_interval
from analysis.scores import Scores
from pare.errors import InputError

SETS = [
    HeadSet(kind, removed, ((0, 0),) * removed, draw)
    for removed in (2, 4)
    for kind, draw in (("temporal", 0), ("spatial", 0), ("random", 0), ("random", 1), ("unimportant", 0))
]


def videos(damage, prompts=30, oracle=True, seed=0):
    """A table in which `damage` {kind: (motion, appearance)} is the chance that an attribute turns wrong."""
    generator = np.random.default_rng(seed)
    rows = []
    for number in range(prompts):
        still = number % 5 == 0
        dense = {"set": "dense", "prompt": f"p{number}", "seed": number, "flow_magnitude": 1.0, "sharpness": 0.5}
        right = {"digit": 1.0, "colour": 1.0, "direction": np.nan if still else 1.0, "speed": 1.0} if oracle else {}
        rows.append(dense | right)
        for each in SETS:
            motion, appearance = damage.get(each.kind, (0.1, 0.1))
            wrong = {
                name: right[name] * float(generator.random() >= chance)
                for name, chance in (
                    ("digit", appearance), ("colour", appearance), ("direction", motion), ("speed", motion),
                )
                if oracle
            }  # fmt: skip
            noise = generator.normal(0, 0.02, 4)
            rows.append(
                {
                    **dense, "set": each.name, **wrong, "flow_error": motion + noise[0], "ssim": 1 - appearance + noise[1],
                    "psnr": 30 - 10 * appearance + noise[2], "flow_magnitude": 1 - motion + noise[3],
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


CLAIMED = {"temporal": (0.9, 0.05), "spatial": (0.2, 0.7), "random": (0.3, 0.5), "unimportant": (0.2, 0.5)}
REVERSED = CLAIMED | {"temporal": (0.05, 0.95)}


@pytest.mark.parametrize("oracle", [True, False])
def test_the_premise_is_confirmed_falsified_or_open(oracle):
    found = premise.answer(videos(CLAIMED, oracle=oracle), SETS)
    assert found.verdict == "yes" and "hurts motion more than spatial, random and unimportant" in found.sentence
    wrong = premise.answer(videos(REVERSED, oracle=oracle), SETS)
    assert wrong.verdict == "no" and "hurts motion less than" in wrong.sentence
    if oracle:
        assert premise.answer(videos({}), SETS).verdict == "undecided"
    # Against one control only: motion is hurt more, appearance as much.
    half = premise.answer(videos(CLAIMED | {"spatial": (0.9, 0.05)}, oracle=oracle), SETS)
    assert half.verdict == "undecided" and half.n["decisive comparisons"] == 3 * (4 if oracle else 2)
    assert found.settings["oracle"] is oracle and found.n["prompts"] == 30


def test_contrasts_are_paired_over_prompts_and_corrected():
    table = videos(CLAIMED)
    found = premise.answer(table, SETS).tables["contrasts"]
    row = found[
        (found["outcome"] == "direction") & (found["control"] == "random") & (found["removed"] == premise.MEAN)
    ].iloc[0]
    values = []
    for _, part in table.groupby("prompt"):
        right = part.set_index("set")["direction"]
        lost = {
            kind: np.mean([right["dense"] - right[each.name] for each in SETS if each.kind == kind])
            for kind in ("temporal", "random")
        }
        values.append(lost["temporal"] - lost["random"])
    values = np.array(values)
    assert row["n"] == np.isfinite(values).sum() == 24 and row["difference"] == pytest.approx(np.nanmean(values))
    low, high = bootstrap_interval(values, 0, 1 - 0.05 / 12, premise.DRAWS)
    assert (row["sure_low"], row["sure_high"]) == pytest.approx((float(low), float(high)))
    assert row["sure_low"] < row["low"] and row["decides"]
    # Motion and appearance are never one number, and what does not decide says so.
    assert set(found[found["decides"]]["outcome"]) == {"direction", "speed", "digit", "colour"}
    assert not found[found["outcome"] == "psnr"]["decides"].any()


def test_outcomes_have_their_n_and_the_dense_value():
    table = videos(CLAIMED)
    found = premise.answer(table, SETS).tables["outcomes"]
    row = found[(found["outcome"] == "speed") & (found["kind"] == "random") & (found["removed"] == 4)].iloc[0]
    names = ["random-4-0", "random-4-1"]
    assert (row["n"], row["videos"], row["dense"]) == (30, 60, 1.0)
    assert row["value"] == pytest.approx(table[table["set"].isin(names)]["speed"].mean())
    assert row["damage"] == pytest.approx(1 - row["value"])
    few = premise.answer(videos(CLAIMED, prompts=4), SETS)
    assert any("too narrow" in note for note in few.notes)
    # However far apart: four prompts on one side are chance once in eight.
    assert few.verdict == "undecided" and few.tables["contrasts"]["sure_low"].max() > 0


def test_sets_take_as_many_heads_of_every_block_and_random_ones_are_of_their_seed():
    ratio = np.array([[0.1, 0.2, 0.3, 0.5], [0.9, 0.8, 0.7, 0.6], [0.4, 0.5, 0.6, 0.45]])
    found = {each.name: each for each in head_sets(ratio, {"unimportant": ratio[:, ::-1]}, removed=[1, 2], draws=2)}
    assert found["temporal-2"].heads == ((0, 0), (0, 1), (1, 2), (1, 3), (2, 0), (2, 3))
    assert found["spatial-1"].heads == ((0, 3), (1, 0), (2, 2)) and found["unimportant-1"].heads == (
        (0, 3),
        (1, 0),
        (2, 3),
    )
    for each in found.values():
        assert ((~each.keep((3, 4))).sum(axis=1) == each.removed).all()
    # Half of a block at most, so the most temporal and the most spatial are apart.
    assert not set(found["temporal-2"].heads) & set(found["spatial-2"].heads)
    assert found["random-2-0"].heads != found["random-2-1"].heads
    again = head_sets(ratio, {}, removed=[2], draws=2)
    assert [each.heads for each in again if each.kind == "random"] == [found[f"random-2-{i}"].heads for i in (0, 1)]
    brute = [(block, int(head)) for block, row in enumerate(ratio) for head in sorted(np.argsort(row)[:2])]
    assert lowest(ratio, 2) == tuple(brute)
    for removed in (0, 3):
        with pytest.raises(InputError, match="--remove"):
            head_sets(ratio, {}, removed=[removed])
    with pytest.raises(InputError, match="without a value"):
        head_sets(np.where(ratio > 0.85, np.nan, ratio), {}, removed=[1])


def scored(strength, samples=6, blocks=4, heads=10, seed=0):
    """An effect, a `pare` that follows it by `strength`, and random scores."""
    generator = np.random.default_rng(seed)
    effect = generator.random((blocks, heads))
    follow = strength * effect + (1 - abs(strength)) * generator.random((blocks, heads))
    noisy = lambda base: base + generator.normal(0, 0.01, (samples, blocks, heads))  # noqa: E731
    return {
        "leave_one_out": Scores("leave_one_out", {"self": noisy(effect), "cross": noisy(effect)}),
        "pare": Scores("pare", {"self": noisy(follow), "cross": noisy(follow)}),
        "magnitude": Scores("magnitude", {"self": generator.random((blocks, heads))}),
        "random": Scores("random", {"self": generator.random((blocks, heads))}),
    }


def test_a_score_that_follows_the_effect_predicts_it_and_its_reverse_does_not():
    given = scored(0.95)
    found = scores.answer(given, timesteps=[500.0], draws=60)
    table = found.tables["correlations"].set_index(["kind", "scope", "scorer"])
    effect, follow = given["leave_one_out"].score(), given["pare"].score()
    inside = np.mean([spearmanr(a, b).statistic for a, b in zip(effect, follow, strict=True)])
    assert found.verdict == "yes" and table.loc[("self", "block", "pare"), "spearman"] == pytest.approx(inside)
    assert ("cross", "block", "random") not in table.index
    k = effect.size // 4
    low = [set(np.argsort(values.ravel())[:k]) for values in (effect, follow)]
    row = found.tables["lowest"].set_index(["kind", "scorer"]).loc[("self", "pare")]
    assert (row["found"], row["of"]) == (len(low[0] & low[1]), k) and row["p"] < 0.05
    heads = found.tables["heads"]
    assert len(heads) == 80 and heads["effect"].iloc[:40].to_numpy() == pytest.approx(effect.ravel())
    assert scores.answer(scored(-0.9), timesteps=[500.0], draws=60).verdict == "no"
    assert scores.answer(scored(0.4, blocks=2), timesteps=[500.0], draws=60).verdict == "undecided"


def test_figures_show_the_tables():
    found = premise.answer(videos(CLAIMED), SETS)
    motion = figures.damage_contrasts(found.tables["contrasts"], "motion")
    assert len(motion.data[0].x) == 6 and {style.upright(0.0, "dash")["x0"]} == {
        shape.x0 for shape in motion.layout.shapes
    }
    assert motion.layout.xaxis.title.text.endswith("<br>← temporal heads hurt less · more →")
    lines = figures.damage_by_number(found.tables["outcomes"], "speed")
    assert len(lines.data) == 4 and list(lines.layout.xaxis.tickvals) == [2, 4]
    shown = scores.answer(scored(0.9), timesteps=[500.0], draws=50)
    dots = figures.score_correlations(shown.tables["correlations"])
    assert {trace.name for trace in dots.data} == {"inside blocks", "all heads"} and len(dots.data[0].y) == 3
