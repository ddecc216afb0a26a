"""What a report about differing bits has to say about the machine."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from refnet_kernels.contract import CONTRACT_VERSION
from refnet_kernels.system.float_mode import describe_mode
from refnet_kernels.system.forks import once

#: Environment variables that control how kernels are compiled and run.
_PREFIXES = ("NUMBA_", "REFNET_")


def versions() -> dict[str, str]:
    """Versions of refnet, of its arithmetic contract, and of everything on which its bits could depend."""
    return {
        "refnet": _version("refnet"),
        "contract": str(CONTRACT_VERSION),
        "numba": _version("numba"),
        "llvmlite": _version("llvmlite"),
        "numpy": _version("numpy"),
        "python": platform.python_version(),
    }


def environment() -> dict[str, str]:
    """Versions, system, processor, and the environment variables of refnet and Numba."""
    llvm = _llvm()
    name, features = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features()) if llvm else (platform.machine(), {})
    return {
        **versions(),
        "numba-cuda": _version("numba-cuda"),
        "system": f"{platform.platform()}, {sys.byteorder}-endian",
        "cpu": f"{name}, {_model()}",
        "features": " ".join(sorted(name for name, there in features.items() if there)),
        "floating point": describe_mode(),
        **{name: value for name, value in sorted(os.environ.items()) if name.startswith(_PREFIXES)},
    }


@once
def _llvm() -> Any:
    """What compiles the kernels; None where they cannot be compiled, as in a browser."""
    try:
        import llvmlite.binding as llvm
    except ImportError:
        return None
    return llvm


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _model() -> str:
    """The processor's name, from Linux."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in file]
    except OSError:
        return platform.processor()
    return next((value.strip() for key, _, value in lines if key.strip() == "model name"), platform.machine())
