"""Launches that are run again and again: as one CUDA graph, or one by one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np

from refnet_kernels.gpu.device import Device, simulated
from refnet_kernels.gpu.launch import CudaKernel, CudaLaunch


class Program:
    """Launches in order; `Device.program` makes it."""

    def __init__(self, device: Device, stream: Any, launches: list[CudaLaunch]) -> None:
        self._device = device
        self._stream = stream
        self._launches = [_bind(launch, stream) for launch in launches if launch.grid]
        self._graph: Any = None

    def record(self) -> bool:
        """Record a CUDA graph of the launches, which later runs launch in one go; whether there is one.

        They are run once before, to their end, on whatever lies in their memory: that loads the kernels, which must not
        happen while a graph is recorded. The simulator has no graphs.

        Raises
        ------
        DriverError
            The driver does not record; later runs launch each kernel by itself.
        """
        if simulated() or not self._launches:
            return False
        # No memory is given back meanwhile: that would be a call that cannot be recorded.
        with self._device.current(), self._device.defer_cleanup():
            self._issue()
            self._stream.sync()
            builder = self._stream.create_graph_builder().begin_building()
            try:
                self._issue()
                self._graph = builder.end_building().complete()
            finally:
                builder.close()
        return True

    def run(self, stream: Any = None) -> None:
        """Run them all, in the order of a stream; without one, wait for the end."""
        on = self._device.stream() if stream is None else stream
        with self._device.current():
            if self._graph is not None:
                self._graph.launch(on)
            else:
                self._stream.wait(on)
                self._issue()
                on.wait(self._stream)
            if stream is None:
                on.sync()

    def profile(self) -> list[float]:
        """Run them all, one by one, and wait; the milliseconds of each by the device's clock."""
        with self._device.current():
            return _profile(self._launches, self._stream)

    def _issue(self) -> None:
        for launch in self._launches:
            launch()


def _profile(launches: list[Callable[[], None]], stream: Any) -> list[float]:
    from numba import cuda

    events = [cuda.event() for _ in range(len(launches) + 1)]
    events[0].record(stream)
    for launch, event in zip(launches, events[1:], strict=True):
        launch()
        event.record(stream)
    stream.sync()
    return [float(before.elapsed_time(after)) for before, after in pairwise(events)]


@cache
def _dispatcher(kernel: CudaKernel) -> Any:
    from numba import cuda

    if simulated():
        return cuda.jit(kernel.function)
    bounds = (kernel.threads, kernel.blocks)
    # Without LTO the device runs the PTX that the tests read.
    return cuda.jit(kernel.signature, launch_bounds=bounds, lto=False)(kernel.function)


def _bind(launch: CudaLaunch, stream: Any) -> Callable[[], None]:
    """The launch as a function without parameters."""
    dispatcher = _dispatcher(launch.kernel)
    if simulated():
        kinds = [np.dtype(str(kind)).type for kind in launch.kernel.signature.args]
        return partial(
            _simulate, dispatcher, launch, [kind(a) for kind, a in zip(kinds, launch.arguments, strict=True)]
        )
    if launch.kernel.shared_bytes:
        _allow_shared_memory(dispatcher, launch.kernel.shared_bytes)
    with warnings.catch_warnings():
        # Numba finds a small grid suspicious.
        warnings.simplefilter("ignore")
        configured = dispatcher[launch.grid, launch.kernel.threads, stream, launch.kernel.shared_bytes]
    return partial(configured, *launch.arguments)


def _allow_shared_memory(dispatcher: Any, size: int) -> None:
    """Let a kernel's launches on the current device ask for so many bytes; otherwise for 48 KB at most."""
    from cuda.bindings.driver import CUfunction_attribute
    from numba.cuda.cudadrv.driver import driver

    (compiled,) = dispatcher.overloads.values()
    kernel = compiled._codelibrary.get_cufunc().kernel
    attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(attribute, size, kernel.handle, driver.cuCtxGetDevice())


def _simulate(dispatcher: Any, launch: CudaLaunch, arguments: list[Any]) -> None:
    dispatcher[launch.grid, launch.kernel.threads](*arguments)
