"""The layers of networks: text files under ``benchmarks/shapes``, and each line of them as a problem for a kernel.

A line holds an op, its integers, for some ops an epilogue (``-`` for none), and how often the network has it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet.benchmark.work import flop_of, name_of
from refnet.checks import MOST
from refnet_kernels.catalog import OPS, select
from refnet_kernels.contract import ConvGeometry, Geometry, ImageGeometry, Norm, PoolGeometry
from refnet_kernels.cpu.team import Launch, Program, aligned_zeros
from tests.problems.avg_pool import AvgPoolProblem
from tests.problems.base import Problem, norm, numbers
from tests.problems.batch_norm import BatchNormProblem
from tests.problems.batch_statistics import StatisticsProblem
from tests.problems.conv import ConvProblem, conv_problem
from tests.problems.group_norm import GroupNormProblem
from tests.problems.max_pool import MaxPoolProblem
from tests.problems.mean import MeanProblem
from tests.problems.residual import ResidualProblem
from tests.problems.softmax import SoftmaxProblem
from tests.problems.subsample import SubsampleProblem
from tests.slim.error_bound import Bounded, add, exact, normalize, relu, sums_of_products
from tests.support.arrays import Arrays

#: Seconds that a layer runs in one turn.
TURN = 0.01

#: Ops to which an image's height and width are all one.
_BY_PIXELS = ("batch_norm", "batch_statistics", "residual", "softmax")
#: What the columns between the op and the count hold: of the op's geometry, and for some an epilogue.
COLUMNS: dict[str, tuple[str, ...]] = {
    name: ("pixels", "channels") if name in _BY_PIXELS else tuple(f for f in op.geometry._fields if f != "epsilon")
    for name, op in OPS.items()
    if op.backends
}
COLUMNS |= {op: (*COLUMNS[op], "epilogue") for op in ("conv", "max_pool")}
#: What an epilogue can have.
EPILOGUES = ("bias", "norm", "relu", "shortcut", "sum_relu", "preact", "preact_only")
#: Columns that can be 0.
_FROM_0 = ("pad_top", "pad_left", "zero_padding")
#: What the head of each file says about its lines.
_MEANING = (
    "A line is a layer: its op, the op's columns as below, and how many times the network has it.",
    "pad_top, pad_left: zeros above and to the left of the image; those below and to the right follow from the output.",
    f"epilogue: what the kernel does with its sums before it stores them, of {','.join(EPILOGUES)}; - for nothing.",
)


def sizes_of(op: str, geometry: Geometry) -> tuple[int, ...]:
    """What a layer of an op with this geometry has in its columns."""
    return tuple(getattr(geometry, column) for column in COLUMNS[op] if column != "epilogue")


class Layer(NamedTuple):
    """A line of a shapes file."""

    op: str
    sizes: tuple[int, ...]
    epilogue: str
    times: int

    @property
    def line(self) -> str:
        """The layer's line in its file."""
        epilogue = [self.epilogue or "-"] if "epilogue" in COLUMNS[self.op] else []
        return " ".join([self.op, *map(str, self.sizes), *epilogue, str(self.times)])

    @classmethod
    def parse(cls, line: str) -> Layer:
        """The layer of a line.

        Raises
        ------
        ValueError
            The line does not have its op's columns, or one of them has a value that it cannot have: the message
            names the column.
        """
        op, *fields = line.split()
        if op not in COLUMNS:
            raise ValueError(f"column 1 (op): {op!r} is not one of {', '.join(COLUMNS)}.")
        columns = (*COLUMNS[op], "times")
        if len(fields) != len(columns):
            missing, wanted = columns[len(fields) :], f"{op} has the columns {' '.join(columns)}"
            what = f"column {len(fields) + 2} ({missing[0]}) is missing" if missing else "there are too many columns"
            raise ValueError(f"{what}: {wanted}.")
        values: list[Any] = [
            _value(column, text, number) for number, (column, text) in enumerate(zip(columns, fields, strict=True), 2)
        ]
        *sizes, times = values
        epilogue = sizes.pop() if "epilogue" in columns else ""
        return cls(op, tuple(sizes), epilogue, times)

    @property
    def name(self) -> str:
        """The layer's name in tables."""
        g = self.geometry
        text = name_of(g) if isinstance(g, ConvGeometry) else f"{self.op} {'x'.join(map(str, self.sizes))}"
        return f"{text} {self.epilogue}".rstrip()

    @property
    def geometry(self) -> Geometry:
        """The sizes as integers with names; of an op that looks at each number, only the shape."""
        kinds: dict[str, Any] = {"conv": ConvGeometry, "max_pool": PoolGeometry, "avg_pool": PoolGeometry}
        kind = kinds.get(self.op)
        return ImageGeometry.of(self.sizes[:4]) if kind is None else kind(*self.sizes)

    @property
    def kernel(self) -> str:
        """A convolution's window; nothing for other ops."""
        g = ConvGeometry(*self.sizes) if self.op == "conv" else None
        return "" if g is None else f"{g.kernel_height}x{g.kernel_width}"

    @property
    def flop(self) -> int:
        """Additions, multiplications and comparisons of the contract's definition, except those with zeros outside the
        image; softmax is not counted.
        """
        return flop_of(self.op, self.geometry)

    def problem(self, zeros: float = 0.0) -> Problem:
        """The layer with random numbers; a share of a convolution's inputs is 0, except for an image's 3 channels."""
        if self.op == "conv":
            g = ConvGeometry(*self.sizes)
            problem = conv_problem(self.name, g, epilogue=self.epilogue.replace("_", " "))
            if g.channels > 3:
                problem.x[np.random.default_rng(0).random(problem.x.shape) < zeros] = 0
            return problem
        make = {
            "max_pool": self._max_pool,
            "avg_pool": lambda x: AvgPoolProblem(self.name, x, PoolGeometry(*self.sizes)),
            "batch_norm": lambda x: BatchNormProblem(self.name, x, norm("normal", 1, x.shape[-1]), True),
            "batch_statistics": lambda x: StatisticsProblem(self.name, x, None, 1e-5),
            "group_norm": self._group_norm,
            "residual": lambda x: ResidualProblem(self.name, x, x[::-1].copy(), False),
            "subsample": lambda x: SubsampleProblem(self.name, x, self.sizes[-1]),
            "mean": lambda x: MeanProblem(self.name, x),
            "softmax": lambda x: SoftmaxProblem(self.name, x),
        }
        shape = self.sizes[:4] if len(self.sizes) > 2 else self.sizes
        return make[self.op](numbers("normal", 0, *shape))

    def _group_norm(self, x: np.ndarray) -> Problem:
        gamma, beta = (numbers("normal", seed, x.shape[-1]) for seed in (1, 2))
        return GroupNormProblem(self.name, x, gamma, beta, self.sizes[-1], 1e-5, True)

    def _max_pool(self, x: np.ndarray) -> Problem:
        next_norm = norm("normal", 1, x.shape[-1]) if "preact" in self.epilogue else None
        return MaxPoolProblem(self.name, x, PoolGeometry(*self.sizes), next_norm)


