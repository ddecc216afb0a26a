"""Every access of every kernel lies in the arrays that it was given; and its bits are those of the definition."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

from refnet_kernels.catalog import select
from tests.kernels import emulated
from tests.kernels.emulated import Fault, OutOfBoundsError
from tests.problems import DTYPES, HOST_ROWS, NAMED, Problem, identity
from tests.problems.conv import conv_problem, conv_same
from tests.support.arrays import assert_same_bits

OPS = [op for op, backend in HOST_ROWS if backend == "cpu"]
#: Numbers of a problem that plain Python does in a second; the larger ones are left to ``--slow``, and these.
MOST = 5_000
LONG = ("root block's 7 x 7", "root block on a padded image", "many zeros")


def run(problem: Problem, fault: Fault | None = None) -> None:
    """Hold the emulated kernel to its arrays, and to the definition."""
    kernel, dtype = select(problem.op, "cpu"), problem.x.dtype
    importlib.import_module(f"{kernel.launch.__module__}_kernel")
    expected = problem.defined()
    read = {name: np.array(array) for name, array in problem.inputs().items() if array is not None}
    written = {name: np.full(array.shape, np.nan, dtype) for name, array in expected.items()}
    addresses = {name: array.ctypes.data for name, array in (read | written).items()}
    emulated.run(kernel, problem.op, problem.launch(kernel, addresses), read, written, dtype, fault)
    assert_same_bits(written, expected)


def case(problem: Problem) -> Any:
    marks = [pytest.mark.slow] if problem.x.size > MOST or problem.name in LONG else []
    return pytest.param(problem, id=identity(problem), marks=marks)


@pytest.mark.parametrize("problem", list(map(case, NAMED)))
def test_no_access_is_out_of_bounds(problem: Problem) -> None:
    run(problem)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_some_of_the_tiles_and_panels_of_an_item_without_zeros(dtype: np.dtype[Any]) -> None:
    run(conv_problem("ragged", conv_same(1, 3, 5, 7, 35, 3, 1), epilogue="bias,norm,shortcut,preact", dtype=dtype))


#: One number, row, product or tile too many. Where the piece of text is gone, choose another of the same kind.
FAULTS = {
    "conv": [
        Fault("copy_columns", "range(columns)", "range(columns + 1)"),
        Fault("_sum_products", "turns = step[LENGTH] // turn", "turns = step[LENGTH] // turn + 1"),
        Fault("_sum_nonzero", "range(step[TAP_COUNT])", "range(step[TAP_COUNT] + 1)"),
        Fault("_find_nonzero", "range(runs)", "range(runs + 1)"),
        Fault("conv_kernel", "range(group, last + 1)", "range(group, last + 2)"),
    ],
    "batch_norm": [Fault("batch_norm_kernel", "range(channels)", "range(channels + 1)")],
    "batch_statistics": [Fault("batch_statistics_kernel", "range(pixels)", "range(pixels + 1)")],
    "group_norm": [
        Fault("_sum_tile", "range(width)", "range(width + 1)"),
        Fault("_sum", "range(i, channels)", "range(i, channels + 1)"),
        Fault("_normalize", "width * width, channels)", "width * width, channels + 1)"),
        Fault("group_norm_kernel", "range(many, pixels)", "range(many, pixels + 1)"),
    ],
    "subsample": [Fault("subsample_kernel", "range(channels)", "range(channels + 1)")],
    "residual": [Fault("residual_kernel", "range(count)", "range(-1, count)")],
    "max_pool": [Fault("max_pool_kernel", "range(1, step[TAP_COUNT])", "range(1, step[TAP_COUNT] + 1)")],
    "avg_pool": [Fault("avg_pool_kernel", "range(channels)", "range(channels + 1)")],
    "mean": [Fault("mean_kernel", "range(pixels)", "range(pixels + 1)")],
    "softmax": [Fault("softmax_kernel", "range(classes)", "range(classes + 1)")],
}


def test_every_kernel_has_a_fault() -> None:
    assert list(FAULTS) == OPS


@pytest.mark.parametrize(
    ("op", "fault"), [pytest.param(op, f, id=f"{op}-{f.function}") for op, faults in FAULTS.items() for f in faults]
)
def test_a_fault_is_found(op: str, fault: Fault) -> None:
    """By an access, not by the bits: a number that is read too many times may change none."""
    problems = [problem for problem in NAMED if problem.op == op and problem.x.size and problem.name not in LONG]
    found = []
    for problem in sorted(problems, key=lambda problem: problem.x.size):
        try:
            run(problem, fault)
        except OutOfBoundsError:
            return
        except AssertionError:
            found.append(problem.name)
    pytest.fail(f"no access out of bounds; other bits in {found}")
