"""Images at the edge: plain arrays of floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from refnet.errors import InputError
from refnet.images.preprocess import is_masked
from refnet.run.backends import BACKENDS
from refnet_kernels.contract import BINARY32, FloatArray
from refnet_kernels.system.float_mode import contract_mode


def images_of(images: Any, dtype: np.dtype[Any] = BINARY32) -> FloatArray:
    """Float images as native, contiguous float32, or float64.

    Raises
    ------
    InputError
        They are not floats, or not a plain array.
    """
    array = as_array(images)
    if array.dtype.kind != "f":
        raise InputError(
            f"Images are uint8 (raw pixels) or floats (normalised), not {array.dtype}.", found=str(array.dtype)
        )
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    _check_extent(array, dtype)
    with contract_mode():
        return np.ascontiguousarray(array, dtype)


def _check_extent(array: np.ndarray, dtype: np.dtype[Any]) -> None:
    """Refuse a view that is far larger than the memory behind it, before it is copied."""
    size = array.size * dtype.itemsize
    if size > max(2**34, 64 * _extent(array)):
        raise InputError(f"Images of shape {array.shape} are {size / 2**30:.0f} GiB as {dtype}; that is too much.")


def _extent(array: np.ndarray) -> int:
    return sum(abs(stride) * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True))


def as_array(images: Any, what: str = "The images") -> np.ndarray:
    """Images, or what else is named, as an array on the host, whatever object holds them there.

    Raises
    ------
    InputError
        They are on a device, or are not a plain array.
    """
    backend = next((b for b in BACKENDS if b.memory and b.memory.accepts(images)), None)
    if backend is not None and backend.memory is not None:
        raise InputError(
            f"{what} ({type(images).__name__}) are on a {backend.title} device, where this does not run. Copy them "
            f"to the host first ({backend.memory.advice}), or make an Engine with device={backend.name!r}."
        )
    if is_masked(images):
        raise InputError("Masked arrays are not images: fill the masked pixels first (.filled()).")
    try:
        return np.asarray(images)
    except Exception as error:
        raise InputError(f"{what} ({type(images).__name__}) cannot be read as an array: {error}") from error
