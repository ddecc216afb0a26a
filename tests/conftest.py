"""Options and profiles of the whole suite."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.support.needed import missing
from tests.support.tensorflow import tensorflow

hypothesis.settings.register_profile("default", derandomize=True, deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=400, print_blob=True)
# Enough to see that there is a failure: no search for the smallest one, nor for others.
hypothesis.settings.register_profile(
    "first failure",
    hypothesis.settings.get_profile("default"),
    phases=[hypothesis.Phase.generate],
    report_multiple_bugs=False,
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    left_out = [item for item in items if item.get_closest_marker("slow")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.fixture(scope="session")
def tf() -> Any:
    """TensorFlow 2."""
    return tensorflow()


@pytest.fixture(scope="session")
def built(request: pytest.FixtureRequest) -> Path:
    """The folder of compiled PTX, kept from one run to the next: a file is named by the hash of what made it."""
    if shutil.which("gcc") is None:
        missing("gcc is missing, which compiles what is made from PTX: apt-get install gcc libc6-dev")
    return Path(request.config.cache.mkdir("ptx"))


def pytest_configure() -> None:
    # A shell starts its background jobs with Ctrl-C ignored; the processes that tests interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
