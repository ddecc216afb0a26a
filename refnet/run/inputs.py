"""Images at the edge: plain arrays of floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from refnet.errors import InputError
from refnet.images.preprocess import is_masked
from refnet.resources import check_room, is_want
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
    return converted(check_floats(as_array(images)), dtype)


def converted(array: np.ndarray, dtype: np.dtype[Any]) -> FloatArray:
    """An array of floats as native, contiguous float32, or float64.

    Raises
    ------
    InputError
        There is no memory for a copy.
    """
    if array.dtype == dtype and array.flags.c_contiguous:
        return array
    each, count = math.prod(array.shape[1:]) * dtype.itemsize, array.shape[0] if array.ndim else 1
    # A view can be far larger than the memory behind it.
    check_room(each, f"A copy as {dtype} of images of shape {array.shape}", count)
    with contract_mode():
        return np.ascontiguousarray(array, dtype)


def check_floats(array: np.ndarray) -> np.ndarray:
    """The array itself, if it holds floats.

    Raises
    ------
    InputError
    """
    if array.dtype.kind != "f":
        raise InputError(
            f"Images are uint8 (raw pixels) or floats (normalised), not {array.dtype}.", found=str(array.dtype)
        )
    return array


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
        if is_want(error):
            raise
        raise InputError(f"{what} ({type(images).__name__}) cannot be read as an array: {error}") from error
