"""The time of each layer of a network, and of a convolution of one's own.

Before anything is timed, the outputs are compared, bit by bit, with those of one CPU thread, and of a convolution some
also with the NumPy definition. The times come from complete runs, between whose steps the clock is read: each layer has
the inputs and the caches that it has in the network.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from refnet.benchmark.limits import Peak, copy_speeds
from refnet.benchmark.work import bytes_of, flop_of, name_of, products_inside
from refnet.engine import Engine
from refnet.errors import RefnetError
from refnet.graph.fuse import make_plan
from refnet.graph.graph import Graph
from refnet.graph.plan import Plan, Step
from refnet.resources import check_room, for_images
from refnet.run.compiled import CompiledExecutor
from refnet.run.constants import Constants
from refnet.run.devices import Device, device_named
from refnet.weights.weights import Weights
from refnet_kernels.catalog import OPS, select
from refnet_kernels.contract import BINARY32, ConvGeometry, Float32Array, FloatArray
from refnet_kernels.system.float_mode import contract_mode

#: Inputs of at most so many channels are images. In networks these lie in a frame of zeros.
IMAGE_CHANNELS = 4
#: How many products the NumPy definition computes for a comparison: some tenths of a second.
_DEFINED_PRODUCTS = 10_000_000
#: Output channels that are compared with the definition.
_DEFINED_CHANNELS = 16


class Row(NamedTuple):
    """A layer.

    Attributes
    ----------
    name : str
    operation : str
        For instance "conv 3x3/2".
    shape : tuple of int
        Of the output.
    flop, bytes : int
        See `refnet.benchmark.work`.
    zeros : float or None
        The share of zeros in the input of a convolution, in a network that of the first image.
    ms : list of float
        One per round.
    """

    name: str
    operation: str
    shape: tuple[int, ...]
    flop: int
    bytes: int
    zeros: float | None
    ms: list[float]

    @property
    def least(self) -> float:
        """The shortest time."""
        return min(self.ms)

    @property
    def median(self) -> float:
        """The median of the times."""
        return statistics.median(self.ms)

    @property
    def gflops(self) -> float:
        """GFLOP/s of the shortest time."""
        return self.flop / self.least / 1e6

    @property
    def gb_per_s(self) -> float:
        """GB/s of the shortest time."""
        return self.bytes / self.least / 1e6


class Measured(NamedTuple):
    """Layers, and the limits of the machine, measured in turn with them.

    Attributes
    ----------
    rows : list of Row
    peak_gflops : float or None
        Of multiply-adds in registers. None for a GPU, of which it is not measured; then there are no speeds of copies.
    copies : dict of str to float
        GB/s of copies, by the memory that holds them.
    """

    rows: list[Row]
    peak_gflops: float | None
    copies: dict[str, float]

    def percent_of_peak(self, row: Row) -> float | None:
        """A layer's speed beside the peak. Products with zeros count as done, so it can be more than 100."""
        return None if self.peak_gflops is None else 100 * row.gflops / self.peak_gflops


def measure_network(
    engine: Engine, weights: Weights, images: Float32Array, threads: int | None, rounds: Iterable[int]
) -> Measured:
    """Time each step of a network.

    Parameters
    ----------
    engine : Engine
        On a CPU or a CUDA device; its logits are right.
    weights : Weights
        Those of the engine.
    images : float32 array [N, H, W, C]
    threads : int or None
        None: the device has none.
    rounds : iterable of int
        One run per item.
    """
    net, _ = engine.trace(images.shape)
    plan = make_plan(net.graph, [net])
    executor = engine.prepared(images.shape)
    assert isinstance(executor, CompiledExecutor)
    shares = _zeros(engine, weights, images[:1], threads)
    scope = engine.architecture.scope
    rows = [_row(step, plan, weights, shares.get(step.inputs[0]), scope) for step in plan.steps]
    return _timed(rows, executor, images, threads, rounds)


@for_images
@contract_mode()
def measure_conv(
    g: ConvGeometry, zeros: float, device: Device, threads: int | None, rounds: Iterable[int], dense: bool = False
) -> Measured:
    """Check and time a convolution of random numbers.

    Parameters
    ----------
    g : ConvGeometry
    zeros : float
        The share of the inputs that are 0.
    device : Device
        A CPU or a CUDA device.
    threads : int or None
        None: the device has none.
    rounds : iterable of int
        One run per item.
    dense : bool
        Whether the CPU computes the products with zeros, too.

    Raises
    ------
    InputError
        There is no memory for it.
    RefnetError
        The kernel gives other bits than one CPU thread, or than the definition.
    """
    # Input and outputs lie in the arena, too, and in copies; the weights are packed; the definition pads an image.
    each = 12 * (g.height * g.width * g.channels + g.out_height * g.out_width * g.out_channels)
    reach = [size + (kernel - 1) * g.rate for size, kernel in ((g.height, g.kernel_height), (g.width, g.kernel_width))]
    once = 8 * g.products * g.out_channels + 4 * math.prod(reach) * g.channels
    check_room(each, f"The convolution {name_of(g)}", g.batch, lambda images: images * each + once)
    drawn = np.random.default_rng(0)
    x = drawn.standard_normal((g.batch, g.height, g.width, g.channels), np.float32)
    x[drawn.random(x.shape, np.float32) < zeros] = 0
    shape = (g.kernel_height, g.kernel_width, g.channels, g.out_channels)
    weights = drawn.standard_normal(shape, np.float32) * np.float32(g.products**-0.5)
    plan = _conv_plan(g, weights)
    constants = Constants({"weights": weights}, owned=False)
    executor = device.executor(plan, constants, threads or 1, BINARY32, zeros=not dense)
    assert isinstance(executor, CompiledExecutor)
    found = executor.run(x)[0][-1]
    _check_conv(g, x, weights, plan, found)
    row = _row(plan.steps[0], plan, {"weights": weights}, _share_of_zeros(x), "")._replace(name=name_of(g))
    return _timed([row], executor, x, threads, rounds)


