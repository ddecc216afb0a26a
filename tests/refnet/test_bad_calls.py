"""A call with an argument of the wrong kind gives an error of refnet's own, soon, and in little memory."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import golden, plots, seeded, testing
from refnet.checks import shown
from refnet.errors import RefnetError, RefnetWarning
from tests.refnet import bad_calls
from tests.refnet.bad_calls import ANYTHING, BadCall, Function, Strange, functions, make_files, text_of
from tests.support.limits import within_limits

#: The same functions for other networks; classes that hold what they are given, and exceptions.
ALIKE = {f"resnet_v{version}_{layers}" for version in (1, 2) for layers in (34, 101, 152, 200)}
RECORDS = {"RefnetError", "RefnetWarning", "golden.Golden", "golden.Report"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    make_files(folder)
    return folder


@pytest.fixture(scope="module")
def every(folder: Path) -> dict[str, Function]:
    return functions(folder)


def test_every_public_name_is_there(every: dict[str, Function]) -> None:
    public = set(refnet.__all__) | {"testing.assert_golden"}
    public |= {f"golden.{name}" for name in golden.__all__} | {f"seeded.{name}" for name in seeded.__all__}
    public |= {f"plots.{name}" for name in plots.__all__}
    assert public - ALIKE - RECORDS <= set(every)
    assert [name for name in vars(testing) if name.startswith("assert")] == ["assert_golden"]


def declared(call: Callable[..., Any]) -> set[str]:
    """The parameters that a function itself has, without the options that it passes on."""
    code = inspect.unwrap(call.__init__ if isinstance(call, type) else call).__code__  # type: ignore[misc]
    return set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]) - {"self"}


def test_every_parameter_is_there(every: dict[str, Function]) -> None:
    for name, function in every.items():
        named = declared(function.call)
        if name in {"Engine", "forward", "conv2d_same"}:  # to which the others pass their options on
            named |= set(inspect.signature(function.call).parameters)
        # A scope that nothing is stored under.
        assert named - {"scope"} <= set(function.arguments) | set(function.kinds), name


def test_sound_calls_are_sound(every: dict[str, Function]) -> None:
    for function in every.values():
        function.call(**function.arguments)


def test_each_wrong_argument_has_its_error(folder: Path) -> None:
    count = 0
    for bad in bad_calls.bad_calls(folder):
        with within_limits():
            error = error_of(bad)
        assert error is not None, f"{bad.function}({bad.wrong}) is accepted"
        assert isinstance(error, bad.error), f"{bad.function}({bad.wrong}) gives {error!r}"
        assert re.search(bad.message, error.message), f"{bad.function}({bad.wrong}) says {error.message}"
        assert "\n" not in error.message
        count += 1
    assert count > 2000


def error_of(bad: BadCall) -> RefnetError | None:
    try:
        bad.call()
    except RefnetError as error:
        return error
    return None


def attempts(every: dict[str, Function]) -> list[tuple[str, str, object]]:
    return [
        (name, parameter, value)
        for name, function in every.items()
        for parameter, value in itertools.product(function.arguments, ANYTHING)
    ]


def check_attempt(function: Function, parameter: str, value: object) -> None:
    """A result, an error of refnet's own, or the system's about a file; no warning but refnet's own."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", RefnetWarning)
        try:
            function.call(**{**function.arguments, parameter: value})
        except (RefnetError, OSError):
            return
        except AssertionError as error:  # a golden that is not there, or was recorded otherwise
            assert function.call is testing.assert_golden, error  # noqa: PT017


def check_attempts(every: dict[str, Function], chosen: list[tuple[str, str, object]]) -> None:
    for name, parameter, value in chosen:
        try:
            check_attempt(every[name], parameter, value)
        except Exception as error:
            raise AssertionError(f"{name}({parameter}={text_of(value)}) gives a {type(error).__name__}") from error


def test_anything_anywhere(every: dict[str, Function], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # for what is written to a file named "x"
    check_attempts(every, attempts(every)[::7])


@pytest.mark.slow
def test_everything_everywhere(every: dict[str, Function], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_attempts(every, attempts(every))


@pytest.mark.parametrize("value", [10**5000, Strange(), "x" * 10**6, np.zeros(10**6), "a\nb"], ids=text_of)
def test_what_a_message_shows_is_short(value: object) -> None:
    assert len(shown(value)) < 100
    assert "\n" not in shown(value)
