"""The real Numba and the real bindings on a driver without a device, which writes down what is asked of it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.support.needed import missing

HERE = Path(__file__).parent


def test_on_a_driver_that_writes_down_what_is_asked_of_it(tmp_path: Path, built: Path) -> None:
    """The process finds this driver where it looks for NVIDIA's: so these tests run in one of their own."""
    library = tmp_path / "libcuda.so.1"
    command = ["gcc", "-shared", "-fPIC", "-O1", f"-I{cuda_headers()}", str(HERE / "fake_driver.c"), "-o", str(library)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    # Numba asks for this name first.
    (tmp_path / "libcuda.so").symlink_to(library)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("NUMBA_ENABLE_CUDASIM", None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "on_fake_driver.py")],
        env=environment, cwd=HERE.parents[1], capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^[1-9]\d* passed in", done.stdout, re.MULTILINE), done.stdout


def cuda_headers() -> Path:
    spec = importlib.util.find_spec("nvidia")
    folders = (spec.submodule_search_locations or []) if spec else []
    found = [header.parent for folder in folders for header in Path(folder).glob("*/include/cuda.h")]
    return found[0] if found else missing("cuda.h is missing: python -m pip install nvidia-cuda-runtime")
