"""B − A of two runs: against loops in float64, on cases whose answer is known, and refusals of what does not belong."""

import numpy as np
import pytest

from analysis.manifest import Manifest, Sample
from analysis.roles import bootstrap_interval
from analysis.run_difference import comparable_statistics, false_alarms, run_difference
from analysis.run_match import match_runs
from analysis.run_writer import RunWriter
from analysis.runs import Run
from pare.errors import InputError
from tests.runs_fixture import make_manifest, random_sample

BLOCKS, HEADS, STEPS = 3, 4, 3
BRANCHES = ("cond", "uncond")


def plan(prompts: str, first_seed: int = 0, **changes) -> Manifest:
    """A manifest with one sample per letter, the letter its prompt, seeds counting up."""
    made = make_manifest(BLOCKS, HEADS, STEPS, len(prompts), branches=BRANCHES)
    samples = tuple(Sample(prompt=each, seed=first_seed + number) for number, each in enumerate(prompts))
    return made.model_copy(update={"samples": samples, **changes})


def write(folder, manifest: Manifest, seed: int, shift: float = 0.0, cut: tuple[int, int] | None = None) -> Run:
    """Random samples around one ratio; `shift` moves all ratios, `cut` is a head that the model lost."""
    generator = np.random.default_rng(seed)
    weights = {f"{kind}/output_weight_norm": np.ones((BLOCKS, HEADS)) for kind in ("self", "cross")}
    writer = RunWriter(folder, manifest, weights)
    for index in writer.pending():
        arrays = random_sample(manifest, generator, np.full((BLOCKS, HEADS), 0.5 + shift))
        if cut is not None:
            for name in [name for name in arrays if name.startswith("self/")]:
                arrays[name][:, :, cut[0], cut[1]] = np.nan
        writer.write_sample(index, arrays)
    return writer.finish()


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Run, Run]:
    """A has prompts x, y, z with two seeds of y; B lacks z, has another prompt, and lost head 1 · 2."""
    folder = tmp_path_factory.mktemp("difference")
    a = write(folder / "a", plan("xyyzw"), 1)
    b = write(folder / "b", plan("xyywz"), 2, shift=0.1, cut=(1, 2))
    return a, b


def transcribed(a, b, name, pairs, steps, branches, seed, over=None):
    """The definition as loops in float64: means per pair, per prompt, over prompts, and the bootstrap over prompts."""
    left, right = (
        {i: np.float64(run.array(name, [i])[0]) for i in {pair[side] for pair in pairs}}
        for side, run in enumerate((a, b))
    )
    if over is not None:
        for values, run in ((left, a), (right, b)):
            for i in values:
                values[i] = values[i] / np.float64(run.array(over, [i])[0])
    shape = next(iter(left.values())).shape[2:]
    generator = np.random.default_rng(seed)
    prompts = list(dict.fromkeys(a.manifest.samples[i].prompt for i, _ in pairs))
    counts = generator.multinomial(len(prompts), [1 / len(prompts)] * len(prompts), size=1000)
    difference, low, high = (np.full(shape, np.nan) for _ in range(3))
    for cell in np.ndindex(*shape):
        by_prompt = {prompt: [] for prompt in prompts}
        for i, j in pairs:
            both = [
                right[j][step, branch][cell] - left[i][step, branch][cell]
                for step in steps
                for branch in branches
                if not np.isnan(right[j][step, branch][cell]) and not np.isnan(left[i][step, branch][cell])
            ]
            if both:
                by_prompt[a.manifest.samples[i].prompt].append(sum(both) / len(both))
        means = [sum(each) / len(each) if each else np.nan for each in by_prompt.values()]
        known = [mean for mean in means if not np.isnan(mean)]
        if known:
            difference[cell] = sum(known) / len(known)
        if len(known) > 1:
            drawn = [
                sum(count * mean for count, mean in zip(row, means, strict=True) if not np.isnan(mean))
                / sum(count for count, mean in zip(row, means, strict=True) if not np.isnan(mean))
                for row in counts
            ]
            low[cell], high[cell] = np.quantile(drawn, [0.025, 0.975])
    return difference, low, high