def _conv_plan(g: ConvGeometry, weights: Float32Array) -> Plan:
    graph = Graph({"weights": weights})
    images = graph.placeholder((g.batch, g.height, g.width, g.channels))
    size = (g.kernel_height, g.kernel_width)
    net = graph.conv(images, g.out_channels, size, g.stride, g.rate, same=False)
    # An input that is an output too gets no frame.
    return make_plan(graph, [net] if g.channels <= IMAGE_CHANNELS else [images, net])


def _check_conv(g: ConvGeometry, x: Float32Array, weights: Float32Array, plan: Plan, found: Float32Array) -> None:
    """Compare with one thread; and some rows and channels of the last image with the definition."""
    single = device_named("cpu").executor(plan, Constants({"weights": weights}, owned=False), 1, BINARY32)
    if single.run(x)[0][-1].tobytes() != found.tobytes():
        raise RefnetError("One CPU thread gives other bits, so nothing is timed. Please report this.")
    channels = np.unique(np.linspace(0, g.out_channels - 1, _DEFINED_CHANNELS).astype(np.int64))
    rows = max(1, min(g.out_height, _DEFINED_PRODUCTS // (g.out_width * g.products * len(channels))))
    part = g._replace(batch=1, out_height=rows, out_channels=len(channels))
    defined = select("conv", "reference").call(x[-1:], np.ascontiguousarray(weights[..., channels]), part, None)
    if defined.tobytes() != np.ascontiguousarray(found[-1:, :rows, :, channels]).tobytes():
        raise RefnetError("The definition gives other bits, so nothing is timed. Please report this.")


def _zeros(engine: Engine, weights: Weights, image: Float32Array, threads: int | None) -> dict[int, float]:
    """The share of zeros in what each convolution of a network reads, by the number of that value."""
    net, _ = engine.trace(image.shape)
    read = {t.inputs[0].index: t.inputs[0] for t in net.graph.tensors if t.op == "conv"}
    plan, constants = make_plan(net.graph, list(read.values())), Constants(weights, owned=False)
    values, _ = device_named(engine.options.device).executor(plan, constants, threads or 1, BINARY32).run(image)
    return {index: _share_of_zeros(value) for index, value in zip(read, values, strict=True)}


def share_of_zeros(engine: Engine, weights: Weights, image: Float32Array, threads: int | None) -> float:
    """The share of the products inside the image, in all convolutions of a network, whose input is 0.

    Parameters
    ----------
    engine : Engine
    weights : Weights
        Those of the engine.
    image : float32 array [1, H, W, C]
    threads : int or None
        None: the device has none.
    """
    net, _ = engine.trace(image.shape)
    convs = [(t.inputs[0].index, t.geometry) for t in net.graph.tensors if isinstance(t.geometry, ConvGeometry)]
    shares = _zeros(engine, weights, image, threads)
    counts = [(products_inside(geometry), shares[read]) for read, geometry in convs]
    return sum(count * share for count, share in counts) / max(1, sum(count for count, _ in counts))


def _share_of_zeros(values: FloatArray) -> float:
    return (values.size - np.count_nonzero(values)) / max(1, values.size)


def _row(step: Step, plan: Plan, variables: Mapping[str, Float32Array], zeros: float | None, scope: str) -> Row:
    *scopes, _ = next(iter(step.variables.values()), "").removeprefix(f"{scope}/").split("/")
    return Row(
        "/".join(scopes) or step.op,
        OPS[step.op].word(step.geometry),
        plan.shapes[step.writes[-1]],
        flop_of(step.op, step.geometry),
        bytes_of(step, plan, variables),
        zeros if step.op == "conv" else None,
        [],
    )


def _timed(
    rows: list[Row], executor: CompiledExecutor, images: Float32Array, threads: int | None, rounds: Iterable[int]
) -> Measured:
    run = executor.timer(images)
    run()
    peak = None if threads is None else Peak(threads)
    for _ in rounds:
        for row, milliseconds in zip(rows, run(), strict=True):
            row.ms.append(milliseconds)
        if peak is not None:
            peak.run()
    if peak is None or threads is None:
        return Measured(rows, None, {})
    return Measured(rows, peak.settled(), copy_speeds(threads))
