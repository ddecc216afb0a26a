"""What a report about other bits has to tell of a machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

from refnet_kernels.contract import CONTRACT_VERSION

#: Variables of the environment that choose how kernels are compiled and run.
_PREFIXES = ("NUMBA_", "REFNET_")


def versions() -> dict[str, str]:
    """refnet, its arithmetic contract, and what its bits could depend on."""
    return {
        "refnet": _version("refnet"),
        "contract": str(CONTRACT_VERSION),
        "numba": _version("numba"),
        "llvmlite": _version("llvmlite"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
    }


def environment() -> dict[str, str]:
    """Versions, system, processor, and the variables of the environment that concern refnet and Numba."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return {
        **versions(),
        "numba-cuda": _version("numba-cuda"),
        "system": f"{platform.platform()}, {sys.byteorder}-endian",
        "cpu": f"{llvm.get_host_cpu_name()}, {_model()}",
        "features": " ".join(sorted(name for name, there in features.items() if there)),
        **{name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _model() -> str:
    """The processor's name as Linux has it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return platform.processor()
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.machine())
