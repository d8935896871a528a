"""Scorers: gradients against finite differences, shares that add up, leave-one-out against zeroed columns."""

import doctest
import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given as for_all
from hypothesis import settings as how
from hypothesis import strategies as st
from scipy.stats import spearmanr

from analysis.gate_scores import HeadGates, gate_gradient, gate_gradients, gate_taylor, integrated_gradients
from analysis.importance import run_importance
from analysis.interventions import leave_one_out
from analysis.manifest import HEAD_AXES, Statistic
from analysis.probes import data_loss, velocity
from analysis.rank_correlation import rank_correlations
from analysis.run_writer import RunWriter
from analysis.score_ranks import ranks
from analysis.scorers import SCORERS, Evidence, magnitude, score
from analysis.scores import (
    Scores,
    pare_scores,
    projected_energy_scores,
    random_scores,
    run_scores,
    scores_by_branch,
)
from pare.errors import Cancelled, InputError
from pare.gates import Gates, gated
from tests.analysis.test_capture import hooks_of, image_transformer
from tests.analysis.test_interventions import TIMESTEPS, probe, without
from tests.double import Double
from tests.runs_fixture import make_manifest, make_run, random_sample
from tests.tiny import BLOCKS, HEAD_DIM, HEADS, tiny_transformer

KINDS = ("self", "cross")


def model_and_probes(image=False, samples=2):
    model = (image_transformer() if image else tiny_transformer()).double()
    return model, [probe(seed, torch.float64, image) for seed in range(samples)]


@pytest.mark.parametrize("image", [False, True])
def test_gate_gradients_match_finite_differences_of_the_loss(image):
    model, probes = model_and_probes(image)
    step = 1e-4
    with Double():
        found = gate_gradients(model, probes, TIMESTEPS)
        layout = HeadGates.of(model)
        for sample, number, gate in ((0, 0, 0), (0, 1, HEADS + 1), (1, 0, BLOCKS * HEADS + 2), (1, 1, -1)):
            ends = []
            for sign in (-1, 1):
                vector = torch.ones(1, layout.count, dtype=torch.float64)
                vector[0, gate] += sign * step
                with torch.no_grad(), gated(model, layout.gates(vector)):
                    ends.append(data_loss(model, probes[sample], TIMESTEPS[number]).item())
            assert found[sample, number, gate] == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=1e-5, abs=1e-10)


def test_gradient_and_taylor_differ_in_where_the_absolute_value_is_taken():
    model, probes = model_and_probes(samples=3)
    raw = HeadGates.of(model).arrays(gate_gradients(model, probes, TIMESTEPS))
    gradient, taylor = gate_gradient(model, probes, TIMESTEPS), gate_taylor(model, probes, TIMESTEPS)
    for kind in KINDS:
        assert gradient.values[kind].shape == (3, BLOCKS, HEADS) and gradient.n == 3
        np.testing.assert_allclose(gradient.score(kind), np.abs(raw[kind]).mean((0, 1)), rtol=1e-9)
        np.testing.assert_allclose(taylor.score(kind), np.abs(raw[kind].mean((0, 1))), rtol=1e-9)
        assert (taylor.score(kind) <= gradient.score(kind) + 1e-15).all()
    one = [scorer(model, probes[:1], TIMESTEPS[:1]).score("self") for scorer in (gate_gradient, gate_taylor)]
    np.testing.assert_array_equal(*one)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("image", [False, True])
def test_shares_of_the_loss_add_up_to_what_all_heads_save(image, checkpointing):
    model, probes = model_and_probes(image)
    if checkpointing:
        model.enable_gradient_checkpointing()
        model.train()
    found = integrated_gradients(model, probes, TIMESTEPS, points=24)
    none = Gates(self_heads=torch.zeros(BLOCKS, HEADS), cross_heads=torch.zeros(BLOCKS, HEADS))
    for sample, one in enumerate(probes):
        with torch.no_grad():
            whole = np.mean([data_loss(model, one, t).item() for t in TIMESTEPS])
            with gated(model, none):
                empty = np.mean([data_loss(model, one, t).item() for t in TIMESTEPS])
        total = sum(found.values[kind][sample].sum() for kind in KINDS)
        assert total == pytest.approx(empty - whole, rel=1e-3, abs=1e-7)
    assert found.notes["completeness_error"] < 1e-3
    assert (
        integrated_gradients(model, probes, TIMESTEPS, points=2).notes["completeness_error"]
        > (found.notes["completeness_error"])
    )


