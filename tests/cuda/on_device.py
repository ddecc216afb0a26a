"""Arrays on a CUDA device, or on Numba's simulator of one."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet_kernels.gpu.arrays import DeviceArray
from refnet_kernels.gpu.device import open_device


def on_device(array: np.ndarray, index: int = 0) -> DeviceArray:
    device = open_device(index)
    memory = device.allocate(array.nbytes)
    memory.upload(array)
    with device.current():
        return DeviceArray(device, memory, array.shape, device.stream(), device.stream().record())


class Foreign:
    """Another library's array: facts of one, or a few others."""

    def __init__(self, array: DeviceArray, **facts: Any) -> None:
        self._array = array
        self.__cuda_array_interface__ = array.__cuda_array_interface__ | facts
