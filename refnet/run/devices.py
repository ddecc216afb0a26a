"""Where and how a plan may be run: devices by their names, their dtypes and streams, the number of threads."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import shown
from refnet.errors import ConfigError, DeviceError
from refnet.graph.plan import Plan
from refnet.run.backends import BACKENDS, Backend, Executor
from refnet.run.constants import Constants
from refnet_kernels.system.cores import count_cores
from refnet_kernels.system.float_mode import contract_mode
from refnet_kernels.system.settings import wrong_setting

_NAME = re.compile(r"(?P<backend>[a-z]+)(:(?P<index>\d{1,3}))?")


class Device(NamedTuple):
    """A device, chosen by its name: "cpu", "reference", "cuda", "cuda:1" and so on."""

    backend: Backend
    number: int

    @contract_mode()
    def executor(
        self, plan: Plan, constants: Constants, threads: int, dtype: np.dtype[Any], zeros: bool = True
    ) -> Executor:
        """The executor of a plan on this device.

        Parameters
        ----------
        plan : Plan
        constants : Constants
            Shared by all plans of an engine.
        threads : int
            Number of threads of the CPU's kernels.
        dtype : numpy.dtype
            Dtype of the images, of the outputs and of all values between them.
        zeros : bool
            Whether products with zeros may be left out.

        Raises
        ------
        DeviceError
            The device's memory is too small.
        """
        return self.backend.open(plan, constants, self.number, threads, dtype, zeros)


def device_named(name: object) -> Device:
    """The device of this name, whether it exists or not.

    Raises
    ------
    DeviceError
        No device has such a name.
    """
    match = _NAME.fullmatch(name) if isinstance(name, str) else None
    backend = next((b for b in BACKENDS if match and b.name == match["backend"]), None)
    if match is None or backend is None or (match["index"] and backend.missing is None):
        names = [repr(b.name) for b in BACKENDS] + [repr(f"{b.name}:1") for b in BACKENDS if b.missing]
        raise DeviceError(
            f"There is no device {shown(name)}; the devices are {', '.join(names)} and so on.", found=name
        )
    return Device(backend, int(match["index"] or 0))


def check_settings() -> None:
    """Refuse values of refnet's environment variables that they cannot have.

    Raises
    ------
    ConfigError
    """
    wrong = wrong_setting()
    if wrong is not None:
        raise ConfigError(f"The environment variable {wrong}.")


def check_device(name: object) -> str:
    """``name`` itself, if there is such a device.

    Raises
    ------
    DeviceError
        There is no device of that name, or a package, its driver or the device itself is missing.
    ConfigError
        An environment variable of refnet has a value that it cannot have.
    """
    check_settings()
    device = device_named(name)
    reason = device.backend.missing(device.number) if device.backend.missing else None
    if reason is not None:
        raise DeviceError(f"The {device.backend.title} device {name!r} cannot be used: {reason}.", found=name)
    return str(name)


def check_dtype(dtype: object, name: str = "cpu") -> np.dtype[Any]:
    """The dtype of that name or type.

    Raises
    ------
    ConfigError
        It is neither float32 nor float64.
    DeviceError
        The device of this name does not compute in it.
    """
    known = dict.fromkeys(dtype for backend in BACKENDS for dtype in backend.dtypes)
    found = None
    with suppress(Exception):  # NumPy asks strange objects for much; it reads None as float64
        found = next((entry for entry in known if dtype is not None and np.dtype(dtype) == entry), None)  # type: ignore[call-overload]
    if found is not None:
        _check_computes(device_named(name).backend, found)
        return found
    raise ConfigError(f"dtype is {shown(dtype)}; it can be {' or '.join(repr(d.name) for d in known)}.", found=dtype)


def _check_computes(backend: Backend, dtype: np.dtype[Any]) -> None:
    if dtype not in backend.dtypes:
        others = " and ".join(repr(other.name) for other in BACKENDS if dtype in other.dtypes)
        own = " and ".join(known.name for known in backend.dtypes)
        raise DeviceError(f"The {backend.title} kernels compute in {own}; {dtype} is for {others}.")


def check_stream(stream: object, name: str) -> Any:
    """The stream of a device that the caller names.

    Raises
    ------
    ConfigError
        It is not a stream, or the device has none.
    DeviceError
        The driver refuses it.
    """
    device = device_named(name)
    if device.backend.memory is None:
        others = " and ".join(repr(other.name) for other in BACKENDS if other.memory)
        raise ConfigError(f"A stream is given, and the device {name!r} has none; streams are for {others}.")
    try:
        return device.backend.memory.stream(stream, device.number)
    except TypeError as error:
        raise ConfigError(
            f"stream is {shown(stream)}; it can be an object with __cuda_stream__, or the handle of a stream: an int.",
            found=stream,
        ) from error


def check_threads(threads: object) -> int:
    """How many threads to use: ``threads``, or for None as many cores as the process may use.

    Raises
    ------
    ConfigError
        It is not a whole number from 1 to 1024.
    """
    if threads is None:
        return count_cores()
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= 1024:
        raise ConfigError(f"threads is {shown(threads)}; it is a whole number from 1 to 1024.", found=threads)
    return threads
