"""Access to a CUDA device: whether there is one, its memory and its streams.

Numba's CUDA target and cuda.core are imported only when a device is used.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any

import numpy as np

from refnet_kernels.contract import Float32Array
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.forks import making, once

#: The packages of refnet[cuda] that are imported here.
_PACKAGES = ("numba-cuda", "cuda-bindings", "cuda-core")


def missing(index: int = 0) -> str | None:
    """The reason why there is no CUDA device of this number, such as a missing package; None if there is one."""
    try:
        versions = {package: version(package) for package in _PACKAGES}
    except PackageNotFoundError as error:
        return f"the package {error.name} is not installed: {how_to_get('cuda')}"
    if not simulated():
        try:
            ctypes.CDLL("libcuda.so.1")
        except OSError:
            return "the driver's library, libcuda.so.1, is not there; it comes with NVIDIA's driver"
    try:
        with making:
            from numba import cuda
    except Exception as error:
        return f"numba-cuda cannot be imported ({error}). Packages that fit each other: {how_to_get('cuda')}"
    if not simulated() and not cuda.is_available():
        reason = cuda.cuda_error() or "the compiler NVVM is not there; the package cuda-toolkit brings it"
        return " ".join(str(reason).split()).rstrip(".")
    if not simulated():
        with making:
            from numba.cuda.cudadrv.driver import get_version

        needed, (major, minor) = int(versions["cuda-bindings"].split(".")[0]), get_version()
        if major < needed:
            return f"the driver is for CUDA {major}.{minor}, and these packages need one for CUDA {needed}"
    count = len(cuda.gpus)
    if index >= count:
        return f"there are {count}, counted from 0"
    # The first that copies to shared memory asynchronously, past the registers.
    able = simulated() or cuda.gpus[index].compute_capability >= (8, 0)
    return None if able else "its compute capability is below 8.0 (Ampere)"


@cache
def simulated() -> bool:
    """Whether Numba's simulator replaces the device; Numba decides this in the same way when it is imported."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@once
def core() -> ModuleType:
    """cuda.core, with its utils."""
    import cuda.core.utils

    module: ModuleType = cuda.core
    return module


class DriverError(RuntimeError):
    """The CUDA driver refused something, or a kernel failed."""


class InOrder:
    """The stream of a device that does everything at once, and its event: there is nothing to wait for."""

    handle = 0
    is_done = True

    def wait(self, other: Any) -> None:
        """Make later work here wait for ``other``: an event, or all work of a stream."""

    def record(self) -> InOrder:
        """An event that is done once all work so far is done."""
        return self

    def sync(self) -> None:
        """Wait, on the host, until all work is done."""


def handle_of(stream: Any) -> int:
    """The handle of a stream for other libraries; for the default stream 1, as 0 would be ambiguous."""
    return int(stream.handle) or 1


#: The device that a thread has made current, if any.
_thread = threading.local()


