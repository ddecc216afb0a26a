"""The one list of ops and of their kernels. Tests, benchmarks, dispatch and summaries read it.

Importing this module imports no kernel; `select` imports the module of the kernel that it returns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType
from typing import Any, NamedTuple

from refnet_kernels.arguments import checked
from refnet_kernels.contract import (
    BINARY32,
    BINARY64,
    RUN,
    ConvGeometry,
    Frame,
    Geometry,
    GroupNormGeometry,
    ImageGeometry,
    NormGeometry,
    PoolGeometry,
    SubsampleGeometry,
)
from refnet_kernels.system.forks import making

BACKENDS = ("reference", "cpu", "cuda")


class Functions(NamedTuple):
    """A module of this package, and the names of its functions for the fields of `Kernel`."""

    module: str
    call: str
    launch: str | None = None
    prepare: str | None = None
    frame: str | None = None
    tables: str | None = None


class Op(NamedTuple):
    """A row of `OPS`: the facts about an op.

    Attributes
    ----------
    name : str
    geometry : type
        The NamedTuple of its sizes.
    backends : mapping of str to Functions
        Its kernels. Empty for an op that is only a part of other ops' kernels, or consists of their launches.
    roundings : callable
        How many times a value is rounded at most from the inputs to the output, for a geometry.
    window : callable
        The text after the op's name in a summary, for a geometry.
    inputs : tuple of str
        The names of the addresses of its inputs.
    kernels : tuple of str
        The ops whose kernels are launched for it, in order; by default its own.
    channels : tuple of str
        The roles of its variables that a kernel reads as they are, one value per channel.
    scratch : tuple of str
        The arrays that one of its kernels passes to the next, with one value per channel.
    """

    name: str
    geometry: type[Geometry]
    backends: Mapping[str, Functions] = MappingProxyType({})
    roundings: Callable[[Any], int] = lambda g: 0
    window: Callable[[Any], str] = lambda g: ""
    inputs: tuple[str, ...] = ("x",)
    kernels: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    scratch: tuple[str, ...] = ()

    def word(self, geometry: Geometry) -> str:
        """The op in a summary, for instance "conv 3x3/2": windows of 3 x 3 and a stride of 2."""
        return self.name + self.window(geometry)


def _conv_roundings(g: ConvGeometry) -> int:
    """One ``fma`` per product of a run, then one addition per run."""
    return min(g.products, RUN) - (-g.products // RUN)


def _conv_window(g: ConvGeometry) -> str:
    return f" {g.kernel_height}x{g.kernel_width}{_stride(g.stride)}"


def _pool_window(g: PoolGeometry) -> str:
    return f" {g.window}x{g.window}{_stride(g.stride)}"


def _stride(stride: int) -> str:
    return f"/{stride}" if stride > 1 else ""


def _kernels(name: str) -> dict[str, Functions]:
    """The kernels of an op whose folder has its name, and whose functions have the usual names."""
    compiled = {
        backend: Functions(f"{name}.{backend}", "call", "launch") for backend in BACKENDS if backend != "reference"
    }
    return {"reference": Functions(f"{name}.reference", name), **compiled}


#: All ops, by name. Copies and comparisons round nothing.
OPS: dict[str, Op] = {
    op.name: op
    for op in (
        Op("input", ImageGeometry),
        Op(
            "conv",
            ConvGeometry,
            {
                "reference": Functions("conv.reference", "conv"),
                "cpu": Functions("conv.cpu", "call", "launch", prepare="prepare", frame="frame"),
                "cuda": Functions("conv.cuda", "call", "launch", prepare="prepare", tables="tables"),
            },
            _conv_roundings,
            _conv_window,
        ),
        Op("bias_add", ImageGeometry, roundings=lambda g: 1),
        Op("relu", ImageGeometry),
        Op("batch_norm", NormGeometry, _kernels("batch_norm"), lambda g: 3),
        Op(
            "batch_statistics",
            NormGeometry,
            {
                "reference": Functions("batch_norm.reference", "batch_statistics"),
                "cpu": Functions("batch_norm.cpu", "call_statistics", "launch_statistics"),
                "cuda": Functions("batch_norm.cuda", "call_statistics", "launch_statistics"),
            },
            lambda g: 1,
        ),
        Op(
            "batch_norm_training",
            NormGeometry,
            roundings=lambda g: 4,
            kernels=("batch_statistics", "batch_norm"),
            channels=("gamma", "beta"),
            scratch=("mean", "scale"),
        ),
        Op(
            "group_norm",
            GroupNormGeometry,
            _kernels("group_norm"),
            lambda g: 4,
            channels=("gamma", "beta"),
        ),
        Op("subsample", SubsampleGeometry, _kernels("subsample"), window=lambda g: _stride(g.factor)),
        Op("residual", ImageGeometry, _kernels("residual"), lambda g: 1, inputs=("shortcut", "x")),
        Op("max_pool", PoolGeometry, _kernels("max_pool"), window=_pool_window),
        Op("avg_pool", PoolGeometry, _kernels("avg_pool"), lambda g: 1, _pool_window),
        Op("mean", ImageGeometry, _kernels("mean"), lambda g: 1),
        Op("softmax", ImageGeometry, _kernels("softmax"), lambda g: 1),
        Op("squeeze", ImageGeometry),
    )
}


def _no_launch(*_: Any) -> Any:
    raise NotImplementedError("The reference computes at once; only compiled kernels are launched.")


def _no_prepare(*_: Any) -> None:
    raise NotImplementedError("This kernel reads no weights that must be prepared.")


def _no_frame(_: Any) -> None:
    """The images stay as they are."""


def _no_tables(_: Any) -> dict[str, Any]:
    return {}


class Kernel(NamedTuple):
    """One op on one backend.

    Attributes
    ----------
    op, backend : str
    call : callable
        Arrays in, arrays out; they are checked against each other and the geometry.
    launch : callable
        ``launch(geometry, addresses, flags, target)`` makes the step of a program. The reference has none.
    prepare : callable
        ``prepare(weights, packed, owned, target)`` packs weights, by name, as the kernel reads them.
    frame : callable
        ``frame(geometry)`` gives the `Frame` that the kernel prefers for its images, or None.
    tables : callable
        ``tables(geometry)`` gives the other arrays that a launch reads, by the names of their addresses. Each is a
        hashable object whose ``values()`` makes the array.
    """

    op: str
    backend: str
    call: Callable[..., Any]
    launch: Callable[..., Any] = _no_launch
    prepare: Callable[..., None] = _no_prepare
    frame: Callable[[Any], Frame | None] = _no_frame
    tables: Callable[[Any], Mapping[str, Any]] = _no_tables


def rows() -> list[tuple[str, str]]:
    """Every (op, backend) pair that has a kernel."""
    return [(op.name, backend) for op in OPS.values() for backend in op.backends]


@cache
def select(op: str, backend: str) -> Kernel:
    """The kernel of an op on a backend.

    Raises
    ------
    KeyError
        There is no such kernel.
    """
    if (op, backend) not in rows():
        raise KeyError(f"There is no kernel {op!r} on {backend!r}; there are {rows()}.")
    names = OPS[op].backends[backend]._asdict()
    with making:
        module = import_module(f"refnet_kernels.{names.pop('module')}")
    functions = {role: getattr(module, name) for role, name in names.items() if name is not None}
    dtypes = (BINARY32,) if backend == "cuda" else (BINARY32, BINARY64)
    return Kernel(op, backend, **(functions | {"call": checked(functions["call"], dtypes)}))


@cache
def kernels_of(op: str, backend: str) -> list[Kernel]:
    """The kernels that are launched for an op, in order."""
    return [select(name, backend) for name in OPS[op].kernels or (op,)]
