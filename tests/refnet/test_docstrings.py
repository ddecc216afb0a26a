"""Every public name has an example in its docstring. They run beside the files that ``refnet demo --save`` writes."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from refnet.cli import main
from refnet.cli.explain import CLASSES
from tests.documentation import TEXTS

#: The packages that examples need beyond refnet's own.
NEEDED = {"refnet.plots.": "matplotlib", "refnet.Predictor": "pyarrow"}


def documented() -> dict[str, list[str]]:
    """The public functions and classes in full, and the members of each: what docs/api.md lists, and the errors."""
    found: dict[str, list[str]] = {}
    module = name = ""
    for line in TEXTS["docs/api.md"].splitlines():
        match line.replace(",", " ").partition("(")[0].split():
            case ["..", "currentmodule::", module]:
                pass
            case ["..", "autofunction::" | "autoclass::" | "py:function::", name, *_]:
                name = name if "." in name else f"{module}.{name}"
                found[name] = []
            case [":members:" | ":special-members:", *members]:
                found[name] += members
    return found | {f"refnet.errors.{name}": [] for name in CLASSES}


PUBLIC = documented()
#: Also the members that have examples of their own.
NAMES = [each for name, members in PUBLIC.items() for each in (name, *(f"{name}.{member}" for member in members))]


def object_named(name: str) -> Any:
    module, _, rest = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), rest)
    except ModuleNotFoundError:
        return getattr(object_named(module), rest)


def examples_of(name: str) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(object_named(name)) or "")


def test_these_are_the_public_names() -> None:
    assert {"refnet.forward", "refnet.resnet_arg_scope", "refnet.golden.Report"} <= set(PUBLIC)
    assert {"__call__", "trace"} <= set(PUBLIC["refnet.Engine"])
    assert len(PUBLIC) > 60


@pytest.mark.parametrize("name", list(PUBLIC))
def test_each_has_an_example(name: str) -> None:
    examples = examples_of(name)
    shown = "".join(example.source for example in examples)
    # Some objects are made by others: their example has a variable of that name, or prints them.
    assert name.rpartition(".")[2].lower().replace(
        "_", ""
    ) in f"{shown} {[example.want for example in examples]}".lower().replace("_", "")
    for member in PUBLIC[name]:
        called = r"\b(engine|predictor)\(" if member == "__call__" else rf"\.{member}\b"
        assert re.search(called, shown) or examples_of(f"{name}.{member}"), f"{name} has no example of {member}"


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docstrings") / "play"
    assert main(["demo", "--save", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("name", [name for name in NAMES if examples_of(name)])
def test_the_examples_run(name: str, play: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start, package in NEEDED.items():
        if name.startswith(start):
            pytest.importorskip(package)
    shutil.copytree(play, tmp_path / "play")
    monkeypatch.chdir(tmp_path / "play")
    test = doctest.DocTest(examples_of(name), {}, name, None, 0, None)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with warnings.catch_warnings():  # which an example may turn into errors
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