def _value(column: str, text: str, number: int) -> int | str:
    """What a column holds: the parts of an epilogue, or a whole number."""
    if column == "epilogue":
        unknown = [part for part in text.split(",") if part not in EPILOGUES] if text != "-" else []
        if unknown:
            raise ValueError(
                f"column {number} (epilogue): {text!r} is not -, or parts of {','.join(EPILOGUES)} between commas."
            )
        return "" if text == "-" else text
    least = 0 if column in _FROM_0 else 1
    if not (text.isascii() and text.isdecimal() and least <= int(text) <= MOST):
        raise ValueError(f"column {number} ({column}): {text!r} is not a whole number of {least} or more.")
    return int(text)


def read_layers(path: Path) -> list[Layer]:
    """The layers of a shapes file.

    Raises
    ------
    OSError, ValueError
        There is no such file, or a line of it is not a layer: the message says which line, and which column.
    """
    layers = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            try:
                layers.append(Layer.parse(line))
            except ValueError as error:
                raise ValueError(f"line {number}, {error}") from error
    return layers


def write_layers(path: Path, title: str, layers: Iterable[Layer]) -> None:
    """A shapes file, with its columns and how to make it again at the top."""
    layers = list(layers)
    head = [f"# {title}.", "# Regenerate: uv run --group bench benchmarks/make_shapes.py"]
    head += [f"# {meaning}" for meaning in _MEANING]
    ops = dict.fromkeys(layer.op for layer in layers)
    head += [f"# {op}: {' '.join(COLUMNS[op])} times" for op in ops]
    path.write_text("\n".join([*head, *(layer.line for layer in layers)]) + "\n")


