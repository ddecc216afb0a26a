"""Mistakes in refnet's CUDA kernels, each of which the checker must catch by the check that is meant to."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import refnet_kernels
from refnet_kernels.catalog import select
from refnet_kernels.conv import cuda as conv_cuda
from refnet_kernels.conv import cuda_copies, cuda_kernel, cuda_sums
from refnet_kernels.gpu import intrinsics
from tests.cuda.checked_device import CheckedDevice, use
from tests.problems import NAMED, Problem, in_binary32
from tests.problems.conv import conv_problem, conv_same
from tests.ptxcheck import PtxError
from tests.ptxcheck.compiling import mutant
from tests.support.arrays import Arrays, assert_same_bits


class Mutant(NamedTuple):
    name: str
    file: str
    old: str
    new: str
    kind: str

    @property
    def op(self) -> str:
        return self.file.split("/")[0]


MUTANTS = [
    Mutant("no wait_group", "conv/cuda_kernel", "                wait()\n", "", "in flight"),
    Mutant("wait_group for a step too few", "conv/cuda_kernel", "wait_group(stages - 2)", "wait_group(stages - 1)",
           "in flight"),
    Mutant("no commit_group", "conv/cuda_kernel", "                commit_group()\n                s =",
           "                s =", "in flight"),
    Mutant("no barrier after wait_group", "conv/cuda_kernel", "cuda.syncthreads()\n                if done", "if done",
           "race"),
    Mutant("copies to the stage that is read", "conv/cuda_kernel", "copy_step(share, left, free,",
           "copy_step(share, left, current,", "in flight"),
    Mutant("a stage that there is not", "conv/cuda_kernel", "if current < last_buffer else",
           "if current <= last_buffer else", "bounds"),
    Mutant("no barrier before the tile is parked", "conv/cuda_sums", "syncthreads()\n        park(t", "park(t",
           "race"),
    Mutant("no barrier after it is parked", "conv/cuda_sums", "park(t, parked)\n        syncthreads()",
           "park(t, parked)", "race"),
    Mutant("barrier that some threads skip", "conv/cuda_sums", "syncthreads()\n        park(t",
           "if parked & 16:\n            syncthreads()\n        park(t", "barrier"),
    Mutant("taps outside the image are read", "conv/cuda_copies", "np.int64(offset) * 4, inside)",
           "np.int64(offset) * 4, True)", "bounds"),
    Mutant("pixels past the last are read", "conv/cuda_copies", "if pixel >= np.uint32(pixels):",
           "if pixel > np.uint32(pixels):", "bounds"),
    Mutant("pixels past the last are written", "conv/cuda_epilogue", "min(pixels - first_pixel, tile_pixels)",
           "tile_pixels", "bounds"),
    Mutant("rows set apart by no whole vector", "conv/cuda_tile", "self.depth + 4", "self.depth + 3", "alignment"),
    Mutant("vectors where numbers are not aligned", "conv/cuda_epilogue", "write4(out + offset, value, whole, count)",
           "write4(out + offset, value, 1, count)", "alignment"),
    Mutant("a buffer too few", "conv/cuda_tile", "max(self.team_bytes,", "max(self.team_bytes - self.buffer_bytes,",
           "bounds"),
    Mutant("runs of 128", "conv/cuda_kernel", "RUN // tile.depth", "2 * RUN // tile.depth", "bits"),
    Mutant("weights of another product", "conv/cuda_copies", "product * weight_rows) * PANEL", "product) * PANEL",
           "bits"),
    Mutant("taps of another step", "conv/cuda_kernel", "at, tap = copy_step(share, left, free",
           "at, _ = copy_step(share, left, free", "bits"),
    Mutant("numbers not read by all are overwritten", "softmax/cuda_kernel",
           "# All threads have read the shared numbers.\n        cuda.syncthreads()", "", "race"),
    Mutant("channels past the last", "mean/cuda_kernel", "if index >= np.uint32(outputs):",
           "if index > np.uint32(outputs):", "bounds"),
    Mutant("pixels past the last", "max_pool/cuda_kernel", "if pixel >= np.uint32(pixels):",
           "if pixel > np.uint32(pixels):", "bounds"),
    Mutant("pixels past the last", "avg_pool/cuda_kernel", "if pixel >= np.uint32(pixels):",
           "if pixel > np.uint32(pixels):", "bounds"),
    Mutant("windows cut off divide by all", "avg_pool/cuda_kernel", "if inside or zero_padding != 0:", "if True:",
           "bits"),
    Mutant("sum in binary32", "avg_pool/cuda_kernel", "total[0] + np.float64(values[0])",
           "np.float64(np.float32(total[0]) + values[0])", "bits"),
    Mutant("rows past the last", "group_norm/cuda_kernel", "top + line < height:", "top + line <= height:", "bounds"),
    Mutant("channels past the last", "group_norm/cuda_kernel", "if first + lane < channels and",
           "if first + lane <= channels and", "bounds"),
    Mutant("no barrier before the rows are read", "group_norm/cuda_kernel",
           "_store(line * lanes + lane, row)\n            syncthreads()", "_store(line * lanes + lane, row)", "race"),
    Mutant("rows not read by all are overwritten", "group_norm/cuda_kernel",
           "            syncthreads()\n        if line == 0:", "        if line == 0:", "race"),
    Mutant("no barrier before the channels are read", "group_norm/cuda_kernel",
           "_store(lane, channel)\n        syncthreads()", "_store(lane, channel)", "race"),
    Mutant("channels not read by all are overwritten", "group_norm/cuda_kernel",
           "        syncthreads()\n    return total", "    return total", "race"),
    Mutant("barrier that some threads skip", "group_norm/cuda_kernel",
           "        syncthreads()\n    return total",
           "        if line == 0:\n            syncthreads()\n    return total", "barrier"),
    Mutant("sum in binary32", "group_norm/cuda_kernel", "row += value", "row = np.float64(np.float32(row + value))",
           "bits"),
    Mutant("rows backwards", "group_norm/cuda_kernel", "_load(np.int32(i * lanes + lane))",
           "_load(np.int32((min(lines, height - top) - 1 - i) * lanes + lane))", "bits"),
    Mutant("another group's channels", "group_norm/cuda_kernel", "np.uint32(group_channels)) * group_channels",
           "np.uint32(group_channels)) * 0", "bits"),
    Mutant("no ReLU", "group_norm/cuda_kernel", "if relu != 0 else", "if relu > 1 else", "bits"),
    Mutant("NaN loses", "max_pool/cuda_kernel", "value > largest or value != value", "value > largest", "bits"),
    Mutant("no ReLU after the sum", "conv/cuda_epilogue", "if sum_relu != 0:", "if sum_relu > 1:", "bits"),
    Mutant("no ReLU after the sum", "residual/cuda_kernel", "if relu != 0:", "if relu > 1:", "bits"),
    Mutant("sum left out", "residual/cuda_kernel",
           "add4(read4(shortcut + offset, vector, left), read4(x + offset, vector, left))",
           "read4(x + offset, vector, left)", "bits"),
    Mutant("vectors where numbers are not aligned", "batch_norm/cuda_kernel", "read4(x + offset, whole, left)",
           "read4(x + offset, 1, left)", "alignment"),
    Mutant("pixels past the last", "subsample/cuda_kernel", "if pixel >= np.uint32(pixels):",
           "if pixel > np.uint32(pixels):", "bounds"),
]  # fmt: skip

TILE_MUTANTS = [
    Mutant("sum in another order", "gpu/intrinsics", "for k in range(t.depth):",
           "for k in (*range(0, t.depth - 4), *reversed(range(t.depth - 4, t.depth))):", "bits"),
    Mutant("lost fma", "gpu/intrinsics", "_fma(builder, left[i // t.columns][k % 4], right[i % t.columns], total)",
           "builder.fadd(_product(builder, left[i // t.columns][k % 4], right[i % t.columns]), total)", "bits"),
    Mutant("sum of two runs is fused", "gpu/intrinsics", "builder.fadd(x, y)", "_fma(builder, x, _FLOAT(1.0000001), y)",
           "bits"),
]  # fmt: skip

COPY_MUTANTS = [
    Mutant("zeros for too few bytes", "gpu/intrinsics", "_INT(count), _INT(0)", "_INT(count), _INT(4)", "bounds"),
    Mutant("zeros for too many bytes", "gpu/intrinsics", "_INT(count), _INT(0)", "_INT(count // 2), _INT(0)", "bits"),
]

TEAM_MUTANTS = [
    Mutant("no barrier before a team's sums are read", "conv/cuda_sums", "park(s, handed)\n        syncthreads()",
           "park(s, handed)", "race"),
    Mutant("sums of runs in another order", "conv/cuda_sums", "for team in range(teams):",
           "for team in range(teams - 1, -1, -1):", "bits"),
    Mutant("sums that begin with nothing", "conv/cuda_kernel", "        begin_runs(start, thread)\n", "",
           "uninitialised"),
    Mutant("a run of another team", "conv/cuda_copies", "(RUN * (teams - 1))", "(RUN * (teams - 2))", "bits"),
    Mutant("buffers of another team", "conv/cuda_copies", "start + team * team_bytes)", "start)", "race"),
    Mutant("another team's buffers are read", "conv/cuda_sums", "start + team * team_bytes)", "start)", "bits"),
    Mutant("no room for a team's sums", "conv/cuda_tile", "(self.teams + 1) * self.parked_bytes",
           "self.teams * self.parked_bytes", "bounds"),
    Mutant("weights past the last", "conv/cuda_copies", "teams == 1 or at < left)", "True)", "bounds"),
]  # fmt: skip

LOST_FMA = """

