"""Every CPU kernel of the catalog on the layers of a network: checked first, then timed in turn with the FMA peak.

    uv run --group bench benchmarks/bench_kernels.py [--shapes benchmarks/shapes/resnet_v2_50_224.txt] [--plot roof.png]

A layer runs by itself over and over, so that its operands are in the caches as far as they fit. "% of peak" divides the
layer's best speed by the best of a loop of FMAs in registers, which takes turns with all the layers. Products that the
kernel leaves out, as they have zeros, count as done, so with --zeros it can be more than 100. GB/s counts each operand
once.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.common import ROOT, add_output_options, alternate, machine, summary, write_result
from benchmarks.layers import Layer, checked_launch, read_layers, repeats_of
from benchmarks.plots import check_plot, save_kernels
from refnet.benchmark.limits import copy_speeds
from refnet_kernels.catalog import rows
from refnet_kernels.cpu.measure import FmaPeak
from refnet_kernels.cpu.team import Program


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", type=Path, default=ROOT / "benchmarks" / "shapes" / "resnet_v2_50_224.txt")
    parser.add_argument("--ops", nargs="+", choices=_ops(), help="by default all of the catalog")
    zeros = "the share of a convolution's inputs that are 0, as after a ReLU; images have none"
    parser.add_argument("--zeros", type=float, default=0.0, metavar="SHARE", help=zeros)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--plot", type=Path, help="where to write the figure with the roofline")
    add_output_options(parser)
    options = parser.parse_args()
    for option in ("threads", "rounds"):
        if getattr(options, option) < 1:
            parser.error(f"--{option} is {getattr(options, option)}; it is 1 or more.")
    if not 0 <= options.zeros <= 1:
        parser.error(f"--zeros is {options.zeros}; it is a share, from 0 to 1.")
    if options.record and options.ops:
        parser.error("--record keeps all ops of a file of shapes; leave out --ops.")
    if options.plot is not None:
        check_plot(parser, options.plot)
    try:
        options.layers = read_layers(options.shapes)
    except (OSError, ValueError) as error:
        parser.error(f"{options.shapes} cannot be read: {error}")
    options.layers = [layer for layer in options.layers if layer.op in (options.ops or _ops())]
    if options.quick:
        options.rounds = 2
        cheapest = {layer.op: layer for layer in sorted(options.layers, key=lambda layer: -layer.flop)}
        options.layers = list(cheapest.values())
    if not options.layers:
        parser.error(f"{options.shapes} has no layer of {', '.join(options.ops or _ops())}.")
    return options


def _ops() -> list[str]:
    return [op for op, backend in rows() if backend == "cpu"]


def _measure(layer: Layer, zeros: float, threads: int, rounds: int, peak: FmaPeak) -> dict[str, Any]:
    """The row of the result for a layer; the program ends if the kernel is wrong."""
    launch, arrays, _ = checked_launch(layer, zeros)
    repeats = repeats_of(launch, threads)
    times = alternate({"layer": Program([launch] * repeats, threads).run, "peak": peak.run}, rounds)
    ms = summary(value / repeats for value in times["layer"])
    # Of its input, subsampling reads what it writes.
    size = sum(array.nbytes for name, array in arrays.items() if name != "x" or layer.op != "subsample")
    size += arrays["out"].nbytes if layer.op == "subsample" else 0
    gflops, peak_gflops = layer.flop / ms["min"] / 1e6, peak.flop / min(times["peak"]) / 1e6
    return {
        "op": layer.op,
        "kernel": layer.kernel,
        "times": layer.times,
        "flop": layer.flop,
        "bytes": size,
        "ms": ms,
        "gflops": gflops,
        "peak_gflops": peak_gflops,
        "gb_per_s": size / ms["min"] / 1e6,
    }


def _table(results: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table()
    table.add_column("layer")
    for column in ("times", "min ms", "median ms", "GFLOP/s", "% of peak", "GB/s"):
        table.add_column(column, justify="right")
    for name, row in results.items():
        cells = [str(row["times"]), f"{row['ms']['min']:.4f}", f"{row['ms']['median']:.4f}"]
        cells += [f"{row['gflops']:.1f}", f"{row['percent_of_peak']:.0f}", f"{row['gb_per_s']:.1f}"]
        table.add_row(name, *cells)
    return table


def main() -> None:
    options = _arguments()
    about = machine()
    peak = FmaPeak(options.threads)
    peak.run()
    bandwidths = copy_speeds(options.threads, 2 if options.quick else 10)
    console = Console(width=130)
    layers = track(options.layers, "layers", console=Console(stderr=True), transient=True)
    results = {layer.name: _measure(layer, options.zeros, options.threads, options.rounds, peak) for layer in layers}
    best = max(row["peak_gflops"] for row in results.values())
    for row in results.values():
        row["percent_of_peak"] = 100 * row["gflops"] / best
    result = {
        "benchmark": "kernels",
        "case": {"shapes": options.shapes.stem, "threads": options.threads, "zeros": options.zeros},
        "rounds": options.rounds,
        "machine": about,
        "peak_gflops": best,
        "gb_per_s": bandwidths,
        "rows": results,
    }
    console.print(_table(results))
    convs = [row for row in results.values() if row["op"] == "conv"]
    if convs:
        total = sum(row["times"] * row["ms"]["min"] for row in convs)
        gflops = sum(row["times"] * row["flop"] for row in convs) / total / 1e6
        print(f"all convolutions: {total:.2f} ms, {gflops:.1f} GFLOP/s, {100 * gflops / best:.0f}% of the peak")
    roofs = ", ".join(f"{name} {value:.1f} GB/s" for name, value in bandwidths.items())
    print(f"FMA peak {best:.1f} GFLOP/s; copying: {roofs}")
    write_result(options, result)
    if options.plot is not None:
        save_kernels([result], options.plot)


if __name__ == "__main__":
    main()
