"""The examples in the docstrings of the training."""

import doctest
import importlib

import pytest

MODULES = [
    "pare.training.data",
    "pare.training.few_steps",
    "pare.training.loop",
    "pare.training.losses",
    "pare.training.optimisers",
    "pare.training.parallel",
    "pare.training.plan",
    "pare.training.sampling",
    "pare.training.state",
    "pare.training.velocities",
    "workbench.captions",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted and not found.failed
