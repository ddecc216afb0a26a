from __future__ import annotations

import errno
import io
import os
import signal
import struct
import subprocess
import sys
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet.errors import ConfigError, CorruptError, DtypeError, FormatError, LimitError, RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.npz import write_npz
from tests.refnet.formats.bad_files import BadFile, check_refused

ARRAYS = {
    "resnet_v2_50/conv1/weights": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "global_step": np.array(-5, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "half": np.array([1, np.nan], np.float16),
    "bytes": np.array([[0, 255]], np.uint8),
}


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version)
    return file.getvalue()


def forged(header: str, payload: bytes = b"") -> bytes:
    """An array file with any header."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + payload


def archive(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.dtype == expected[name].dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, expected[name].astype(array.dtype), strict=True)
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.dtype.isnative


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_reads_what_numpy_saved(tmp_path: Path, save: Any) -> None:
    layouts = {
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">f4"),
        "big_endian_fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(3, 2)),
    }
    save(tmp_path / "a.npz", **ARRAYS, **layouts)
    loaded = read(tmp_path / "a.npz")
    assert_same(loaded.tensors, {**ARRAYS, **layouts})
    assert loaded.format == "npz"
    assert loaded.metadata == {}
    assert loaded.conversion.notes == []


def test_header_version_2(tmp_path: Path) -> None:
    assert_same(read(archive(tmp_path / "a", ("x.npy", npy(np.ones(2), (2, 0))))).tensors, {"x": np.ones(2)})


def test_write_then_read(tmp_path: Path) -> None:
    metadata = {"model": "resnet_v2_50", "classes": ["tench", "é"], "mean": [0.5, None], "nested": {"a": True}}
    write_npz(tmp_path / "a.npz", ARRAYS, metadata)
    loaded = read(tmp_path / "a.npz")
    assert_same(loaded.tensors, ARRAYS)
    assert loaded.metadata == metadata
    with np.load(tmp_path / "a.npz") as theirs:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(theirs[name], array, strict=True)


def test_same_tensors_same_bytes(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS, {"x": 1})
    os.utime(tmp_path / "a.npz", (0, 0))
    layouts = {name: np.asfortranarray(array) if array.ndim else array for name, array in ARRAYS.items()}
    layouts = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in layouts.items()}
    write_npz(str(tmp_path / "b.npz"), layouts, {"x": 1})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.npz") as file:
        assert {member.date_time for member in file.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert [member.filename for member in file.infolist()] == ["__refnet__", *(f"{name}.npy" for name in ARRAYS)]


def test_skipped_members_are_noted(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "a.npz", flags=np.array([True]), text=np.array(["a"]), z=np.array([1j]), t=np.array([], "M8[s]")
    )
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as file:
        file.writestr("README", "hello")
    loaded = read(tmp_path / "a.npz")
    assert loaded.tensors == {}
    assert loaded.conversion.left_out.keys() == {"flags", "text", "z", "t", "README"}
    for name, dtype in (("flags", "bool"), ("text", "<U1"), ("z", "complex128"), ("t", "datetime64[s]")):
        assert f"{name} was left out: {dtype} is not a numeric type" in "\n".join(loaded.conversion.notes)


FORGED: dict[str, tuple[bytes, type[RefnetError], str]] = {
    "8 TiB by its header": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (2199023255552,), }"),
        CorruptError,
        "8796093022208",
    ),
    "more than can be addressed": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 8), }"),
        LimitError,
        "address",
    ),
    "a negative dimension": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        FormatError,
        "negative",
    ),
    "cut off": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(7)),
        CorruptError,
        "8 bytes, but 7",
    ),
    "bytes after the array": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(9)),
        FormatError,
        "8 bytes, but 9",
    ),
    "a pickle": (
        forged("{'descr': '|O', 'fortran_order': False, 'shape': (), }", b"cos\nsystem\n"),
        DtypeError,
        "pickled",
    ),
    "records": (
        forged("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (), }", bytes(4)),
        DtypeError,
        "structured",
    ),
    "a header without a field": (forged("{'descr': '<f4', 'shape': (2,), }"), FormatError, "header"),
    "a header that is code": (forged("__import__('os').system('true')"), FormatError, "header"),
    "a header of brackets": (forged("[" * 110), FormatError, "header"),
    "a dimension that is text": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 'x'), }"),
        FormatError,
        "header",
    ),
    "a dimension that is a bool": (
        forged("{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }", bytes(4)),
        FormatError,
        "header",
    ),
    "a dtype of two": (forged("{'descr': 'f4,f', 'fortran_order': 1, 'shape': (), }"), FormatError, "header"),
    "version 3": (b"\x93NUMPY\x03\x00" + npy(np.ones(1))[8:], FormatError, r"version \(3, 0\)"),
    "a header longer than the file": (b"\x93NUMPY\x01\x00\xff\xff{", FormatError, "header"),
    "no magic's end": (b"\x93NUM", FormatError, "header"),
    "empty": (b"", FormatError, "header"),
    "a pickle for an array": (b"cos\nsystem\n", FormatError, "header"),
}


def _forged(content: bytes, error: type[RefnetError], message: str) -> BadFile:
    members = ("good.npy", npy(np.ones(2))), ("x.npy", content)
    return BadFile(lambda f: archive(f / "a.npz", *members), error, f"member 'x.npy'.*{message}")


def test_several_problems_are_all_listed(tmp_path: Path) -> None:
    path = archive(tmp_path / "a", ("x.npy", b""), ("y.npy", npy(np.ones(2))[:-1]))
    with pytest.raises(FormatError, match=r"2 problems(.|\n)*'x\.npy'(.|\n)*'y\.npy'"):
        read(path)


def test_pickle_saved_by_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([{}], object))
    with pytest.raises(DtypeError, match=r"'x\.npy'.*pickled"):
        read(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["../../x.npy", "/etc/x.npy", "a/../x.npy", "..\\x.npy", "C:\\x.npy"])
def test_name_that_leads_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(FormatError, match="leads outside"):
        read(archive(tmp_path / "a", (name, npy(np.ones(1)))))
    with pytest.raises(ConfigError, match="leads outside"):
        write_npz(tmp_path / "b.npz", {name: np.ones(1)}, {})


def edit_directory(path: Path, field: int, layout: str, value: int) -> Path:
    """Change a field of the first entry of the archive's directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(b"PK\1\2") + field, value)
    path.write_bytes(content)
    return path


