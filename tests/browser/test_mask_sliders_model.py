"""The mask that the browser counts while a slider moves (model.js), held against Python's own on random cases."""

from dataclasses import asdict

import numpy as np
import pytest
from playwright.sync_api import Browser

from analysis.importance import protected
from analysis.roles import LETTERS, classify
from pare.geometry import PRESETS, Clip, Geometry
from pare.width.budget import Counts, predict
from pare.width.heads import ALLOCATIONS, allocate, default_min_heads, kept_count, normalised
from pare.width.neuron_count import kept_neurons, neuron_multiple
from pare.width.unit_cost import unit_costs
from workbench.components.source import source

COUNT_CASES = """({ cases }) => cases.map(({ given, settings }) => {
    const column = (values) => (values ? Float64Array.from(values, (value) => value ?? NaN) : null);
    const { ratios, scores, cross } = given;
    const whole = { ...given, ratios: column(ratios), scores: column(scores), cross: column(cross) };
    const mask = model.maskAt(whole, settings);
    return {
        self: [...mask.self], cross: [...mask.cross], flipped: [...mask.flipped], neurons: mask.neurons,
        removed: mask.removedByRole && [...mask.removedByRole], sizes: mask.sizes, words: model.describeMask(whole, mask),
    };
})"""


@pytest.fixture(scope="module")
def count(browser: Browser):
    """count(cases) is what the browser counts for each."""
    page = browser.new_page()
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.model = await import(url);
        }""",
        source("canvas.js", "head_grid/model.js", "mask_sliders/model.js"),
    )
    yield lambda cases: page.evaluate(COUNT_CASES, {"cases": cases})
    page.close()


def numbers(values: np.ndarray | None) -> list[float | None] | None:
    """As JSON, which has no NaN."""
    return None if values is None else [None if np.isnan(value) else float(value) for value in values.ravel()]


def make_case(generator: np.random.Generator, geometry: Geometry, clip: Clip) -> tuple[dict, dict]:
    """One case for the browser, and what Python says of it."""
    shape = (geometry.blocks, geometry.heads)
    tau_t, tau_s = sorted(generator.choice([0.05, 0.25, 0.3, 0.5, 0.7, 0.75, 0.9], 2, replace=False).tolist())
    # Ties, scores below zero, ratios that are a threshold and some that are missing.
    self_scores, cross = (generator.integers(-3, 9, shape) / 2 + generator.choice([0, 1e-9], shape) for _ in range(2))
    ratios = np.where(generator.random(shape) < 0.2, generator.choice([tau_s, tau_t], shape), generator.random(shape))
    ratios = np.where(generator.random(shape) < 0.05, np.nan, ratios) if generator.random() < 0.9 else None
    ratio = float(
        generator.choice([0.29, 0.3, 0.7, round(generator.uniform(0.01, 0.99), int(generator.integers(1, 5)))])
    )
    ratio = min(max(ratio, 0.01), 0.99)
    alpha = float(generator.choice([1, 1.5, 2.05, 100, round(generator.uniform(1, 3), 4)]))
    allocation, prunes = str(generator.choice(ALLOCATIONS)), bool(generator.random() < 0.5)
    protects = bool(generator.random() < 0.8)
    if allocation == "global-l2":
        self_scores, cross = normalised(self_scores), normalised(cross)
    heads, multiple = geometry.blocks * geometry.heads, min(neuron_multiple(geometry.ffn), geometry.ffn)
    costs = [
        {"name": name, "dense": cost.of(heads, heads, geometry.blocks * geometry.ffn), **asdict(cost)}
        for name, cost in unit_costs(geometry, clip).items()
    ]
    given = {
        "blocks": geometry.blocks, "heads": geometry.heads, "floor": default_min_heads(geometry.heads),
        "neurons": geometry.ffn, "multiple": multiple, "allocation": allocation, "pruneNeurons": prunes,
        "protects": protects, "costs": costs, "ratios": numbers(ratios), "scores": numbers(self_scores),
        "cross": numbers(cross),
    }  # fmt: skip
    settings = {"thresholds": [tau_s, tau_t], "ratio": ratio, "alpha": alpha}

    keep = kept_count(geometry.heads, ratio)
    unprotected = allocate(self_scores, keep, allocation)
    letters = None if ratios is None else classify(ratios, tau_s, tau_t)
    lifted = self_scores if letters is None or not protects else protected(self_scores, letters, alpha)
    kept, kept_cross = allocate(lifted, keep, allocation), allocate(cross, keep, allocation)
    neurons = kept_neurons(geometry.ffn, ratio) if prunes else geometry.ffn
    counts = Counts(tuple(kept.sum(axis=1).tolist()), tuple(kept_cross.sum(axis=1).tolist()), neurons)
    predicted = predict(geometry, clip, counts)
    expected = {
        "self": kept.ravel().astype(int).tolist(),
        "cross": kept_cross.ravel().astype(int).tolist(),
        "flipped": (kept != unprotected).ravel().astype(int).tolist(),
        "neurons": neurons,
        "removed": None
        if letters is None
        else [*(int(np.sum(letters[~kept] == letter)) for letter in LETTERS), int(np.sum(letters[~kept] == ""))],
        "sizes": [predicted[cost["name"]] for cost in costs],
    }
    return {"given": given, "settings": settings}, expected


def test_the_browser_keeps_and_counts_exactly_what_python_does(count):
    generator = np.random.default_rng(0)
    geometries = [
        Geometry(blocks=int(blocks), heads=int(heads), head_dim=16, ffn=int(ffn), in_channels=8, out_channels=8,
                 text_dim=64, vae_spatial=4, vae_temporal=2, latent_channels=8)
        for blocks, heads, ffn in zip(
            generator.integers(1, 7, 40), generator.integers(1, 14, 40), generator.integers(5, 4000, 40), strict=True
        )
    ]  # fmt: skip
    made = [make_case(generator, geometry, Clip(48, 48, 17)) for geometry in geometries for _ in range(3)]
    # The largest: 1,600 heads, and operations near 2⁵³, up to where the browser's numbers are exact.
    made += [make_case(generator, preset.geometry, Clip(720, 1280, 81)) for preset in PRESETS.values()]
    for found, (_, expected) in zip(count([case for case, _ in made]), made, strict=True):
        assert {name: found[name] for name in expected} == expected
        assert found["words"].startswith("Keeps ")


def test_a_case_by_hand(count):
    geometry = Geometry(blocks=1, heads=4, head_dim=16, ffn=640, in_channels=8, out_channels=8, text_dim=64)
    case, _ = make_case(np.random.default_rng(1), geometry, Clip(48, 48, 17))
    case["given"] |= {
        "allocation": "uniform", "protects": True, "pruneNeurons": False,
        "scores": [1, 2, 3, 4], "cross": [4, 3, 2, 1], "ratios": [0.1, 0.5, 0.9, None],
    }  # fmt: skip
    (found,) = count([case | {"settings": {"thresholds": [0.7, 0.3], "ratio": 0.5, "alpha": 3.5}}])
    # The temporal head's 1 becomes 3.5, so it stays instead of the spatial one.
    assert found["self"] == [1, 0, 0, 1] and found["cross"] == [1, 1, 0, 0] and found["flipped"] == [1, 0, 1, 0]
    assert found["words"] == (
        "Keeps 2 of 4 self-attention and 2 of 4 cross-attention heads in each of 1 blocks. "
        "Removes 2 self-attention heads: 1 spatial, 1 mixed, 0 temporal; α keeps 1 in place of as many others."
    )