def test_a_head_that_does_nothing_has_no_share_and_twins_share_alike():
    model, probes = model_and_probes(samples=1)
    attention = model.blocks[0].attn1
    rows = [slice(index * HEAD_DIM, (index + 1) * HEAD_DIM) for index in range(HEADS)]
    attention.to_out[0].weight.data[:, rows[0]] = 0
    for layer in (attention.to_q, attention.to_k, attention.to_v):
        layer.weight.data[rows[2]], layer.bias.data[rows[2]] = layer.weight.data[rows[1]], layer.bias.data[rows[1]]
    attention.to_out[0].weight.data[:, rows[2]] = attention.to_out[0].weight.data[:, rows[1]]
    for scorer in (integrated_gradients, gate_gradient, gate_taylor, leave_one_out):
        found = scorer(model, probes, TIMESTEPS).score("self")[0]
        assert abs(found[0]) < 1e-12 * np.abs(found).max()
        assert found[1] == pytest.approx(found[2], rel=1e-4) and found[1] != 0


@pytest.mark.parametrize("image", [False, True])
def test_leave_one_out_against_zeroed_columns(image, tmp_path):
    model, probes = model_and_probes(image, samples=1)
    found = leave_one_out(model, probes, TIMESTEPS, out=tmp_path / "sweep.jsonl")
    assert {kind: values.shape for kind, values in found.values.items()} == dict.fromkeys(KINDS, (1, BLOCKS, HEADS))
    for kind in KINDS:
        for block in range(BLOCKS):
            for head in range(HEADS):
                cut, changes = without(model, [(kind, block, head)]), []
                for t in TIMESTEPS:
                    with torch.no_grad():
                        whole, moved = velocity(model, probes[0], t), velocity(cut, probes[0], t)
                    changes.append((moved - whole).square().sum() / whole.square().sum())
                assert found.values[kind][0, block, head] == pytest.approx(np.mean(changes), rel=1e-6)


def test_model_weights_are_as_before_also_when_stopped():
    model, probes = model_and_probes(samples=1)
    model.blocks[0].attn1.to_q.weight.requires_grad_(False)
    learning = [parameter.requires_grad for parameter in model.parameters()]
    before = hooks_of(model)

    def stop(done, total, message=""):
        assert total == len(TIMESTEPS) * (1 if scorer is not integrated_gradients else 16)
        if done == 2:
            raise Cancelled

    for scorer in (gate_gradient, gate_taylor, integrated_gradients):
        with pytest.raises(Cancelled):
            scorer(model, probes, TIMESTEPS, progress=stop)
        assert [parameter.requires_grad for parameter in model.parameters()] == learning
        assert hooks_of(model)[:1] == before[:1]
        assert all(parameter.grad is None for parameter in model.parameters())


def test_magnitude_written_out():
    model = image_transformer()
    found = magnitude(model)
    for kind, name in (("self", "attn1"), ("cross", "attn2")):
        attention = getattr(model.blocks[1], name)
        rows = [attention.to_q, attention.to_k, attention.to_v]
        rows += [attention.add_k_proj, attention.add_v_proj] if kind == "cross" else []
        part = slice(2 * HEAD_DIM, 3 * HEAD_DIM)
        total = sum(layer.weight[part].double().square().sum() for layer in rows)
        total += attention.to_out[0].weight[:, part].double().square().sum()
        assert found.score(kind)[1, 2] == pytest.approx(total.sqrt().item(), rel=1e-12)
    assert found.n == 0 and found.score().shape == (BLOCKS, HEADS)


def test_magnitude_of_offloaded_weights():
    from accelerate import cpu_offload

    model = tiny_transformer()
    expected = magnitude(model).score()
    cpu_offload(model, execution_device=torch.device("cpu"))
    np.testing.assert_array_equal(magnitude(model).score(), expected)


def test_magnitude_refuses_a_lora_beside_the_weights():
    from peft import LoraConfig

    model = tiny_transformer()
    model.add_adapter(LoraConfig(r=2, target_modules=["to_v"]))
    with pytest.raises(InputError, match="fuse_lora"):
        magnitude(model)


def test_eq_3_per_sample_averages_to_eq_3(tmp_path):
    run = make_run(tmp_path / "run", blocks=2, heads=3, steps=4, samples=5, branches=("cond", "uncond"))
    found = pare_scores(run)
    for kind in KINDS:
        assert found.values[kind].shape == (5, 2, 3)
        np.testing.assert_allclose(found.score(kind), run_importance(run)[kind], rtol=1e-6)
    with pytest.raises(InputError, match="projected_energy"):
        projected_energy_scores(run)


