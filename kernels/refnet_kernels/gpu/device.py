"""The way to a CUDA device: whether there is one, its memory, and how kernels are launched on it.

Numba's CUDA target is imported when a device is asked for, not before.
"""

from __future__ import annotations

import ctypes
import os
import warnings
import weakref
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.gpu.launch import CudaKernel, CudaLaunch


def missing(index: int = 0) -> str | None:
    """Why there is no CUDA device of this number: the package, the driver or the device; None if there is one."""
    try:
        version("numba-cuda")
    except PackageNotFoundError:
        return "the package numba-cuda is not installed; refnet[cuda] brings it"
    if not simulated():
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "the driver's library, libcuda.so.1, is not there; it comes with NVIDIA's driver"
    from numba import cuda

    if not simulated() and not cuda.is_available():
        reason = cuda.cuda_error() or "the compiler NVVM is not there; the package cuda-toolkit brings it"
        return " ".join(str(reason).split()).rstrip(".")
    count = len(cuda.gpus)
    return None if index < count else f"there are {count}, counted from 0"


def simulated() -> bool:
    """Whether Numba's simulator stands in for a device, as Numba decides when it is imported."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


class Device:
    """A device that is there; see `missing`.

    Parameters
    ----------
    index : int

    Attributes
    ----------
    processors : int
        Its multiprocessors.
    """

    def __init__(self, index: int) -> None:
        from numba import cuda

        self._cuda = cuda
        self._context = cuda.gpus[index]
        with self._context:
            self._stream = cuda.stream()
        # The simulator plays an H100.
        self.processors = 132 if simulated() else int(self._context.MULTIPROCESSOR_COUNT)

    def free_bytes(self) -> float:
        """Bytes of its memory that nobody uses; infinite in the simulator."""
        with self._context:
            return float(self._cuda.current_context().get_memory_info().free)

    def allocate(self, size: int) -> Memory:
        """Memory of ``size`` bytes, which is given back when nobody refers to it.

        Raises
        ------
        MemoryError
            There is not so much.
        """
        with self._context:
            try:
                return Memory(self._context, self._stream, self._cuda.device_array(max(size, 1), np.uint8))
            except Exception as error:
                # The driver's errors are of one type, and tell themselves apart by their names.
                if "OUT_OF_MEMORY" in str(error):
                    raise MemoryError(str(error)) from error
                raise

    def program(self, launches: list[CudaLaunch]) -> Program:
        """Launches to be run in order, any number of times; compiles their kernels."""
        with self._context:
            bound = [_bind(launch, self._stream) for launch in launches if launch.grid]
        return Program(self._context, self._stream, bound)


class Memory:
    """Bytes on a device; `Device.allocate` makes it."""

    def __init__(self, context: Any, stream: Any, array: Any) -> None:
        self._context = context
        self._stream = stream
        self._held = [array]
        # Memory is given back in its context, which need not be the current one of the thread that lets go of it.
        weakref.finalize(self, _let_go, context, self._held).atexit = False
        pointer = array.ctypes.data if simulated() else array.device_ctypes_pointer.value
        self.address = int(pointer)

    def upload(self, values: np.ndarray, offset: int = 0) -> None:
        """Copy an array to ``offset``."""
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if raw.size:
            with self._context:
                self._held[0][offset : offset + raw.size].copy_to_device(raw, self._stream)
                self._stream.synchronize()

    def download(self, values: Float32Array, offset: int = 0) -> None:
        """Fill a contiguous array from ``offset``."""
        raw = values.reshape(-1).view(np.uint8)
        if raw.size:
            with self._context:
                self._held[0][offset : offset + raw.size].copy_to_host(raw, self._stream)
                self._stream.synchronize()


class Program:
    """Launches in order on the device's stream; `Device.program` makes it."""

    def __init__(self, context: Any, stream: Any, launches: list[Callable[[], None]]) -> None:
        self._context = context
        self._stream = stream
        self._launches = launches

    def run(self) -> None:
        """Run them all, and wait for the end."""
        with self._context:
            for launch in self._launches:
                launch()
            self._stream.synchronize()

    def profile(self) -> list[float]:
        """Run them all, and wait; the milliseconds of each by the device's clock."""
        with self._context:
            return _profile(self._launches, self._stream)


def _profile(launches: list[Callable[[], None]], stream: Any) -> list[float]:
    from numba import cuda

    events = [cuda.event() for _ in range(len(launches) + 1)]
    events[0].record(stream)
    for launch, event in zip(launches, events[1:], strict=True):
        launch()
        event.record(stream)
    stream.synchronize()
    return [float(before.elapsed_time(after)) for before, after in pairwise(events)]


def _let_go(context: Any, held: list[Any]) -> None:
    with context:
        held.clear()


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
    with warnings.catch_warnings():
        # Numba finds a small grid suspicious.
        warnings.simplefilter("ignore")
        configured = dispatcher[launch.grid, launch.kernel.threads, stream]
    return partial(configured, *launch.arguments)


def _simulate(dispatcher: Any, launch: CudaLaunch, arguments: list[Any]) -> None:
    dispatcher[launch.grid, launch.kernel.threads](*arguments)


def pack_channels(values: Float32Array) -> Float32Array:
    """One value a channel, filled up with zeros to whole vectors."""
    packed = np.zeros(-(-values.size // 4) * 4, np.float32)
    packed[: values.size] = values
    return packed


@cache
def open_device(index: int) -> Device:
    """The device of this number, which is there; see `missing`."""
    return Device(index)


def first_device() -> Device:
    """The device that ``call`` runs on."""
    return open_device(0)


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
    device.program([make({name: block.address for name, block in memory.items()})]).run()
    for name, array in results.items():
        memory[name].download(array)
    return results
