"""Answers that read a run alone: their numbers against transcriptions, and both verdicts on data made to have them."""

import doctest
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from analysis import agreement as agreements
from analysis.agreement import agreement, krippendorff
from analysis.alpha_study import alpha_study
from analysis.evidence import alpha, answer, averages, head_sets, roles, routes, words
from analysis.evidence.answer import Answer, read_answer, write_answer
from analysis.figures import intervals
from analysis.roles import classify
from pare.depth.budget import BudgetSchedule
from pare.errors import InputError
from pare.width.heads import kept_count, select_heads
from tests.runs_fixture import make_run

TIMESTEPS = np.array([950.0, 850.0, 650.0, 450.0, 250.0, 50.0])


@pytest.mark.parametrize("module", [agreements, words, averages, routes, head_sets, intervals])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


def slow_alpha(codes):
    """Krippendorff's alpha by its coincidences, pair by pair; labels None where missing."""
    coincidences: dict[tuple[int, int], float] = {}
    for unit in codes.T:
        labels = [int(each) for each in unit if each >= 0]
        for i, j in ((i, j) for i in range(len(labels)) for j in range(len(labels)) if i != j):
            key = labels[i], labels[j]
            coincidences[key] = coincidences.get(key, 0.0) + 1 / (len(labels) - 1)
    totals: dict[int, float] = {}
    for (first, _), value in coincidences.items():
        totals[first] = totals.get(first, 0.0) + value
    n = sum(totals.values())
    observed = sum(value for (i, j), value in coincidences.items() if i != j) / n
    expected = sum(totals[i] * totals[j] for i in totals for j in totals if i != j) / (n * (n - 1))
    return 1 - observed / expected


def test_agreement_is_krippendorffs_and_cohens():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 3, (4, 30))
    codes[generator.random(codes.shape) < 0.2] = -1
    found = agreement(codes, 3)
    assert float(found.alpha) == pytest.approx(slow_alpha(codes))
    kappas = []
    for a, b in combinations(codes, 2):
        both = (a >= 0) & (b >= 0)
        kappas.append(cohen_kappa_score(a[both], b[both]))
    assert float(found.kappa) == pytest.approx(np.mean(kappas))
    compared = [set(unit[unit >= 0]) for unit in codes.T if (unit >= 0).sum() > 1]
    assert (found.units, found.changing) == (len(compared), sum(len(each) > 1 for each in compared))
    stacked = agreement(np.stack([codes, codes[:, ::-1]]), 3)
    assert stacked.alpha == pytest.approx(float(found.alpha)) and stacked.alpha.shape == (2,)


def test_agreement_is_not_defined_where_chance_agrees_as_well():
    found = agreement(np.zeros((2, 5), int), 3)
    assert np.isnan(found.alpha) and np.isnan(found.kappa) and found.share == 0
    assert np.isnan(krippendorff(np.array([[1, 0], [0, 1]])))


def ratios(per_head, samples=12, steps=6, branches=2, noise=0.01, seed=0):
    """Ratios [sample, step, branch, block, head] around `per_head` [step or 1, branch or 1, block, head]."""
    shape = (samples, steps, branches, *per_head.shape[-2:])
    return np.clip(np.broadcast_to(per_head, shape) + np.random.default_rng(seed).normal(0, noise, shape), 0, 1)


SPREAD = np.array([[[[0.1, 0.5, 0.9, 0.2], [0.85, 0.15, 0.5, 0.45]]]])


def ask_roles(ratio, prompts=None, **more):
    names = prompts or [f"prompt {index}" for index in range(len(ratio))]
    branches = ("cond", "uncond")[: ratio.shape[2]]
    return roles.answer(ratio, timesteps=TIMESTEPS, branches=branches, prompts=names, **more)


def test_steady_roles_hold():
    found = ask_roles(ratios(SPREAD))
    assert found.verdict == "yes" and found.sentence.startswith("Yes: roles hold over timesteps")
    table = found.tables["factors"].set_index("factor")
    assert (table["agreement"].dropna() == 1).all() and (table["share"].dropna() == 0).all()
    assert not found.tables["heads"]["changes"].any()


