"""The paper's arithmetic: no layer is faster than the device, and the bytes are those that a hand counts."""

from __future__ import annotations

import sys

# Skips the file where numba-cuda is missing.
import compiling  # noqa: F401
import pytest
from budget import tool

from benchmarks import paper_cuda
from benchmarks.common import ROOT
from benchmarks.layers import Layer, read_layers

CONVS = [layer for layer in read_layers(ROOT / "benchmarks/shapes/resnet_v2_50_224.txt") if layer.op == "conv"]


@pytest.mark.parametrize("device", paper_cuda.DEVICES, ids=lambda device: device.name)
def test_no_layer_is_faster_than_the_device(device: paper_cuda.Device) -> None:
    tool("ptxas")
    for layer in CONVS:
        for batch in (1, 32):
            bound = paper_cuda.bounds(layer, batch, device)
            assert max(bound.us.values()) >= layer.flop * batch / device.teraflops * 1e-6
            # Two loads, then steps of up to 64 products, one after the other, each of which waits for a load.
            steps = -(-paper_cuda.ConvGeometry(*layer.sizes).products // 64)
            clocks = 2 * device.copy_latency + steps * device.l2_latency
            assert bound.us["latency"] * device.gigahertz * 1e3 >= clocks


def test_bytes_of_a_layer() -> None:
    # An image of 3 x 5 x 2 numbers, 2 x 7 weights, and 3 x 5 x 7 numbers: out, shortcut and preact.
    layer = Layer.parse("conv 1 3 5 2 3 5 7 1 1 1 1 0 0 bias,shortcut,preact 1")
    assert paper_cuda.conv_bytes(paper_cuda.ConvGeometry(*layer.sizes), layer.epilogue) == 4 * (30 + 14 + 3 * 105)
    assert paper_cuda.other_bytes(Layer.parse("subsample 1 4 6 8 2 1")) == 2 * 4 * 2 * 3 * 8
    assert paper_cuda.other_bytes(Layer.parse("max_pool 1 4 4 8 2 2 3 2 0 0 0 preact 1")) == 4 * 8 * (16 + 2 * 4)
    assert paper_cuda.other_bytes(Layer.parse("mean 1 7 7 10 1")) == 4 * 490


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tool("ptxas")
    monkeypatch.setattr(sys, "argv", ["paper_cuda.py", "--batches", "1", "--layers"])
    paper_cuda.main()
    out = capsys.readouterr().out
    assert "conv 7x7 3 > 64, 112x112 /2 bias" in out
    assert [line.split()[:2] for line in out.splitlines()[-2:]] == [["A100", "1"], ["H100", "1"]]
