"""The price of the bits: convolutions by the contract, and by the same kernel without it; checked, then timed in turn.

    uv run --group bench benchmarks/bench_price.py [--shapes benchmarks/shapes/resnet_v2_50_224.txt] [--threads 2]

By the contract a sum is made of runs of 64 products, whose sums are added up in order. Without it a sum is one chain of
all products, which stays in registers; the tiles, the memory's layout and the epilogue are the same. Both compute all
products inside the image. What other algorithms would gain, as Winograd's, is not in this figure.

"Price" is the time by the contract divided by that without it, less 1. The layers run by themselves over and over, and
the last row is a whole network. One thread is timed by its own processor time, so that other programs matter less.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

import refnet
from benchmarks.common import (
    ROOT,
    add_output_options,
    alternate,
    lively,
    machine,
    relative_error,
    summary,
    write_result,
)
from benchmarks.layers import Layer, checked_launch, read_layers, repeats_of
from refnet_kernels import jit
from refnet_kernels.conv.cpu import KERNEL
from refnet_kernels.conv.cpu import Row as ConvRow
from refnet_kernels.cpu.kernel import helper
from refnet_kernels.cpu.memory import integers, prefetch, size_of
from refnet_kernels.cpu.team import Launch, Program
from refnet_kernels.cpu.tile import load_rows, move_rows, multiply_add, zero_tile
from refnet_kernels.target import ROWS, WIDTH_BYTES
from tests.support.arrays import random_images

#: The relative error of a kernel that is right. One of another function is orders of magnitude away.
LARGEST_ERROR = 1e-5
NETWORK = "resnet_v2_50"
#: The name that the copy of the kernel's module gets.
COPY = "benchmarks._without_contract"


def _without_contract() -> int:
    """The address of the convolution's kernel with other sums. It is compiled by each process."""
    spec = importlib.util.find_spec(KERNEL[0])
    assert spec is not None
    assert spec.loader is not None
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    copy._sum_products = _one_chain(copy)  # type: ignore[attr-defined]
    sys.modules[COPY] = copy
    return jit._load(jit._compile(COPY, KERNEL[1], "float32"))


