"""SHA-256 of arrays, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def digest(array: Any) -> str:
    """SHA-256 of an array's values, little-endian in C order.

    The sign and the payload of a NaN are outside the contract, so every NaN counts as the same one.

    Parameters
    ----------
    array : float array

    Returns
    -------
    str
        64 hexadecimal digits.
    """
    return hashlib.sha256(_little_endian(array)).hexdigest()


def digest_all(arrays: Mapping[str, Any], names: Iterable[str]) -> str:
    """SHA-256 of the arrays of these names, with their names and shapes; the order of the names does not matter."""
    sha = hashlib.sha256()
    for name in sorted(names):
        sha.update(f"{name} {list(np.shape(arrays[name]))}\n".encode())
        sha.update(_little_endian(arrays[name]))
    return sha.hexdigest()


def short_digests(arrays: Mapping[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """The first 8 digits of the SHA-256 of each array, in the order of their names: to tell which ones changed."""
    return tuple(digest(arrays[name])[:8] for name in sorted(names))


def _little_endian(array: Any) -> memoryview:
    values = np.asarray(array)
    nans = np.isnan(values)
    if nans.any():
        values = np.where(nans, values.dtype.type(np.nan), values)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return values.reshape(-1).view(np.uint8).data
