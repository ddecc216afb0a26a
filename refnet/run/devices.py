"""Where and how a plan may be run: the devices, their dtypes and streams, the number of threads."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np

from refnet.errors import ConfigError, DeviceError
from refnet_kernels.contract import BINARY32, BINARY64
from refnet_kernels.system.cores import count_cores


def check_device(device: object) -> str:
    """``device`` itself, if it is there.

    Raises
    ------
    DeviceError
        There is no device of that name, or CUDA lacks its package, its driver or the device.
    """
    if device in ("cpu", "reference"):
        return str(device)
    if not isinstance(device, str) or not re.fullmatch(r"cuda(:\d{1,3})?", device):
        known = "'cpu', 'reference', 'cuda', 'cuda:1' and so on"
        raise DeviceError(f"There is no device {device!r}; the devices are {known}.", found=device)
    from refnet_kernels.gpu.device import missing

    reason = missing(cuda_index(device))
    if reason is not None:
        raise DeviceError(f"The CUDA device {device!r} cannot be used: {reason}.", found=device)
    return device


def cuda_index(device: str) -> int:
    """The number of the device "cuda", "cuda:1" and so on."""
    return int(device.partition(":")[2] or 0)


def check_dtype(dtype: object, device: str = "cpu") -> np.dtype[Any]:
    """The dtype of that name or type.

    Raises
    ------
    ConfigError
        It is neither float32 nor float64.
    DeviceError
        The device does not compute in it.
    """
    with suppress(TypeError, ValueError):
        for known in (BINARY32, BINARY64):
            # NumPy takes None for float64.
            if dtype is not None and np.dtype(dtype) == known:  # type: ignore[call-overload]
                if known == BINARY64 and device.startswith("cuda"):
                    raise DeviceError("The CUDA kernels compute in float32; float64 is for 'cpu' and 'reference'.")
                return known
    raise ConfigError(f"dtype is {dtype!r}; it can be 'float32' or 'float64'.", found=dtype)


def check_stream(stream: object, device: str) -> Any:
    """The stream of a CUDA device that the caller names.

    Raises
    ------
    ConfigError
        It is no stream, or the device has none.
    DeviceError
        The driver refuses it.
    """
    if not device.startswith("cuda"):
        raise ConfigError(f"A stream is given, and the device {device!r} has none; streams are for 'cuda'.")
    from refnet.run.cuda import said_of_the_device
    from refnet_kernels.gpu.device import open_device

    try:
        with said_of_the_device():
            return open_device(cuda_index(device)).stream(stream)
    except TypeError as error:
        raise ConfigError(
            f"stream is {stream!r}; it can be an object with __cuda_stream__, or the handle of a stream: an int.",
            found=stream,
        ) from error


def check_threads(threads: object) -> int:
    """How many threads to use: ``threads``, or for None as many as the process has cores.

    Raises
    ------
    ConfigError
        It is no whole number from 1 to 1024.
    """
    if threads is None:
        return count_cores()
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise ConfigError(f"threads is {threads!r}; it is a whole number from 1 to 1024.", found=threads)
    return threads
