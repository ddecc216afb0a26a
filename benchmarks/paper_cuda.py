"""What the CUDA kernels should take on an A100 and an H100, on paper: no device is needed, and nothing is measured.

    uv run --group test --group cuda-test benchmarks/paper_cuda.py [--shapes resnet_v2_50_224] [--batches 1 32 64]

For each convolution the kernel, the grid and the registers are what would be launched; the instructions of a step (of
`Tile.depth` products) are counted in the machine code that ptxas makes. A layer takes as long as the slowest of

- ``issue``: all instructions. Warps stay with one of a multiprocessor's four schedulers, which starts one instruction
  a clock, and as many FFMA as it has lanes for; the fullest scheduler counts;
- ``shared``: 128 bytes a clock into and out of shared memory. A read of four numbers takes a warp two clocks, as
  neighbours read the same (NVIDIA's forum on the pairs of threads that read one address: topic 77228);
- ``latency``: one block's steps one after the other. Copies may take `Tile.stages` - 1 steps to arrive, the row of the
  table of taps one step; a barrier and the first read of shared memory are waited for in each, and where two teams
  share a tile, once more a run. Before the first step two loads are waited for, one after the other;
- ``L2``: every block reads its pixels and weights from the second-level cache;
- ``memory``: image, weights, shortcut and outputs, each once.

Blocks are dealt evenly, as many at a time as registers, shared memory and threads allow. Instructions outside the hot
loop count once a block. What this leaves out (the epilogue's repetition, conflicts of banks in it, clocks that sink
under load, the way of the images from the host and back) makes a device slower than the paper, so that a figure here is
a goal and no forecast.

The launches of a network are the nodes of one graph, or come one by one in a stream; both totals are printed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import ROOT
from benchmarks.layers import Layer, read_layers
from refnet.cli.console import print_table
from refnet_kernels.contract import RUN, ConvGeometry, PoolGeometry
from refnet_kernels.conv.cuda import launch
from refnet_kernels.conv.cuda_kernel import TILES, Tile, conv_kernel

# The reader of machine code stands beside the tests that hold kernels to their budgets.
sys.path.insert(0, str(ROOT / "tests" / "cuda"))

#: Of a plan whose steps are fused; the files list other ops as well, for the kernels' own benchmark.
OPS = ("conv", "max_pool", "subsample", "mean")
#: What a layer may wait for.
WAITS = ("issue", "shared", "latency", "L2", "memory")


class Device(NamedTuple):
    """What a device is assumed to sustain: the clock and the bytes a second are 90% of the data sheet's.

    ``lanes`` is FFMA a clock and multiprocessor. The bytes a clock of the second-level cache are 60% of what NVIDIA
    states for the A100. Latencies are in clocks: ``copy_latency`` is that of memory and ``l2_latency`` that of the
    second-level cache, both rounded up from published microbenchmarks. Times from one kernel to the next are
    ``graph_us`` in a graph (measured elsewhere, on a laptop's GPU) and ``stream_us`` in a stream.
    """

    name: str
    cc: tuple[int, int]
    processors: int
    lanes: int
    gigahertz: float
    memory_terabytes: float
    l2_bytes_a_clock: int
    shared_bytes: int
    copy_latency: int = 500
    l2_latency: int = 280
    step_latency: int = 80
    graph_us: float = 0.6
    stream_us: float = 2.0

    @property
    def teraflops(self) -> float:
        """Of FFMA."""
        return 2e-3 * self.processors * self.lanes * self.gigahertz


DEVICES = (
    Device("A100", (8, 0), 108, 64, 0.9 * 1.41, 0.9 * 2.04, 3072, 164 * 1024),
    Device("H100", (9, 0), 132, 128, 0.9 * 1.98, 0.9 * 3.35, 3072, 228 * 1024),
)


class Step(NamedTuple):
    """What `depth` products of a tile cost a warp, and how many blocks of it fit into a multiprocessor.

    ``clocks`` are those of its scheduler, ``shared`` those of shared memory; ``outside`` are the instructions outside
    the loop.
    """

    clocks: float
    shared: int
    outside: int
    blocks: int


class Bound(NamedTuple):
    """How long a layer takes, in microseconds, by what it waits for."""

    tile: str
    grid: int
    us: dict[str, float]

    @property
    def slowest(self) -> str:
        """What it waits for the longest."""
        return max(self.us, key=lambda name: self.us[name])


@cache
def step_of(tile: Tile, device: Device) -> Step:
    """Count a kernel's hot loop in its machine code."""
    from budget import cost
    from checked_device import text

    kernel = conv_kernel(tile)
    found = cost(text(kernel, device.cc), device.cc)
    # Registers are given out in eights.
    registers = -(-found.registers // 8) * 8 * kernel.threads
    # A block takes 1 KB of shared memory more than its own.
    blocks = min(65_536 // registers, device.shared_bytes // (found.shared_bytes + 1024), 2048 // kernel.threads)
    # The compiler may have taken several steps as one, and has the sum of a run outside its steps.
    passes = found.hot["FFMA"] / (tile.rows * tile.columns * tile.depth)
    # One of two teams adds the sums of both, having read what the other has written.
    added = tile.rows * tile.columns * tile.depth / RUN
    handed = added * (tile.teams - 1)
    sums = added + handed + handed / 4
    clocks = max(found.hot.total() / passes, found.hot["FFMA"] / passes * 128 / device.lanes) + sums
    reads = sum(count for opcode, count in found.hot.items() if opcode == "LDS.128")
    vectors = sum(count for opcode, count in found.hot.items() if opcode.startswith("LDGSTS") and "128" in opcode)
    numbers = sum(count for opcode, count in found.hot.items() if opcode.startswith("LDGSTS") and "128" not in opcode)
    shared = round((2 * reads + 4 * vectors + numbers) / passes + handed)
    return Step(clocks, shared, found.opcodes.total() - found.hot.total(), blocks)


def convolution(g: ConvGeometry, epilogue: str, device: Device) -> Bound:
    """The bounds of a convolution."""
    addresses = {"x": 1 << 20, "out": 1 << 20}
    made = launch(g, addresses, False, False, device.processors)
    tile = next(tile for tile in TILES if conv_kernel(tile) is made.kernel)
    step = step_of(tile, device)
    steps, warps = tile.steps(g.products), tile.threads // 32
    alone = max(device.copy_latency / (tile.stages - 1), device.l2_latency, step.clocks) + device.step_latency
    # Between teams, a run ends with a barrier of its own.
    alone += (tile.teams - 1) * device.step_latency * tile.depth / RUN
    wait = steps * alone + step.outside + 2 * device.copy_latency

    def at_once(blocks: int) -> dict[str, float]:
        """Clocks of so many blocks on one multiprocessor."""
        fullest = -(-blocks * warps // 4)
        return {
            "issue": fullest * (steps * step.clocks + step.outside),
            "shared": blocks * warps * steps * step.shared,
            "latency": wait,
        }

    share = -(-made.grid // device.processors)
    rounds = [at_once(step.blocks)] * (share // step.blocks)
    rounds += [at_once(share % step.blocks)] if share % step.blocks else []
    clocks = {name: sum(clocks[name] for clocks in rounds) for name in rounds[0]}
    products = steps * tile.teams * tile.depth
    clocks["L2"] = made.grid * products * (tile.pixels + tile.channels) * 4 / device.l2_bytes_a_clock
    us = {name: 1e-3 * count / device.gigahertz for name, count in clocks.items()}
    us["memory"] = conv_bytes(g, epilogue) / device.memory_terabytes * 1e-6
    return Bound(f"{tile.pixels} x {tile.channels}", made.grid, us)


def conv_bytes(g: ConvGeometry, epilogue: str) -> int:
    """Bytes that a convolution reads and writes, each once."""
    parts = epilogue.split(",")
    outputs = 1 + ("shortcut" in parts) + ("preact" in parts)
    numbers = g.batch * g.height * g.width * g.channels + g.products * g.out_channels
    return 4 * (numbers + outputs * g.pixels * g.out_channels)


def other_bytes(layer: Layer) -> int:
    """Bytes that an image of another op reads and writes."""
    _, height, width, channels, *_ = layer.sizes
    image = 4 * height * width * channels
    if layer.op == "max_pool":
        p = PoolGeometry(*layer.sizes)
        return image + 4 * p.out_height * p.out_width * channels * (1 + ("preact" in layer.epilogue.split(",")))
    # What is left out is not read.
    return 2 * image // layer.sizes[-1] ** 2 if layer.op == "subsample" else image


def bounds(layer: Layer, batch: int, device: Device) -> Bound:
    """The bounds of a layer; other ops than convolutions wait for memory."""
    if layer.op == "conv":
        return convolution(ConvGeometry(*layer.sizes)._replace(batch=batch), layer.epilogue, device)
    return Bound("", 0, {"memory": other_bytes(layer) * batch / device.memory_terabytes * 1e-6})


def rows(layers: list[Layer], batch: int, device: Device) -> Iterator[tuple[object, ...]]:
    """A line a layer."""
    for layer in layers:
        bound = bounds(layer, batch, device)
        us = bound.us[bound.slowest]
        peak = f"{layer.flop * batch / us * 1e-6 / device.teraflops:.0%}"
        yield layer.name, layer.times, bound.tile, bound.grid or "", f"{us:.1f}", bound.slowest, peak


def total(layers: list[Layer], batch: int, device: Device) -> tuple[object, ...]:
    """A line for the whole network."""
    found = [(layer, bounds(layer, batch, device)) for layer in layers]
    launches = sum(layer.times for layer in layers)
    us = sum(layer.times * max(bound.us.values()) for layer, bound in found)
    floor = sum(layer.times * layer.flop for layer in layers) * batch / device.teraflops * 1e-6
    waits = dict.fromkeys(WAITS, 0.0)
    for layer, bound in found:
        waits[bound.slowest] += layer.times * max(bound.us.values())
    graph, stream = us + launches * device.graph_us, us + launches * device.stream_us
    shares = (f"{waits[name] / us:.0%}" for name in WAITS)
    times = (f"{value / 1000:.2f}" for value in (graph, stream, floor))
    return device.name, batch, *times, f"{1e6 * batch / graph:.0f}", *shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="resnet_v2_50_224", help="a file in benchmarks/shapes, for batch 1")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32, 64])
    parser.add_argument("--layers", action="store_true", help="also a table of the layers, for each device and batch")
    options = parser.parse_args()
    layers = [
        layer for layer in read_layers(Path(ROOT, "benchmarks", "shapes", f"{options.shapes}.txt")) if layer.op in OPS
    ]
    if options.layers:
        for device in DEVICES:
            for batch in options.batches:
                print(f"\n{device.name}, batch {batch}: {device.teraflops:.1f} TFLOP/s")
                columns = ("layer", "times", "tile", "blocks", "us", "bound by", "of peak")
                print_table(columns, rows(layers, batch, device), ("times", "blocks", "us", "of peak"))
        print()
    columns = ("device", "batch", "ms, graph", "ms, stream", "floor ms", "images/s", *WAITS)
    print_table(columns, [total(layers, b, d) for d in DEVICES for b in options.batches], columns[1:])


if __name__ == "__main__":
    main()
