"""The sentence of finding says what is there, with its n, and claims nothing that chance gives as well."""

import numpy as np
import pandas as pd
import pytest

from analysis.findings import block_finding, changing_heads, concentration, finding


def say(ratio, steps=1, samples=4, error=0.0, **thresholds):
    mean = np.repeat(ratio[None], steps, axis=0)
    settings = {"tau_s": 0.7, "tau_t": 0.3, "samples": samples} | thresholds
    return finding(ratio, mean, np.full_like(mean, error), **settings).replace("\u00a0", " ")


def brute_shortest(per_block, needed):
    blocks = len(per_block)
    windows = [(b - a, a, b) for a in range(blocks) for b in range(a, blocks) if per_block[a : b + 1].sum() >= needed]
    return min(windows)[0] + 1


@pytest.mark.parametrize("seed", range(20))
def test_the_shortest_range_is_the_shortest(seed):
    rng = np.random.default_rng(seed)
    members = rng.random((12, 6)) < 0.25
    found = concentration(members)
    assert found is not None
    needed = int(np.ceil(2 / 3 * members.sum()))
    assert found.blocks == brute_shortest(members.sum(axis=1), needed)
    assert found.inside == members[found.first : found.last + 1].sum() >= needed
    assert found.heads == members.sum()


def test_chance_is_small_for_a_cluster_and_large_for_an_even_spread():
    cluster, even = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    cluster[15:20] = True
    even[:, :5] = True
    assert concentration(cluster).chance < 0.001
    assert concentration(even).chance > 0.5
    assert concentration(np.zeros((4, 4), bool)) is None


def test_random_roles_are_rarely_called_concentrated():
    rng = np.random.default_rng(0)
    claims = sum("concentrate in" in say(rng.choice([0.1, 0.5, 0.9], (8, 10), p=[0.2, 0.5, 0.3])) for _ in range(100))
    assert claims <= 6  # two tests at 1 % each


def test_what_is_said():
    ratio = np.full((8, 10), 0.5)
    assert say(ratio).startswith("All heads are mixed. n = 4 samples.")
    assert "samples" not in say(ratio, samples=1)
    ratio[2] = 0.9
    assert "Spatial heads concentrate in block 2 (10 of 10, chance gives 1.2)" in say(ratio)
    ratio[5:7, :7] = 0.1
    assert "Temporal heads concentrate in blocks 5–6 (14 of 14" in say(ratio)
    assert "All heads are mixed" in say(ratio, tau_s=0.95, tau_t=0.05)
    assert say(np.full((8, 10), np.nan)) == "Nothing was captured in this part of the run."


def test_missing_heads_are_not_counted():
    ratio = np.full((4, 4), 0.5)
    ratio[0, 0] = np.nan
    assert "none of 15 change" in say(ratio, steps=2, samples=30)
    # The interval that holds over all steps is too wide with a few samples for any change to show.
    assert "too few samples to tell" in say(ratio, steps=2, samples=2)


def test_a_change_of_role_must_exceed_the_interval():
    mean = np.array([0.25, 0.35])[:, None, None] * np.ones((2, 1, 3))
    error = np.array([0.001, 0.05, np.nan])[None, None] * np.ones((2, 1, 1))
    assert changing_heads(mean, error, 0.7, 0.3, 30).tolist() == [[True, False, True]]
    constant = np.full((2, 1, 3), 0.2)
    assert not changing_heads(constant, error, 0.7, 0.3, 30).any()
    ratio = mean.mean(axis=0)
    text = finding(ratio, mean, np.full_like(mean, 0.001), tau_s=0.7, tau_t=0.3, samples=3).replace("\u00a0", " ")
    assert "3 of 3 change role with the timestep beyond the 95 % intervals. n = 3 samples." in text


def test_noise_alone_changes_no_role():
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 1, (40, 40)) + rng.normal(0, 0.03, (4, 10, 40, 40))
    error = values.std(axis=0, ddof=1) / 2
    assert changing_heads(values.mean(axis=0), error, 0.7, 0.3, samples=4).mean() < 0.005


def test_temporal_heads_that_are_marked_are_said_to_be():
    ratio = np.full((8, 10), 0.5)
    ratio[4:6, :8] = 0.1
    marked = np.zeros((8, 10), bool)
    marked[0, 0] = True  # mixed, so it is no temporal head
    assert "sink" not in say(ratio, marked=marked)
    marked[4, 0] = True
    assert "; 1 temporal one is uniform or a first-frame sink." in say(ratio, marked=marked)
    marked[5, 0] = True
    assert "; 2 temporal ones are uniform or first-frame sinks." in say(ratio, marked=marked)


BLOCKS = pd.DataFrame(
    {"block": [0, 1, 2], "mean": [0.3, 0.9, 0.1], "low": [0.2, 0.8, 0.05], "high": [0.4, 1.0, 0.2], "n": 5}
)


def test_the_block_that_changes_most_is_named_with_its_interval():
    def words(*arguments, **settings):
        return block_finding(*arguments, **settings).replace("\u00a0", " ")

    assert words(BLOCKS) == (
        "Block 1 changes its input most, by 0.9 [0.8, 1] times its norm; block 2 least, by 0.1 [0.05, 0.2]. n = 5 samples."
    )
    assert words(BLOCKS, "Self-attention").startswith("Self-attention adds most in block 1, 0.9 [0.8, 1] times")
    # A low cosine is a large turn.
    assert words(BLOCKS, turns=True).startswith("Block 2 turns its input most, to a cosine of 0.1")
    alone = BLOCKS[:1].assign(low=np.nan, high=np.nan, n=1)
    assert words(alone) == "Block 0 changes its input most, by 0.3 times its norm. n = 1 sample."
    assert words(BLOCKS.assign(mean=np.nan)) == "Nothing was captured in this part of the run."
