"""All commands, by the examples of their help: each example runs, into pipes, terminals and files of JSON."""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet import golden
from refnet.cli import _parser, main
from refnet.cli.console import print_table, progress_bar

CHECKPOINT = Path(refnet.__file__).parent / "data" / "digits" / "digits.ckpt"
#: Examples that take long, or a device, other packages, or files of other programs: these are understood, and not run.
NOT_RUN = {
    "refnet demo --device reference --json",
    "refnet demo --plot digits.png",
    "refnet predict - --weights digits.npz",  # of stdin: see test_cli.py
    "refnet batch train.parquet --column image --weights resnet_v2_50.ckpt --out rows --runner daft --workers 4",
    "refnet batch 'shards/*.tar' --weights resnet_v2_50.ckpt --features pooled --out features",
    "refnet convert resnet50v2.h5 resnet50v2.npz",
    "refnet bench",
    "refnet bench resnet_v2_101 --batch 8 --threads 2",
    "refnet bench --batch 32 --device cuda",
    "refnet bench resnet_v2_50 --layers --roofline roofline.png",
    "refnet bench --tune",
    "refnet bench --conv 28x28x128,3x3,256 --stride 2 --batch 8 --zeros 0.5",
    "refnet selfcheck",
    "refnet compare theirs.npz --weights resnet50.pth --image cat.jpg",
    "refnet compare theirs.npz --weights resnet50.pth --image pixels.npy --html report.html",
    "refnet compare dumps_before/ dumps_after/ --map encoder.out=resnet_v2_50/block4",
}
#: The word of a command that names what it writes, and does not replace.
WRITES = {"golden record": 3, "convert": 3, "batch photos": 6}


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


def examples(parser: argparse.ArgumentParser) -> list[str]:
    """The command lines in a parser's help, without what is said beside them and where their output goes."""
    lines = [line.strip() for line in (parser.epilog or "").splitlines()]
    return [
        line.partition("  ")[0].partition(" > ")[0].partition(" < ")[0] for line in lines if line.startswith("refnet ")
    ]


PARSERS = {parser.prog: parser for parser in parsers(_parser())}
#: Each example that runs, once.
RUN = list(dict.fromkeys(line for parser in PARSERS.values() for line in examples(parser) if line not in NOT_RUN))
#: The first of each command.
FIRST = list(
    {prog: line for prog in PARSERS for line in reversed(RUN) if line.startswith(prog) and " " in prog}.values()
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the examples; resnet_v2_50 has its units, but few channels."""
    folder = tmp_path_factory.mktemp("examples")
    blocks = [
        refnet.resnet_v2_block(f"block{i + 1}", 4, units, 2 if i < 3 else 1) for i, units in enumerate((3, 4, 6, 3))
    ]
    small = refnet.random_weights(blocks, 11, scope="resnet_v2_50").replace(recipe=refnet.Recipe(40, 48))
    for name in ("resnet_v2_50.ckpt", "mine.ckpt", "model.npz"):
        refnet.save_weights(folder / name, small)
    refnet.save_weights(folder / "digits.npz", refnet.load_weights(CHECKPOINT))
    generator = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for name in ("cat.jpg", "dog.png", "digit.png", "photos/cat.jpg"):
        Image.fromarray(generator.integers(0, 256, (50, 60, 3), np.uint8)).save(folder / name)
    (folder / "imagenet.txt").write_text("".join(f"class {number}\n" for number in range(11)))
    pixels = refnet.preprocess(refnet.load_image(folder / "cat.jpg"), small.recipe)
    net, end_points = refnet.forward(small, pixels, end_points=True)
    np.save(folder / "input.npy", pixels)
    np.save(folder / "logits.npy", net)
    np.savez(folder / "theirs.npz", **end_points)
    golden.record(folder / "cat.safetensors", small, refnet.load_image(folder / "cat.jpg"))
    golden.record(folder / "seeded.safetensors", "resnet_v2_50", (64, 64, 3), seed=7, hashes_only=True)
    refnet.batch(folder / "photos", small, folder / "rows")
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of them, to work in."""
    monkeypatch.chdir(shutil.copytree(prepared, tmp_path / "work"))
    return tmp_path / "work"


def words_of(line: str, folder: Path) -> list[str]:
    """The arguments of an example, which can write its file."""
    words = shlex.split(line)
    for command, position in WRITES.items():
        if line.startswith(f"refnet {command} "):
            target = folder / words[position]
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    return words[1:]


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> tuple[Terminal, Terminal]:
    """Stdout and stderr, as a terminal of 60 columns with these variables."""
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "60", **environment}.items():
        monkeypatch.setenv(name, value)
    streams = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    return streams


