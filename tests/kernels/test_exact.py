"""Every kernel of the catalog, the definitions in NumPy among them, gives the bits of exact arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet_kernels.catalog import rows
from tests.kernels.problems import DRAWN, HOST_ROWS, NAMED, Problem, identity
from tests.kernels.truth import TRUTHS, check

MANY = settings(max_examples=12 * settings.default.max_examples)


def test_every_op_of_the_catalog_has_a_truth() -> None:
    assert {op for op, _ in rows()} == set(TRUTHS) == set(DRAWN) == {problem.op for problem in NAMED}


@pytest.mark.parametrize("backend", sorted({backend for _, backend in HOST_ROWS}))
@pytest.mark.parametrize("problem", NAMED, ids=identity)
def test_named_problems(problem: Problem, backend: str) -> None:
    check(problem, backend, seed=1)


@pytest.mark.parametrize(("op", "backend"), HOST_ROWS)
@MANY
@given(data=st.data(), seed=st.integers(0, 999))
def test_drawn_problems(op: str, backend: str, data: Any, seed: int) -> None:
    check(data.draw(DRAWN[op]), backend, seed)
