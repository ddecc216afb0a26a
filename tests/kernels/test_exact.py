"""Every kernel of the catalog, the definitions in NumPy among them, gives the bits of exact arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refnet_kernels.catalog import rows
from refnet_kernels.contract import RUN
from tests.kernels.truth import check, solve
from tests.problems import DTYPES, HOST_ROWS, NAMED, PROBLEMS, Problem, identity
from tests.problems.conv import ConvProblem, conv_same
from tests.problems.strategies import DRAWN

MANY = settings(max_examples=12 * settings.default.max_examples)


def test_every_op_of_the_catalog_has_a_truth() -> None:
    assert {op for op, _ in rows()} == set(PROBLEMS) == set(DRAWN) == {problem.op for problem in NAMED}


@pytest.mark.parametrize("backend", sorted({backend for _, backend in HOST_ROWS}))
@pytest.mark.parametrize("problem", NAMED, ids=identity)
def test_named_problems(problem: Problem, backend: str) -> None:
    check(problem, backend, seed=1)


@pytest.mark.parametrize("backend", [backend for op, backend in HOST_ROWS if op == "conv"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("products", "zeros"), [(1, 0), (RUN, 0), (RUN, 1), (RUN + 1, 0), (3 * RUN, 0)])
def test_runs_that_sum_to_minus_zero_are_added_to_zero(
    products: int, zeros: int, dtype: np.dtype[Any], backend: str
) -> None:
    # Each product is negative and too small for any number but -0.
    smallest = np.finfo(dtype).smallest_subnormal
    x, weights = np.full((1, 6, 6, products), smallest), np.full((1, 1, products, 1), -smallest)
    if zeros:
        # Between the first and the last product of a run are some of +0, which may be left out.
        x[..., zeros : RUN - 1], weights[:, :, zeros : RUN - 1] = 0, smallest
    (out,) = solve(ConvProblem("-0", x, weights, conv_same(1, 6, 6, products, 1, 1, 1)), backend).values()
    assert out.tobytes() == bytes(out.nbytes)


@pytest.mark.parametrize(("op", "backend"), HOST_ROWS)
@MANY
@given(data=st.data(), seed=st.integers(0, 999))
def test_drawn_problems(op: str, backend: str, data: Any, seed: int) -> None:
    check(data.draw(DRAWN[op]), backend, seed)
