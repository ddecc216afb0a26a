"""What the problems of all ops share: how they are solved, and the numbers that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np

from refnet_kernels.catalog import Kernel, rows, select
from refnet_kernels.contract import BINARY32, BINARY64, FloatArray, Norm
from refnet_kernels.cpu.layout import pack_channels
from refnet_kernels.cpu.team import Launch
from tests.exact import arithmetic, ops
from tests.support.arrays import Arrays

DTYPES = (BINARY32, BINARY64)
FORMATS = {BINARY32: arithmetic.BINARY32, BINARY64: arithmetic.BINARY64}
#: The rows that run on any machine. CUDA has tests of its own, for a device or its simulator.
HOST_ROWS = [row for row in rows() if row[1] != "cuda"]

Place = tuple[int, ...]


class Truth(NamedTuple):
    """The exact outputs of a problem.

    Attributes
    ----------
    shape : tuple of int
        Of each output.
    operations : int
        About how many exact operations one place takes.
    at : callable
        The outputs' values at a place, by name.
    """

    shape: tuple[int, ...]
    operations: int
    at: Callable[[Place], dict[str, float]]


@dataclass(frozen=True, eq=False)
class Problem:
    """What an op is given, and what it must give by its definition.

    The fields after the name are the arguments of the op's ``call``, in its order. One of them is ``x``, whose dtype
    is that of all numbers.

    Attributes
    ----------
    op : str
        Its name in the catalog.
    outputs : tuple of str
        The names of what ``call`` returns.
    """

    op: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]] = ("out",)

    name: str

    @classmethod
    def named(cls, dtype: np.dtype[Any]) -> Sequence[Problem]:
        """Cases whose sizes are the same on every machine, so that their bits can be compared across vector widths.

        One of them is cut into several items.
        """
        raise NotImplementedError

    @classmethod
    def from_vector(cls, name: str, integers: Mapping[str, int], arrays: Mapping[str, np.ndarray]) -> Problem:
        """A case of the contract vectors, by the names that they use."""
        raise NotImplementedError

    def exact(self, f: arithmetic.Format) -> Truth:
        """The outputs in exact arithmetic, place by place."""
        raise NotImplementedError

    def defined(self) -> Arrays:
        """The outputs by the definitions in NumPy, one op after another."""
        return self.call(select(self.op, "reference"))

    def call(self, kernel: Kernel) -> Arrays:
        """The outputs of a kernel's ``call``."""
        results = kernel.call(*(getattr(self, field.name) for field in fields(self)[1:]))
        if not isinstance(results, tuple):
            return {self.outputs[0]: results}
        return {name: value for name, value in zip(self.outputs, results, strict=True) if value is not None}

    def inputs(self) -> Arrays:
        """The arrays that a kernel's ``launch`` takes the addresses of, laid out as it wants them."""
        return {"x": self.x}

    def launch(self, kernel: Kernel, addresses: dict[str, int]) -> Launch:
        """A kernel's ``launch`` over memory of the test's own."""
        raise NotImplementedError


def definition(op: str, *arguments: Any) -> Any:
    """What an op gives by its definition in NumPy."""
    return select(op, "reference").call(*arguments)


def identity(problem: Problem) -> str:
    """An id for pytest."""
    return f"{problem.op}-{problem.name}" + ("-binary64" if problem.x.dtype == BINARY64 else "")


def in_binary32(problem: Problem) -> bool:
    """Whether CUDA, which computes in binary32 alone, can do it."""
    return problem.x.dtype == BINARY32


def _special(dtype: np.dtype[Any]) -> FloatArray:
    """Zeros, ones, and the ends of the range."""
    info = np.finfo(dtype)
    tiny, normal, largest = info.smallest_subnormal, info.smallest_normal, info.max
    return np.array([0.0, -0.0, 1.0, -1.0, tiny, -tiny, normal, largest, -largest, np.inf, -np.inf, np.nan], dtype)


SPECIAL = {dtype: _special(dtype) for dtype in DTYPES}


def numbers(kind: str, seed: int, *shape: int, dtype: np.dtype[Any] = BINARY32) -> FloatArray:
    """Random numbers of a kind, the same bits on every machine: no logarithm or exponential of a C library."""
    rng = np.random.default_rng(seed)
    # Nearly normal: the sum of four whole numbers of 32 bits, shifted to mean 0 and a deviation of 1.15.
    total = rng.integers(0, 2**32, (4, *shape)).sum(0) - 2**33
    normal = (total * 2.0**-31).astype(dtype)
    special = SPECIAL[dtype]
    if kind == "special":
        return special[rng.integers(0, len(special), shape)]
    if kind == "rarely special":
        return np.where(rng.random(shape) < 0.01, special[rng.integers(0, len(special), shape)], normal)
    if kind == "far from 0":
        # A mean that is large against the deviation.
        return dtype.type(1000) + normal * dtype.type(1e-3)
    if kind == "small integers":
        return rng.integers(-3, 4, shape).astype(dtype)
    if kind == "zeros and ones":
        return rng.choice(special[:4], shape)
    if kind == "many zeros":
        return np.where(rng.random(shape) < 0.6, rng.choice(special[:2], shape), normal)
    if kind == "many zeros, rarely special":
        rest = np.where(rng.random(shape) < 0.01, rng.choice(special, shape), normal)
        return np.where(rng.random(shape) < 0.6, rng.choice(special[:2], shape), rest)
    if kind == "huge":
        return normal * dtype.type(1e19 if dtype == BINARY32 else 1e154)
    if kind == "tiny":
        # The products are subnormal, or less.
        return normal * dtype.type(3e-20 if dtype == BINARY32 else 3e-155)
    return normal


KINDS = (
    "normal", "far from 0", "small integers", "zeros and ones", "tiny", "huge", "rarely special", "special",
    "many zeros", "many zeros, rarely special",
)  # fmt: skip


def norm(kind: str, seed: int, channels: int, dtype: np.dtype[Any] = BINARY32) -> Norm:
    """A batch norm of random numbers."""
    return Norm(*(numbers(kind, seed + i, channels, dtype=dtype) for i in range(3)))


def vector_norm(arrays: Mapping[str, np.ndarray], prefix: str = "") -> Norm | None:
    """The batch norm of a contract vector, if it has one."""
    return Norm(*(arrays[f"{prefix}{role}"] for role in Norm._fields)) if f"{prefix}mean" in arrays else None


def packed_norm(prefix: str, values: Norm | None) -> Arrays:
    """A batch norm's arrays as kernels that work on tiles want them."""
    if values is None:
        return {}
    return {f"{prefix}{role}": pack_channels(array) for role, array in values._asdict().items()}


def exact_norm(values: Norm, channel: int) -> ops.Norm:
    """A channel's batch norm for exact arithmetic."""
    return ops.Norm(*(array[channel].item() for array in values))
