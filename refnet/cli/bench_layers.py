"""``refnet bench --layers`` and ``--conv``: each layer of a network, or a convolution of one's own."""

from __future__ import annotations

import argparse
import re
from types import ModuleType
from typing import Any

from refnet.checks import MOST, shown
from refnet.cli.console import announce_compilation, print_json, print_table, track
from refnet.cli.options import count, share
from refnet.engine import Engine
from refnet.errors import ConfigError
from refnet.figures import check_plot
from refnet.run.devices import Device
from refnet.weights.weights import Weights
from refnet_kernels.contract import ConvGeometry, Float32Array
from refnet_kernels.system.forks import once

_CONV = re.compile(r"(\d{1,19})x(\d{1,19})x(\d{1,19}),(\d{1,19})x(\d{1,19}),(\d{1,19})", re.ASCII)
#: What belongs to weights, and so not to a convolution of one's own; and what belongs to that alone.
_OF_NETWORKS = ("network", "size", "layers", "scope", "averages", "of_weights", "of_recipe")
_OF_CONV = ("stride", "rate", "zeros")


def conv(text: str) -> tuple[int, ...]:
    """Height, width and channels of the input, height and width of the kernel, output channels."""
    found = _CONV.fullmatch(text)
    numbers = tuple(map(int, found.groups())) if found else (0,)
    if not all(1 <= number <= MOST for number in numbers):
        raise argparse.ArgumentTypeError(
            f"{shown(text)} is not HEIGHTxWIDTHxCHANNELS,KHxKW,OUTPUTS in whole numbers of 1 or more, "
            f"up to {MOST:,}, such as 28x28x128,3x3,256"
        )
    return numbers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--layers", action="store_true", help="time each layer of the network")
    parser.add_argument(
        "--conv", type=conv, metavar="HxWxC,KHxKW,O",
        help="time a convolution of random numbers: 28x28x128,3x3,256 has images of 28 x 28 with 128 channels, a "
        "kernel of 3 x 3 and 256 outputs; its padding is conv2d_same's",
    )  # fmt: skip
    parser.add_argument("--stride", type=count, metavar="N", help="of --conv (default: 1)")
    parser.add_argument("--rate", type=count, metavar="N", help="of --conv (default: 1)")
    parser.add_argument(
        "--zeros", type=share, metavar="SHARE",
        help="the share of the inputs of --conv that are 0, as after a ReLU (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--roofline",
        metavar="FILE",
        help="draw the layers, or --conv, under the machine's limits (needs refnet[plots])",
    )


def check_arguments(arguments: argparse.Namespace, device: Device) -> None:
    """Refuse options that do not fit each other, and a picture that could not be written.

    Raises
    ------
    ConfigError
    """
    values = {name: getattr(arguments, name) for name in (*_OF_NETWORKS, *_OF_CONV)}
    given = {name for name, value in values.items() if value is not None and value is not False and value != []}
    given |= {"head"} if arguments.head != "from_weights" else set()
    wrong = given.intersection((*_OF_NETWORKS, "head") if arguments.conv else _OF_CONV)
    if wrong:
        options = {"network": "NETWORK", "of_weights": "--option", "of_recipe": "--recipe"}
        names = ", ".join(options.get(name, f"--{name}") for name in sorted(wrong))
        text = (
            "cannot be used with --conv, which times one convolution"
            if arguments.conv
            else "can only be used with --conv"
        )
        raise ConfigError(f"{names} {text}.", found=sorted(wrong))
    if arguments.tune:
        _check_tune(arguments, device, given)
    if not arguments.layers and not arguments.conv:
        if arguments.roofline is not None:
            raise ConfigError("--roofline can only be used with --layers or --conv.")
        return
    if not device.backend.is_timed:
        raise ConfigError("--layers and --conv time compiled kernels: use --device cpu or --device cuda.")
    if arguments.roofline is not None:
        if not device.backend.has_threads:
            raise ConfigError("--roofline needs the machine's limits, which are measured of the CPU alone.")
        check_plot(arguments.roofline)


def _check_tune(arguments: argparse.Namespace, device: Device, given: set[str]) -> None:
    """Refuse what ``--tune`` would leave aside."""
    others = {"--conv": arguments.conv, "--layers": arguments.layers, "--roofline": arguments.roofline}
    names = [name for name, value in others.items() if value]
    names += ["the network and its options"] * bool(given - {"layers", *_OF_CONV})
    if names:
        raise ConfigError(f"--tune times the machine's own trials: leave out {', '.join(names)}.", found=names)
    if not device.backend.leaves_out_zeros:
        raise ConfigError("--tune is for the CPU: only its convolutions leave out products with zeros.")


