"""Eq. 3 and Eq. 5 against sums written out."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.importance import head_importance, mean_ratio, protected, run_importance, run_roles, timestep_weight
from pare.errors import InputError
from tests.runs_fixture import make_run


def test_weight_is_zero_at_no_noise_and_ln_2_at_pure_noise():
    assert timestep_weight(np.array([0.0, 1000.0])).tolist() == [0, pytest.approx(math.log(2))]


def test_eq_3_written_out():
    generator = np.random.default_rng(0)
    norms = generator.lognormal(size=(3, 4, 2, 2, 5))
    timesteps, weight_norms = np.array([900.0, 600.0, 300.0, 10.0]), generator.lognormal(size=(2, 5))
    expected = np.zeros((2, 5))
    for block in range(2):
        for head in range(5):
            terms = [
                sum(
                    math.log(1 + timesteps[step] / 1000) * norms[sample, step, branch, block, head] for step in range(4)
                )
                * weight_norms[block, head]
                for sample in range(3)
                for branch in range(2)
            ]
            expected[block, head] = sum(terms) / len(terms)
    np.testing.assert_allclose(head_importance(norms, timesteps, weight_norms), expected, rtol=1e-12)


def test_missing_samples_are_left_out_and_a_missing_step_is_not_zero():
    norms = np.ones((2, 2, 1, 1, 2))
    norms[0, 1, 0, 0, 0] = np.nan
    timesteps = np.array([1000.0, 500.0])
    full = head_importance(norms, timesteps, np.ones((1, 2)))
    assert full[0, 0] == pytest.approx(full[0, 1])
    norms[:, 1, 0, 0, 0] = np.nan
    assert np.isnan(head_importance(norms, timesteps, np.ones((1, 2)))[0, 0])


def test_permuting_heads_permutes_importance():
    generator = np.random.default_rng(1)
    norms, weights, order = (
        generator.lognormal(size=(2, 3, 1, 2, 6)),
        generator.lognormal(size=(2, 6)),
        [3, 1, 5, 0, 2, 4],
    )
    timesteps = np.array([900.0, 500.0, 100.0])
    np.testing.assert_array_equal(
        head_importance(norms, timesteps, weights)[:, order],
        head_importance(norms[..., order], timesteps, weights[:, order]),
    )


@given(st.floats(1, 5))
def test_protection_lifts_temporal_heads_only_and_changes_nothing_among_themselves(alpha):
    importance = np.array([[1.0, 4.0, 2.0], [3.0, 1.0, 2.0]])
    roles = np.array([["S", "T", "M"], ["T", "T", "T"]])
    lifted = protected(importance, roles, alpha)
    assert (lifted[0, [0, 2]] == importance[0, [0, 2]]).all()
    assert lifted[0, 1] == alpha * 4.0
    assert np.argsort(lifted[1]).tolist() == np.argsort(importance[1]).tolist()


def test_alpha_below_one_is_refused():
    for alpha in (0.5, float("nan")):
        with pytest.raises(InputError, match="alpha"):
            protected(np.ones(2), np.array(["T", "S"]), alpha)


def test_from_the_summary_it_is_the_same_as_from_all_samples(tmp_path):
    run = make_run(tmp_path / "run", blocks=2, heads=3, steps=4, samples=5, branches=("cond", "uncond"))
    for kind in ("self", "cross"):
        expected = head_importance(run.array(f"{kind}/value_norm"), run.timesteps, run.output_weight_norm(kind))
        np.testing.assert_allclose(run_importance(run)[kind], expected, rtol=1e-6)
    one = head_importance(run.array("self/value_norm")[:, :, :1], run.timesteps, run.output_weight_norm("self"))
    np.testing.assert_allclose(run_importance(run, "cond")["self"], one, rtol=1e-6)
    np.testing.assert_allclose(mean_ratio(run), run.array("self/ratio").astype(float).mean((0, 1, 2)), rtol=1e-6)
    assert run_roles(run, 0.7, 0.3).shape == (2, 3)
