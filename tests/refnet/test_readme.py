"""The README, from its top to its end, in a directory that ``refnet demo --save`` has written: every block of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from refnet.cli import main
from tests.documentation import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")

#: What fetches and installs refnet, and so cannot run from within it.
INSTALLS = ("git clone <this repository>", "python -m pip install uv && uv run refnet demo", "python -m pip install .")
#: Commands that find what they look for: the port of the demo has a mistake.
FINDS = {"compare": 1, "diagnose": 1}
#: It takes longer than all others together, and has tests of its own.
LONG = ("selfcheck",)


class Block(NamedTuple):
    """A block of the README: its language, and its lines."""

    language: str
    lines: list[str]


def blocks() -> Iterator[Block]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        yield Block(language, text.splitlines())


def commands(block: Block) -> list[list[str]]:
    """The commands in a block, without what is said beside them; none in a block that shows an output."""
    lines = [line.partition(" #")[0].strip() for line in block.lines]
    if not any(line.split(" ")[0] in ("refnet", "git", "python", "uv") for line in lines):
        return []
    return [shlex.split(command) for line in lines if not line.startswith(INSTALLS) for command in line.split("&&")]


def test_every_block_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for block in blocks():
        if block.language == "python":
            exec(compile("\n".join(block.lines), "README.md", "exec"), {"__name__": "readme"})
            ran.append("python")
        for command, *arguments in commands(block):
            if command == "cd":
                monkeypatch.chdir(arguments[0])
                continue
            assert command == "refnet", f"the README has a block of {command}, which this test does not run"
            if arguments[0] in LONG:
                continue
            code = main(arguments)
            said = capsys.readouterr()
            assert code == FINDS.get(arguments[0], 0), f"refnet {shlex.join(arguments)}: {said.err}"
            assert "error" not in said.err
            ran.append(f"{arguments[0]}: {said.out}")
    found = "\n".join(ran)
    assert [entry.partition(":")[0] for entry in ran].count("python") >= 2
    assert "logits' SHA-256    46a889ad88454ce555518803b9c179955908c388fcd51d465bc875200d79222f" in found
    assert "The port's mistake: epsilon 0.001" in found
    assert re.search(r"The first divergence is resnet_v2_digits/block1/unit_1/bottleneck_v2/preact", found)
    assert {entry.partition(":")[0] for entry in ran} >= {
        "demo", "predict", "summary", "convert", "bench", "golden", "compare", "diagnose"
    }  # fmt: skip


def test_the_output_that_is_shown_is_the_demos(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = [block.lines for block in blocks() if any(line.startswith("accuracy") for line in block.lines)]
    assert main(["demo"]) == 0
    found = capsys.readouterr().out.splitlines()
    measured = ("speed", "first call")
    assert [line for line in found if not line.startswith(measured)] == [
        line for line in shown if not line.startswith(measured)
    ]
