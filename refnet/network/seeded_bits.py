"""Random bits that depend only on a name and a seed, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from refnet_kernels.system.forks import once


@once
def _philox() -> type[np.random.Philox]:
    return np.random.Philox  # which NumPy imports when it is first asked for


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
    bits: NDArray[np.uint64] = _philox()(key=key).random_raw(size)
    return bits
