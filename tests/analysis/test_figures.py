"""Figures show the numbers they were given, in the role colours, with the marks that make them honest."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.figures.blocks import residual_map
from analysis.figures.roles import ratio_histogram, ratio_over_timesteps, roles_per_block
from analysis.figures.style import ROLE_COLORS

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


@pytest.mark.parametrize(
    "figure",
    [
        ratio_over_timesteps(FRAME, **MARKS),
        ratio_histogram(np.full((2, 2), np.nan), **MARKS),
        roles_per_block(np.array([["S"]])),
        residual_map(np.zeros((1, 1)), np.zeros(1), samples=1),
    ],
)
def test_every_figure_is_transparent_and_serialises(figure):
    assert figure.layout.paper_bgcolor == figure.layout.plot_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text
    assert json.loads(figure.to_json())["data"]
