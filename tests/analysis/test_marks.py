"""Uniform heads and first-frame sinks are told from heads that follow a place through time, which have the same ratio."""

import numpy as np
import pytest
from safetensors import safe_open

from analysis.aggregate import head_frame_map, mean_frame_map
from analysis.marks import FIRST_FRAME_EXCESS, UNIFORM_TOLERANCE, first_frame_sinks, head_marks, uniform_heads
from analysis.roles import classify, role_table
from tests.runs_fixture import make_run
from tests.sampled_run import MAP_STEPS, SINK_HEAD, UNIFORM_HEAD, make_sampled_run
from workbench.commands.roles import render, roles

FRAMES, TOKENS_PER_FRAME = 6, 8


def attention(kind: str) -> np.ndarray:
    """A made-up head's softmaxed attention [query, key], the tokens of a frame next to each other."""
    tokens = FRAMES * TOKENS_PER_FRAME
    frame, place = np.divmod(np.arange(tokens), TOKENS_PER_FRAME)
    logits = {
        "uniform": np.zeros((tokens, tokens)),
        "nearly uniform": np.random.default_rng(0).normal(0, 0.3, (tokens, tokens)),
        "same place": np.where(place[:, None] == place, 0, -np.inf),
        "own frame": np.where(frame[:, None] == frame, 0, -np.inf),
        "first frame": np.where(frame == 0, 4.0, 0.0) * np.ones((tokens, 1)),
    }[kind]
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("kind", "role", "uniform", "sink"),
    [
        ("uniform", "T", True, False),
        ("nearly uniform", "T", True, False),
        ("same place", "T", False, False),
        ("own frame", "S", False, False),
        ("first frame", "T", False, True),
    ],
)
def test_heads_of_one_ratio_are_told_apart(kind, role, uniform, sink):
    weights = attention(kind)
    frame = np.arange(len(weights)) // TOKENS_PER_FRAME
    ratio = np.mean([row[frame == own].sum() for row, own in zip(weights, frame, strict=True)])
    entropy = np.mean([-sum(p * np.log(p) for p in row if p > 0) for row in weights])
    share = np.mean([row[frame == 0].sum() for row in weights])
    assert classify(np.array([ratio]))[0] == role
    assert uniform_heads(np.array([entropy]), len(weights))[0] == uniform
    assert first_frame_sinks(np.array([share]), FRAMES)[0] == sink


def test_the_bounds_are_as_stated():
    entropy = np.log(100) - np.array([0, UNIFORM_TOLERANCE - 1e-9, UNIFORM_TOLERANCE + 1e-9])
    assert uniform_heads(entropy, 100).tolist() == [True, True, False]
    share = 0.25 + 0.75 * np.array([FIRST_FRAME_EXCESS - 1e-9, FIRST_FRAME_EXCESS + 1e-9])
    assert first_frame_sinks(share, 4).tolist() == [False, True]
    assert not first_frame_sinks(np.array([1.0]), 1).any()
    assert not uniform_heads(np.array([np.nan]), 9).any() and not first_frame_sinks(np.array([np.nan]), 9).any()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_sampled_run(tmp_path_factory.mktemp("runs") / "run", 4, 5, steps=3, samples=4)


def test_marks_are_those_of_the_part_that_is_looked_at(run):
    for part in ({}, {"sample": 2}, {"branch": "uncond", "steps": [1]}):
        marks = head_marks(run, **part)
        assert np.argwhere(marks.uniform).tolist() == [list(UNIFORM_HEAD)]
        assert np.argwhere(marks.first_frame_sink).tolist() == [list(SINK_HEAD)]
        assert marks.letters()[UNIFORM_HEAD] == "U" and marks.letters()[SINK_HEAD] == "F"
        assert marks.any.sum() == 2
    entropy = run.array("self/entropy").astype(float)
    error = (entropy.std(axis=0, ddof=1) / 2).mean(axis=(0, 1))
    whole = head_marks(run)
    np.testing.assert_allclose(whole.entropy.mean, entropy.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(whole.entropy.error, error, rtol=1e-4)
    assert np.isnan(head_marks(run, sample=2).entropy.error).all()


def test_a_run_without_these_statistics_marks_nothing(tmp_path):
    run = make_run(tmp_path / "run", 2, 3, steps=2, samples=2)
    marks = head_marks(run)
    assert not marks.captured and not marks.any.any() and (marks.letters() == "").all()
    assert "mark" not in role_table(run)
    assert mean_frame_map(run) is None


def test_the_table_and_the_command_say_which_temporal_heads_are_marked(run):
    table = role_table(run)
    marked = table[table["mark"] != ""]
    assert marked[["block", "head"]].to_numpy().tolist() == [list(UNIFORM_HEAD), list(SINK_HEAD)]
    assert marked["role"].tolist() == ["T", "T"] and marked["mark"].tolist() == ["U", "F"]
    result = roles(run.folder)
    assert result["temporal_but_marked"] == 2
    text = render(result)
    assert "2 of the temporal heads are uniform (u) or first-frame sinks (f)" in text
    lines = {int(line.split()[0]): line.split()[1:] for line in text.splitlines() if line.strip()[:1].isdigit()}
    assert lines[UNIFORM_HEAD[0]][UNIFORM_HEAD[1]] == "Tu" and lines[SINK_HEAD[0]][SINK_HEAD[1]] == "Tf"


def test_frame_maps_are_those_of_the_steps_and_the_branch_that_have_them(run):
    stored = run.array("self/frame_map").astype(float)
    maps, timesteps, samples = mean_frame_map(run)
    np.testing.assert_allclose(maps, stored.mean(axis=(0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(maps.sum(axis=-1), 1, atol=5e-3)
    assert timesteps.tolist() == run.timesteps[list(MAP_STEPS)].tolist() and samples == 4
    one, timesteps, samples = mean_frame_map(run, sample=1, branch="cond", steps=[1, 2])
    np.testing.assert_allclose(one, stored[1, 1, 0], rtol=1e-3)
    assert timesteps.tolist() == [run.timesteps[1]] and samples == 1
    assert mean_frame_map(run, branch="uncond") is None and mean_frame_map(run, steps=[2]) is None


@pytest.mark.parametrize("part", [{}, {"sample": 1}, {"branch": "cond", "steps": [1, 2]}, {"branch": "uncond"}])
@pytest.mark.parametrize("summarised", [True, False])
def test_the_frame_map_of_one_head_is_that_of_all_heads_bit_for_bit(tmp_path, summarised, part):
    # A summary has the maps where it is smaller than they are: of more than six samples.
    run = make_sampled_run(tmp_path / "run", 4, 5, steps=3, samples=8 if summarised else 4)
    with safe_open(run.folder / "summary.safetensors", framework="numpy") as summary:
        assert ("self/frame_map/mean" in summary.keys()) == summarised  # noqa: SIM118, a safe_open is no mapping
    every = mean_frame_map(run, **part)
    for cell in np.ndindex(4, 5):
        found = head_frame_map(run, *cell, **part)
        assert (found is None) == (every is None)
        if found is not None:
            np.testing.assert_array_equal(found[0], every[0][cell])
            assert found[1].tolist() == every[1].tolist() and found[2] == every[2]
