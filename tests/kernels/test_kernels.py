"""Every kernel of the catalog gives the bits of its definition."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import refnet_kernels.conv.cpu as conv_cpu
from refnet_kernels.catalog import Kernel, select
from refnet_kernels.contract import BINARY32, ConvGeometry, Flags, GroupNormGeometry, Target
from refnet_kernels.conv.tuning import GROUPS, ITEM_TILES_MOST, Tuning, forced
from refnet_kernels.cpu.team import Program
from refnet_kernels.group_norm.cpu import LEAST_BYTES, MOST_CHANNELS, item_channels
from refnet_kernels.target import WIDTH_BYTES
from tests.problems import DTYPES, HOST_ROWS, NAMED, Problem, identity
from tests.problems.conv import conv_problem, conv_same, edges
from tests.problems.strategies import DRAWN
from tests.support.arrays import Arrays, assert_same_bits
from tests.support.tunings import EXTREMES

COMPILED = [row for row in HOST_ROWS if row[1] != "reference"]
THREADS = [1, 2, 3, 8]
MANY = settings(max_examples=6 * settings.default.max_examples)
TUNINGS = st.builds(
    Tuning,
    most_nonzero=st.integers(1, 1000),
    group_panels=st.sampled_from(GROUPS),
    fewest_pixels=st.integers(1, 100),
    item_tiles=st.integers(1, ITEM_TILES_MOST),
    tile_cost=st.floats(0, 100),
    group_cost=st.floats(0, 100),
    item_cost=st.floats(0, 100),
)
#: Numbers before and after each array; not a multiple of a vector, so that nothing is aligned by chance.
GUARD = 67
POISON = -1.2345e30
#: Bytes on either side of each thread's scratch memory, and what they hold.
SCRATCH_GUARD, SCRATCH_POISON = 512, 0xA7


def assert_launch_gives(expected: Arrays, problem: Problem, kernel: Kernel, threads: int) -> None:
    """Run a kernel's launch over guarded memory; whatever it leaves in the guards or in its inputs is an error.

    Its scratch memory is guarded, too.
    """
    arrays = {name: array for name, array in problem.inputs().items() if array is not None}
    shapes = {name: array.shape for name, array in (arrays | expected).items()}
    dtype = problem.x.dtype
    memory = {name: np.full(2 * GUARD + int(np.prod(shape)), POISON, dtype) for name, shape in shapes.items()}
    inner = {name: memory[name][GUARD:-GUARD].reshape(shape) for name, shape in shapes.items()}
    for name, array in arrays.items():
        inner[name][...] = array
    launch = problem.launch(kernel, {name: view.ctypes.data for name, view in inner.items()})
    program = Program([launch], threads)
    # A program rounds the memory up; here it ends where the kernel said.
    scratches = [np.full(launch.scratch + 3 * SCRATCH_GUARD, SCRATCH_POISON, np.uint8) for _ in range(threads)]
    starts = [SCRATCH_GUARD + -scratch.ctypes.data % 64 for scratch in scratches]
    program._scratches[:] = [scratch.ctypes.data + start for scratch, start in zip(scratches, starts, strict=True)]
    program.run()
    for scratch, start in zip(scratches, starts, strict=True):
        assert (scratch[:start] == SCRATCH_POISON).all(), "scratch: written before its beginning"
        assert (scratch[start + launch.scratch :] == SCRATCH_POISON).all(), "scratch: written past its end"
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
    addresses = dict.fromkeys(("x", "out", "weights", "shortcut", "mean", "scale", "beta"), 0)
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
    monkeypatch.setattr(conv_cpu, "_item_of", lambda *_: (1, 1))
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
    _, _, parts, *_ = problem.launch(select("conv", "cpu"), dict.fromkeys(("x", "weights", "out"), 0)).kept
    taps = 1 if np.isfinite(weight) else 9
    first, stop, _ = parts[0]
    assert stop - first == taps
    found = problem.call(select("conv", "cpu"))
    assert_same_bits(found, problem.defined())
    assert np.isnan(found["out"][..., 6]).all() == (not np.isfinite(weight))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("pixels", [31, 32, 100])
@pytest.mark.parametrize(("out", "group"), [(1, 0), (2, 1), (3, 1), (4, 0), (4, 1), (7, 0), (7, 1)])
@pytest.mark.parametrize("zeros", [0.0, 0.1, 0.25, 0.6, 1.0])
def test_products_with_zeros_are_left_out_where_they_are_many(
    zeros: float, out: int, group: int, pixels: int, dtype: np.dtype[Any]
) -> None:
    width = WIDTH_BYTES // dtype.itemsize
    problem = conv_problem("zeros", conv_same(1, 1, pixels, 128, out * width, 1, 1), "normal", dtype=dtype)
    problem.x[np.random.default_rng(1).random(problem.x.shape) < zeros] = -0.0
    with forced(Tuning(most_nonzero=833, group_panels=GROUPS[group])):
        assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), threads=2)
    # An infinite weight by 0 is NaN, which shows who computed it.
    problem.x[..., 5] = 0
    problem.weights[0, 0, 5, 0] = np.inf
    found = problem.call(select("conv", "cpu"))
    assert_same_bits(found, problem.defined())
    assert np.isnan(found["out"][..., 0]).all()
    arrays = {name: array for name, array in (problem.inputs() | found).items() if array is not None}
    addresses = {name: array.ctypes.data for name, array in arrays.items()}

    def leaves_out(zeros: bool = True, **numbers: int) -> bool:
        with forced(Tuning(group_panels=GROUPS[group], **numbers)):
            target = Target(dtype, zeros=zeros)
            Program([select("conv", "cpu").launch(problem.geometry, addresses, Flags(finite=True), target)], 2).run()
        missing = np.isnan(found["out"][..., 0])
        assert missing.all() == missing.any()
        return not missing.any()

    assert leaves_out(most_nonzero=833, fewest_pixels=32) == (zeros > 1 / 6 and pixels >= 32)
    assert leaves_out(most_nonzero=500, fewest_pixels=31) == (zeros > 1 / 2)
    assert leaves_out(most_nonzero=1000, fewest_pixels=100) == (pixels >= 100)
    assert not leaves_out(zeros=False, most_nonzero=1000)


@pytest.mark.parametrize("numbers", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_numbers_of_the_machine_change_a_bit(numbers: Tuning, dtype: np.dtype[Any]) -> None:
    problem = conv_problem("taps", conv_same(2, 7, 8, 64, 75, 3, 1), "zeros and ones", "shortcut,preact", dtype=dtype)
    with forced(numbers):
        assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), threads=3)


@MANY
@given(problem=DRAWN["conv"], numbers=TUNINGS)
def test_how_a_convolution_is_divided_leaves_no_trace(problem: Problem, numbers: Tuning) -> None:
    with forced(numbers):
        assert_launch_gives(problem.defined(), problem, select("conv", "cpu"), threads=2)


@given(tiles=st.integers(0, 500), panels=st.integers(0, 70), threads=st.integers(1, 64))
def test_no_thread_is_without_work_where_there_is_enough(tiles: int, panels: int, threads: int) -> None:
    item_tiles, item_panels = conv_cpu._item_of(tiles, panels, threads, Tuning())
    assert 1 <= item_tiles <= ITEM_TILES_MOST
    assert item_panels >= 1
    items = -(-tiles // item_tiles) * -(-panels // item_panels)
    assert items >= min(threads, tiles * panels) / 2


@given(
    groups=st.integers(1, 70), each=st.integers(1, 70), side=st.integers(1, 120), batch=st.integers(0, 9),
    threads=st.integers(1, 64),
)  # fmt: skip
def test_an_item_of_a_group_norm_has_whole_groups(groups: int, each: int, side: int, batch: int, threads: int) -> None:
    g = GroupNormGeometry(batch, side, side, groups * each, groups, 1e-5)
    channels = item_channels(g, Target(BINARY32, threads))
    least = -(-LEAST_BYTES // (4 * each)) * each
    assert channels % each == 0
    assert 0 < channels < MOST_CHANNELS + least
    # No thread is without work where there is enough.
    assert batch * -(-g.channels // channels) >= threads / 2 or channels == min(least, g.channels) or batch == 0