def _product(builder, a, b):
    function = get_or_insert_function(builder.module, ir.FunctionType(_FLOAT, [_FLOAT] * 2), "llvm.nvvm.mul.rn.f")
    return builder.call(function, [a, b])
"""


@pytest.fixture(autouse=True)
def device(built: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use(CheckedDevice(built), monkeypatch)
    cuda_kernel.conv_kernel.cache_clear()
    yield
    cuda_kernel.conv_kernel.cache_clear()


@cache
def named(op: str) -> list[tuple[Problem, Arrays]]:
    """The named problems of an op, with their solutions."""
    return [(problem, problem.defined()) for problem in NAMED if problem.op == op and in_binary32(problem)]


def caught(op: str, problems: list[tuple[Problem, Arrays]] | None = None) -> str:
    """What is said of an op's named problems, or of these, first: the kind of an error, or "bits"."""
    for problem, expected in problems or named(op):
        try:
            found = problem.call(select(op, "cuda"))
        except PtxError as error:
            return error.kind
        try:
            assert_same_bits(found, expected)
        except AssertionError:
            return "bits"
    return "nothing"


def install(case: Mutant, patch: pytest.MonkeyPatch) -> None:
    """Let all modules of an op use what is changed in one of them."""
    package = Path(refnet_kernels.__path__[0], case.op)
    modules = [import_module(f"refnet_kernels.{case.op}.{path.stem}") for path in package.glob("cuda*.py")]
    kernels = import_module(f"refnet_kernels.{case.file.replace('/', '.')}")
    changed = mutant(kernels, case.old, case.new)
    for module in modules:
        for name, value in list(vars(module).items()):
            if module is not kernels and name in vars(changed) and value is vars(kernels)[name]:
                patch.setattr(module, name, vars(changed)[name])


