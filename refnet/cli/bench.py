"""``refnet bench``: how fast a network runs on this machine."""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np

from refnet.cli import bench_layers, bench_tune
from refnet.cli.console import print_json, print_table, track
from refnet.cli.options import (
    add_dense_option,
    add_engine_options,
    add_json_option,
    add_weights_options,
    check_engine_options,
    count,
    load,
    make_engine,
    offer,
)
from refnet.engine import Engine
from refnet.errors import RefnetError
from refnet.network.architecture import Architecture
from refnet.network.networks import NETWORKS
from refnet.run.devices import check_threads, device_named
from refnet.weights.initial import random_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import ConvGeometry, Float32Array

EPILOG = """\
examples:
  refnet bench
  refnet bench resnet_v2_101 --batch 8 --threads 2
  refnet bench mine.ckpt --size 321 --json
  refnet bench --batch 32 --device cuda
  refnet bench resnet_v2_50 --layers --roofline roofline.png
  refnet bench --tune
  refnet bench --conv 28x28x128,3x3,256 --stride 2 --batch 8 --zeros 0.5

Before anything is timed, the logits are compared, bit by bit, with those of one CPU thread. On a GPU the time includes
the transfer of images and logits. The CPU kernels leave out products with zeros, about half of them after a ReLU, so
their time depends on the weights and on the images; "zeros" is the share of them that the first image brings.

--tune measures again what share of zeros is worth it on this machine, and keeps that for all later processes.

--layers and --conv read the clock between the steps of complete runs, and measure the machine's limits beside them:
multiply-adds in registers, and copies of memory. Products with zeros count as done. "GB/s" counts each operand once.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    network = parser.add_argument(
        "network", nargs="?",
        help="resnet_v2_50 (default), _101, _152 or _200 with random weights, or a weights file",
    )  # fmt: skip
    offer(network, NETWORKS, or_file=True)
    parser.add_argument("--size", type=count, metavar="N", help="height and width (default: 224)")
    parser.add_argument("--batch", type=count, default=1, metavar="N", help="images per forward (default: 1)")
    parser.add_argument("--rounds", type=count, default=20, metavar="N", help="forwards to time (default: 20)")
    bench_layers.add_arguments(parser)
    bench_tune.add_arguments(parser)
    add_engine_options(parser)
    add_dense_option(parser)
    add_weights_options(parser)
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Time the network and print the result; 0."""
    check_engine_options(arguments)
    device = device_named(arguments.device)
    bench_layers.check_arguments(arguments, device)
    threads = check_threads(arguments.threads) if device.backend.has_threads else None
    if arguments.tune:
        bench_tune.tune(arguments.json)
        return 0
    if arguments.conv is not None:
        bench_layers.time_conv(arguments, device, threads)
        return 0
    arguments.network = "resnet_v2_50" if arguments.network is None else arguments.network
    arguments.size = arguments.size or 224
    known = arguments.network in NETWORKS
    weights = random_weights(arguments.network) if known else load(arguments.network, arguments)
    architecture = weights.architecture
    shape = (arguments.batch, arguments.size, arguments.size, architecture.channels)
    engine = make_engine(weights, arguments.device, threads, arguments.dense)
    # First, as it refuses what there is no memory for.
    started = time.perf_counter()
    engine.prepared(shape)
    planned = time.perf_counter() - started
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    started = time.perf_counter()
    logits = engine(images)
    first_call = planned + time.perf_counter() - started
    if threads != 1:
        _check(weights, images, logits)
    if arguments.layers:
        bench_layers.time_layers(arguments, engine, weights, images, threads)
        return 0
    seconds = [_time(engine, images) for _ in track(range(arguments.rounds), "timing")]
    zeros = (
        bench_layers.layers().share_of_zeros(engine, weights, images[:1], threads) if device.backend.is_timed else None
    )
    _print(arguments, threads, seconds, first_call, products(architecture, shape), zeros)
    return 0


def _check(weights: Weights, images: Float32Array, logits: Float32Array) -> None:
    if Engine(weights, threads=1)(images).tobytes() != logits.tobytes():
        raise RefnetError("One CPU thread gives other bits, so nothing is timed. Please report this.")


def _time(engine: Engine, images: Float32Array) -> float:
    started = time.perf_counter()
    engine(images)
    return time.perf_counter() - started


def products(architecture: Architecture, shape: tuple[int, ...]) -> int:
    """Products in all convolutions of a network; each is a multiplication and an addition."""
    net, _ = architecture.trace({}, shape)
    geometries = [tensor.geometry for tensor in net.graph.tensors if isinstance(tensor.geometry, ConvGeometry)]
    return sum(g.pixels * g.products * g.out_channels for g in geometries)


def _print(
    arguments: argparse.Namespace,
    threads: int | None,
    seconds: list[float],
    first_call: float,
    products: int,
    zeros: float | None,
) -> None:
    best, median = min(seconds), statistics.median(seconds)
    result: dict[str, Any] = {
        "network": arguments.network,
        "size": arguments.size,
        "batch": arguments.batch,
        "device": arguments.device,
        "threads": threads,
        "rounds": arguments.rounds,
        "min_ms": best * 1e3,
        "median_ms": median * 1e3,
        "p50_ms": median * 1e3,
        "p99_ms": float(np.percentile(seconds, 99)) * 1e3,
        "images_per_second": arguments.batch / median,
        "gflop_per_second": 2 * products / best / 1e9,
        "first_call_s": first_call,
        "zeros": zeros,
    }
    if arguments.json:
        print_json(result)
    else:
        known = {name: value for name, value in result.items() if value is not None}
        rows = [(name, f"{value:,.2f}" if isinstance(value, float) else value) for name, value in known.items()]
        print_table(["figure", "value"], rows, numeric=["value"])