def test_roles_that_turn_with_the_timestep_do_not_hold_and_are_listed():
    per_head = np.repeat(SPREAD, 6, axis=0)
    # At low noise spatial and temporal heads change places; mixed ones stay.
    per_head[TIMESTEPS < 500] = 1 - per_head[TIMESTEPS < 500]
    ratio = ratios(per_head)
    found = ask_roles(ratio)
    assert found.verdict == "no" and "do not hold over timesteps" in found.sentence
    row = found.tables["factors"].set_index("factor").loc["timesteps"]
    thirds = [TIMESTEPS > 2000 / 3, (TIMESTEPS > 1000 / 3) & (TIMESTEPS <= 2000 / 3), TIMESTEPS <= 1000 / 3]
    letters = np.stack([classify(ratio[:, third].mean(axis=(0, 1, 2))).ravel() for third in thirds])
    codes = np.array([["SMT".index(letter) for letter in row_] for row_ in letters])
    assert row["agreement"] == pytest.approx(slow_alpha(codes)) and row["low"] <= row["agreement"] <= row["high"]
    heads = found.tables["heads"]
    assert heads["changes"].sum() == (letters != letters[0]).any(axis=0).sum()
    assert list(heads["early"]) == list(letters[0]) and list(heads["late"]) == list(letters[2])


def test_branches_and_seeds_are_factors_of_their_own():
    by_branch = np.stack([SPREAD[0, 0], 1 - SPREAD[0, 0]])[None]
    found = ask_roles(ratios(by_branch))
    table = found.tables["factors"].set_index("factor")
    assert table.loc["branches", "holds"] == "no" and table.loc["timesteps", "holds"] != "no"
    # Two seeds of every prompt that always disagree.
    seeds = ratios(SPREAD, branches=1)
    seeds[1::2] = 1 - seeds[1::2]
    names = [f"prompt {index // 2}" for index in range(len(seeds))]
    table = ask_roles(seeds, names).tables["factors"].set_index("factor")
    assert table.loc["seeds", "holds"] == "no" and table.loc["branches", "holds"] == "not varied"
    letters = np.array([["SMT".index(each) for each in classify(one.mean(axis=(0, 1))).ravel()] for one in seeds])
    codes = letters.reshape(6, 2, 8).transpose(1, 0, 2).reshape(2, -1)
    assert table.loc["seeds", "agreement"] == pytest.approx(slow_alpha(codes))


def test_few_noisy_samples_are_undecided_and_one_has_no_interval():
    found = ask_roles(ratios(SPREAD, samples=3, noise=0.25))
    assert found.verdict == "undecided" and any("so few" in note for note in found.notes)
    found = ask_roles(ratios(SPREAD, samples=1))
    assert found.verdict == "undecided" and found.tables["factors"]["low"].isna().all()


def test_the_means_hide_a_head_that_is_mixed_nowhere():
    per_head = np.full((6, 1, 2, 4), 0.5)
    per_head[::2, 0, 0, 1], per_head[1::2, 0, 0, 1] = 0.95, 0.05
    ratio = ratios(per_head)
    found = averages.answer(ratio)
    heads = found.tables["heads"]
    assert found.verdict == "yes" and list(heads[heads["hidden"]]["head"]) == [1]
    row = heads[heads["hidden"]].iloc[0]
    assert (row["role"], row["own"], row["spatial"], row["temporal"]) == ("M", 0, 0.5, 0.5) and row["by_step"] > 0.9
    steady = averages.answer(ratios(np.full((1, 1, 2, 4), 0.5)))
    assert steady.verdict == "no" and not steady.tables["heads"]["hidden"].any()


def test_a_share_below_half_within_its_interval_is_undecided():
    per_head = np.full((6, 1, 1, 1), 0.71)
    ratio = ratios(per_head, samples=4, branches=1, noise=0.0)
    ratio[0, :4], ratio[1, :1], ratio[2, :4], ratio[3, :1] = 0.6, 0.6, 0.6, 0.6
    found = averages.answer(ratio)
    row = found.tables["heads"].iloc[0]
    own = np.array([(classify(each) == row["role"]).mean() for each in ratio])
    t = stats.t.ppf(0.975, 3) * own.std(ddof=1) / 2
    assert row["own"] == pytest.approx(own.mean()) and row["own_high"] == pytest.approx(min(1, own.mean() + t))
    assert own.mean() < 0.5 < own.mean() + t and found.verdict == "undecided"


