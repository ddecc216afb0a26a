"""A device that is the checker: refnet's own host code launches its kernels on it."""

from __future__ import annotations

import inspect
import math
import weakref
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from refnet.run import cuda as cuda_executor
from refnet_kernels.gpu import device as gpu_device
from refnet_kernels.gpu import program as gpu_program
from refnet_kernels.gpu.launch import CudaKernel, CudaLaunch
from tests.ptxcheck import Memory, PtxKernel
from tests.ptxcheck.compiling import ptx

POISON = np.float32(-1.2345e30)


class CheckedDevice:
    """Stands in for `refnet_kernels.gpu.device.Device`.

    What an upload filled whole, kernels may read and not write; the rest begins as poison.

    Parameters
    ----------
    folder
        Where the compiled kernels are kept.
    processors
        How many multiprocessors it says it has.
    orders
        In how many orders of threads and blocks each launch is run.
    cc
        The compute capability that the PTX is made for.
    """

    def __init__(self, folder: Path, processors: int = 132, orders: int = 3, cc: tuple[int, int] = (8, 0)):
        self.folder, self.processors, self.orders, self.cc = folder, processors, orders, cc
        self.index = 0
        self.memory = Memory()
        #: Every kernel that was launched, for the tests to see.
        self.launched: set[CudaKernel] = set()

    @property
    def model(self) -> str:
        return f"sm_{self.cc[0]}{self.cc[1]}"

    def current(self) -> nullcontext[None]:
        return nullcontext()

    def stream(self, given: object = None) -> gpu_device.InOrder:
        return gpu_device.InOrder()

    def free_bytes(self) -> float:
        return math.inf

    def allocate(self, size: int) -> CheckedMemory:
        return CheckedMemory(self, size)

    def run(self, launch: CudaLaunch) -> None:
        if not launch.grid:
            return
        self.launched.add(launch.kernel)
        values = dict(zip(inspect.signature(launch.kernel.function).parameters, launch.arguments, strict=True))
        for array in self.memory.arrays:
            names = [n for n, value in values.items() if 0 <= value - array.address < array.array.nbytes]
            array.name = " and ".join(names) or "an array of another launch"
        kernel, shared = compiled(launch.kernel, self.folder, self.cc), launch.kernel.shared_bytes
        block = (launch.kernel.threads,)
        kernel.launch(self.memory, (launch.grid,), block, launch.arguments, shared_bytes=shared, orders=self.orders)


class CheckedMemory:
    """Bytes on the checked device."""

    def __init__(self, device: CheckedDevice, size: int):
        data = np.full(max(size, 1) // 4 + 1, POISON).view(np.uint8)[: max(size, 1)]
        self._array = device.memory.put("", data, writable=True)
        self.address = self._array.address
        weakref.finalize(self, device.memory.drop, self._array)

    def upload(self, values: np.ndarray, offset: int = 0, stream: object = None) -> None:
        raw = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._array.array[offset : offset + raw.size] = raw
        self._array.writable = raw.size < self._array.array.size

    def download(self, values: np.ndarray, offset: int = 0, stream: object = None) -> None:
        raw = values.reshape(-1).view(np.uint8)
        raw[...] = self._array.array[offset : offset + raw.size]


class CheckedProgram:
    """Launches in order."""

    def __init__(self, device: CheckedDevice, launches: list[CudaLaunch]):
        self._device, self._launches = device, launches

    def record(self) -> bool:
        return False

    def run(self, stream: object = None) -> None:
        for launch in self._launches:
            self._device.run(launch)


def use(device: CheckedDevice, patch: pytest.MonkeyPatch) -> None:
    """Make it the only CUDA device that there is."""
    patch.setattr(gpu_device, "missing", lambda index=0: None)
    for module in (gpu_device, cuda_executor):
        patch.setattr(module, "open_device", lambda index: device)
    for module in (gpu_program, cuda_executor):
        patch.setattr(module, "make_program", CheckedProgram)


@cache
def compiled(kernel: CudaKernel, folder: Path, cc: tuple[int, int] = (8, 0)) -> PtxKernel:
    """A kernel of refnet's for the checker."""
    return PtxKernel(text(kernel, cc), folder, kernel.function.__name__)


@cache
def text(kernel: CudaKernel, cc: tuple[int, int]) -> str:
    """Its PTX, as a device would compile it."""
    return ptx(kernel.function, kernel.signature, cc, launch_bounds=(kernel.threads, kernel.blocks))
