"""Arrays that tests draw, and how they say that two are the same: random images, bits and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from refnet_kernels.contract import FloatArray

Arrays = dict[str, FloatArray]


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    """Normalised images, float32.

    `refnet.seeded` draws others, by a generator that is itself under test.
    """
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def assert_same_bits(found: Arrays, expected: Arrays) -> None:
    """The same shapes and bits; where one is NaN, so is the other, whatever its payload."""
    assert list(found) == list(expected)
    for name, value in found.items():
        other = expected[name]
        assert (value.shape, value.dtype) == (other.shape, other.dtype), name
        np.testing.assert_array_equal(np.isnan(value), np.isnan(other), name)
        numeric, bits = ~np.isnan(value), f"u{value.itemsize}"
        np.testing.assert_array_equal(value[numeric].view(bits), other[numeric].view(bits), name)


# The digests that refnet publishes are computed by `refnet.evidence.digest`. It is held to these, so they stay apart.


def digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the arrays' little-endian bytes, each in its own dtype; a NaN counts with its payload."""
    sha = hashlib.sha256()
    for array in arrays:
        sha.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()


def digest_results(results: Iterable[Arrays]) -> str:
    """SHA-256 of all names, shapes and bits, with one payload for every NaN."""
    sha = hashlib.sha256()
    for result in results:
        for name, value in result.items():
            sha.update(f"{name} {value.shape}".encode())
            nan = value.dtype.type(np.nan)
            sha.update(np.where(np.isnan(value), nan, value).astype(value.dtype.newbyteorder("<")).tobytes())
    return sha.hexdigest()