def test_projected_energy_is_the_root_of_the_mean_square(tmp_path):
    manifest = make_manifest(blocks=2, heads=3, steps=4, samples=5)
    more = Statistic(axes=HEAD_AXES, shape=(4, 1, 2, 3), unit="activation", description="energy")
    manifest = manifest.model_copy(
        update={"statistics": {**manifest.statistics, "self/projected_energy": more}}, deep=True
    )
    generator = np.random.default_rng(0)
    writer = RunWriter(tmp_path / "run", manifest, {"self/output_weight_norm": np.ones((2, 3))})
    for index in writer.pending():
        writer.write_sample(index, random_sample(manifest, generator, np.full((2, 3), 0.5)))
    run = writer.finish()
    found, norms = projected_energy_scores(run), run.array("self/projected_energy").astype(float)
    assert set(found.values) == {"self"} and found.n == 5
    np.testing.assert_allclose(found.score(), np.sqrt((norms**2).mean((0, 1, 2))), rtol=1e-12)
    low, high = found.interval("self", seed=0)
    assert (low < found.score()).all() and (found.score() < high).all()
    assert (found.interval("self", seed=0)[0] == low).all()


@pytest.mark.parametrize("branch", [None, "cond", "uncond"])
def test_scores_of_a_run_with_missing_cells_against_loops(tmp_path, branch):
    manifest = make_manifest(blocks=2, heads=3, steps=4, samples=3, branches=("cond", "uncond"))
    energy = {
        f"{kind}/projected_energy": Statistic(
            axes=HEAD_AXES, shape=(4, 2, 2, 3), unit="activation", description="energy", samples=(0, 2)
        )
        for kind in KINDS
    }
    manifest = manifest.model_copy(update={"statistics": {**manifest.statistics, **energy}}, deep=True)
    generator = np.random.default_rng(1)
    weights = {f"{kind}/output_weight_norm": generator.lognormal(0, 0.2, (2, 3)) for kind in KINDS}
    writer = RunWriter(tmp_path / "run", manifest, weights)
    for index in writer.pending():
        arrays = random_sample(manifest, generator, np.full((2, 3), 0.5))
        for values in arrays.values():
            values[1, 0] = np.nan  # a block skipped on one branch, and
            values[3, :, 1] = np.nan if index == 1 else values[3, :, 1]  # one on both
        writer.write_sample(index, {name: each for name, each in arrays.items() if name in manifest.measured(index)})
    run = writer.finish()
    rows = [0, 1] if branch is None else [run.branch_index(branch)]
    weight = np.log1p(run.timesteps / 1000)

    def mean(values):
        known = [each for each in values if not np.isnan(each)]
        return sum(known) / len(known) if known else np.nan

    for scorer, name in (
        ("pare", "value_norm"),
        ("projected_energy", "projected_energy"),
        ("temporal_attention", "ratio"),
    ):
        found = scores_by_branch(run, scorer)
        assert list(found) == [None, "cond", "uncond"]
        for kind, values in found[branch].values.items():
            stored = run.array(f"{kind}/{name}").astype(float)
            for sample, block, head in np.ndindex(3, 2, 3):
                own = stored[sample, :, rows, block, head].T
                if scorer == "pare":
                    total = sum(weight[step] * mean(own[step]) for step in range(4))
                    expected = total * run.output_weight_norm(kind)[block, head]
                else:
                    expected = mean(own.ravel() ** 2 if scorer == "projected_energy" else 1 - own.ravel())
                np.testing.assert_allclose(values[sample, block, head], expected, rtol=1e-12)
        np.testing.assert_array_equal(run_scores(run, scorer, branch).values["self"], found[branch].values["self"])


