"""``refnet explain``: the cause and the cure of an error, with an example."""

from __future__ import annotations

import argparse
import inspect
import re
from typing import Any

from refnet import errors
from refnet.cli.console import print_json, print_table
from refnet.cli.options import add_json_option

EPILOG = """\
examples:
  refnet explain ShapeMismatchError
  refnet explain                        # the errors that there are

With --json a command names its error by the same name: {"error": {"type": "ShapeMismatchError", ...}}.
"""

#: Every class of `refnet.errors` by its name.
CLASSES: dict[str, type[Exception]] = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "name", nargs="?", choices=list(CLASSES), metavar="ERROR", help="the name of its class (default: list them)"
    )
    add_json_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known of the error, or which errors there are; 0."""
    if arguments.name is not None:
        found = _as_object(arguments.name)
        if arguments.json:
            print_json(found)
        else:
            print(f"{found['name']}\n\n{found['text']}")
        return 0
    every = [_as_object(name) for name in CLASSES]
    if arguments.json:
        print_json({"errors": every})
    else:
        rows = [
            (each["name"], "" if each["exit_code"] is None else each["exit_code"], each["summary"]) for each in every
        ]
        print_table(["error", "exit code", "what"], rows, numeric=["exit code"])
    return 0


def _as_object(name: str) -> dict[str, Any]:
    text = plain(inspect.getdoc(CLASSES[name]) or "Python was started without docstrings (-OO), which say it.")
    return {
        "name": name,
        "exit_code": getattr(CLASSES[name], "exit_code", None),
        "summary": " ".join(text.partition("\n\n")[0].split()),
        "text": text,
    }


def plain(docstring: str) -> str:
    """A docstring without the marks of reStructuredText, except in its examples.

    Parameters
    ----------
    docstring : str
        With bold words, code and names in marks.
    """
    text, heading, examples = docstring.partition("\nExamples\n")
    return (
        re.sub(r"\*\*(.+?)\*\*|`{1,2}([^`]+)`{1,2}", lambda marked: marked[1] or marked[2], text) + heading + examples
    )