def _one_chain(kernel: ModuleType) -> Any:
    """In place of ``_sum_products``: a tile's sums without runs."""
    taps_at, length_at = kernel.TAPS, kernel.LENGTH

    @helper
    def sum_products(
        step: Any, taps: Any, tap_rows: Any, weights: Any, turn: Any, ahead: Any, scratch: Any, close: Any, element: Any
    ) -> Any:
        which = integers(step[taps_at])
        address, distance = ahead
        s = zero_tile(close, element)
        for tap in range(taps[0], taps[1]):
            pixels = load_rows(tap_rows + which[tap] * ROWS * 8, close)
            at = weights + which[tap] * step[length_at] * WIDTH_BYTES
            for _ in range(step[length_at] // turn):
                for k in range(turn):
                    s = multiply_add(s, pixels, k, at + k * WIDTH_BYTES)
                    if k % 2 == 0:
                        prefetch(address)
                        address += distance
                pixels = move_rows(pixels, turn * size_of(element))
                at += turn * WIDTH_BYTES
        return s

    return sum_products


def _dense(launch: Launch) -> Launch:
    """The launch that computes all products."""
    assert isinstance(launch.row, ConvRow)
    return launch._replace(row=launch.row._replace(most_nonzero=-1 if launch.row.most_nonzero else 0))


def _price(times: dict[str, list[float]]) -> dict[str, Any]:
    """The times of both, and the price by the minima and by the medians."""
    ms, free = summary(times["contract"]), summary(times["free"])
    return {"ms": ms, "without": free, "price": {kind: ms[kind] / free[kind] - 1 for kind in ("min", "median")}}


def _measure(layer: Layer, without: int, threads: int, rounds: int) -> dict[str, Any]:
    """The row of a layer; the program ends if a kernel is wrong."""
    launch, arrays, found = checked_launch(layer)
    launch = _dense(launch)
    launches = {"contract": launch, "free": launch._replace(kernel=without)}
    for name, each in launches.items():
        Program([each], threads).run()
        for output in found.keys() & arrays.keys():
            error = relative_error(arrays[output], found[output])
            if error > (0 if name == "contract" else LARGEST_ERROR):
                sys.exit(f"The {name} kernel's {output} is off by {error:.1e}, so nothing is timed: {layer.line}")
    repeats = repeats_of(launch, threads)
    runs = {name: Program([each] * repeats, threads).run for name, each in launches.items()}
    times = alternate(runs, rounds, clock=_clock(threads))
    row = _price({name: [value / repeats for value in values] for name, values in times.items()})
    return {"times": layer.times, "flop": layer.flop, **row}


def _measure_network(size: int, without: int, threads: int, rounds: int) -> dict[str, Any]:
    """The row of the whole network."""
    images = random_images(1, size, size, 3)
    weights = lively(refnet.random_weights(NETWORK, seed=0))
    executors = {name: refnet.Engine(weights, threads=threads, zeros=False).prepared(images.shape) for name in
                 ("contract", "free")}  # fmt: skip
    free = executors["free"]
    launches = [e._replace(kernel=without) if isinstance(e.row, ConvRow) else e for e in free._program._launches]
    free._program = Program(launches, threads)
    (right,), (other,) = (executor.run(images)[0] for executor in executors.values())
    error = relative_error(other, right)
    if not 0 < error <= LARGEST_ERROR:
        sys.exit(f"The logits of the network without the contract are off by {error:.1e}, so nothing is timed.")
    runs = {name: lambda e=executor: e.run(images) for name, executor in executors.items()}
    alternate(runs, 3)
    return {"error": error, **_price(alternate(runs, rounds, clock=_clock(threads)))}


def _clock(threads: int) -> Any:
    return time.thread_time if threads == 1 else time.perf_counter


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=Path, default=ROOT / "benchmarks" / "shapes" / f"{NETWORK}_224.txt")
    parser.add_argument("--size", type=int, default=224, help=f"height and width of the images of {NETWORK}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    add_output_options(parser)
    options = parser.parse_args()
    for option in ("size", "threads", "rounds"):
        if getattr(options, option) < 1:
            parser.error(f"--{option} is {getattr(options, option)}; it is 1 or more.")
    try:
        options.layers = [layer for layer in read_layers(options.shapes) if layer.op == "conv"]
    except (OSError, ValueError) as error:
        parser.error(f"{options.shapes} cannot be read: {error}")
    if options.quick:
        options.rounds, options.size = 2, 64
        options.layers = sorted(options.layers, key=lambda layer: layer.flop)[:1]
    if not options.layers:
        parser.error(f"{options.shapes} has no convolution.")
    return options


def _table(rows: dict[str, dict[str, Any]]) -> Table:
    table = Table()
    table.add_column("layer")
    for column in ("times", "ms", "without the contract", "price by minima", "by medians"):
        table.add_column(column, justify="right")
    for name, row in rows.items():
        cells = [str(row.get("times", "")), f"{row['ms']['min']:.4f}", f"{row['without']['min']:.4f}"]
        table.add_row(name, *cells, f"{row['price']['min']:+.1%}", f"{row['price']['median']:+.1%}")
    return table


def main() -> None:
    options = _arguments()
    result: dict[str, Any] = {
        "benchmark": "price",
        "case": {"shapes": options.shapes.stem, "size": options.size, "threads": options.threads},
        "rounds": options.rounds,
        "machine": machine(),
    }
    without = _without_contract()
    layers = track(options.layers, "layers", console=Console(stderr=True), transient=True)
    rows = {layer.name: _measure(layer, without, options.threads, options.rounds) for layer in layers}
    kinds = ("min", "median")
    both = {k: {kind: sum(r["times"] * r[k][kind] for r in rows.values()) for kind in kinds} for k in ("ms", "without")}
    price = {kind: both["ms"][kind] / both["without"][kind] - 1 for kind in kinds}
    rows["all convolutions"] = {**both, "price": price}
    rows[NETWORK] = _measure_network(options.size, without, options.threads, options.rounds)
    result["rows"] = rows
    Console(width=130).print(_table(rows))
    print(f"logits without the contract: relative L2 distance {rows[NETWORK]['error']:.1e}")
    write_result(options, result)


if __name__ == "__main__":
    main()
