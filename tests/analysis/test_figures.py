"""Figures show the numbers they were given, in the role colours, with the marks that make them honest."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.evidence.head_sets import WORDS
from analysis.figures.blocks import parts_over_timesteps, residual_map, residual_parts
from analysis.figures.evidence import KIND_LINES
from analysis.figures.heads import frame_map, head_grid
from analysis.figures.intervals import dots, intervals
from analysis.figures.roles import mean_ratio_per_block, ratio_histogram, ratio_over_timesteps, roles_per_block
from analysis.figures.style import ROLE_COLORS, contrast
from analysis.figures.training import role_counts

FRAME = pd.DataFrame(
    {"timestep": [100.0, 900.0, 500.0], "mean": [0.1, 0.8, 0.5], "low": [0.05, 0.75, 0.4], "high": [0.15, 0.9, 0.6]}
).assign(n=[4, 4, 4])
MARKS = {"tau_s": 0.7, "tau_t": 0.3, "uniform": 1 / 9}


def trace(figure, name):
    return next(one for one in figure.data if one.name == name)


def test_ratio_over_timesteps_runs_from_noise_to_picture():
    figure = ratio_over_timesteps(FRAME, **MARKS)
    line = trace(figure, "ratio")
    assert list(line.x) == [900, 500, 100] and list(line.y) == [0.8, 0.5, 0.1]
    assert list(line.marker.color) == [ROLE_COLORS[letter] for letter in "SMT"]
    assert figure.layout.xaxis.autorange == "reversed"
    band = trace(figure, "95 % interval")
    assert list(band.x) == [900, 500, 100, 100, 500, 900]
    assert list(band.y) == [0.9, 0.6, 0.15, 0.05, 0.4, 0.75]
    assert any(mark.text == "1/9" and mark.y == 1 / 9 for mark in figure.layout.annotations)
    assert {shape.y0 for shape in figure.layout.shapes} >= {0.7, 0.0, 1 / 9}


def test_an_unknown_interval_is_not_drawn():
    figure = ratio_over_timesteps(FRAME.assign(low=np.nan, high=np.nan, n=1), **MARKS)
    assert len(trace(figure, "95 % interval").x) == 0
    assert trace(figure, "ratio").customdata[0].tolist() == ["S", "–", "–", "1"]


def test_the_histogram_counts_every_captured_head_once():
    ratio = np.append(np.random.default_rng(0).random(400), [np.nan, 0.0, 1.0, 1.0000001])
    figure = ratio_histogram(ratio, **MARKS)
    counts = {one.name[0]: int(np.sum(one.y)) for one in figure.data}
    known = ratio[~np.isnan(ratio)]
    assert counts == {"S": (known > 0.7).sum(), "M": ((known <= 0.7) & (known >= 0.3)).sum(), "T": (known < 0.3).sum()}
    assert {shape.x0 for shape in figure.layout.shapes} == {0.7, 0.3, 1 / 9}


def test_roles_per_block_leaves_out_what_was_not_captured():
    figure = roles_per_block(np.array([["S", "S", "T"], ["M", "?", "T"]]))
    assert {one.name[0]: list(one.y) for one in figure.data} == {"S": [2, 0], "M": [0, 1], "T": [1, 1]}


def test_the_map_is_blocks_by_falling_timestep():
    values = np.arange(6, dtype=float).reshape(3, 2)
    values[1, 1] = np.nan
    figure = residual_map(values, np.array([100.0, 900.0, 500.0]), samples=4)
    heat = figure.data[0]
    assert list(heat.x) == ["900", "500", "100"] and heat.zmin == 0
    assert np.array_equal(heat.z, [[2, 4, 0], [np.nan, 5, 1]], equal_nan=True)
    assert "n 4" in heat.hovertemplate


BLOCKS = FRAME.assign(block=[0, 1, 2])
HEADS = pd.DataFrame(
    {
        "block": [0, 0, 0, 1, 1, 1],
        "head": [0, 1, 2, 0, 1, 2],
        "ratio": [0.9, 0.5, 0.1, np.nan, 0.11, 0.2],
        "mark": ["", "", "F", "", "U", "UF"],
        "removed": [True, False, False, False, False, False],
    }
)
PARTS = {"Whole block": np.array([[1.0, 2.0], [3.0, 4.0]]), "Feed-forward": np.array([[0.5, np.nan], [1.0, 0.1]])}


def test_branches_are_lines_apart_with_their_names():
    frame = pd.concat([FRAME.assign(branch="cond"), FRAME.assign(branch="uncond", mean=0.2)])
    figure = ratio_over_timesteps(frame, **MARKS)
    assert list(trace(figure, "cond").y) == [0.8, 0.5, 0.1] and list(trace(figure, "uncond").y) == [0.2, 0.2, 0.2]
    assert trace(figure, "cond").line.dash != trace(figure, "uncond").line.dash
    assert figure.layout.showlegend and not ratio_over_timesteps(FRAME, **MARKS).layout.showlegend
    one = ratio_over_timesteps(FRAME.assign(branch="cond"), **MARKS)
    assert not one.layout.showlegend and trace(one, "ratio") is not None


def test_the_mean_ratio_of_blocks_has_its_interval():
    figure = mean_ratio_per_block(BLOCKS, **MARKS)
    dots = trace(figure, "mean ratio")
    assert list(dots.x) == [0, 1, 2] and list(dots.y) == [0.1, 0.8, 0.5]
    np.testing.assert_allclose(dots.error_y.array, [0.05, 0.1, 0.1])
    np.testing.assert_allclose(dots.error_y.arrayminus, [0.05, 0.05, 0.1])
    assert any(mark.text == "1/9" for mark in figure.layout.annotations)


def test_the_grid_shows_every_role_mark_and_gap():
    figure = head_grid(HEADS, tau_s=0.7, tau_t=0.3)
    cells = figure.data[0]
    assert np.array_equal(cells.z, [[0, 1, 2], [np.nan, 2, 2]], equal_nan=True)
    letters = trace(figure, "letters")
    assert list(zip(letters.y, letters.x, letters.text, strict=True)) == [
        (0, 0, "S"), (0, 1, "M"), (0, 2, "T"), (1, 1, "T"), (1, 2, "T")
    ]  # fmt: skip
    assert [color for _, color in cells.colorscale] == [ROLE_COLORS[letter] for letter in "SSMMTT"]
    places = {one.name: list(zip(one.y, one.x, strict=True)) for one in figure.data[2:5]}
    assert places == {
        "first-frame sink": [(0, 2), (1, 2)],
        "uniform": [(1, 1), (1, 2)],
        "not captured": [(1, 0)],
    }
    crosses = trace(figure, "removed")
    ends = np.stack([crosses.y, crosses.x], axis=1)[~np.isnan(crosses.x)]
    assert len(ends) == 8 and (ends.round() == 0).all(), "four arms in the cell that is removed"
    assert (np.abs(ends).min(axis=1) >= 0.2).all(), "its letter stays free"
    assert "temporal · uniform · first-frame sink" in cells.customdata[1][2]
    wide = pd.DataFrame({"block": 0, "head": range(40), "ratio": 0.5})
    assert "letters" not in [one.name for one in head_grid(wide, tau_s=0.7, tau_t=0.3).data]
    cut = trace(head_grid(wide.assign(removed=wide["head"] == 7), tau_s=0.7, tau_t=0.3), "removed")
    assert list(zip(cut.y, cut.x, strict=True)) == [(0, 7)]


def test_role_letters_read_on_their_colours():
    letters = trace(head_grid(HEADS, tau_s=0.7, tau_t=0.3), "letters")
    shown = {(letter, ink) for letter, ink in zip(letters.text, letters.textfont.color, strict=True)}
    assert len(shown) == 3
    for letter, ink in shown:
        assert contrast({"#000": "#000000", "#fff": "#ffffff"}[ink], ROLE_COLORS[letter]) >= 4.5
    counts = pd.DataFrame({"block": [0], "S": [1], "M": [1], "T": [1]})
    for bar in role_counts(counts, counts).data:
        ink = {"#000": "#000000", "#fff": "#ffffff"}[bar.insidetextfont.color]
        assert contrast(ink, bar.marker.color) >= 4.5 and bar.marker.pattern.fillmode == "overlay"


def test_role_letters_and_uniform_attention_stand_apart_beside_the_plot():
    for figure in (ratio_over_timesteps(FRAME, **MARKS), mean_ratio_per_block(BLOCKS, **MARKS)):
        shifts = {mark.text: mark.xshift or 0 for mark in figure.layout.annotations}
        uniform = shifts.pop("1/9")
        assert min(shifts.values()) - uniform >= 24 and max(shifts.values()) + 12 <= figure.layout.margin.r


def test_long_labels_of_intervals_are_whole():
    rows = pd.DataFrame({"mean": [0.5], "low": [0.4], "high": [0.6], "n": [9]})
    label = "prompts, each with a seed of its own"
    figure = intervals([dots(rows, [label], "mean", name="x", words=["n"])], labels=[label], x={"name": "x"}, guides={})
    assert figure.layout.yaxis.automargin


def test_no_two_kinds_of_head_sets_share_colour_and_dash():
    assert set(KIND_LINES) == set(WORDS) and len(set(KIND_LINES.values())) == len(WORDS)


def test_the_frame_map_runs_from_query_to_key():
    values = np.array([[0.7, 0.3], [0.4, 0.6]])
    figure = frame_map(values)
    heat = figure.data[0]
    assert np.array_equal(heat.z, values) and heat.zmin == 0 and heat.zmax == 0.7
    assert figure.layout.xaxis.title.text == "key frame" and figure.layout.yaxis.title.text == "query frame"
    assert "uniform 0.500" in heat.hovertemplate


def test_parts_share_one_scale():
    figure = residual_parts(PARTS, np.array([100.0, 900.0]), samples=4)
    assert [one.name for one in figure.data] == list(PARTS)
    assert {one.coloraxis for one in figure.data} == {"coloraxis"}
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 4)
    assert np.array_equal(figure.data[1].z, [[1, 0.5], [0.1, np.nan]], equal_nan=True)
    assert [note.text for note in figure.layout.annotations] == list(PARTS)


def test_a_map_takes_its_limits():
    heat = residual_map(PARTS["Whole block"], np.array([1.0, 2.0]), samples=4, limits=(0.5, 1.0)).data[0]
    assert (heat.zmin, heat.zmax) == (0.5, 1.0)


def test_parts_over_timesteps_are_told_apart_without_colour():
    figure = parts_over_timesteps({"Whole block": FRAME, "Self-attention": FRAME.assign(low=np.nan, high=np.nan)})
    whole, part = figure.data
    assert list(whole.x) == [900, 500, 100] and list(whole.y) == [0.8, 0.5, 0.1]
    np.testing.assert_allclose(whole.error_y.array, [0.1, 0.1, 0.05])
    assert list(part.error_y.array) == [0, 0, 0] and whole.line.dash != part.line.dash


@pytest.mark.parametrize(
    "figure",
    [
        ratio_over_timesteps(FRAME, **MARKS),
        ratio_histogram(np.full((2, 2), np.nan), **MARKS),
        roles_per_block(np.array([["S"]])),
        residual_map(np.zeros((1, 1)), np.zeros(1), samples=1),
        residual_parts({"Whole block": np.full((1, 1), np.nan)}, np.zeros(1), samples=1),
        parts_over_timesteps({"Whole block": FRAME}),
        mean_ratio_per_block(BLOCKS, **MARKS),
        head_grid(HEADS, tau_s=0.7, tau_t=0.3),
        frame_map(np.full((2, 2), np.nan)),
    ],
)
def test_every_figure_is_transparent_and_serialises(figure):
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text
    assert json.loads(figure.to_json())["data"]