def test_blocks_that_change_places_are_found_and_steady_ones_are_not():
    generator = np.random.default_rng(1)
    change = np.broadcast_to(np.array([3.0, 2.0, 1.0]), (20, 6, 3)).copy()
    change[:, TIMESTEPS < 300, :] = [1.0, 2.5, 1.5]
    change += generator.normal(0, 0.05, change.shape)
    ratio = ratios(np.full((1, 1, 3, 2), 0.5), samples=20)
    found = averages.answer(ratio, blocks=change, timesteps=TIMESTEPS)
    pairs = found.tables["pairs"]
    sure = {(row.first, row.second) for row in pairs[pairs["surely"]].itertuples()}
    assert found.verdict == "yes" and sure == {(0, 1), (0, 2)}
    # Transcription of one pair: Student's interval of paired differences, corrected for 3 pairs x (6 + 1).
    difference = (change[:, :, 0] - change[:, :, 1]).mean(axis=1)
    margin = stats.t.ppf(1 - 0.025 / 21, 19) * difference.std(ddof=1) / np.sqrt(20)
    row = pairs[(pairs["first"] == 0) & (pairs["second"] == 1)].iloc[0]
    assert row["low"] == pytest.approx(difference.mean() - margin) and row["at_timestep"] in (250.0, 50.0)
    steady = averages.answer(ratio, blocks=np.broadcast_to([3.0, 2.0, 1.0], (20, 6, 3)), timesteps=TIMESTEPS)
    assert steady.verdict == "no" and list(steady.tables["blocks"]["rank"]) == [1, 2, 3]


def importances(mean, samples=40, noise=0.01):
    return mean * np.exp(np.random.default_rng(3).normal(0, noise, (samples, *mean.shape)))


def test_alpha_changes_picks_where_temporal_heads_are_just_out():
    mean = np.array([[1.0, 1.1, 1.2, 1.3, 2.0, 2.1, 2.2, 2.3, 2.4, 2.5]])
    ratio = np.where(np.arange(10) < 4, 0.1, 0.9)[None]
    importance, cells = importances(mean), np.broadcast_to(ratio, (40, 1, 10))
    found = alpha.answer(importance, cells, alpha=3.0)
    table = found.tables["alphas"].set_index("alpha")
    count = kept_count(10, 0.3)
    study = alpha_study(importance.mean(axis=0), classify(ratio), lambda s: select_heads(s, count), (1.0, 3.0))
    assert found.verdict == "yes" and table.loc[3.0, "flips"] == study.flips[1].sum()
    assert table.loc[3.0, "temporal"] == (study.kept[1] & (study.roles == "T")).sum()
    kept = importance.mean(axis=0)[study.kept[1]].sum() / importance.mean(axis=0).sum()
    assert table.loc[3.0, "importance"] == pytest.approx(kept)
    # No head is temporal, so α can change nothing.
    assert alpha.answer(importance, np.full((40, 1, 10), 0.9)).verdict == "no"
    assert alpha.answer(importance[:3], cells[:3], alpha=3.0).verdict == "undecided"


def decisions(ran, timesteps=None):
    sample, step, block = np.indices(ran.shape)
    timesteps = np.arange(ran.shape[1])[::-1] * 100.0 if timesteps is None else timesteps
    columns = {"sample": sample, "step": step, "timestep": timesteps[step], "block": block, "ran": ran}
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})


def captions(samples):
    return [f"a {('red', 'blue')[index % 2]} {index % 3} standing still" for index in range(samples)]


