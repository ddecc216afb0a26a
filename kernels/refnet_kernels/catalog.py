"""The one list of kernels. Tests, benchmarks and dispatch read it.

Importing this imports no kernel; `select` imports the one that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

#: op -> (package, suffix of its functions)
_OPS = {
    "conv": ("conv", ""),
    "batch_norm": ("batch_norm", ""),
    "batch_statistics": ("batch_norm", "_statistics"),
    "subsample": ("subsample", ""),
    "residual": ("residual", ""),
    "max_pool": ("max_pool", ""),
    "avg_pool": ("avg_pool", ""),
    "mean": ("mean", ""),
    "softmax": ("softmax", ""),
}
BACKENDS = ("reference", "cpu", "cuda")


class Kernel(NamedTuple):
    """One op on one backend.

    Attributes
    ----------
    op, backend : str
    call : callable
        Arrays in, arrays out.
    launch : callable
        Makes the `Launch` of a program's step. The reference has none.
    """

    op: str
    backend: str
    call: Callable[..., Any]
    launch: Callable[..., Any]


def rows() -> list[tuple[str, str]]:
    """Every (op, backend) that there is."""
    return [(op, backend) for op in _OPS for backend in BACKENDS]


@cache
def select(op: str, backend: str) -> Kernel:
    """The kernel of an op on a backend.

    Raises
    ------
    KeyError
        There is none.
    """
    if (op, backend) not in rows():
        raise KeyError(f"There is no kernel {op!r} on {backend!r}; there are {rows()}.")
    package, suffix = _OPS[op]
    module = import_module(f"refnet_kernels.{package}.{backend}")
    if backend == "reference":
        return Kernel(op, backend, getattr(module, op), _no_launch)
    return Kernel(op, backend, getattr(module, f"call{suffix}"), getattr(module, f"launch{suffix}"))


def _no_launch(*_: Any) -> Any:
    raise NotImplementedError("The reference computes at once; only compiled kernels are launched.")
