"""What the compiler targets: how many binary32 lanes a vector register holds.

The contract leaves the vector width free, so this is a choice of speed only. ``REFNET_LANES`` (4, 8 or 16) forces
one, which the tests use to show that every width gives the same bits.
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm
from numba.core import config


def _lanes() -> int:
    forced = os.environ.get("REFNET_LANES")
    if forced is not None:
        if forced not in ("4", "8", "16"):
            raise ValueError(f"REFNET_LANES is {forced!r}; it can be 4, 8 or 16")
        return int(forced)
    if config.CPU_NAME and config.CPU_NAME != "host":
        # Only the host's features are known; another target gets the narrowest form, or that of its feature string.
        features = dict.fromkeys((config.CPU_FEATURES or "").replace("+", "").split(","), True)
    else:
        features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx2") else 4


LANES: int = _lanes()