@once
def layers() -> ModuleType:
    """The module that times layers."""
    from refnet.benchmark import layers

    return layers


@once
def _roofline() -> ModuleType:
    from refnet.benchmark import plot

    return plot


def time_layers(
    arguments: argparse.Namespace, engine: Engine, weights: Weights, images: Float32Array, threads: int | None
) -> None:
    """Time each layer of a network and print the result."""
    rounds = track(range(arguments.rounds), "timing")
    measured = layers().measure_network(engine, weights, images, threads, rounds)
    about = {"network": arguments.network, "size": images.shape[1], "batch": images.shape[0]}
    _show(arguments, measured, about, threads)


def time_conv(arguments: argparse.Namespace, device: Device, threads: int | None) -> None:
    """Check and time a convolution of one's own, and print the result."""
    announce_compilation()
    height, width, channels, kernel_height, kernel_width, outputs = arguments.conv
    g = ConvGeometry.same(
        (arguments.batch, height, width, channels),
        (kernel_height, kernel_width, channels, outputs),
        arguments.stride or 1,
        arguments.rate or 1,
    )
    rounds = track(range(arguments.rounds), "timing")
    measured = layers().measure_conv(g, arguments.zeros or 0.0, device, threads, rounds, arguments.dense)
    about = {"conv": g._asdict(), "batch": arguments.batch}
    _show(arguments, measured, about, threads)


def _show(arguments: argparse.Namespace, measured: Any, about: dict[str, Any], threads: int | None) -> None:
    if arguments.roofline is not None:
        plot = _roofline()
        points = [plot.Point(_kind(row.operation), row.flop, row.bytes, row.gflops) for row in measured.rows]
        title = f"{about.get('network', measured.rows[0].name)}, batch {arguments.batch}, threads: {threads}"
        plot.save_roofline(points, measured.peak_gflops, measured.copies, title, arguments.roofline)
    if arguments.json:
        run = {"device": arguments.device, "threads": threads, "rounds": arguments.rounds}
        limits = {"peak_gflop_per_second": measured.peak_gflops, "copy_gb_per_second": measured.copies}
        print_json({**about, **run, **limits, "layers": [_as_object(measured, row) for row in measured.rows]})
    else:
        _print(measured)


def _kind(operation: str) -> str:
    """The op, and a convolution's window, without the stride."""
    return operation.partition("/")[0] if operation.startswith("conv") else operation.split()[0]


def _as_object(measured: Any, row: Any) -> dict[str, Any]:
    return {
        "layer": row.name,
        "operation": row.operation,
        "output": list(row.shape),
        "min_ms": row.least,
        "median_ms": row.median,
        "flop": row.flop,
        "bytes": row.bytes,
        "zeros": row.zeros,
        "gflop_per_second": row.gflops,
        "percent_of_peak": measured.percent_of_peak(row),
        "gb_per_second": row.gb_per_s,
    }


def _print(measured: Any) -> None:
    columns = ["layer", "operation", "output", "min ms", "median ms", "zeros", "GFLOP/s", "% of peak", "GB/s"]
    rows = []
    for row in measured.rows:
        zeros, percent = row.zeros, measured.percent_of_peak(row)
        rows.append(
            [
                row.name,
                row.operation,
                "x".join(map(str, row.shape)),
                f"{row.least:.4f}",
                f"{row.median:.4f}",
                "" if zeros is None else f"{zeros:.0%}",
                f"{row.gflops:.1f}" if row.flop else "",
                f"{percent:.0f}" if row.flop and percent is not None else "",
                f"{row.gb_per_s:.1f}",
            ]
        )
    print_table(columns, rows, numeric=columns[3:])
    if len(rows) > 1:
        total = sum(row.median for row in measured.rows)
        print(f"\nall layers: {total:.2f} ms, the sum of the medians")
    if measured.peak_gflops is not None:
        copies = ", ".join(f"{name} {speed:.1f} GB/s" for name, speed in measured.copies.items())
        print(f"FMA peak {measured.peak_gflops:.1f} GFLOP/s; copying: {copies}")
