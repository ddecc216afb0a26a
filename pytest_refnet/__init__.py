"""A plugin for pytest: goldens of refnet beside the tests that use them.

.. code-block:: python

    def test_bits(refnet_golden):
        refnet_golden("resnet_v2_50.ckpt", image)


    def test_port(refnet_golden):
        refnet_golden("resnet_v2_50.ckpt", image, end_points=port(image), max_ulps=64)

``pytest --refnet-update`` records the goldens that are missing or differ, and lists them. ``pytest -p no:refnet`` does
without the plugin. refnet itself is imported when a test calls the fixture.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

__all__ = ["RefnetGolden", "refnet_golden"]

#: What a test has updated, a text of some lines per golden.
_UPDATED = pytest.StashKey[list[str]]()
#: Characters of a part of a file's name that need no quotes in a shell; and how many a part may have.
_UNSAFE, _LONGEST = re.compile(r"[^A-Za-z0-9_.,=+-]+"), 100


class RefnetGolden:
    """The fixture ``refnet_golden``: compares with the golden of the test.

    The golden is ``goldens/<test file>/<test>.safetensors`` beside the test's file.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self._calls = 0

    def __call__(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        images: Any = None,
        *,
        name: str | None = None,
        end_points: Mapping[str, Any] | None = None,
        max_ulps: float = 0,
        hashes_only: bool = False,
        **options: Any,
    ) -> None:
        """Fail unless refnet, or another engine, computes what the golden holds; with ``--refnet-update``, record it.

        Parameters
        ----------
        weights, images, end_points, max_ulps, hashes_only, **options
            As for `refnet.testing.assert_golden`. A golden can only be recorded if the test passes weights and images.
        name : str, optional
            For a test with several goldens; by default the calls of a test are numbered.

        Raises
        ------
        AssertionError, GoldenError, WeightsError, InputError, ConfigError, DeviceError
            As `refnet.testing.assert_golden` raises them.
        """
        __tracebackhide__ = True
        from refnet.errors import RefnetError, RefnetWarning

        try:
            self._compare(weights, images, name, end_points, max_ulps, hashes_only, options)
        except (AssertionError, RefnetError, RefnetWarning) as error:
            if isinstance(error, AssertionError) or "record it again" in str(error):
                needed = " once the test passes weights and images" if weights is None or images is None else ""
                error.add_note(f"`pytest {shlex.quote(self._item.nodeid)} --refnet-update` records it{needed}.")
            # pytest shows every frame of a traceback with the arrays that were passed to it; the message says all.
            raise error.with_traceback(None) from None

    def _compare(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str] | None,
        images: Any,
        name: str | None,
        end_points: Mapping[str, Any] | None,
        max_ulps: float,
        hashes_only: bool,
        options: dict[str, Any],
    ) -> None:
        from refnet.checks import check_text
        from refnet.errors import ConfigError
        from refnet.evidence.updating import is_updating, update_golden
        from refnet.testing import assert_golden

        if name is not None:
            check_text(name=name)
            if not name:
                raise ConfigError("The name of a golden is empty: leave it out, or pass some characters.", found=name)
        config, path = self._item.config, self._path(name)
        shown = os.path.relpath(path, config.rootpath)
        if weights is not None and images is not None and (config.getoption("refnet_update") or is_updating()):
            changes = update_golden(path, weights, images, hashes_only=hashes_only, **options)
            if changes:
                self._item.stash.setdefault(_UPDATED, []).append("\n  ".join([f"{shown}:", *changes]))
        elif not path.exists():
            raise AssertionError(f"There is no golden {shown}: record it.")
        assert_golden(
            path, weights, images, end_points=end_points, max_ulps=max_ulps, hashes_only=hashes_only, **options
        )

    def _path(self, name: str | None) -> Path:
        if name is None:
            self._calls += 1
        item = self._item
        parts = [node.name for node in item.listchain() if isinstance(node, pytest.Class)]
        function, bracket, parameters = item.name.partition("[")
        parts.append(_safe(function) + (f"-{_safe(parameters.removesuffix(']'))}" if bracket else ""))
        if name is not None or self._calls > 1:
            parts.append(_safe(name if name is not None else str(self._calls)))
        return item.path.parent / "goldens" / item.path.stem / f"{'.'.join(parts)}.safetensors"


def _safe(text: str) -> str:
    """The text as a part of a file's name; with some digits of its hash if it had to be changed."""
    safe = _UNSAFE.sub("_", text)[:_LONGEST]
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:8]}"


@pytest.fixture
def refnet_golden(request: pytest.FixtureRequest) -> RefnetGolden:
    """Compare a network's end points with the golden beside the test."""
    return RefnetGolden(request.node)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--refnet-update``."""
    parser.getgroup("refnet").addoption(
        "--refnet-update", action="store_true", help="record the goldens that are missing or differ, and list them"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Collect what the tests, perhaps in other processes, have updated."""
    config.pluginmanager.register(_Summary())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Put what was updated into the test's report, which reaches the main process."""
    outcome = yield
    texts = item.stash.get(_UPDATED, None)
    if texts:
        outcome.get_result().refnet_updated = list(texts)
        texts.clear()


class _Summary:
    """The section of the terminal's summary."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._texts += getattr(report, "refnet_updated", [])

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._texts:
            terminalreporter.section("refnet goldens")
            for text in sorted(self._texts):
                terminalreporter.line(text)
