"""The one list of the backends that run a plan. Checks, dispatch, the self-check and the command line read it.

Importing this module imports no kernel and opens no device.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import numpy as np

from refnet.errors import DeviceError
from refnet.graph.plan import Plan
from refnet.run.constants import Constants
from refnet.run.cpu import CpuExecutor
from refnet_kernels.contract import BINARY32, BINARY64
from refnet_kernels.system.forks import making, once


class Executor(Protocol):
    """Something that runs one plan."""

    def run(self, images: Any, stream: Any = None) -> tuple[list[Any], tuple[float, float] | None]:
        """Run the plan.

        Returns
        -------
        outputs : list of array
            The caller's own arrays: in NumPy, or on the device of the images.
        extremes : (float, float), or None
            The least and the largest pixel, NaN if one is NaN. None if there are no pixels, or they are on a device.
        """


class OwnMemory(NamedTuple):
    """For a backend whose devices have memory of their own, in which other libraries may hold images.

    Attributes
    ----------
    accepts : callable
        Whether images are in such memory.
    advice : str
        How to copy them to the host.
    images : callable
        ``images(images, number, stream)``: images on the device of this number, as its executor takes them. Later work
        on the stream waits for the work that made them.
    stream : callable
        ``stream(stream, number)``: the caller's stream on the device of this number; a TypeError if it is not one.
    """

    accepts: Callable[[Any], bool]
    advice: str
    images: Callable[[Any, int, Any], Any]
    stream: Callable[[object, int], Any]


class Backend(NamedTuple):
    """A row of `BACKENDS`.

    Attributes
    ----------
    name : str
        Name of its device; if there are several, "name:1" is the second one.
    title : str
        Its name in sentences.
    open : callable
        ``open(plan, constants, number, threads, dtype, zeros)``: the executor of a plan on the device of this number.
    dtypes : tuple of numpy.dtype
        The dtypes in which it computes.
    has_threads : bool
        Whether it uses the number of threads.
    leaves_out_zeros : bool
        Whether it can leave out products with zeros.
    is_timed : bool
        Whether it is meant to be fast.
    missing : callable, optional
        ``missing(number)``: the reason why there is no device of this number; None if there is one. Left out if there
        is always exactly one.
    memory : OwnMemory, optional
    """

    name: str
    title: str
    open: Callable[[Plan, Constants, int, int, np.dtype[Any], bool], Executor]
    dtypes: tuple[np.dtype[Any], ...] = (BINARY32, BINARY64)
    has_threads: bool = False
    leaves_out_zeros: bool = False
    is_timed: bool = True
    missing: Callable[[int], str | None] | None = None
    memory: OwnMemory | None = None


#: Machine code is kept as object files, called by addresses and run by threads as Linux has them.
_IS_POSIX = os.name == "posix" and sys.platform != "emscripten"


def _open_cpu(plan: Plan, constants: Constants, _: int, threads: int, dtype: np.dtype[Any], zeros: bool) -> Executor:
    if not _IS_POSIX:
        raise DeviceError(
            "The compiled kernels need Linux; on Windows refnet runs in WSL. device='reference' computes the same bits "
            "on any system, very slowly."
        )
    with making:
        return CpuExecutor(plan, constants, threads, dtype, zeros)


@once
def _reference() -> ModuleType:
    from refnet.run import reference

    return reference


def _open_reference(plan: Plan, constants: Constants, _: int, __: int, dtype: np.dtype[Any], ___: bool) -> Executor:
    executor: Executor = _reference().ReferenceExecutor(plan, constants, dtype)
    return executor


@once
def _cuda() -> ModuleType:
    from refnet.run import cuda

    return cuda


@once
def _images() -> ModuleType:
    from refnet.run import cuda_images

    return cuda_images


@once
def _arrays() -> ModuleType:
    from refnet_kernels.gpu import arrays

    return arrays


@once
def _device() -> ModuleType:
    from refnet_kernels.gpu import device

    return device


def _open_cuda(plan: Plan, constants: Constants, index: int, _: int, __: np.dtype[Any], ___: bool) -> Executor:
    executor: Executor = _cuda().CudaExecutor(plan, constants, index)
    return executor


def _no_cuda(index: int) -> str | None:
    reason: str | None = _device().missing(index)
    return reason


def _on_cuda(images: Any) -> bool:
    return not isinstance(images, np.ndarray) and bool(_arrays().on_cuda(images))


def _cuda_images(images: Any, index: int, stream: Any) -> Any:
    return _images().device_images(images, index, stream)


def _cuda_stream(stream: object, index: int) -> Any:
    with _cuda().device_errors():
        return _device().open_device(index).stream(stream)


BACKENDS = (
    Backend("cpu", "CPU", _open_cpu, has_threads=True, leaves_out_zeros=True),
    Backend("reference", "reference", _open_reference, is_timed=False),
    Backend(
        "cuda",
        "CUDA",
        _open_cuda,
        dtypes=(BINARY32,),
        missing=_no_cuda,
        memory=OwnMemory(
            _on_cuda,
            ".cpu() in PyTorch, .get() in CuPy, .copy_to_host() in Numba",
            _cuda_images,
            _cuda_stream,
        ),
    ),
)
