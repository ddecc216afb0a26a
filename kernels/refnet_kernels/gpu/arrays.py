"""Arrays on a CUDA device, exchanged with other libraries by DLPack or ``__cuda_array_interface__``.

Nothing is copied; streams wait for each other on the device.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from refnet_kernels.contract import BINARY32, Float32Array
from refnet_kernels.gpu.device import Device, Memory, core, handle_of, simulated

#: DLPack's codes for memory that only a CUDA device reads, and of memory that the host reads too.
_CUDA, _CUDA_MANAGED = 2, 13


class DeviceView(NamedTuple):
    """Another library's array, in its own memory.

    Attributes
    ----------
    address : int
    shape : tuple of int
    strides : tuple of int
        In elements.
    dtype : numpy.dtype
    device : int
        Number of the device.
    owner : object
        Keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    device: int
    owner: Any

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def batch(self) -> DeviceView:
        """The same array, with a first axis for the batch if it is a single image."""
        if self.ndim == 4:
            return self
        return self._replace(shape=(1, *self.shape), strides=(0, *self.strides))

    @property
    def contiguous(self) -> bool:
        """Whether it is C-contiguous."""
        return 0 in self.shape or all(
            size == 1 or stride == expected
            for size, stride, expected in zip(self.shape, self.strides, _strides(self.shape), strict=True)
        )


class DeviceArray:
    """A C-contiguous float32 array on a CUDA device, which nobody else writes to.

    Other libraries take it without a copy: ``torch.from_dlpack(x)``, ``cupy.from_dlpack(x)``,
    ``numba.cuda.as_cuda_array(x)``. They wait for it on the device, by the protocols' own rules.

    Parameters
    ----------
    device : Device
    memory : Memory
    shape : tuple of int
    stream, ready
        The stream that writes it, and an event that is done once the array is complete.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    """

    def __init__(self, device: Device, memory: Memory, shape: tuple[int, ...], stream: Any, ready: Any) -> None:
        self._device = device
        self._memory = memory
        self._stream = stream
        self._ready = ready
        self.shape = shape
        self.dtype = BINARY32

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same memory with another shape."""
        return DeviceArray(self._device, self._memory, shape, self._stream, self._ready)

    def copy_to_host(self) -> Float32Array:
        """A copy of the array in NumPy."""
        values = np.empty(self.shape, np.float32)
        with self._device.current():
            stream = self._device.stream()
            stream.wait(self._ready)
            self._memory.download(values, 0, stream)
            stream.sync()
        return values

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("This array is on a CUDA device, and NumPy works on the host's memory: use .copy_to_host().")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; the consumer waits for the stream."""
        return {
            "version": 3,
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self._memory.address, False),
            "strides": None,
            "stream": handle_of(self._stream),
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, self._device.index

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        size = 4 * math.prod(self.shape)
        with self._device.current():
            if stream != -1:
                # A consumer that gives no stream means the legacy default one, whose handle is 1.
                self._device.stream(1 if stream is None else stream).wait(self._ready)
            buffer = core().Buffer.from_handle(self._memory.address, size, owner=self._memory)
            view = core().utils.StridedMemoryView.from_buffer(buffer, self.shape, dtype=self.dtype)
            elsewhere = None if dl_device == self.__dlpack_device__() else dl_device
            return view.__dlpack__(max_version=max_version, dl_device=elsewhere, copy=copy)


def on_cuda(array: Any) -> bool:
    """Whether an object is an array on a CUDA device, by either protocol."""
    if not isinstance(array, np.ndarray):
        # Some attributes of some tensors raise errors when they are read.
        with suppress(Exception):
            if hasattr(array, "__dlpack_device__"):
                return array.__dlpack_device__()[0] in (_CUDA, _CUDA_MANAGED)
            return hasattr(array, "__cuda_array_interface__")
    return False


def view_of(array: Any, device: Device, stream: Any) -> DeviceView:
    """Another library's array, in its own memory. Later work on the stream waits for the work that made the array.

    Raises
    ------
    BufferError, ValueError, TypeError
        The library does not export it, or describes it wrongly.
    """
    if simulated():
        return _simulated_view(array)
    with device.current():
        view = core().utils.StridedMemoryView.from_any_interface(array, stream_ptr=handle_of(stream))
    strides = _strides(view.shape) if view.strides is None else view.strides
    return DeviceView(view.ptr, view.shape, strides, view.dtype, view.device_id, view)


def _simulated_view(array: Any) -> DeviceView:
    facts = array.__cuda_array_interface__
    shape, dtype = tuple(facts["shape"]), np.dtype(facts["typestr"])
    strides = facts.get("strides")
    strides = _strides(shape) if strides is None else tuple(stride // dtype.itemsize for stride in strides)
    return DeviceView(facts["data"][0], shape, strides, dtype, 0, array)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a C-contiguous array, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
