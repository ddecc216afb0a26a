"""Launches that are run again and again: as one CUDA graph, or separately."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.device import Device, core, first_device, simulated
from refnet_kernels.gpu.launch import CudaKernel, CudaLaunch
from refnet_kernels.jit import kept
from refnet_kernels.system.forks import making

#: The name of every kernel in its machine code.
_ENTRY = "refnet_kernel"
_C_TYPES: dict[str, Any] = {"int64": ctypes.c_int64, "int32": ctypes.c_int32, "float64": ctypes.c_double}


class Program:
    """Launches in order; made by `make_program`."""

    def __init__(self, device: Device, stream: Any, launches: list[CudaLaunch]) -> None:
        self._device = device
        self._stream = stream
        self._launches = [_bind(launch, device, stream) for launch in launches if launch.grid]
        self._graph: Any = None

    def record(self) -> bool:
        """Record a CUDA graph of the launches, which later runs launch as a whole. True if there is a graph.

        The launches are run to their end once before, on whatever is in their memory: this loads the kernels, which
        must not happen while a graph is recorded. The simulator has no graphs.

        Raises
        ------
        DriverError
            The driver refuses to record; later runs launch each kernel separately.
        """
        if simulated() or not self._launches:
            return False
        # No memory is freed meanwhile: that would be a call that cannot be recorded.
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
        """Run all launches, in the order of a stream; without one, wait for the end."""
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
        """Run the launches separately, and wait. The milliseconds of each, by the device's clock."""
        with self._device.current():
            return _profile(self._launches, self._stream)

    def _issue(self) -> None:
        for launch in self._launches:
            launch()


def make_program(device: Device, launches: list[CudaLaunch]) -> Program:
    """A program that runs launches in order on a device, any number of times. Compiles their kernels."""
    with device.current():
        # Others may use the legacy default stream while this one is being recorded: it must not wait for it.
        return Program(device, device.new_stream(nonblocking=True), launches)


def run_once(
    make: Callable[[dict[str, int]], CudaLaunch], inputs: dict[str, np.ndarray], outputs: Mapping[str, Any]
) -> dict[str, Float32Array]:
    """Upload arrays to the first device, launch once, and download the outputs.

    Parameters
    ----------
    make : callable
        Makes the launch from the addresses of inputs and outputs.
    inputs : dict of str to array
    outputs : mapping of str to shape
    """
    device = first_device()
    results = {name: np.empty(shape, np.float32) for name, shape in outputs.items()}
    memory = {name: device.allocate(array.nbytes) for name, array in (inputs | results).items()}
    for name, array in inputs.items():
        memory[name].upload(array)
    make_program(device, [make({name: block.address for name, block in memory.items()})]).run()
    for name, array in results.items():
        memory[name].download(array)
    return results


def _profile(launches: list[Callable[[], None]], stream: Any) -> list[float]:
    with making:
        from numba import cuda

    events = [cuda.event() for _ in range(len(launches) + 1)]
    events[0].record(stream)
    for launch, event in zip(launches, events[1:], strict=True):
        launch()
        event.record(stream)
    stream.sync()
    return [float(before.elapsed_time(after)) for before, after in pairwise(events)]


def _bind(launch: CudaLaunch, device: Device, stream: Any) -> Callable[[], None]:
    """The launch as a function without parameters."""
    kernel, kinds = launch.kernel, [str(kind) for kind in launch.kernel.signature.args]
    if simulated():
        numbers = [np.dtype(kind).type(a) for kind, a in zip(kinds, launch.arguments, strict=True)]
        return partial(_simulate, kernel, launch.grid, numbers)
    loaded = _load(kernel, device.compute_capability)
    if kernel.shared_bytes:
        _allow_shared_memory(loaded, kernel.shared_bytes)
    config = core().LaunchConfig(grid=launch.grid, block=kernel.threads, shmem_size=kernel.shared_bytes)
    arguments = [_C_TYPES[kind](a) for kind, a in zip(kinds, launch.arguments, strict=True)]
    return partial(core().launch, stream, config, loaded, *arguments)


@cache
def _simulated(kernel: CudaKernel) -> Any:
    with making:
        from numba import cuda

    return cuda.jit(kernel.function)


def _simulate(kernel: CudaKernel, grid: int, numbers: list[Any]) -> None:
    # The simulator's kernel remembers the grid that it was given last.
    _simulated(kernel)[grid, kernel.threads](*numbers)


@cache
def _load(kernel: CudaKernel, capability: tuple[int, int]) -> Any:
    """The kernel's machine code, from the cache if it is there, ready to be launched."""
    module, name = kernel.function.__module__, kernel.function.__name__
    file = f"{module}.{name}.{_architecture(capability)}.{version('numba-cuda')}.cubin"
    code = kept(file, name, partial(_compile, kernel, capability))
    return core().ObjectCode.from_cubin(code).get_kernel(_ENTRY)


def _compile(kernel: CudaKernel, capability: tuple[int, int]) -> bytes:
    """Machine code for the current device, from the PTX that the tests read; so there is no LTO."""
    with making:
        from numba import cuda

    bounds = (kernel.threads, kernel.blocks)
    ptx, _ = cuda.compile(
        kernel.function, kernel.signature, device=False, abi="numba", cc=capability, launch_bounds=bounds
    )
    (entry,) = re.findall(r"\.entry (\S+?)\(", ptx)
    source = core().ObjectCode.from_ptx(ptx.replace(entry, _ENTRY).encode())
    linked = core().Linker(source, options=core().LinkerOptions(arch=_architecture(capability))).link("cubin")
    return bytes(linked.code)


def _architecture(capability: tuple[int, int]) -> str:
    return f"sm_{capability[0]}{capability[1]}"


def _allow_shared_memory(kernel: Any, size: int) -> None:
    """Let a kernel's launches on the current device request ``size`` bytes; without this the limit is 48 KB."""
    with making:
        from cuda.bindings.driver import CUfunction_attribute
        from numba.cuda.cudadrv.driver import driver

    attribute = CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    driver.cuKernelSetAttribute(attribute, size, kernel.handle, driver.cuCtxGetDevice())