@pytest.mark.parametrize("case", MUTANTS, ids=lambda case: f"{case.op}: {case.name}")
def test_mutants_of_kernels(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    install(case, monkeypatch)
    if case.op == "conv":
        # Of vectors the tile whose machine code is the shortest, and that of numbers.
        monkeypatch.setattr(conv_cuda, "TILES", [tile for tile in conv_cuda.TILES if tile.teams == 1][1:])
    assert caught(case.op) == case.kind


@pytest.mark.parametrize("case", TEAM_MUTANTS, ids=lambda case: case.name)
def test_mutants_of_teams(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    install(case, monkeypatch)
    monkeypatch.setattr(conv_cuda, "TILES", [tile for tile in conv_cuda.TILES if tile.teams > 1])
    # Ten runs, the last one short: one or two more than teams. The last panel of weights is used.
    problem = conv_problem("teams", conv_same(1, 3, 3, 68, 128, 3, 1), "normal", "bias")
    assert caught(problem.op, [(problem, problem.defined())]) == case.kind


@pytest.mark.parametrize("case", TILE_MUTANTS, ids=lambda case: case.name)
def test_mutants_of_the_register_tile(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutant(intrinsics, case.old, case.new)
    exec(LOST_FMA, changed.__dict__)
    monkeypatch.setattr(cuda_sums, "register_tile", changed.register_tile)
    assert caught("conv") == case.kind


@pytest.mark.parametrize("case", COPY_MUTANTS, ids=lambda case: case.name)
def test_mutants_of_copies(case: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = mutant(intrinsics, case.old, case.new)
    for name in ("copy_shared", "copy_shared4"):
        monkeypatch.setattr(cuda_copies, name, getattr(changed, name))
    assert caught("conv") == case.kind
