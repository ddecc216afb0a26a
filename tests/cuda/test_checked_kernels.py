"""The PTX of every CUDA kernel, run on the CPU, gives the bits of its definition, and breaks no rule on the way."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refnet_kernels.catalog import rows, select
from refnet_kernels.conv import cuda as conv_cuda
from refnet_kernels.conv.cuda_kernel import conv_kernel
from refnet_kernels.conv.cuda_tile import TILES, Tile
from tests.cuda.checked_device import CheckedDevice, use
from tests.problems import NAMED, Problem, in_binary32
from tests.problems.conv import conv_problem, conv_same
from tests.problems.strategies import DRAWN
from tests.support.arrays import assert_same_bits

OPS = [op for op, backend in rows() if backend == "cuda"]
#: Multiprocessors and compute capability: an A100's; and an H100's, but of one multiprocessor, on which other tiles are
#: the fastest.
DEVICES = [(108, (8, 0)), (1, (9, 0))]


@pytest.fixture(params=DEVICES, ids=str)
def device(request: pytest.FixtureRequest, built: Path, monkeypatch: pytest.MonkeyPatch) -> CheckedDevice:
    processors, cc = request.param
    device = CheckedDevice(built, processors=processors, cc=cc)
    use(device, monkeypatch)
    return device


@pytest.mark.parametrize("problem", [*filter(in_binary32, NAMED)], ids=lambda p: f"{p.op}-{p.name}")
def test_named_problems(problem: Problem, device: CheckedDevice) -> None:
    assert_same_bits(problem.call(select(problem.op, "cuda")), problem.defined())


@pytest.mark.parametrize("op", OPS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much])
@given(data=st.data())
def test_drawn_problems(op: str, device: CheckedDevice, data: st.DataObject) -> None:
    problem = data.draw(DRAWN[op].filter(in_binary32))
    assert_same_bits(problem.call(select(op, "cuda")), problem.defined())


@pytest.mark.parametrize("epilogue", ["", "bias,norm,relu,shortcut,preact", "norm,preact only"])
@pytest.mark.parametrize("tile", TILES, ids=lambda tile: tile.name)
def test_every_tile_of_a_convolution(tile: Tile, epilogue: str, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Some tiles, none of them whole at the end; the output in vectors and in numbers.
    channels = 8 if tile.vectors else 7
    device = CheckedDevice(built)
    use(device, monkeypatch)
    monkeypatch.setattr(conv_cuda, "TILES", (tile,))
    for out_channels in (129, 132):
        g = conv_same(1, 9, 8, channels, out_channels, 3, 1)
        problem = conv_problem("a tile", g, "rarely special", epilogue)
        assert_same_bits(problem.call(select("conv", "cuda")), problem.defined())
    assert device.launched == {conv_kernel(tile)}


@pytest.mark.parametrize("products", [64, 68, 128, 132, 196, 580])
@pytest.mark.parametrize("tile", [tile for tile in TILES if tile.teams > 1], ids=lambda tile: tile.name)
def test_runs_of_teams(tile: Tile, products: int, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Up to ten runs, of which some teams have one less, or a part of one less.
    use(CheckedDevice(built), monkeypatch)
    monkeypatch.setattr(conv_cuda, "TILES", (tile,))
    problem = conv_problem("runs", conv_same(1, 3, 3, products, 8, 1, 1), "rarely special", "bias")
    assert_same_bits(problem.call(select("conv", "cuda")), problem.defined())
