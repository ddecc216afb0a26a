"""The examples in the documentation run: those of docstrings, and the ``python`` blocks of the Markdown files."""

from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ["refnet.network.resnet_utils", "refnet.network.resnet_v1", "refnet.network.resnet_v2"]


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings(module: str) -> None:
    tests = doctest.DocTestFinder().find(importlib.import_module(module))
    runner = doctest.DocTestRunner()
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 0
