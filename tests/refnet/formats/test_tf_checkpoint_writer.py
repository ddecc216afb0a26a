from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refnet.errors import ConfigError, DtypeError, FormatError
from refnet.weights.formats import read
from refnet.weights.formats.table import read_table, write_table
from refnet.weights.formats.tf_checkpoint_writer import write_checkpoint

UNIT = "resnet_v2_50/block1/unit_1/bottleneck_v2"
ARRAYS: dict[str, np.ndarray] = {
    "resnet_v2_50/conv1/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    f"{UNIT}/preact/gamma": np.float32([np.nan, np.inf, -0.0, 1e-42]),
    "global_step": np.array(-5, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "half": np.array([1, np.nan], np.float16),
    "é": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big": np.arange(3, dtype=">f4"),
    **{f"i/{kind}": np.array([0, 1], kind) for kind in ("i1", "i2", "i4", "u1", "u2", "u4", "u8")},
}
FILES = ["a.ckpt.data-00000-of-00001", "a.ckpt.index"]


def assert_same_tensors(found: Any, expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert found[name].dtype == native.dtype, name
        assert found[name].shape == native.shape
        assert found[name].tobytes() == native.tobytes()


def load_by_tensorflow(tf: Any, prefix: Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: np.asarray(reader.get_tensor(name)) for name in reader.get_variable_to_shape_map()}


def test_tensorflow_and_refnet_read_every_tensor_back(tf: Any, tmp_path: Path, watch: Any) -> None:
    write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {})
    assert sorted(os.listdir(tmp_path)) == FILES
    assert_same_tensors(load_by_tensorflow(tf, tmp_path / "a.ckpt"), ARRAYS)
    with watch(*(str(tmp_path / name) for name in FILES), str(tmp_path / "a.ckpt")):
        loaded = read(tmp_path / "a.ckpt")
    assert_same_tensors(loaded.tensors, ARRAYS)
    assert (loaded.format, loaded.metadata, loaded.conversion.notes) == ("TF checkpoint V2", {}, [])


def test_metadata_are_a_tensor_of_bytes(tf: Any, tmp_path: Path) -> None:
    metadata = {"labels": ["tench", "é"], "nested": {"a": None}}
    write_checkpoint(tmp_path / "a.ckpt-12", ARRAYS, metadata)
    loaded = read(tmp_path / "a.ckpt-12")
    assert_same_tensors(loaded.tensors, ARRAYS)
    assert loaded.metadata == metadata
    theirs = load_by_tensorflow(tf, tmp_path / "a.ckpt-12")
    assert theirs.pop("__refnet__").dtype == np.uint8
    assert_same_tensors(theirs, ARRAYS)


@pytest.mark.parametrize("stored", [np.ones(3, np.float32), np.zeros((1 << 20) + 1, np.uint8)])
def test_a_tensor_that_is_not_refnets_metadata(tables: Any, tmp_path: Path, stored: np.ndarray) -> None:
    data = stored.tobytes()
    entry = tables.entry(data, 1 if stored.dtype == np.float32 else 4, stored.shape)
    with pytest.raises(FormatError, match=r"'__refnet__': it is .*; it can be up to 1048576 bytes"):
        read(tables.v2(tmp_path / "a", {"__refnet__": entry}, data))


def test_metadata_that_are_no_json(tables: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"'__refnet__' is not valid JSON"):
        read(tables.v2(tmp_path / "a", {"__refnet__": tables.entry(b"{", 4, (1,))}, b"{"))


@settings(max_examples=40, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), max_size=40, unique=True)
)
def test_any_names_in_any_number(names: list[str], tf: Any, tmp_path: Path) -> None:
    arrays = {name: np.float32([index]) for index, name in enumerate(names)}
    write_checkpoint(tmp_path / "a.ckpt", arrays, {})
    assert_same_tensors(read(tmp_path / "a.ckpt").tensors, arrays)
    assert_same_tensors(load_by_tensorflow(tf, tmp_path / "a.ckpt"), arrays)


@given(entries=st.dictionaries(st.binary(max_size=9), st.binary(max_size=200), max_size=20))
def test_a_table_is_read_back(entries: dict[bytes, bytes]) -> None:
    found = read_table(write_table(entries))
    assert [(key, bytes(value)) for key, value in found.items()] == sorted(entries.items())


def test_same_tensors_same_bytes_in_any_order(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {"x": 1})
    write_checkpoint(tmp_path / "b.ckpt", dict(reversed(ARRAYS.items())), {"x": 1})
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (tmp_path / name.replace("a.", "b.")).read_bytes()


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end in \.ckpt"):
        write_checkpoint(tmp_path / "a.index", ARRAYS, {})
    for name in ("", "\0a", "__refnet__", "\udcff"):
        with pytest.raises(ConfigError, match="name"):
            write_checkpoint(tmp_path / "a.ckpt", {name: np.ones(2)}, {})
    for array in (np.array([True]), np.array([None]), np.array([1j]), np.array(["a"]), np.ones(1, np.longdouble)):
        with pytest.raises(DtypeError, match="'x' has dtype"):
            write_checkpoint(tmp_path / "a.ckpt", {"x": array}, {})
    with pytest.raises(ConfigError, match="JSON"):
        write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {"x": object()})
    assert os.listdir(tmp_path) == []


def test_a_file_of_the_prefixs_name_would_hide_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(b"a V1 checkpoint")
    with pytest.raises(ConfigError, match="would hide"):
        write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {})
    assert os.listdir(tmp_path) == ["a.ckpt"]


# Over an old checkpoint its data are moved away before both new files are moved in.
@pytest.mark.parametrize(
    ("old", "step", "call"),
    [(old, step, call) for old in (True, False) for step in ("fsync", "replace") for call in (1, 2)]
    + [(True, "replace", 3)],
)
def test_a_failed_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool, step: str, call: int
) -> None:
    if old:
        write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {"version": 1})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, calls = getattr(os, step), 0

    def full(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_checkpoint(tmp_path / "a.ckpt", {"x": np.ones(2)}, {"version": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_index_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = os.replace

    def replace(source: str, target: str) -> None:
        real(source, target)
        seen.append(sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".tmp"))

    monkeypatch.setattr(os, "replace", replace)
    write_checkpoint(tmp_path / "a.ckpt", ARRAYS, {})
    assert seen == [FILES[:1], FILES]


def test_killed_while_writing_leaves_a_whole_checkpoint_or_none(tmp_path: Path) -> None:
    prefix = tmp_path / "a.ckpt"
    script = (
        "import sys, numpy as np\nfrom refnet.weights.formats.tf_checkpoint_writer import write_checkpoint\n"
        "print('ready', flush=True)\n"
        "write_checkpoint(sys.argv[1], {'x': np.arange(5_000_000.0)}, {})\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for delay in (0.0, 0.02, 0.05, 0.1):
        for path in tmp_path.iterdir():
            path.unlink()
        command = [sys.executable, "-c", script, str(prefix)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        if prefix.with_name("a.ckpt.index").exists():
            np.testing.assert_array_equal(read(prefix).tensors["x"], np.arange(5_000_000.0))
