"""The CUDA kernels in Numba's simulator, and what is said where there is no device."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from refnet_kernels.gpu import device
from refnet_kernels.gpu.launch import LARGEST, CudaKernel, make_launch

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", ["test_device_kernels.py", "test_device_networks.py"])
def test_in_the_simulator(file: str) -> None:
    """Numba decides when it is imported whether to simulate: so these tests run in a process of their own."""
    if find_spec("numba_cuda") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("numba-cuda is missing: python -m pip install '.[cuda]'")
        pytest.skip("numba-cuda is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / file)]
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # All of them, and none of them left out.
    assert re.search(r"^[1-9]\d* passed in", done.stdout, re.MULTILINE), done.stdout


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "simulated", lambda: False)

    def no_library(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(device, "version", lambda _: "13.0")
    assert "libcuda.so.1" in str(device.missing())
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert "numba-cuda cannot be imported" in str(device.missing())

    def version(name: str) -> str:
        if name == lacking:
            raise PackageNotFoundError(name)
        return "13.0"

    monkeypatch.setattr(device, "version", version)
    for lacking in ("numba-cuda", "cuda-bindings", "cuda-core"):
        assert device.missing() == f"the package {lacking} is not installed: uv run --extra cuda ..."


@pytest.mark.parametrize(("capability", "words"), [((7, 5), "below 8.0"), ((8, 0), "None"), ((10, 0), "None")])
def test_a_device_that_is_too_old_is_named(
    capability: tuple[int, int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba_cuda")
    from numba import cuda
    from numba.cuda.cudadrv import driver

    monkeypatch.setattr(device, "simulated", lambda: False)
    monkeypatch.setattr(device, "version", lambda _: "13.0")
    monkeypatch.setattr(driver, "get_version", lambda: (13, 0))
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "gpus", [SimpleNamespace(compute_capability=capability)])
    assert words in str(device.missing())
    assert "counted from 0" in str(device.missing(1))


def test_a_launch_counts_with_32_bits() -> None:
    kernel = CudaKernel(lambda x, count: None, SimpleNamespace(args=("int64", "int32")), 64, 1)
    assert make_launch(kernel, LARGEST // 64, {"count": LARGEST, "x": 2**40}).arguments == (2**40, LARGEST)
    for grid, number in ((LARGEST // 64 + 1, 0), (1, LARGEST + 1)):
        with pytest.raises(OverflowError, match="fewer images"):
            make_launch(kernel, grid, {"x": 0, "count": number})


@pytest.mark.parametrize("arguments", [{"x": 0}, {"x": 0, "count": 1, "counts": 1}])
def test_an_argument_that_is_missing_or_unknown_is_an_error(arguments: dict[str, int]) -> None:
    kernel = CudaKernel(lambda x, count: None, SimpleNamespace(args=("int64", "int32")), 64, 1)
    with pytest.raises(TypeError, match="count"):
        make_launch(kernel, 1, arguments)
