"""Files of killed writers are removed by the next one; those of writers at work are not."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from refnet.files import written_together, written_whole
from refnet.weights.formats import read
from refnet.weights.formats.tf_checkpoint_writer import write_checkpoint
from refnet_kernels import jit
from refnet_kernels.system.left_over import hold, remove_left_over

LEFT = "a.npz.0123456789abcdef.tmp"


def test_only_files_without_a_lock_are_removed(tmp_path: Path) -> None:
    for name in ("held.tmp", "left.tmp", "left.txt"):
        (tmp_path / name).touch()
    (tmp_path / "link.tmp").symlink_to(tmp_path / "left.txt")
    (tmp_path / "folder.tmp").mkdir()
    with open(tmp_path / "held.tmp", "ab") as file:
        assert hold(file.fileno())
        remove_left_over(str(tmp_path), r".*\.tmp")
        assert sorted(os.listdir(tmp_path)) == ["folder.tmp", "held.tmp", "left.txt", "link.tmp"]
    remove_left_over(str(tmp_path), r".*\.tmp")
    assert sorted(os.listdir(tmp_path)) == ["folder.tmp", "left.txt", "link.tmp"]
    remove_left_over(str(tmp_path / "absent"), r".*\.tmp")


def test_a_file_that_another_removes_or_removed_cannot_be_held(tmp_path: Path) -> None:
    path = tmp_path / "a.tmp"
    with open(path, "xb") as own, open(path, "rb") as others:
        assert hold(others.fileno())
        assert not hold(own.fileno())
    with open(path, "rb") as own:
        path.unlink()
        assert not hold(own.fileno())


def test_a_write_removes_what_was_left_of_its_own_target_alone(tmp_path: Path) -> None:
    others = ["a.npz.tmp", "a.npz.0123456789abcdeg.tmp", f"b{LEFT}", f"{LEFT}x", "a_npz.0123456789abcdef.tmp"]
    for name in (*others, LEFT):
        (tmp_path / name).touch()
    with written_whole(str(tmp_path / "a.npz")) as file:
        assert LEFT not in os.listdir(tmp_path)
        file.write(b"new")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a.npz"])


def test_a_write_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / LEFT).touch()
    with written_whole("a.npz"):
        pass
    assert os.listdir(tmp_path) == ["a.npz"]


def test_old_files_stay_until_a_write_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = "a.ckpt.data-00000-of-00001"
    kept = tmp_path / f"{data}.0123456789abcdef.old"
    kept.write_bytes(b"all that is left of the old weights")
    arrays = {"x": np.ones(2)}

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_checkpoint(tmp_path / "a.ckpt", arrays, {})
    assert os.listdir(tmp_path) == [kept.name]
    write_checkpoint(tmp_path / "a.ckpt", arrays, {})
    assert sorted(os.listdir(tmp_path)) == [data, "a.ckpt.index"]


def test_a_writer_at_work_keeps_its_files(tmp_path: Path) -> None:
    """Also the old file, which it moved away, until the new ones are in their places."""
    paths = [str(tmp_path / name) for name in ("data", "index")]
    for path in paths:
        Path(path).write_bytes(b"old")
    seen: list[list[str]] = []
    real = os.replace

    def replace(source: str, target: str) -> None:
        # Another writer comes and goes before each move.
        remove_left_over(str(tmp_path), r".*\.(tmp|old)")
        seen.append(sorted(name.rpartition(".")[2] for name in os.listdir(tmp_path)))
        real(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", replace)
        with written_together(*paths) as files:
            for file in files:
                file.write(b"newer")
    assert [Path(path).read_bytes() for path in paths] == [b"newer", b"newer"]
    assert seen == [["data", "index", "tmp", "tmp"], ["index", "old", "tmp", "tmp"], ["data", "index", "old", "tmp"]]


def test_writers_to_one_place_at_once(tmp_path: Path) -> None:
    def write(version: int) -> None:
        for _ in range(30):
            with written_whole(str(tmp_path / "a")) as file:
                file.write(bytes([version]) * 10_000)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert os.listdir(tmp_path) == ["a"]
    assert len(set((tmp_path / "a").read_bytes())) == 1


def test_checkpoints_to_one_place_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    def write(version: int) -> None:
        for _ in range(10):
            write_checkpoint(tmp_path / "a.ckpt", {"x": np.full(1000, version)}, {})

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert sorted(os.listdir(tmp_path)) == ["a.ckpt.data-00000-of-00001", "a.ckpt.index"]
        # The index has the checksums of its own data.
        assert len(set(read(tmp_path / "a.ckpt").tensors["x"])) == 1


def test_the_cache_of_kernels_removes_them_too(tmp_path: Path) -> None:
    (tmp_path / "tmpabcdef.tmp").touch()
    jit._write(tmp_path / "k.o", b"code")
    assert os.listdir(tmp_path) == ["k.o"]
    assert jit._read(tmp_path / "k.o") == b"code"
