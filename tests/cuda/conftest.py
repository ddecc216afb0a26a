"""What the tests of CUDA kernels share, and what they need."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> Path:
    """The folder of compiled PTX, kept from one run to the next: a file is named by the hash of what made it."""
    from needed import missing

    if shutil.which("gcc") is None:
        missing("gcc is missing, which compiles what is made from PTX: apt-get install gcc libc6-dev")
    return Path(request.config.cache.mkdir("ptx"))
