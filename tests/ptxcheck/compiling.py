"""PTX of a kernel, and mutants of the file that holds it."""

from __future__ import annotations

import importlib.util
import types
from pathlib import Path
from typing import Any
from unittest import mock

from tests.support.needed import missing

if importlib.util.find_spec("numba_cuda") is None:
    missing("numba-cuda is missing: python -m pip install '.[cuda]'")

import numba.cuda.dispatcher
from numba import cuda


def ptx(kernel: Any, signature: Any, cc: tuple[int, int] = (8, 0), **options: Any) -> str:
    """Compile for a device that need not be there."""
    # Device functions are compiled for the current device, whatever the kernel is compiled for.
    device = types.SimpleNamespace(compute_capability=cc)
    with mock.patch.object(numba.cuda.dispatcher, "get_current_device", return_value=device):
        text, _ = cuda.compile(kernel, signature, device=False, abi="numba", cc=cc, **options)
    return str(text)


def mutant(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """A copy of a module in whose source one text, which must be there once, is another."""
    path = Path(str(module.__file__))
    source = path.read_text()
    assert source.count(old) == 1, f"{old!r} is {source.count(old)} times in {path.name}"
    copy = types.ModuleType(module.__name__)
    copy.__file__ = str(path)
    exec(compile(source.replace(old, new), str(path), "exec"), copy.__dict__)
    return copy
