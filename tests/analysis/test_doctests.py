"""The examples in the docstrings of what is measured and chosen."""

import doctest
import importlib

import pytest

MODULES = [
    "analysis.aggregate",
    "analysis.alpha_study",
    "analysis.attention",
    "analysis.capture_spec",
    "analysis.figures.differences",
    "analysis.figures.masks",
    "analysis.figures.roles",
    "analysis.figures.routes",
    "analysis.figures.style",
    "analysis.figures.tables",
    "analysis.figures.videos",
    "analysis.film",
    "analysis.findings",
    "analysis.head_metrics",
    "analysis.head_scores",
    "analysis.importance",
    "analysis.marks",
    "analysis.moments",
    "analysis.places",
    "analysis.projection",
    "analysis.recording",
    "analysis.residual",
    "analysis.roles",
    "analysis.rows",
    "analysis.run_difference",
    "analysis.score_comparison",
    "analysis.score_ranks",
    "analysis.score_table",
    "analysis.stored_magnitude",
    "analysis.summary",
    "analysis.thresholds",
    "analysis.token_means",
    "analysis.xformers_lse",
    "pare.files",
    "pare.mask",
    "pare.width.budget",
    "pare.width.heads",
    "pare.width.neuron_count",
    "pare.width.neurons",
    "pare.width.unit_cost",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