def test_routes_that_follow_the_colour_say_so_and_equal_ones_do_not():
    generator = np.random.default_rng(0)
    prompts = captions(24)
    red = np.array(["red" in prompt for prompt in prompts])
    ran = generator.random((24, 5, 6)) < np.where(red, 0.8, 0.2)[:, None, None]
    ran[:, :, [0, -1]] = True
    found = routes.answer(decisions(ran), prompts)
    table = found.tables["attributes"].set_index("attribute")
    assert found.verdict == "yes" and table.loc["colour", "follows"] and "colour" in found.sentence
    middle = ran[:, :, 1:-1]
    pairs = [(a, b, (middle[a] != middle[b]).mean()) for a, b in combinations(range(24), 2)]
    within = np.mean([d for a, b, d in pairs if red[a] == red[b]])
    between = np.mean([d for a, b, d in pairs if red[a] != red[b]])
    row = table.loc["colour"]
    assert (row["within"], row["between"]) == pytest.approx((within, between)) and row["low"] < between - within < row[
        "high"
    ]
    same = routes.answer(decisions(np.broadcast_to(ran[:1], ran.shape)), prompts)
    assert same.verdict == "no" and "all 24 samples run the same blocks" in same.sentence


def test_block_norms_without_a_router_decide_nothing_whatever_they_say():
    prompts = captions(24)
    red = np.array(["red" in prompt for prompt in prompts])
    ran = np.random.default_rng(0).random((24, 5, 6)) < np.where(red, 0.8, 0.2)[:, None, None]
    for each, said in (
        (ran, "more so where they differ in prompt and colour"),
        (ran[:1].repeat(24, 0), "would run the same blocks"),
    ):
        found = routes.answer(decisions(each), prompts, recorded=False)
        assert found.verdict == "undecided" and "no router was recorded" in found.sentence and said in found.sentence


def test_routes_of_noise_are_open_and_dealt_labels_give_the_difference_of_a_loop():
    generator = np.random.default_rng(4)
    ran = generator.random((16, 4, 6)) < 0.5
    prompts = captions(16)
    found = routes.answer(decisions(ran), prompts)
    assert found.verdict == "undecided" and not found.tables["attributes"]["follows"].any()
    assert routes.answer(decisions(ran), [f"text {i}" for i in range(16)]).notes[0].startswith("No attribute")
    distance, labels = routes.distances(ran[:, :, 1:-1]), np.array(["red" in prompt for prompt in prompts])
    dealt = routes.dealt_differences(distance, labels, np.random.default_rng(9))
    again = np.random.default_rng(9)
    for value in dealt[:5]:
        within, between = routes.excess(distance, labels[again.permutation(16)])
        assert value == pytest.approx(between - within)


def test_every_answer_of_a_run_survives_the_disk(tmp_path):
    run = make_run(tmp_path / "run", samples=6, branches=("cond", "uncond"))
    for module in (roles, averages, alpha, routes):
        found = module.ask(run).made_by(source={"model": {}}, settings={}, command="pare", versions={"a": "1"})
        path = write_answer(found, tmp_path / found.question)
        read = read_answer(path)
        assert isinstance(read, Answer) and (read.verdict, read.sentence) == (found.verdict, found.sentence)
        assert path.read_bytes() == read_answer(path).to_bytes() == found.to_bytes()
        for name, table in found.tables.items():
            stored = pd.read_parquet(path.parent / "tables" / f"{name}.parquet")
            pd.testing.assert_frame_equal(stored, table, check_dtype=False)
            assert list(read.tables[name].columns) == list(table.columns) and len(read.tables[name]) == len(table)


def test_would_be_routes_are_the_best_blocks_of_every_sample(tmp_path):
    run = make_run(tmp_path / "run", blocks=6, samples=3)
    frame = routes.would_be_routes(run, BudgetSchedule.constant(4))
    share = (run.array("block/residual_norm") / run.array("block/input_norm")).mean(axis=2)
    for sample, step in ((0, 0), (2, 7)):
        here = frame[(frame["sample"] == sample) & (frame["step"] == step)]
        best = 1 + np.argsort(-share[sample, step, 1:-1])[:2]
        assert set(here["block"][here["ran"]]) == {0, 5, *best}


def test_a_damaged_answer_is_one_line(tmp_path):
    path = tmp_path / "evidence.json"
    for content, what in (("{", "not JSON"), ("[]", "schema"), ('{"schema": "pare-evidence/1"}', "question")):
        path.write_text(content)
        with pytest.raises(InputError, match=what):
            read_answer(path)
    with pytest.raises(InputError, match="no such file"):
        read_answer(tmp_path / "none.json")
    assert set(answer.NEEDS_MODEL) < set(answer.QUESTIONS)
