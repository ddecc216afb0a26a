"""Every kernel of the catalog gives the bits of its definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import (
    DRAWN,
    DTYPES,
    HOST_ROWS,
    NAMED,
    Arrays,
    Problem,
    assert_same_bits,
    conv_problem,
    conv_same,
    edges,
    identity,
)

import refnet_kernels.conv.cpu as conv_cpu
from refnet_kernels.catalog import Kernel, select
from refnet_kernels.contract import ConvGeometry
from refnet_kernels.team import Program

COMPILED = [row for row in HOST_ROWS if row[1] != "reference"]
THREADS = [1, 2, 3, 8]
MANY = settings(max_examples=6 * settings.default.max_examples)
#: Numbers before and after each array; not a multiple of a vector, so that nothing is aligned by chance.
GUARD = 67
POISON = -1.2345e30


def assert_launch_gives(expected: Arrays, problem: Problem, kernel: Kernel, threads: int) -> None:
    """Run a kernel's launch over guarded memory; whatever it leaves in the guards or in its inputs is an error."""
    arrays = {name: array for name, array in problem.inputs().items() if array is not None}
    shapes = {name: array.shape for name, array in (arrays | expected).items()}
    dtype = problem.x.dtype
    memory = {name: np.full(2 * GUARD + int(np.prod(shape)), POISON, dtype) for name, shape in shapes.items()}
    inner = {name: memory[name][GUARD:-GUARD].reshape(shape) for name, shape in shapes.items()}
    for name, array in arrays.items():
        inner[name][...] = array
    launch = problem.launch(kernel, {name: view.ctypes.data for name, view in inner.items()})
    Program([launch], threads).run()
    for name, whole in memory.items():
        assert (whole[:GUARD] == dtype.type(POISON)).all(), f"{name}: written before its beginning"
        assert (whole[-GUARD:] == dtype.type(POISON)).all(), f"{name}: written past its end"
    assert_same_bits({name: inner[name] for name in arrays}, arrays)
    assert_same_bits({name: view for name, view in inner.items() if name not in arrays}, expected)


@pytest.mark.parametrize(("op", "backend"), COMPILED)
@MANY
@given(data=st.data())
def test_launch_gives_the_bits_of_the_definition_and_touches_nothing_else(
    op: str, backend: str, data: st.DataObject
) -> None:
    problem = data.draw(DRAWN[op])
    threads = data.draw(st.sampled_from(THREADS))
    assert_launch_gives(problem.defined(), problem, select(op, backend), threads)


@pytest.mark.parametrize(("op", "backend"), COMPILED)
@MANY
@given(data=st.data())
def test_call_gives_the_bits_of_the_definition(op: str, backend: str, data: st.DataObject) -> None:
    problem = data.draw(DRAWN[op])
    assert_same_bits(problem.call(select(op, backend)), problem.defined())


@pytest.mark.parametrize("backend", sorted({backend for _, backend in COMPILED}))
@pytest.mark.parametrize("problem", [*NAMED, *edges(DTYPES[0]), *edges(DTYPES[1])], ids=identity)
def test_named_problems(problem: Problem, backend: str) -> None:
    expected = problem.defined()
    for threads in THREADS:
        assert_launch_gives(expected, problem, select(problem.op, backend), threads)
    assert_same_bits(problem.call(select(problem.op, backend)), expected)


def test_each_op_has_a_problem_of_several_items() -> None:
    addresses = dict.fromkeys(("x", "out", "weights", "zeros", "shortcut", "mean", "scale", "beta"), 0)
    shared = {p.op for p in NAMED if p.launch(select(p.op, "cpu"), addresses).items > 1}
    assert shared == {op for op, _ in COMPILED}


EPILOGUES = [
    ",".join(filter(None, parts))
    for parts in itertools.product(
        ["", "bias"], ["", "norm"], ["", "relu"], ["", "shortcut", "shortcut,sum relu"], ["", "preact", "preact only"]
    )
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("epilogue", EPILOGUES)
def test_every_epilogue_of_a_convolution(epilogue: str, dtype: np.dtype[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    # Several tiles and panels, none of them whole at the end.
    problem = conv_problem(epilogue, conv_same(2, 5, 5, 7, 75, 3, 1), "rarely special", epilogue, dtype=dtype)
    expected = problem.defined()
    assert_same_bits(problem.call(select("conv", "cpu")), expected)
    # One tile and one panel an item.
    monkeypatch.setattr(conv_cpu, "ITEM_PRODUCTS", 1)
    monkeypatch.setattr(conv_cpu, "ITEM_WEIGHT_BYTES", 1)
    assert_launch_gives(expected, problem, select("conv", "cpu"), threads=3)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", ["normal", "rarely special", "tiny", "zeros and ones"])
@pytest.mark.parametrize(
    ("size", "rate", "stride"), [(1, 1, 1), (7, 1, 1), (8, 1, 2), (9, 2, 1), (11, 4, 1), (3, 5, 1)]
)
def test_taps_outside_the_image(size: int, rate: int, stride: int, kind: str, dtype: np.dtype[Any]) -> None:
    out_size = -(-size // stride)
    g = ConvGeometry(2, size, size + 1, 64, out_size, out_size, 35, 3, 3, stride, rate, rate, rate)
    problem = conv_problem("taps outside", g, kind, "norm,relu,preact", dtype=dtype)
    assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), threads=2)


@pytest.mark.parametrize("weight", [1.0, np.inf, np.nan])
def test_products_outside_the_image_are_left_out_unless_a_weight_is_not_finite(weight: float) -> None:
    problem = conv_problem("a pixel", conv_same(1, 1, 1, 64, 8, 3, 1))
    problem.weights[0, 0, 5, 6] = weight
    *_, parts, _, _ = problem.launch(select("conv", "cpu"), dict.fromkeys(("x", "zeros", "weights", "out"), 0)).kept
    taps = 1 if np.isfinite(weight) else 9
    assert parts[-1, 2] == taps * 64 // 2  # pairs of products
    found = problem.call(select("conv", "cpu"))
    assert_same_bits(found, problem.defined())
    assert np.isnan(found["out"][..., 6]).all() == (not np.isfinite(weight))


@MANY
@given(problem=DRAWN["conv"], products=st.integers(1, 10**6), weight_bytes=st.integers(1, 10**5))
def test_how_a_convolution_is_divided_leaves_no_trace(problem: Problem, products: int, weight_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_cpu, "ITEM_PRODUCTS", products)
        patch.setattr(conv_cpu, "ITEM_WEIGHT_BYTES", weight_bytes)
        assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), threads=2)
