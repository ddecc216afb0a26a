"""The checker runs the samples right, and says of each of their mutants what is wrong with it."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.documentation import python_blocks
from tests.ptxcheck import Memory, PtxError, PtxKernel, samples
from tests.ptxcheck.compiling import mutant, ptx

Run = Callable[[types.ModuleType, Path], None]


def launch(
    module: types.ModuleType, name: str, built: Path, arrays: list[np.ndarray], grid: tuple[int, ...], threads: int,
    sizes: tuple[int, ...],
) -> np.ndarray:  # fmt: skip
    """Run a sample; the last array is its output."""
    kernel = PtxKernel(ptx(getattr(module, name), samples.SIGNATURES[name]), built, name)
    memory = Memory()
    lent = [memory.put(f"array {n}", a, writable=n == len(arrays) - 1) for n, a in enumerate(arrays)]
    kernel.launch(memory, grid, (threads,), (*lent, *sizes))
    return arrays[-1]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def poison(size: int) -> np.ndarray:
    return np.full(size, -1.2345e30, np.float32)


def copy(module: types.ModuleType, built: Path) -> None:
    x = normal(100)
    out = launch(module, "copy", built, [x, poison(100)], (4,), 32, (100,))
    np.testing.assert_array_equal(out, x)


def gemm(module: types.ModuleType, built: Path, rows: int = 75, columns: int = 132, depth: int = 36) -> None:
    a, b = normal(rows, depth), normal(depth, columns)
    grid = (-(-columns // samples.TILE), -(-rows // samples.TILE))
    arrays = [a.ravel(), b.ravel(), poison(rows * columns)]
    out = launch(module, "gemm", built, arrays, grid, 256, (rows, columns, depth))
    np.testing.assert_array_equal(out.reshape(rows, columns), samples.gemm_truth(a, b))


def weighted_sum(module: types.ModuleType, built: Path, rows: int = 45, columns: int = 84) -> None:
    x, weights = normal(rows, columns), normal(rows)
    arrays = [x.ravel(), weights, poison(columns)]
    out = launch(module, "weighted_sum", built, arrays, (-(-columns // samples.TILE),), samples.TILE, (rows, columns))
    np.testing.assert_array_equal(out, samples.gemm_truth(weights[None], x)[0])


@pytest.mark.parametrize("run", [copy, gemm, weighted_sum])
def test_samples_give_their_truth(run: Run, built: Path) -> None:
    run(samples, built)


class Mutant(NamedTuple):
    name: str
    run: Run
    old: str
    new: str
    kind: str


MUTANTS = [
    Mutant("unguarded ragged edge", copy, "if i < size:", "if True:", "bounds"),
    Mutant("off by one", copy, "if i < size:", "if i <= size:", "bounds"),
    # Numba takes -1 for the last.
    Mutant("off by one before the beginning", copy, "x[i]\n\n", "x[i - 1]\n\n", "bits"),
    Mutant("two threads write one place", copy, "out[i] = x[i]\n\n", "out[i // 2] = x[i]\n\n", "order"),
    Mutant("input overwritten", copy, "out[i] = x[i]\n\n", "x[i] = out[i]\n\n", "read only"),
    Mutant("no barrier before the tiles are read", gemm, "cuda.syncthreads()  # The tiles are whole.", "", "race"),
    Mutant("no barrier before they are overwritten", gemm, "cuda.syncthreads()  # The tiles may", "# The tiles may",
           "race"),
    Mutant("unguarded ragged rows", gemm, "first_row + row_a < rows and k + k_a < depth", "k + k_a < depth", "bounds"),
    Mutant("misaligned vector", gemm, "load4(tile_a, kk * TILE + row)", "load4(tile_a, kk * TILE + row + 1)",
           "alignment"),
    Mutant("undeclared alignment", gemm, "tile_b = cuda.shared.array(TILE_FLOATS, float32, alignment=16)",
           "tile_b = cuda.shared.array(TILE_FLOATS, float32)", "alignment"),
    Mutant("past a shared array", gemm, "load4(tile_b, kk * TILE + column)", "load4(tile_b, kk * TILE + column + 16)",
           "bounds"),
    Mutant("barrier that some threads skip", gemm, "cuda.syncthreads()  # The tiles may",
           "if row < 32:\n            cuda.syncthreads()  # The tiles may", "barrier"),
    Mutant("part of a tile never written", gemm, "tile_b[k_b * TILE + column + i] = values[i]",
           "tile_b[k_b * TILE + column] = values[i]", "uninitialised"),
    Mutant("swapped operands", gemm, "cuda.fma(left[i], right[j]", "cuda.fma(left[j], right[i]", "bits"),
    Mutant("lost fma", gemm, "cuda.fma(left[i], right[j], sums[i, j])",
           "libdevice.fadd_rn(libdevice.fmul_rn(left[i], right[j]), sums[i, j])", "bits"),
    Mutant("sum in another order", gemm, "for kk in range(DEPTH):", "for kk in range(DEPTH - 1, -1, -1):", "bits"),
    Mutant("no wait_group", weighted_sum, "            wait_for_all_but_one()\n", "", "in flight"),
    Mutant("wait_group for a stage too few", weighted_sum, "            wait_for_all_but_one()\n",
           "            wait_for_all_but_two()\n", "in flight"),
    Mutant("no commit_group", weighted_sum, "        commit_group()\n", "", "in flight"),
    Mutant("no barrier after wait_group", weighted_sum, "cuda.syncthreads()  # The stage is there.", "", "race"),
    Mutant("no barrier before the stage is filled again", weighted_sum, "cuda.syncthreads()  # The stage may",
           "# The stage may", "in flight"),
    Mutant("swapped stages", weighted_sum, "stages[((stage % 2)", "stages[((following % 2)", "in flight"),
    Mutant("unguarded cp.async", weighted_sum, "inside = row < rows and column < columns", "inside = column < columns",
           "bounds"),
    Mutant("misaligned cp.async", weighted_sum, "piece % 16 * 4", "piece % 16 * 4 + 2", "alignment"),
]  # fmt: skip


@pytest.mark.parametrize("case", MUTANTS, ids=lambda case: f"{case.run.__name__}: {case.name}")
def test_mutants_are_caught_by_the_check_that_is_meant_to(case: Mutant, built: Path) -> None:
    module = mutant(samples, case.old, case.new)
    if case.kind == "bits":
        with pytest.raises(AssertionError, match="Arrays are not equal"):
            case.run(module, built)
        return
    with pytest.raises(PtxError) as error:
        case.run(module, built)
    assert error.value.kind == case.kind, str(error.value)


def test_the_example_of_the_readme(capsys: pytest.CaptureFixture[str]) -> None:
    program = python_blocks("tests/ptxcheck/README.md")
    exec(compile(program, "README.md", "exec"), {"__name__": "readme"})
    assert re.match(r"bounds: .*thread \(4, 0, 0\) of block \(3, 0, 0\)", capsys.readouterr().out)
