"""Random bits that depend on a name and a seed alone, the same on every machine."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def random_bits(name: str, size: int, seed: int) -> NDArray[np.uint64]:
    """``size`` times 64 random bits that depend on the name and the seed alone: Philox, of integer operations only."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:16], "little")
    bits: NDArray[np.uint64] = np.random.Philox(key=key).random_raw(size)
    return bits