def test_every_scorer_by_name_and_what_it_lacks(tmp_path):
    model, probes = tiny_transformer(), [probe(0), probe(1)]
    run = make_run(tmp_path / "run", blocks=BLOCKS, heads=HEADS, samples=2)
    evidence = Evidence(run=run, model=model, probes=probes, timesteps=TIMESTEPS, seed=1)
    found = {name: score(name, evidence) for name in SCORERS if name != "projected_energy"}
    for name, each in found.items():
        assert each.name == name and each.n == (0 if name in ("magnitude", "random") else 2)
        for kind in KINDS:
            assert each.score(kind).shape == (BLOCKS, HEADS) and np.isfinite(each.score(kind)).all()
            if each.n:
                low, high = each.interval(kind)
                assert (low <= high).all()
    table = rank_correlations(found, seed=0, draws=50)
    assert len(table) == 2 * 2 * 7 * 6 // 2
    for name in SCORERS:
        with pytest.raises(InputError, match=r"no run|no model"):
            score(name, Evidence())
    with pytest.raises(InputError, match="at least one"):
        score("gate_taylor", Evidence(model=model))
    with pytest.raises(InputError, match="leave_one_out"):
        score("leave_two_out", evidence)
    assert len(Evidence().timesteps) == 10


def test_random_is_its_seed():
    a, b, c = (random_scores(3, 4, seed) for seed in (0, 0, 1))
    assert (a.score() == b.score()).all() and (a.score() != c.score()).any()
    assert (a.score("self") != a.score("cross")).any()


@how(max_examples=20, deadline=None)
@for_all(st.integers(0, 10_000))
def test_spearman_is_scipys(seed):
    generator = np.random.default_rng(seed)
    a = generator.integers(0, 6, (3, 5)).astype(float) + np.arange(5) / 10
    b = generator.normal(size=(4, 3, 5))
    table = rank_correlations({"a": Scores("a", {"self": a}), "b": Scores("b", {"self": b})}, draws=5)
    rows = table.set_index("scope")
    assert rows.spearman["model"] == pytest.approx(spearmanr(a.ravel(), b.mean(0).ravel()).statistic)
    inside = [spearmanr(x, y).statistic for x, y in zip(a, b.mean(0), strict=True)]
    assert rows.spearman["block"] == pytest.approx(np.mean(inside))
    assert rows.samples_a["model"] == 0 and rows.samples_b["model"] == 4 and rows.heads["model"] == 15


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(40):
        shared = generator.normal(size=(4, 20))
        truth = {"a": shared + generator.normal(size=(4, 20)), "b": shared + generator.normal(size=(4, 20))}
        scores = {
            name: Scores(name, {"self": values + 0.5 * generator.normal(size=(12, 4, 20))})
            for name, values in truth.items()
        }
        row = rank_correlations(scores, seed=trial, draws=100).iloc[0]
        assert row.low < row.high
        covered += row.low <= 0.483 <= row.high  # Spearman's ρ of a bivariate normal with Pearson's 0.5: 6/π·asin(1/4).
    assert covered >= 33


def test_rank_correlations_without_ground_are_missing_and_bad_scores_refused():
    flat, other = np.ones((2, 4)), np.arange(8.0).reshape(2, 4)
    part = other.copy()
    part[1, 3] = np.nan
    table = rank_correlations({"flat": Scores("flat", {"self": flat}), "other": Scores("other", {"self": part})})
    assert table[["spearman", "low", "high"]].isna().all(axis=None) and (table.heads == 7).all()
    same = rank_correlations({"a": Scores("a", {"self": other}), "b": Scores("b", {"self": 2 * other + 1})}, seed=3)
    np.testing.assert_allclose(same[["spearman", "low", "high"]], 1, rtol=1e-12)
    with pytest.raises(InputError, match="one model"):
        rank_correlations({"a": Scores("a", {"self": flat}), "b": Scores("b", {"self": np.ones((3, 4))})})
    with pytest.raises(InputError, match="two scorers"):
        rank_correlations({"a": Scores("a", {"self": flat})})
    with pytest.raises(InputError, match="block, head"):
        Scores("a", {"self": np.ones(4)})
    with pytest.raises(InputError, match="none for cross"):
        Scores("a", {"self": flat}).score("cross")


@pytest.mark.parametrize("module", ["gate_scores", "rank_correlation", "scores"])
def test_examples(module):
    found = doctest.testmod(importlib.import_module(f"analysis.{module}"))
    assert found.attempted and not found.failed


def test_scores_are_read_and_compared_without_torch():
    code = "import sys, analysis.scores, analysis.rank_correlation; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_rank_counts_the_samples_that_scored_the_head():
    # A statistic may be captured in fewer samples than the run has.
    given = Scores("demo", {"self": np.array([[[1.0, 2.0]], [[3.0, 1.0]], [[np.nan, np.nan]]])})
    (found,) = ranks({"demo": given}, 0, 0)
    assert (given.n, given.scored, found.n, found.score, found.in_block) == (3, 2, 2, 2.0, 1)
