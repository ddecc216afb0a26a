"""What the CUDA kernels should take on an A100 and an H100, on paper: no device is needed, and nothing is measured.

    uv run --group test --group cuda-test benchmarks/paper_cuda.py [--shapes resnet_v2_50_224] [--batches 1 32 64]

For each convolution the kernel, the grid and the registers are what would be launched; the instructions of a step (of
`Tile.depth` products) are counted in the machine code that ptxas makes. A layer takes as long as the slowest of

- ``issue``: the steps' instructions; a multiprocessor starts four a clock, and as many FFMA as it has lanes for;
- ``latency``: a step cannot be shorter than the load that it waits for, from the second-level cache (where the image is
  read by numbers: a row of the table of taps, then the number that it points to), then shared memory and a barrier;
- ``L2``: every block reads its pixels and weights from the second-level cache;
- ``memory``: image, weights, shortcut and outputs, each once.

Blocks are dealt evenly, as many at a time as registers, shared memory and threads allow. What this leaves out (the
epilogue, conflicts of banks, the start of a block, clocks that sink under load) makes a device slower than the paper,
so that a figure here is a goal and no forecast.
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
from refnet_kernels.contract import ConvGeometry, PoolGeometry
from refnet_kernels.conv.cuda import launch
from refnet_kernels.conv.cuda_kernel import TILES, Tile, conv_kernel

# The reader of machine code stands beside the tests that hold kernels to their budgets.
sys.path.insert(0, str(ROOT / "tests" / "cuda"))

#: Of a plan whose steps are fused; the files list other ops as well, for the kernels' own benchmark.
OPS = ("conv", "max_pool", "subsample", "mean")


class Device(NamedTuple):
    """What a device is assumed to sustain: the clock and the bytes a second are 90% of the data sheet's.

    ``lanes`` is FFMA a clock and multiprocessor. The bytes a clock of the second-level cache are 60% of what NVIDIA
    states for the A100. Latencies are in clocks, of the size that published microbenchmarks have; ``launch_us`` is from
    one kernel to the next within a stream.
    """

    name: str
    cc: tuple[int, int]
    processors: int
    lanes: int
    gigahertz: float
    memory_terabytes: float
    l2_bytes_a_clock: int
    shared_bytes: int
    l2_latency: int = 270
    step_latency: int = 80
    launch_us: float = 2.0

    @property
    def teraflops(self) -> float:
        """Of FFMA."""
        return 2e-3 * self.processors * self.lanes * self.gigahertz


DEVICES = (
    Device("A100", (8, 0), 108, 64, 0.9 * 1.41, 0.9 * 2.04, 3072, 164 * 1024),
    Device("H100", (9, 0), 132, 128, 0.9 * 1.98, 0.9 * 3.35, 3072, 228 * 1024),
)


class Step(NamedTuple):
    """What `depth` products of a tile cost a thread, and how many blocks of it fit into a multiprocessor."""

    instructions: int
    ffma: int
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
def step_of(tile: Tile, vectors: bool, device: Device) -> Step:
    """Count a kernel's hot loop in its machine code."""
    from budget import cost
    from checked_device import text

    kernel = conv_kernel(tile, vectors)
    found = cost(text(kernel, device.cc), device.cc)
    # Registers are given out in eights.
    registers = -(-found.registers // 8) * 8 * kernel.threads
    # A block takes 1 KB of shared memory more than its own.
    blocks = min(65_536 // registers, device.shared_bytes // (found.shared_bytes + 1024), 2048 // kernel.threads)
    passes = found.hot["FFMA"] / (tile.rows * tile.columns * tile.depth)
    return Step(round(found.hot.total() / passes), round(found.hot["FFMA"] / passes), blocks)


def convolution(g: ConvGeometry, epilogue: str, device: Device) -> Bound:
    """The bounds of a convolution."""
    addresses = {"x": 1 << 20, "out": 1 << 20}
    made = launch(g, addresses, False, False, device.processors)
    tile, vectors = next((t, v) for t in TILES for v in (True, False) if conv_kernel(t, v) is made.kernel)
    step = step_of(tile, vectors, device)
    steps, warps = -(-g.products // tile.depth), tile.threads // 32
    clocks_us = 1e-3 / device.gigahertz

    def at_once(blocks: int) -> tuple[float, float]:
        """Clocks of a step of so many blocks on one multiprocessor: to issue them, and to wait."""
        # A block of fewer than four warps leaves schedulers idle, unless others share the multiprocessor.
        issue = max(blocks * warps / 4, 1) * step.instructions
        issue = max(issue, blocks * warps * 32 * step.ffma / device.lanes)
        loads = 1 if vectors else 2
        return issue, max(loads * device.l2_latency, step.instructions) + device.step_latency

    share = -(-made.grid // device.processors)
    rounds = [at_once(step.blocks)] * (share // step.blocks)
    rounds += [at_once(share % step.blocks)] if share % step.blocks else []
    read = made.grid * steps * tile.depth * (tile.pixels + tile.channels) * 4
    return Bound(
        f"{tile.pixels} x {tile.channels}",
        made.grid,
        {
            "issue": sum(issue for issue, _ in rounds) * steps * clocks_us,
            "latency": sum(wait for _, wait in rounds) * steps * clocks_us,
            "L2": read / device.l2_bytes_a_clock * clocks_us,
            "memory": conv_bytes(g, epilogue) / device.memory_terabytes * 1e-6,
        },
    )


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
    us = sum(layer.times * (max(bound.us.values()) + device.launch_us) for layer, bound in found)
    floor = sum(layer.times * layer.flop for layer in layers) * batch / device.teraflops * 1e-6
    waits = dict.fromkeys(("issue", "latency", "L2", "memory"), 0.0)
    for layer, bound in found:
        waits[bound.slowest] += layer.times * max(bound.us.values())
    shares = (f"{waits[name] / us:.0%}" for name in waits)
    return device.name, batch, f"{us / 1000:.2f}", f"{floor / 1000:.2f}", f"{1e6 * batch / us:.0f}", *shares


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
    columns = ("device", "batch", "ms", "floor ms", "images/s", "issue", "latency", "L2", "memory")
    print_table(columns, [total(layers, b, d) for d in DEVICES for b in options.batches], columns[1:])


if __name__ == "__main__":
    main()