@pytest.mark.parametrize("prog", [prog for prog in PARSERS if prog != "refnet"])
def test_every_help_has_an_example(prog: str) -> None:
    lines = examples(PARSERS[prog])
    assert lines
    assert all(line.startswith(prog) for line in lines)


def test_examples_are_understood() -> None:
    found = {line for parser in PARSERS.values() for line in examples(parser)}
    for line in found:
        assert callable(_parser().parse_args(shlex.split(line)[1:]).run), line
    assert found > NOT_RUN
    # Of each command one is run.
    assert {line.split()[1] for line in RUN} == {prog.split()[1] for prog in PARSERS if " " in prog}


@pytest.mark.parametrize("line", RUN)
def test_an_example_runs(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is for terminals, too
    assert main(words_of(line, folder)) == 0
    out, err = capsys.readouterr()
    assert "error" not in err
    assert "\x1b" not in out + err


@pytest.mark.parametrize("line", [line for line in FIRST if "completion" not in line])
def test_its_json_is_one_document(line: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in words_of(line, folder) if word != "--json"]
    assert main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    # A job of many images writes a document for each event (docs/bulk.md).
    for text in out.splitlines() if words[0] == "batch" else [out]:
        assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)


@pytest.mark.parametrize("line", FIRST)
def test_nobody_reads_it(
    line: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``refnet ... | head -1`` does, but earlier: no line of a command's is read."""
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(words_of(line, folder)) == 0
        assert pipe.fileno() == theirs  # what it holds now leads nowhere, and closing it fails no more
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "lines"), [({"NO_COLOR": "1"}, FIRST), ({"TERM": "dumb"}, FIRST[:2])], ids=["NO_COLOR", "dumb"]
)
def test_a_terminal_without_escape_codes(
    variables: dict[str, str], lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = on_terminal(monkeypatch, **variables)
    for line in lines:
        assert main(words_of(line, folder)) == 0, line
        assert "\x1b" not in out.getvalue() + err.getvalue(), line
    assert len(out.getvalue().splitlines()) > 10


def test_a_terminal_with_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = on_terminal(monkeypatch)
    print_table(["a"], [["b"]])
    with progress_bar() as show:
        assert show is not None
        show("working", 1, 2)
    assert "\x1b[1m" in out.getvalue()
    assert "\x1b" in err.getvalue()


@pytest.mark.parametrize("line", [line for line in FIRST if line.split()[1] in ("summary", "selfcheck", "predict")])
def test_tables_fit_a_narrow_terminal(line: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = on_terminal(monkeypatch, NO_COLOR="1")
    assert main(words_of(line, folder)) == 0
    rows = [text for text in out.getvalue().splitlines() if "  " in text.strip() and not text.endswith(".")]
    assert len(rows) > 2
    assert max(map(len, rows)) <= 60


def test_the_digits_fit_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = on_terminal(monkeypatch)
    assert main(["demo"]) == 0
    drawn, _, _ = out.getvalue().partition("says")
    assert 32 < max(map(len, drawn.splitlines()[:-1])) <= 48


def test_a_narrow_table_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    out, _ = on_terminal(monkeypatch, NO_COLOR="1")
    cells = [f"resnet_v2_50/block{number}/unit_1/bottleneck_v2/shortcut" for number in range(4)]
    print_table(["name", "shape", "parameters"], [(cell, "1x7x7x2048", "1,234,567") for cell in cells], ["parameters"])
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    (start,) = [line.index("shape") for line in lines if "shape" in line]
    names = "".join(line[:start].strip() for line in lines)
    assert all(cell in names for cell in cells)
