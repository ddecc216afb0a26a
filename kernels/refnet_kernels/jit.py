"""Compile a kernel once, keep it on disk, and hand out its address.

Numba's own cache looks at the time of the one file that defines a function, loads whatever bytes it finds and
unpickles them. So each set of sources, Numba, NumPy, Python, target and vector width gets a directory of its own,
private to the user, and the files in it are verified by their SHA-256 before any is loaded.

``REFNET_CACHE`` names another directory, or ``off``.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from numba import types
from numba.core import config

from refnet_kernels.target import LANES

#: What every kernel of the CPU looks like: ``kernel(step, item, scratch)``. ``step`` holds the addresses and integers
#: of one step, ``item`` says which share of its work to do, ``scratch`` is the address of the thread's own memory.
KERNEL_SIGNATURE = types.void(types.CPointer(types.int64), types.int64, types.int64)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_MANIFEST = "manifest.json"
_lock = threading.RLock()
_listeners: list[Callable[[str], None]] = []


def on_compile(listener: Callable[[str], None]) -> None:
    """Have ``listener(name)`` called before a kernel is compiled (not when it comes from the cache)."""
    _listeners.append(listener)


def _key() -> str:
    """A hash over all that the machine code depends on."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(source.read_bytes())
    cpu = config.CPU_NAME or llvm.get_host_cpu_name()
    features = config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()
    digest.update(repr((numba.__version__, np.__version__, sys.version, cpu, features, LANES)).encode())
    return digest.hexdigest()[:24]


def _private(directory: Path) -> bool:
    """Make the directory, if need be; whether it is this user's alone."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError:
        return False
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    return own and not status.st_mode & 0o022 and os.access(directory, os.W_OK | os.X_OK)


@cache
def cache_directory() -> Path | None:
    """The directory of the compiled kernels, with no damaged file in it; None without a usable one."""
    chosen = os.environ.get("REFNET_CACHE")
    if chosen == "off":
        return None
    if chosen:
        root = Path(chosen)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        root = Path(home) / "refnet"
    directory = root / _key()
    if not (_private(root) and _private(directory)):
        return None
    with _alone(directory):
        _drop_damaged(directory)
    return directory


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Keep other processes from the directory, where the system can (not on Windows)."""
    with open(directory / "lock", "a") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _files(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*.nb[ic]"))
    }


def _stamps(directory: Path) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in directory.rglob("*.nb[ic]")}


def _drop_damaged(directory: Path) -> None:
    """Empty the directory unless each of its files is one that the manifest vouches for."""
    try:
        vouched = json.loads((directory / _MANIFEST).read_text())
        if all(vouched.get(name) == digest for name, digest in _files(directory).items()):
            return
    except (OSError, ValueError, AttributeError):
        pass
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def _write_manifest(directory: Path) -> None:
    handle, name = tempfile.mkstemp(dir=directory)
    with os.fdopen(handle, "w") as file:
        json.dump(_files(directory), file)
    os.replace(name, directory / _MANIFEST)


def _compile(build: Callable[..., Any], function: Callable[..., Any]) -> Any:
    """``build(cache=...)`` with Numba's cache in our directory."""
    with _lock:
        directory = cache_directory()
        if directory is None:
            _announce(function)
            return build(cache=False)
        before = config.CACHE_DIR
        config.CACHE_DIR = str(directory)
        try:
            with _alone(directory):
                before_build = _stamps(directory)
                if not any(f".{function.__qualname__}-" in name for name in before_build):
                    _announce(function)
                compiled = build(cache=True)
                if _stamps(directory) != before_build:
                    _write_manifest(directory)
        finally:
            config.CACHE_DIR = before
        return compiled


def _announce(function: Callable[..., Any]) -> None:
    for listener in _listeners:
        listener(f"{function.__module__.removeprefix('refnet_kernels.')}.{function.__qualname__}")


@cache
def kernel_address(function: Callable[..., None]) -> int:
    """The address of a kernel's machine code.

    Parameters
    ----------
    function : callable
        A function ``kernel(step, item, scratch)`` in Numba's subset of Python.
    """
    compiled = _compile(
        lambda cache: numba.cfunc(KERNEL_SIGNATURE, cache=cache, error_model="numpy")(function), function
    )
    # The code lives as long as its CFunc does.
    _kept.append(compiled)
    return int(compiled.address)


_kept: list[Any] = []


@cache
def jitted(function: Callable[..., Any], signature: str) -> Callable[..., Any]:
    """A compiled, GIL-free form of a function, with one explicit signature."""
    compiled: Callable[..., Any] = _compile(
        lambda cache: numba.njit(signature, nogil=True, cache=cache, error_model="numpy")(function), function
    )
    return compiled


#: Decorates a function that kernels call: compiled into each of them, never on its own.
helper = numba.njit(error_model="numpy")
