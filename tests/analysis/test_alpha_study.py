"""Which picks flip as α grows: against masks made one by one, and the two laws of protection."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.alpha_study import ALPHAS, alpha_study
from pare.width.heads import select_global, select_heads

ROLES = np.array(list("SMT"))


def made(seed, blocks=3, heads=6):
    generator = np.random.default_rng(seed)
    # Three digits, so that a product with α does not make two scores equal by rounding.
    return generator.integers(1, 1000, (blocks, heads)).astype(float), ROLES[generator.integers(0, 3, (blocks, heads))]


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_study_is_that_of_masks_made_one_by_one(seed, count):
    scores, roles = made(seed)
    study = alpha_study(scores, roles, lambda s: select_heads(s, count))
    for at, alpha in enumerate(ALPHAS):
        for block in range(3):
            lifted = [scores[block, h] * (alpha if roles[block, h] == "T" else 1) for h in range(6)]
            stay = sorted(range(6), key=lambda h: (-lifted[h], h))[:count]
            assert sorted(np.flatnonzero(study.kept[at, block])) == sorted(stay)
    for block, head in np.ndindex(3, 6):
        flipped = [
            alpha for at, alpha in enumerate(ALPHAS) if study.kept[at, block, head] != study.kept[0, block, head]
        ]
        first = study.flips_at[block, head]
        assert first == flipped[0] if flipped else np.isnan(first)
    assert (study.per_block == study.flips.sum(axis=2)).all() and (study.per_block % 2 == 0).all()


@given(st.integers(0, 10**6), st.integers(1, 5), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_set_of_flips_grows_and_only_temporal_heads_enter(seed, count, everywhere):
    scores, roles = made(seed)
    choose = (lambda s: select_global(s, 3 * count, 1)) if everywhere else (lambda s: select_heads(s, count))
    study = alpha_study(scores, roles, choose)
    assert (study.flips[:-1] <= study.flips[1:]).all()
    entered, left = study.kept[-1] & ~study.kept[0], study.kept[0] & ~study.kept[-1]
    assert (roles[entered] == "T").all() and (roles[left] != "T").all()


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_an_all_temporal_block_never_flips(seed, count):
    scores, roles = made(seed)
    roles[1] = "T"
    study = alpha_study(scores, roles, lambda s: select_heads(s, count))
    assert not study.flips[:, 1].any() and study.to_json()["blocks"][1]["flips"] == []


def test_the_study_for_reading():
    scores, roles = np.array([[4.0, 3.0, 2.0], [1.0, 1.0, 1.0]]), np.array([["S", "S", "T"], ["T", "T", "T"]])
    found = alpha_study(scores, roles, lambda s: select_heads(s, 2), (1.0, 1.5, 2.0)).to_json()
    assert found["alphas"] == [1.0, 1.5, 2.0] and found["flips"] == [0, 0, 2]
    assert found["blocks"][0] == {
        "block": 0,
        "temporal": 1,
        "flips": [
            {"head": 1, "role": "S", "alpha": 2.0, "to": "removed"},
            {"head": 2, "role": "T", "alpha": 2.0, "to": "kept"},
        ],
    }
