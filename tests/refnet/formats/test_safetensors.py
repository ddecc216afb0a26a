from __future__ import annotations

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, load_file, save_file

from refnet.errors import ConfigError, CorruptError, DtypeError, FormatError, LimitError, RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.safetensors import write_safetensors
from tests.refnet.formats import bad_files
from tests.refnet.formats.bad_files import BadFile, check_refused, read_or_refuse

UNIT = "resnet_v2_50/block1/unit_1/bottleneck_v2"
ARRAYS = {
    "resnet_v2_50/conv1/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    f"{UNIT}/preact/gamma": np.float32([np.nan, np.inf, -0.0, 1e-42]),
    "global_step": np.array(-5, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "half": np.array([1, np.nan], np.float16),
    "bytes": np.array([[0, 255]], np.uint8),
    "é": np.array([2**63], np.uint64),
}


def content(header: object, values: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def entry(start: int = 0, stop: int = 8, *, dtype: object = "F32", shape: object = (2,)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        assert array.shape == expected[name].shape
        assert array.tobytes() == expected[name].tobytes()
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.dtype.isnative


@pytest.mark.parametrize("name", ["a.safetensors", "a", "a.npz", "a.index", "a.data-00000-of-00001"])
def test_reads_what_the_library_saved_under_any_name(tmp_path: Path, name: str, watch: Any) -> None:
    save_file(ARRAYS, tmp_path / name, {"any": "thing"})
    with watch(str(tmp_path / name)):
        loaded = read(tmp_path / name)
    assert_same(loaded.tensors, ARRAYS)
    assert (loaded.format, loaded.metadata, loaded.conversion.notes) == ("safetensors", {}, [])


def test_write_then_read_here_and_by_the_library(tmp_path: Path) -> None:
    metadata = {"classes": ["tench", "é"], "mean": [0.5, None], "nested": {"a": True}}
    layouts = {**ARRAYS, "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">f4")}
    native = {name: array.astype(array.dtype.newbyteorder("="), order="C") for name, array in layouts.items()}
    write_safetensors(tmp_path / "a.safetensors", layouts, metadata)
    loaded = read(tmp_path / "a.safetensors")
    assert_same(loaded.tensors, native)
    assert loaded.metadata == metadata
    theirs = load_file(tmp_path / "a.safetensors")
    assert theirs.keys() == native.keys()
    assert all(theirs[name].tobytes() == array.tobytes() for name, array in native.items())
    write_safetensors(tmp_path / "b.safetensors", layouts, metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_bfloat16_is_the_upper_half_of_a_binary32(tmp_path: Path) -> None:
    values = np.float32([1.5, -3.25, 2.0**-130, np.inf])
    halves = (values.view(np.uint32) >> 16).astype("<u2")
    (tmp_path / "a").write_bytes(content({"x": entry(dtype="BF16", shape=[4])}, halves.tobytes()))
    loaded = read(tmp_path / "a")
    np.testing.assert_array_equal(loaded.tensors["x"], values, strict=True)
    assert loaded.conversion.converted == {"x": "bfloat16"}


def test_what_is_no_number_is_skipped_and_noted(tmp_path: Path) -> None:
    header = {"flags": entry(0, 2, dtype="BOOL"), "f4": entry(2, 3, dtype="F4"), "z": entry(3, 19, dtype="C64")}
    (tmp_path / "a").write_bytes(content(header, bytes(19)))
    loaded = read(tmp_path / "a")
    assert loaded.tensors == {}
    assert {name: why.split()[0] for name, why in loaded.conversion.left_out.items()} == {
        "flags": "BOOL",
        "f4": "F4",
        "z": "C64",
    }


def bad(data: bytes, error: type[RefnetError], message: str) -> BadFile:
    return bad_files.content(data, error, message, "a.safetensors")


DEEP = b'{"x":' * 5000
BAD: dict[str, BadFile] = {
    "shorter than a length": bad(b"\1\0\0\0\0\0\0", FormatError, "7 bytes; the length"),
    "a header longer than the file": bad(content({})[:-1], CorruptError, "2 bytes, but 1 follow"),
    "a header of 2^63 bytes": bad(struct.pack("<Q", 2**63) + b"{}", CorruptError, f"{2**63} bytes, but 2 follow"),
    "a header over the limit": bad(content(b"{" + b" " * (4 << 20)), LimitError, "reads up to 4194304"),
    "no JSON": bad(content(b"{'x': 1}"), FormatError, "header is not valid JSON"),
    "no UTF-8": bad(content(b'{"\xff": 1}'), FormatError, "header is not valid JSON"),
    "a list": bad(content([]), FormatError, "not with the brace"),
    "a byte order mark": bad(content(b"\xef\xbb\xbf{}"), FormatError, "not with the brace"),
    "an empty header": bad(content(b""), FormatError, "not with the brace"),
    "NaN": bad(content(b'{"x": NaN}'), FormatError, "NaN is not a number in JSON"),
    "5,000 levels": bad(content(DEEP), FormatError, "header is not valid JSON"),
    "a tensor twice": bad(
        content(b'{"x":' + json.dumps(entry()).encode() + b',"x":' + json.dumps(entry()).encode() + b"}", bytes(8)),
        FormatError, "a key is there twice",
    ),
    "a field twice": bad(
        content(b'{"x":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        FormatError, "a key is there twice",
    ),
    "a number of 5,000 digits": bad(content(b'{"x": ' + b"9" * 5000 + b"}"), FormatError, "not valid JSON"),
    "half a surrogate": bad(content({"\udc00": entry()}, bytes(8)), FormatError, "not Unicode"),
    "metadata of a number": bad(content({"__metadata__": {"a": 1}}), FormatError, "not a JSON object of strings"),
    "metadata that are a list": bad(content({"__metadata__": []}), FormatError, "not a JSON object of strings"),
    "our metadata, no JSON": bad(content({"__metadata__": {"__refnet__": "{"}}), FormatError, "'__refnet__' is not"),
    "our metadata, a list": bad(content({"__metadata__": {"__refnet__": "[]"}}), FormatError, "object but a list"),
    "past the end": bad(content({"x": entry()}, bytes(7)), CorruptError, "'x'.* ends at byte 8, but there are 7"),
    "reversed": bad(content({"x": entry(8, 0)}, bytes(8)), FormatError, "'x'.*they are its start"),
    "negative offsets": bad(content({"x": entry(-8, 0)}, bytes(8)), FormatError, "'x'.*they are its start"),
    "three offsets": bad(
        content({"x": {**entry(), "data_offsets": [0, 4, 8]}}, bytes(8)), FormatError, "'x'.*they are its start",
    ),
    "a hole before": bad(content({"x": entry(8, 16)}, bytes(16)), FormatError, "'x'.*comes after a gap"),
    "a hole between": bad(
        content({"x": entry(), "y": entry(12, 20)}, bytes(20)), FormatError, "'y'.*12 instead of 8.*after a gap",
    ),
    "overlapping": bad(content({"x": entry(), "y": entry(4, 12)}, bytes(12)), FormatError, "'y'.*overlaps"),
    "the same bytes": bad(content({"x": entry(), "y": entry()}, bytes(8)), FormatError, "'y'.*overlaps"),
    "trailing bytes": bad(content({"x": entry()}, bytes(9)), FormatError, "1 bytes follow the last tensor"),
    "another range": bad(content({"x": entry(0, 12)}, bytes(12)), FormatError, "'x'.*takes 8 bytes.*gives it 12"),
    "half a byte": bad(content({"x": entry(0, 1, dtype="F4", shape=[3])}, bytes(1)), FormatError, "takes 1.5 bytes"),
    "a product over 2^64": bad(content({"x": entry(shape=[2**40, 2**40])}, bytes(8)), LimitError, "'x'.*more bytes"),
    "more than 2^64 times 0": bad(content({"x": entry(0, 0, shape=[2**63, 0])}), LimitError, "'x'.*more bytes"),
    "a negative dimension": bad(content({"x": entry(shape=[-2])}, bytes(8)), FormatError, "'x'.*negative dimension"),
    "a float dimension": bad(content({"x": entry(shape=[2.0])}, bytes(8)), FormatError, "'x'.*whole numbers"),
    "a bool dimension": bad(content({"x": entry(0, 4, shape=[True])}, bytes(4)), FormatError, "'x'.*whole numbers"),
    "minus zero": bad(content(b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[-0,8]}}', bytes(8)), FormatError, "-0"),
    "33 dimensions": bad(content({"x": entry(0, 4, shape=[1] * 33)}, bytes(4)), FormatError, "33 dimensions"),
    "an unknown dtype": bad(content({"x": entry(dtype="F128")}, bytes(8)), FormatError, "'x'.*dtype is 'F128'"),
    "a dtype that is a list": bad(content({"x": entry(dtype=["F32"])}, bytes(8)), FormatError, "'x'.*dtype is"),
    "a field too many": bad(content({"x": {**entry(), "more": 1}}, bytes(8)), FormatError, "'x'.*not an object of"),
    "a field too few": bad(content({"x": {"dtype": "F32"}}, bytes(8)), FormatError, "'x'.*not an object of"),
    "no entry": bad(content({"x": None}, bytes(8)), FormatError, "'x'.*not an object of"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    error = check_refused(BAD[name], tmp_path, watch)
    if "'x'" in BAD[name].message or "'y'" in BAD[name].message:
        assert error.tensor in ("x", "y")


def test_several_problems_are_all_listed(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content({"x": entry(dtype="F128"), "y": entry(shape=[1])}, bytes(8)))
    with pytest.raises(FormatError, match=r"2 problems(.|\n)*'x'(.|\n)*'y'"):
        read(tmp_path / "a")


def test_another_format_under_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"\x80\x02csomething")
    with pytest.raises(FormatError, match="pickle"):
        read(path)
    with path.open("wb") as file:
        np.savez(file, x=np.ones(2))
    assert read(path).format == "npz"


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ARRAYS, {"version": 1})
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_safetensors(path, ARRAYS, {"version": 2})
    assert os.listdir(tmp_path) == ["a.safetensors"]
    assert path.read_bytes() == before


def test_write_refuses(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ConfigError, match=r"end in \.safetensors"):
        write_safetensors(tmp_path / "a.ckpt", ARRAYS, {})
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(ConfigError, match="is a directory"):
        write_safetensors(tmp_path / "d.safetensors", ARRAYS, {})
    for metadata in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(ConfigError, match="JSON"):
            write_safetensors(path, ARRAYS, metadata)
    for array in (np.array([True]), np.array([None]), np.array([1j]), np.array(["a"])):
        with pytest.raises(DtypeError, match="'x' has dtype"):
            write_safetensors(path, {"x": array}, {})
    for name in ("__metadata__", "\udcff"):
        with pytest.raises(ConfigError, match=r"cannot be"):
            write_safetensors(path, {name: np.ones(2)}, {})
    assert os.listdir(tmp_path) == ["d.safetensors"]


# What an entry can say, right or wrong.
NUMBERS = st.one_of(st.integers(-1, 24), st.sampled_from([2**31, 2**63, 2**64]), st.booleans(), st.just(8.0))
VALUES = {
    "dtype": st.sampled_from(["F32", "F16", "BF16", "F64", "I64", "I8", "BOOL", "F4", "F8_E4M3", "C64", "f32", 4]),
    "shape": st.lists(NUMBERS, max_size=3),
    "data_offsets": st.lists(NUMBERS, max_size=3),
    "more": NUMBERS,
}


@st.composite
def forged(draw: st.DrawFn) -> bytes:
    """A sound file in which some words of the header, or their number, say something else."""
    header: dict[str, Any] = {"x": entry(0, 8), "y": entry(8, 14, dtype="F16", shape=[3, 1]), "z": entry(14, 14)}
    header["z"]["shape"] = [0, 5]
    header["__metadata__"] = {"a": "b"}
    values = bytes(draw(st.sampled_from([14, 14, 14, 13, 15, 0])))
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(["x", "y", "z"]))
        what = draw(st.sampled_from(sorted(VALUES)))
        target = draw(st.sampled_from(["field", "drop", "rename", "metadata"]))
        if target == "field" and isinstance(header.get(name), dict):
            header[name][what] = draw(VALUES[what])
        elif target == "drop":
            header.pop(name, None)
        elif target == "rename" and name in header:
            header[draw(st.text(max_size=3))] = header.pop(name)
        else:
            header["__metadata__"] = draw(st.one_of(st.none(), st.dictionaries(st.text(max_size=2), st.text())))
    return content(header, values)


@settings(max_examples=400, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=forged(),
    change=st.none() | st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)),
    keep=st.just(1.0) | st.floats(0, 1),
    more=st.just(b"") | st.binary(max_size=9),
)
def test_what_is_accepted_the_library_accepts_with_equal_values(
    data: bytes, change: tuple[float, int] | None, keep: float, more: bytes, tmp_path: Path, watch: Any
) -> None:
    if change is not None:
        where, byte = int(change[0] * len(data)), change[1]
        data = data[:where] + bytes([byte]) + data[where + 1 :]
    data = data[: round(keep * len(data))] + more
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    with watch(str(path)):
        found = read_or_refuse(path)
    if found is None:
        return
    theirs = dict(safetensors.deserialize(data))
    assert theirs.keys() == found.tensors.keys() | found.conversion.left_out.keys()
    for name, array in found.tensors.items():
        assert tuple(theirs[name]["shape"]) == array.shape
        if theirs[name]["dtype"] == "BF16":
            array = (array.view(np.uint32) >> 16).astype(np.uint16)
        assert bytes(theirs[name]["data"]) == array.tobytes()


def test_the_fuzzed_file_is_sound_before_it_is_forged(tmp_path: Path) -> None:
    header = {"x": entry(0, 8), "y": entry(8, 14, dtype="F16", shape=[3, 1]), "z": entry(14, 14, shape=[0, 5])}
    (tmp_path / "a").write_bytes(content(header, bytes(14)))
    assert read(tmp_path / "a").tensors.keys() == load(content(header, bytes(14))).keys()