PAIRS = [(0, 0), (1, 1), (2, 2)]
"""x with seed 0, y with seeds 1 and 2; z and w have other seeds in B."""


@pytest.mark.parametrize(
    ("name", "statistic", "over"),
    [("self/ratio", "self/ratio", None), ("block/residual_norm", "residual", "block/input_norm")],
)
@pytest.mark.parametrize(("branch", "steps"), [(None, None), ("uncond", [0, 2])])
def test_it_is_what_the_definition_says(runs, name, statistic, over, branch, steps):
    found = run_difference(*runs, statistic, branch=branch, steps=steps, seed=3)
    branches = [0, 1] if branch is None else [BRANCHES.index(branch)]
    expected = transcribed(*runs, name, PAIRS, steps or range(STEPS), branches, 3, over)
    for ours, theirs in zip((found.difference, found.low, found.high), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert found.paired and found.prompts == 2 and found.match.samples == tuple(PAIRS)
    assert (found.match.only_a, found.match.only_b) == (2, 2)


def test_a_head_that_was_cut_is_absent_and_never_zero(runs):
    found = run_difference(*runs)
    gone = np.zeros((BLOCKS, HEADS), bool)
    gone[1, 2] = True
    assert (found.absent_b == gone).all() and not found.absent_a.any()
    for values in (found.difference, found.low, found.high, found.mean_b):
        assert (np.isnan(values) == gone).all()
    # What A has there is said, from all of its samples that have a partner, prompt by prompt.
    rows = [pair[0] for pair in found.match.samples]
    own = dict(zip(rows, runs[0].array("self/ratio", rows)[..., 1, 2].mean((1, 2)), strict=True))
    prompts = {runs[0].manifest.samples[row].prompt for row in rows}
    alone = [np.mean([own[row] for row in rows if runs[0].manifest.samples[row].prompt == each]) for each in prompts]
    assert found.mean_a[1, 2] == pytest.approx(np.mean(alone)) and not np.isnan(found.mean_a).any()
    assert found.n[1, 2] == 0 and not found.clear[1, 2]
    table = found.table()
    assert len(table) == BLOCKS * HEADS - 1 and not ((table["block"] == 1) & (table["head"] == 2)).any()
    assert table["difference"].abs().is_monotonic_decreasing


def test_the_other_way_round_is_the_negative(runs):
    a, b = runs
    there, back = run_difference(a, b), run_difference(b, a)
    np.testing.assert_allclose(there.difference, -back.difference)
    np.testing.assert_allclose(there.low, -back.high)
    assert (there.absent_b == back.absent_a).all()


def noisy():
    """Reads a run, every second time with the noise of single precision on it."""
    reads = []

    def read(of, name, samples):
        reads.append(name)
        values = of.array(name, samples)
        noise = np.random.default_rng(0).uniform(0, 2e-7, values.shape)
        return values * (1 + noise) if len(reads) % 2 == 0 else values

    return read


def test_what_is_larger_is_found_and_what_is_equal_is_not(runs):
    a, b = runs
    found = run_difference(a, b)
    known = ~np.isnan(found.difference)
    np.testing.assert_allclose(found.difference[known], 0.1, atol=0.03)
    # Of two prompts, both change in one direction half of the time.
    assert found.clear[known].all() and found.expected_by_chance == 0.5 * known.sum()
    # Single precision alone is no difference.
    near = run_difference(a, a, read=noisy())
    assert not near.difference.any() and not near.low.any() and not near.clear.any()
    same = run_difference(a, a)
    assert not same.difference.any() and not same.clear.any() and same.role_changes().empty


@pytest.mark.parametrize("prompts", [2, 3, 5, 12])
def test_what_chance_alone_makes_clear_is_what_is_said(prompts):
    generator = np.random.default_rng(prompts)
    nothing = generator.normal(size=(prompts, 4000))
    low, high = bootstrap_interval(nothing)
    share = ((low > 0) | (high < 0)).mean()
    # Within 3 standard errors of 4000 draws, and what the approximation gives away.
    assert share == pytest.approx(false_alarms(prompts), abs=0.025)


def test_a_role_changes_where_the_mean_crosses_a_threshold(runs):
    changed = run_difference(*runs).role_changes(tau_s=0.55, tau_t=0.1)
    assert len(changed) == BLOCKS * HEADS - 1
    assert set(changed["role_a"]) == {"M"} and set(changed["role_b"]) == {"S"}


def test_without_a_common_sample_means_are_compared_and_said_to_be_unpaired(runs, tmp_path):
    a, _ = runs
    b = write(tmp_path / "b", plan("xxyy", first_seed=50), 4, shift=0.2)
    found = run_difference(a, b)
    assert not found.paired and found.match.samples == () and (found.n == 4).all() and found.prompts == 2
    expected = []
    for run in (a, b):
        values = run.array("self/ratio").astype(float).mean(axis=(1, 2))
        prompts = [sample.prompt for sample in run.manifest.samples]
        own = [
            values[[i for i, each in enumerate(prompts) if each == prompt]].mean(0) for prompt in dict.fromkeys(prompts)
        ]
        expected.append(np.mean(own, axis=0))
    np.testing.assert_allclose(found.difference, expected[1] - expected[0], rtol=1e-9)
    assert found.clear.all() and (found.low < found.difference).all() and (found.difference < found.high).all()


def test_one_prompt_has_no_interval(runs):
    found = run_difference(*runs, sample=1)
    assert found.prompts == 1 and found.n.max() == 1
    assert np.isnan(found.low).all() and not found.clear.any() and found.expected_by_chance == 0
    with pytest.raises(InputError, match="no partner in B"):
        run_difference(*runs, sample=3)


def test_one_value_alone_is_no_interval_though_the_others_have_one(tmp_path):
    manifest = plan("xyz")
    a = write(tmp_path / "a", manifest, 1)
    generator = np.random.default_rng(5)
    writer = RunWriter(tmp_path / "b", manifest, {})
    for index in writer.pending():
        arrays = random_sample(manifest, generator, np.full((BLOCKS, HEADS), 0.9))
        if index:
            arrays["self/ratio"][:, :, 0, 0] = np.nan
        writer.write_sample(index, arrays)
    found = run_difference(a, writer.finish())
    assert found.n[0, 0] == 1 and not np.isnan(found.difference[0, 0])
    assert np.isnan(found.low[0, 0]) and not found.clear[0, 0] and found.clear[0, 1]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_frames": 5}, "5 latent frames"),
        ({"timesteps": (900.0, 500.0, 90.0)}, "3 timesteps from 900 to 90"),
        ({"branches": ("other",)}, "branch other"),
        ({"geometry": make_manifest(BLOCKS, HEADS + 1).geometry}, f"of {HEADS + 1} heads"),
    ],
)
def test_what_does_not_belong_together_is_refused_in_one_line(runs, change, words):
    a, b = runs
    other = Run(b.folder, b.manifest.model_copy(update=change), b.identity)
    with pytest.raises(InputError) as error:
        run_difference(a, other)
    assert words in str(error.value) and "A with" in str(error.value) and "\n" not in str(error.value)


def test_timesteps_that_were_rounded_are_one_schedule(runs):
    a, b = runs
    rounded = tuple(float(round(t)) for t in b.manifest.timesteps)
    assert match_runs(a, Run(b.folder, b.manifest.model_copy(update={"timesteps": rounded}), b.identity)).samples


def test_what_differs_is_named(runs):
    a, b = runs
    model = {**b.manifest.model, "model_id": "student"}
    other = Run(b.folder, b.manifest.model_copy(update={"model": model, "mode": "trajectory"}), b.identity)
    assert match_runs(a, other).differs == {"model_id": ("random", "student"), "mode": ("calibration", "trajectory")}


def test_a_statistic_that_one_lacks_is_refused(runs):
    a, b = runs
    fewer = {name: each for name, each in b.manifest.statistics.items() if name != "self/ratio"}
    other = Run(b.folder, b.manifest.model_copy(update={"statistics": fewer}), b.identity)
    with pytest.raises(InputError, match="B, b: got no self/ratio"):
        run_difference(a, other)
    assert comparable_statistics(a, other) == ["self/value_norm", "cross/value_norm", "residual", "cosine"]
    with pytest.raises(InputError, match="cond or uncond"):
        run_difference(a, b, branch="both")
