"""Random bits that depend only on a name and a seed, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def random_bits(name: str, size: int, seed: int) -> NDArray[np.uint64]:
    """Random bits that depend only on a name and a seed: Philox, with integer operations only.

    Parameters
    ----------
    name : str
    size : int
    seed : int

    Returns
    -------
    uint64 array [size]
    """
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(size)
    return bits
