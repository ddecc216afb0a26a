"""What the compiler targets, and the register tile that fits it.

The contract leaves vector width and tile free, so these choices affect only the speed. ``NUMBA_CPU_NAME`` and
``NUMBA_CPU_FEATURES`` choose another processor, as in Numba; ``REFNET_LANES`` (4, 8 or 16) forces a vector width,
which the tests use to show that every width gives the same bits.
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm

from refnet_kernels.system.settings import setting

CPU = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
FEATURES: str = (
    os.environ.get("NUMBA_CPU_FEATURES", "")
    if "NUMBA_CPU_NAME" in os.environ
    else llvm.get_host_cpu_features().flatten()
)


def _lanes() -> int:
    """binary32 numbers per vector register. Of a processor other than the host only the feature string is known."""
    forced = setting("REFNET_LANES")
    if forced is None:
        return 16 if "+avx512f" in FEATURES else 8 if "+avx2" in FEATURES else 4
    return int(forced)


LANES = _lanes()
#: Pixels per tile. A wide register file (32 registers of 16 lanes) holds two sets of 7 x 2 sums; 7 also divides every
#: feature map of a 224 x 224 image. With 16 registers, 6 x 2 sums, 2 weights and a pixel fill 15 of them.
ROWS = 7 if LANES == 16 else 6
#: Vectors per row.
VECTORS = 2
#: Output channels per tile in binary32: the width of a panel of packed weights. In binary64 half as many fill it.
WIDTH = VECTORS * LANES
#: Bytes of a vector, and of a tile's row, whatever its elements are.
VECTOR_BYTES = LANES * 4
WIDTH_BYTES = VECTORS * VECTOR_BYTES
#: Whether an instruction moves a vector's numbers that are not 0 to its front, and another repeats any one of them.
CAN_COMPACT = LANES == 16 and "+avx512f" in FEATURES
#: Bytes of a cache line.
LINE_BYTES = 64