LYING: dict[str, tuple[int, str, int, type[RefnetError], str]] = {
    "encrypted": (8, "<H", 1, FormatError, "encrypted"),
    "another compression": (10, "<H", zipfile.ZIP_LZMA, FormatError, "another method than deflate"),
    "an unknown compression": (10, "<H", 99, FormatError, "another method than deflate"),
    "a wrong checksum": (16, "<L", 0, CorruptError, "CRC"),
    "a member longer than the archive": (20, "<L", 1 << 20, FormatError, "overlaps what follows"),
    "a size that deflate cannot reach": (24, "<L", 1 << 20, LimitError, "cannot expand to the 1048576"),
    "a size that is too large": (24, "<L", 132, CorruptError, "4 follow"),
    "a member that starts elsewhere": (42, "<L", 7, CorruptError, "damaged"),
}


def _lying(field: int, layout: str, value: int, error: type[RefnetError], message: str) -> BadFile:
    def write(folder: Path) -> Path:
        return edit_directory(archive(folder / "a", ("x.npy", npy(np.ones(1)))), field, layout, value)

    return BadFile(write, error, message)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_and_truncated(tmp_path: Path, method: int) -> None:
    values = np.random.default_rng(0).random(100)
    path = archive(tmp_path / "a", ("x.npy", npy(values)), method=method)
    content = path.read_bytes()
    for cut in (4, 30, len(content) // 2, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(CorruptError, match="damaged"):
            read(path)
    middle = bytearray(content)
    middle[len(content) // 2] ^= 1
    path.write_bytes(middle)
    with pytest.raises(CorruptError, match=r"CRC|decompressing"):
        read(path)


METADATA: dict[str, tuple[bytes, type[RefnetError], str]] = {
    "our metadata: a list": (b"[1]", FormatError, "not a JSON object but a list"),
    "our metadata: a brace": (b"{", FormatError, "not valid JSON"),
    "our metadata: no UTF-8": (b"\xff", FormatError, "not valid JSON"),
    "our metadata: 200,000 brackets": (b"[" * 200_000, FormatError, "not valid JSON"),
    "our metadata: a key twice": (b'{"a": 1, "a": 2}', FormatError, "a key is there twice"),
    "our metadata: NaN": (b'{"a": NaN}', FormatError, "NaN is not a number"),
    "our metadata: 1 MiB and more": (b" " * (1 << 20) + b"{}", LimitError, "metadata take"),
}


def _metadata(content: bytes, error: type[RefnetError], message: str) -> BadFile:
    return BadFile(lambda f: archive(f / "a", ("__refnet__", content)), error, message)


def _commented(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a", "w") as file:
        member = zipfile.ZipInfo("x.npy")
        member.comment = b"hello"
        file.writestr(member, npy(np.ones(1)))
    return folder / "a"


def _overlapping(folder: Path) -> Path:
    path = archive(folder / "a", ("x.npy", npy(np.ones(1))), ("x.npz", npy(np.ones(1))))
    content = bytearray(path.read_bytes())
    struct.pack_into("<L", content, content.rindex(b"PK\1\2") + 42, 0)
    path.write_bytes(content)
    return path


def _twice(folder: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return archive(folder / "a", ("x.npy", npy(np.ones(1))), ("x.npy", npy(np.zeros(1))))


def _ends_early(folder: Path) -> Path:
    """The header and the directory agree on a size, and the stream holds less."""
    content = npy(np.ones(5))
    path = archive(folder / "a", ("x.npy", content[:-8]), method=zipfile.ZIP_DEFLATED)
    return edit_directory(path, 24, "<L", len(content))


def _bomb(folder: Path) -> Path:
    path = archive(folder / "a.npz", ("x.npy", npy(np.zeros(25_000_000))), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    return path


def _other_name(header: bytes, place: int, change: int) -> BadFile:
    """A member whose name the directory and its own header spell, or measure, in two ways: zipfile refuses it."""

    def write_it(folder: Path) -> Path:
        path = archive(folder / "a", ("²x.npy", npy(np.ones(1))))
        content = bytearray(path.read_bytes())
        content[content.index(header) + place] ^= change
        path.write_bytes(content)
        with zipfile.ZipFile(path) as file, pytest.raises(zipfile.BadZipFile):
            file.read(file.namelist()[0])
        return path

    return BadFile(write_it, CorruptError, "its own header does not have its name")


BAD = {
    "a name in UTF-8 in its own header alone": _other_name(b"PK\x01\x02", 9, 8),
    "a name in UTF-8 in the directory alone": _other_name(b"PK\x03\x04", 7, 8),
    "a shorter name in its own header": _other_name(b"PK\x03\x04", 26, 1),
    **{name: _forged(*row) for name, row in FORGED.items()},
    **{name: _lying(*row) for name, row in LYING.items()},
    **{name: _metadata(*row) for name, row in METADATA.items()},
    "PyTorch's pickle beside arrays": BadFile(
        lambda f: archive(f / "a", ("x.npy", npy(np.ones(1))), ("archive/data.pkl", b"\x80\x02N.")),
        FormatError,
        "holds a pickle",
    ),
    "a zip bomb": BadFile(_bomb, LimitError, r"claims to expand to 2000001\d\d"),
    "a member twice": BadFile(_twice, FormatError, r"'x\.npy' is in the archive twice"),
    "a comment that could hide members": BadFile(_commented, FormatError, "comment"),
    "overlapping members": BadFile(_overlapping, FormatError, "overlaps"),
    "a deflate stream that ends early": BadFile(_ends_early, CorruptError, "only 32 of its 40"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    error = check_refused(BAD[name], tmp_path, watch)
    if name in FORGED:
        assert error.tensor == "x"


def test_write_refuses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end in \.npz"):
        write_npz(tmp_path / "a.ckpt", ARRAYS, {})
    (tmp_path / "d.npz").mkdir()
    with pytest.raises(ConfigError, match="cannot be a directory"):
        write_npz(tmp_path / "d.npz", ARRAYS, {})
    for metadata in ({"x": object()}, {"x": float("nan")}):
        with pytest.raises(ConfigError, match="JSON"):
            write_npz(tmp_path / "a.npz", ARRAYS, metadata)
    for array in (np.array([True]), np.array([None]), np.array([1j]), np.array(["a"])):
        with pytest.raises(DtypeError, match="'x' has dtype"):
            write_npz(tmp_path / "a.npz", {"x": array}, {})
    with pytest.raises(FileNotFoundError):
        write_npz(tmp_path / "none" / "a.npz", ARRAYS, {})
    assert os.listdir(tmp_path) == ["d.npz"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    write_npz(tmp_path / "a.npz", ARRAYS, {"version": 1})
    before = (tmp_path / "a.npz").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space left"):
        write_npz(tmp_path / "a.npz", ARRAYS, {"version": 2})
    assert os.listdir(tmp_path) == ["a.npz"]
    assert (tmp_path / "a.npz").read_bytes() == before


def test_killed_while_writing_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    script = (
        "import sys, numpy as np\nfrom refnet.weights.formats.npz import write_npz\n"
        "version = 0\n"
        "while True:\n"
        "    version += 1\n"
        "    write_npz(sys.argv[1], {'x': np.full(200_000, version)}, {'version': version})\n"
    )
    for delay in (0.0, 0.003, 0.011, 0.017):
        path.unlink(missing_ok=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment) as writer:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(delay)
            writer.send_signal(signal.SIGKILL)
        loaded = read(path)
        assert (loaded.tensors["x"] == loaded.metadata["version"]).all()
