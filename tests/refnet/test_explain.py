"""``refnet explain``: each error has a cause, a cure, and an example that raises just that error."""

from __future__ import annotations

import doctest
import inspect
import io
import json
import re
import sys
from pathlib import Path

import pytest

from refnet import errors
from refnet.cli import main
from refnet.cli.explain import CLASSES, plain
from refnet.errors import RefnetError

#: Its kinds are what is raised; it has an example that catches one.
BASE = "RefnetError"


def test_these_are_the_errors() -> None:
    raised = {
        name
        for file in Path(errors.__file__).parent.rglob("*.py")
        for name in re.findall(r"(?:raise|kind:) (\w+)\(", file.read_text(encoding="utf-8"))
        if isinstance(getattr(errors, name, None), type)
    }
    assert raised
    assert raised <= set(CLASSES)
    assert {name for name, value in vars(errors).items() if isinstance(value, type)} - {"Any"} == set(CLASSES)


@pytest.mark.parametrize("name", list(CLASSES))
def test_each_has_cause_cure_and_example(name: str) -> None:
    text = inspect.getdoc(CLASSES[name])
    assert text is not None
    assert text is not inspect.getdoc(CLASSES[name].__base__)
    said, _, shown = text.partition("\nExamples\n")
    for part in ("Cause", "Cure"):
        (sentences,) = re.findall(rf"^\*\*{part}\.\*\* (.+?)(?:\n\n|\Z)", said, re.MULTILINE | re.DOTALL)
        assert len(sentences.split()) >= 5
    if issubclass(CLASSES[name], RefnetError):
        (code,) = re.findall(r"[Ee]xit\s+code\s+(\d)(?=\.|, |$)", said.partition("**Cause.**")[0], re.MULTILINE)
        assert int(code) == CLASSES[name].exit_code
    raised = [example.exc_msg for example in doctest.DocTestParser().get_examples(shown) if example.exc_msg]
    if name == BASE:
        assert "except refnet.RefnetError as error" in shown
    else:
        assert raised
    assert all(message.startswith(f"refnet.errors.{name}: ") for message in raised)


@pytest.mark.parametrize("name", list(CLASSES))
def test_the_command_prints_the_docstring(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", name]) == 0
    text = capsys.readouterr().out
    assert text == f"{name}\n\n{plain(inspect.getdoc(CLASSES[name]) or '')}\n"
    assert not re.search(r"[`*]", text.partition("Examples")[0])
    assert main(["explain", name, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert f"{found['name']}\n\n{found['text']}\n" == text
    assert found["exit_code"] == getattr(CLASSES[name], "exit_code", None)
    assert main(["explain", "--json"]) == 0
    assert found in json.loads(capsys.readouterr().out)["errors"]


def test_marks_are_left_out_of_sentences_and_kept_in_examples() -> None:
    assert plain("**Cure.** Call ``f(**x)``, or `g`.\n\nExamples\n--------\n>>> f(**{'`a`': 2 ** 3})") == (
        "Cure. Call f(**x), or g.\n\nExamples\n--------\n>>> f(**{'`a`': 2 ** 3})"
    )


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:]
    assert [line.split()[0] for line in lines] == list(CLASSES)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def in_terminal(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """The exit code, and the lines on a stderr that is a terminal."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    return main(arguments), terminal.getvalue().splitlines()


def test_in_a_terminal_an_error_names_its_explanation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "w.npz"
    bad.write_text("a text")
    code, (error, more) = in_terminal(["summary", str(bad)], monkeypatch)
    assert code == 4
    assert error.startswith("refnet: error: ")
    assert more == "refnet: more: refnet explain FormatError"
    assert main(more.split()[3:]) == 0
    assert capsys.readouterr().out.startswith("FormatError\n")


@pytest.mark.parametrize("arguments", [["summary"], ["summary", "resnet_v2_51"], ["summary", "none.npz"]])
def test_what_its_help_or_the_system_explains_has_one_line(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, (error,) = in_terminal(arguments, monkeypatch)
    assert code in (2, 4)
    assert error.startswith("refnet: error: ")
