"""A wrong command line gives one line and an exit code, or with ``--json`` one object; soon, and in little memory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from refnet.cli import main
from tests.refnet.bad_calls import text_of
from tests.refnet.bad_commands import BadCommand, bad_commands, make_bad_files
from tests.support.limits import within_limits

#: Lines on stderr that are no errors: what the recipe is, that there are no labels, what is compiled.
NOTES = ("refnet: recipe:", "refnet: labels:", "refnet: compiling", "refnet: warning:")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_bad_files(folder)
    pytest.importorskip("matplotlib.backend_bases")  # the import of what some need is not their work
    return folder


def refusal(bad: BadCommand, capsys: pytest.CaptureFixture[str], as_json: bool) -> tuple[int, str]:
    """The exit code and the only message."""
    with within_limits():
        code = main([*bad.arguments, "--json"] if as_json else bad.arguments)
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(NOTES)]
    if not as_json:
        assert out == ""
        (line,) = lines
        assert line.startswith("refnet: error: ")
        return code, line
    assert lines == []
    answer = json.loads(out, parse_constant=pytest.fail)
    error = answer["error"] if "error" in answer else answer["images"][0]["error"]
    return code, error["message"]


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
def test_each_has_its_exit_code(
    as_json: bool, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = {path.name for path in folder.iterdir()}
    commands = list(bad_commands())
    assert len(commands) > 300
    for bad in commands:
        name = " ".join(map(text_of, bad.arguments))
        try:
            code, message = refusal(bad, capsys, as_json)
        except BaseException as error:
            raise AssertionError(f"refnet {name}") from error
        assert code == bad.code, f"refnet {name}: {message}"
        assert re.search(bad.message, message), f"refnet {name}: {message}"
        assert len(message) < 2000, f"refnet {name}"
    assert {path.name for path in folder.iterdir()} == before
