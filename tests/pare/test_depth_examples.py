"""The examples in the docstrings of depth and of decisions in runs."""

import doctest
import importlib

import pytest

MODULES = [
    "analysis.route_variation",
    "analysis.routes",
    "pare.depth.budget",
    "pare.depth.costs",
    "pare.depth.decision",
    "pare.depth.gate",
    "pare.depth.learned",
    "pare.depth.routers",
    "pare.depth.table",
    "workbench.demo.block_caches",
    "workbench.routing_settings",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
