"""What the tests of CUDA kernels share, and what they need."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "kernels")]


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> Path:
    """The folder of compiled PTX, kept from one run to the next: a file is named by the hash of what made it."""
    return Path(request.config.cache.mkdir("ptx"))
