"""Files of labels: what is read from them, and what is no such file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import refnet
from refnet.cli import main
from refnet.errors import ConfigError
from refnet.images.labels import read_labels
from tests.support.nets import lively_weights


def test_lines_and_class_indices(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("tench\né è\n\nshark", encoding="utf-8")
    assert read_labels(tmp_path / "a.txt") == ["tench", "é è", "", "shark"]
    (tmp_path / "a.json").write_text(json.dumps({"0": ["n1", "tench"], "1": ["n2", "shark"]}))
    assert read_labels(tmp_path / "a.json") == ["tench", "shark"]


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _folder(path: Path) -> None:
    path.mkdir()


def _large(path: Path) -> None:
    path.write_bytes(b"a\n" * (1 << 19) + b"b")


def _holes(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**42)


def _missing(path: Path) -> None:
    assert not path.exists()


def _latin(path: Path) -> None:
    path.write_bytes(b"caf\xe9")


FILES = {
    _fifo: "is a FIFO; it must be a regular file",
    _zeros: "is a device; it must be a regular file",
    _folder: "is a directory; it must be a regular file",
    _large: "is larger than 1048576 bytes",
    _holes: "are holes",
    _missing: "No such file",
    _latin: "can't decode|not valid JSON",
}


@pytest.mark.parametrize("name", ["labels", "labels.txt", "labels.json"])
@pytest.mark.parametrize("write", FILES, ids=lambda write: write.__name__)
def test_what_is_no_file_of_labels(name: str, write: object, tmp_path: Path) -> None:
    path = tmp_path / name
    write(path)  # type: ignore[operator]
    with pytest.raises(ConfigError, match=f"{name} cannot be read: .*({FILES[write]})"):  # type: ignore[index]
        read_labels(path)


def test_the_command_line_does_not_wait_for_a_fifo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refnet.save_weights(tmp_path / "w.npz", lively_weights())
    os.mkfifo(tmp_path / "labels")
    arguments = ["predict", "cat.png", "--weights", str(tmp_path / "w.npz"), "--labels", str(tmp_path / "labels")]
    assert main(arguments) == 2
    assert "labels cannot be read: " in capsys.readouterr().err