class Device:
    """A device that exists; see `missing`.

    Parameters
    ----------
    index : int

    Attributes
    ----------
    index : int
    processors : int
        Number of its multiprocessors.
    compute_capability : (int, int)
    """

    def __init__(self, index: int) -> None:
        with making:
            from numba import cuda

        self._cuda = cuda
        self.defer_cleanup = cuda.defer_cleanup
        self._context = cuda.gpus[index]
        self._process = os.getpid()
        self.index = index
        # The simulator has the numbers of an H100.
        self.processors = 132 if simulated() else int(self._context.MULTIPROCESSOR_COUNT)
        self.compute_capability = (9, 0) if simulated() else tuple(self._context.compute_capability)
        # It and the legacy default stream, on which code without streams of its own works, wait for each other.
        self._stream = self.new_stream(nonblocking=False)

    @property
    def model(self) -> str:
        """Its compute capability, as "sm_90"."""
        return "sm_{}{}".format(*self.compute_capability)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the thread's current device in a ``with`` statement.

        Raises
        ------
        DriverError
            The driver refused a request, or the process is a fork of the one that opened the device.
        """
        if os.getpid() != self._process:
            raise DriverError("CUDA cannot be used in the child of a fork whose parent used it; start it by spawn")
        before = getattr(_thread, "device", None)
        with _driver_errors():
            if before is self:
                yield
                return
            with self._context:
                _thread.device = self
                try:
                    yield
                finally:
                    _thread.device = before

    def stream(self, given: Any = None) -> Any:
        """The caller's stream, from its handle or an object with ``__cuda_stream__``; for None the device's own.

        Raises
        ------
        TypeError
            It is neither.
        """
        named = hasattr(given, "__cuda_stream__")
        if not (given is None or named or (isinstance(given, int) and not isinstance(given, bool))):
            raise TypeError(f"{type(given).__name__} is not a CUDA stream")
        if given is None or simulated():
            return self._stream
        with self.current():
            return self._core_device().create_stream(given) if named else core().Stream.from_handle(given)

    def free_bytes(self) -> float:
        """Free bytes of its memory; infinite in the simulator."""
        with self.current():
            context = self._cuda.current_context()
            if not simulated():
                # Numba frees memory only when some has gathered.
                context.memory_manager.deallocations.clear()
            return float(context.get_memory_info().free)

    def allocate(self, size: int) -> Memory:
        """Memory of ``size`` bytes, which is freed when nothing refers to it.

        Raises
        ------
        MemoryError
            There is not that much memory.
        """
        with self.current():
            return Memory(self, self._cuda.device_array(max(size, 1), np.uint8))

    def new_stream(self, nonblocking: bool) -> Any:
        """A stream. Unless it is ``nonblocking``, it and the legacy default stream wait for each other."""
        if simulated():
            return InOrder()
        with self.current():
            return self._core_device().create_stream(options=core().StreamOptions(nonblocking=nonblocking))

    def _core_device(self) -> Any:
        device = core().Device(self.index)
        device.set_current()
        return device


@contextmanager
def _driver_errors() -> Iterator[None]:
    """Turn what Numba's CUDA target and cuda.core raise for the driver into `DriverError` or `MemoryError`."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("cuda.", "numba.cuda.cudadrv")):
            raise
        text = " ".join(str(error).split())
        raise (MemoryError if "OUT_OF_MEMORY" in text else DriverError)(text) from error


class Memory:
    """Bytes on a device; `Device.allocate` makes it.

    Copies to and from the host's memory on a ``stream`` may not be done when the call returns; without one they are.
    """

    def __init__(self, device: Device, array: Any) -> None:
        self._device = device
        self._held = [array]
        # Memory is freed in its context, which may not be the current one of the thread that drops the last reference.
        weakref.finalize(self, _let_go, device, self._held).atexit = False
        pointer = array.ctypes.data if simulated() else array.device_ctypes_pointer.value
        self.address = int(pointer)

    def upload(self, values: np.ndarray, offset: int = 0, stream: Any = None) -> None:
        """Copy an array to ``offset``."""
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._copy("copy_to_device", raw, offset, stream)

    def download(self, values: Float32Array, offset: int = 0, stream: Any = None) -> None:
        """Fill a contiguous array from ``offset``."""
        self._copy("copy_to_host", values.reshape(-1).view(np.uint8), offset, stream)

    def _copy(self, copy: str, raw: np.ndarray, offset: int, stream: Any) -> None:
        if raw.size:
            on = self._device.stream() if stream is None else stream
            with self._device.current():
                getattr(self._held[0][offset : offset + raw.size], copy)(raw, on)
                if stream is None:
                    on.sync()

    def copy_from(self, address: int, size: int, offset: int, stream: Any) -> None:
        """Copy ``size`` bytes from elsewhere on the device to ``offset``, in the order of a stream."""
        if size and simulated():
            ctypes.memmove(self.address + offset, address, size)
        elif size:
            buffer = core().Buffer
            with self._device.current():
                source = buffer.from_handle(address, size)
                buffer.from_handle(self.address + offset, size, owner=self).copy_from(source, stream=stream)


def _let_go(device: Device, held: list[Any]) -> None:
    with suppress(DriverError), device.current():
        held.clear()


def pack_channels(values: Float32Array) -> Float32Array:
    """One value per channel, padded with zeros to whole vectors."""
    packed = np.zeros(-(-values.size // 4) * 4, np.float32)
    packed[: values.size] = values
    return packed


@cache
def open_device(index: int) -> Device:
    """The device of this number, which must exist; see `missing`."""
    return Device(index)


def first_device() -> Device:
    """The device on which the kernels' ``call`` functions run."""
    return open_device(0)