def _patches(x: np.ndarray, g: ConvGeometry) -> np.ndarray:
    """The products of each output, [pixels, kernel_height * kernel_width * channels]."""
    rows = (g.out_height - 1) * g.stride + (g.kernel_height - 1) * g.rate + 1
    columns = (g.out_width - 1) * g.stride + (g.kernel_width - 1) * g.rate + 1
    padded = np.zeros((g.batch, max(rows, g.pad_top + g.height), max(columns, g.pad_left + g.width), g.channels))
    padded[:, g.pad_top : g.pad_top + g.height, g.pad_left : g.pad_left + g.width] = x
    taps = [
        padded[:, kh * g.rate :, kw * g.rate :][:, : rows : g.stride, : columns : g.stride]
        for kh in range(g.kernel_height)
        for kw in range(g.kernel_width)
    ]
    cut = [tap[:, : g.out_height, : g.out_width] for tap in taps]
    return np.stack(cut, axis=3).reshape(g.pixels, g.products)


def conv_is_right(problem: ConvProblem, found: Arrays) -> bool:
    """Whether a convolution with its epilogue lies within the bound of its roundings around binary64's values."""
    g = problem.geometry
    shape = g.pixels, g.out_channels

    def normalized(t: Bounded, norm: Norm) -> Bounded:
        mean, scale, beta = map(exact, norm)
        return normalize(t, mean, scale, beta.value)

    t = sums_of_products(exact(_patches(problem.x, g)), problem.weights.reshape(g.products, g.out_channels))
    if problem.bias is not None:
        t = add(t, problem.bias)
    if problem.norm is not None:
        t = normalized(t, problem.norm)
    if problem.relu:
        t = relu(t)
    if problem.shortcut is not None:
        t = add(t, problem.shortcut.reshape(shape))
    if problem.sum_relu:
        t = relu(t)
    expected = {"out": t} if problem.keep_out else {}
    if problem.next_norm is not None:
        expected["preact"] = relu(normalized(t, problem.next_norm))
    return all(bool((np.abs(found[name].reshape(shape) - e.value) <= e.bound).all()) for name, e in expected.items())


def is_right(problem: Problem, found: Arrays) -> bool:
    """Whether a kernel's outputs are right: a convolution's by binary64, the others' bit for bit by the definitions."""
    if isinstance(problem, ConvProblem):
        return conv_is_right(problem, found)
    defined = problem.defined()
    return defined.keys() == found.keys() and all(
        np.array_equal(found[name].view(np.uint32), np.ascontiguousarray(value).view(np.uint32))
        for name, value in defined.items()
    )


def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts on a cache line, as in an executor's arena."""
    copy = aligned_zeros(array.size, np.float32).reshape(array.shape)
    copy[...] = array
    return copy


def checked_launch(layer: Layer, zeros: float = 0.0) -> tuple[Launch, Arrays, Arrays]:
    """A layer on the CPU: its launch, the arrays that this reads and writes, and its right outputs.

    The program ends if the kernel is wrong.
    """
    kernel, problem = select(layer.op, "cpu"), layer.problem(zeros)
    found = problem.call(kernel)
    if not is_right(problem, found):
        sys.exit(f"The kernel's result is wrong, so nothing is timed: {layer.line}")
    arrays = {name: _aligned(array) for name, array in (problem.inputs() | found).items()}
    if "preact_only" in layer.epilogue:
        arrays.pop("out", None)
    return problem.launch(kernel, {name: array.ctypes.data for name, array in arrays.items()}), arrays, found


def repeats_of(launch: Launch, threads: int) -> int:
    """How often a layer runs in one turn."""
    once = Program([launch], threads)
    once.run()
    start = time.perf_counter()
    once.run()
    return max(1, min(200, round(TURN / (time.perf_counter() - start))))
