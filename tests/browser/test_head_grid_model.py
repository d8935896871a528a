"""The head grid's pure functions (model.js), run in a real browser and compared with Python's."""

import numpy as np
import pytest
from playwright.sync_api import Browser

from analysis.roles import classify, flips, role_counts
from workbench.components.head_grid.cells import FLIPPED
from workbench.components.head_grid.value import MIN_GAP
from workbench.components.source import source


@pytest.fixture(scope="module")
def model(browser: Browser):
    """model(expression, **names) is the value of a JavaScript expression over `model`, the module, and these names."""
    page = browser.new_page()
    page.evaluate(
        """async (text) => {
            const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
            window.model = await import(url);
        }""",
        source("canvas.js", "head_grid/model.js"),
    )

    def call(expression: str, **names: object):
        return page.evaluate(f"(given) => {{ const {{ {', '.join(names)} }} = given; return {expression}; }}", names)

    yield call
    page.close()


@pytest.mark.parametrize(("tau_s", "tau_t"), [(0.7, 0.3), (0.75, 0.25)])
def test_roles_counts_flips_and_bins_equal_pythons(model, tau_s, tau_t):
    random = np.random.default_rng(0)
    for size in (1, 80, 1600):
        ratio = random.random(size).astype(np.float32)
        # Ratios that are a threshold, exactly (0.75, 0.25) or in single precision.
        ratio[: size // 4] = random.choice(np.float32([tau_t, tau_s]), size // 4)
        got = model(
            """(() => {
                const r = Float32Array.from(ratio), roles = model.classify(r, [tau_s, tau_t]);
                return { roles: [...roles], counts: model.countRoles(roles),
                         flips: model.countFlips(r, [tau_s, tau_t], 0.02), bins: [...model.histogram(r, roles, 50)] };
            })()""",
            ratio=ratio.tolist(),
            tau_s=tau_s,
            tau_t=tau_t,
        )
        letters = classify(ratio, tau_s, tau_t)
        roles = np.array(["SMT".index(letter) for letter in letters])
        assert got["roles"] == roles.tolist()
        assert got["counts"] == [*role_counts(letters).values(), 0]
        assert got["flips"] == flips(ratio, tau_s, tau_t, 0.02).sum()
        for role in range(3):
            bins = np.bincount(np.minimum((ratio[roles == role].astype(float) * 50).astype(int), 49), minlength=50)
            assert got["bins"][role::3] == bins.tolist()


@pytest.mark.parametrize(
    ("thresholds", "side"), [([0.7, 0.3], "left"), ([0.7, 0.15], "right"), ([0.15, 0.05], "right")]
)
def test_no_threshold_strikes_the_label_of_uniform_out(browser, thresholds, side):
    page = browser.new_page()
    found = page.evaluate(
        """async ([text, thresholds]) => {
            const { drawHistogram } = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
            const context = document.createElement("canvas").getContext("2d"), drawn = {};
            const write = context.fillText.bind(context);
            context.fillText = (words, ...at) => { drawn[words] = context.textAlign; write(words, ...at); };
            const state = { ratio: Float32Array.of(0.5), roles: Uint8Array.of(1), thresholds, uniform: 1 / 9, numFrames: 9,
                            heads: 1, pinned: null, hover: null };
            const theme = { font: "sans-serif", text: "#000", muted: "#444", line: "#ddd", background: "#fff" };
            drawHistogram(context, 560, state, theme);
            return drawn["uniform 1/9"];
        }""",
        [source("canvas.js", "head_grid/model.js", "head_grid/draw.js"), thresholds],
    )
    page.close()
    assert found == side


def test_missing_ratios_have_no_role_and_no_bin(model):
    got = model(
        """(() => {
            const r = Float32Array.of(NaN, 0.9, NaN), roles = model.classify(r, [0.7, 0.3]);
            const bins = model.histogram(r, roles, 4);
            return [[...roles], model.countRoles(roles), model.countFlips(r, [0.7, 0.3], 1), [...bins]];
        })()"""
    )
    assert got == [[3, 0, 3], [1, 0, 0, 2], 1, [0] * 9 + [1, 0, 0]]


def test_thresholds_keep_order_and_gap_wherever_they_are_pulled(model):
    random = np.random.default_rng(1)
    thresholds = [0.7, 0.3]
    for _ in range(300):
        which, value = int(random.integers(2)), float(random.uniform(-0.5, 1.5))
        thresholds = model("model.moveThreshold(t, which, value)", t=thresholds, which=which, value=value)
        tau_s, tau_t = thresholds
        assert 0 <= tau_t <= tau_s - MIN_GAP + 1e-9 and tau_s <= 1
    assert model("model.MIN_GAP") == MIN_GAP


@pytest.mark.parametrize(
    ("which", "key", "fine", "expected"),
    [
        (0, "ArrowLeft", False, [0.69, 0.3]),
        (0, "ArrowUp", True, [0.701, 0.3]),
        (1, "PageUp", False, [0.7, 0.35]),
        (1, "End", False, [0.7, 0.69]),
        (1, "Home", False, [0.7, 0]),
        (0, "Home", False, [0.31, 0.3]),
        (0, "End", False, [1, 0.3]),
        (0, "a", False, None),
    ],
)
def test_keys_on_a_threshold(model, which, key, fine, expected):
    got = model("model.thresholdsAfterKey([0.7, 0.3], which, key, fine)", which=which, key=key, fine=fine)
    assert got == expected


@pytest.mark.parametrize(
    ("cell", "key", "control", "expected"),
    [
        ([3, 7], "ArrowUp", False, [2, 7]),
        ([0, 9], "ArrowRight", False, [0, 9]),
        ([0, 0], "ArrowUp", False, [0, 0]),
        ([6, 4], "PageDown", False, [7, 4]),
        ([3, 7], "Home", False, [3, 0]),
        ([3, 7], "End", True, [7, 9]),
        ([3, 7], "x", False, None),
    ],
)
def test_keys_on_a_cell(model, cell, key, control, expected):
    assert model("model.cellAfterKey(cell, key, 8, 10, control)", cell=cell, key=key, control=control) == expected


def test_every_point_of_a_cell_is_that_cell_and_labels_are_none(model):
    hits = model(
        """[[8, 10, 700], [40, 40, 600], [1, 1, 300]].flatMap(([blocks, heads, width]) => {
            const at = model.gridLayout(width, blocks, heads);
            return [[0, 0], [blocks - 1, heads - 1]].map(([b, h]) => [0.01, 0.99].map((part) => String(model.cellAt(
                at, at.left + (h + part) * at.cellWidth, at.top + (b + part) * at.cellHeight)) === String([b, h])))
                .concat([[model.cellAt(at, at.left - 1, at.top + 1) === null,
                          model.cellAt(at, at.left + 1, at.top + blocks * at.cellHeight + 1) === null]]);
        }).flat()"""
    )
    assert hits and all(hits)


def test_letters_reach_contrast_aa_on_every_shade_of_every_role(model):
    lowest = model(
        """Math.min(...model.ROLES.flatMap(({ colour }) => ["#ffffff", "#0e1117", "#181715"].flatMap((page) =>
            Array.from({ length: 46 }, (_, i) => {
                const fill = model.mix(colour, page, 0.55 + i / 100);
                return model.contrast(fill, model.letterColour(fill));
            }))))"""
    )
    assert lowest >= 4.5


def test_depth_in_a_role_runs_from_its_threshold_to_its_far_end(model):
    got = model(
        """[[0.7, 0], [0.85, 0], [1, 0], [0.3, 1], [0.5, 1], [0.7, 1], [0.3, 2], [0.15, 2], [0, 2]].map(
            ([ratio, role]) => model.depthInRole(ratio, role, [0.7, 0.3]))"""
    )
    assert got == pytest.approx([0, 0.5, 1, 0, 1, 0, 0, 0.5, 1])


def test_a_head_says_what_becomes_of_it_and_whether_protection_decided(model):
    words = "model.describeCell(3, 7, 0.1, model.TEMPORAL, flags, removed)"
    for flags, removed, expected in ((0, 0, ""), (0, 1, " · removed"), (FLIPPED, 0, " · removed without α"),
                                     (FLIPPED, 1, " · removed · kept without α")):  # fmt: skip
        assert model(words, flags=flags, removed=removed) == f"block 3, head 7 · ratio 0.10 · temporal{expected}"
    assert model("model.FLAG_FLIPPED") == FLIPPED
