"""What holds for every format: how a file is recognised, what is refused, and how much memory it may take."""

from __future__ import annotations

import io
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet.errors import CorruptError, FormatError, LimitError
from refnet.files import regular_file_size
from refnet.weights.formats import read, write
from refnet.weights.formats.loaded import read_all
from refnet.weights.formats.table import MAGIC
from tests.refnet.formats.bad_files import BadFile, check_refused, content


def test_missing_path_names_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for .*model\.ckpt, .*model\.ckpt\.index"):
        read(tmp_path / "model.ckpt")


def _other_files(folder: Path) -> Path:
    (folder / "a").mkdir()
    (folder / "a" / "cat.png").write_bytes(b"\x89PNG")
    return folder / "a"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a")
    return folder / "a"


def _sparse(name: str, start: bytes, end: bytes = b"", beside: str = "") -> BadFile:
    """A file of 4 TiB with a few bytes at its start and its end, and a hole between."""

    def write_it(folder: Path) -> Path:
        with (folder / name).open("wb") as file:
            file.write(start)
            file.truncate(2**42 - len(end))
            file.seek(0, os.SEEK_END)
            file.write(end)
        return folder / (beside or name)

    return BadFile(
        write_it, LimitError, f"{name} has {2**42} bytes, but only [0-9]+ are on the disk: the rest are holes"
    )


def _safetensors_header(size: int) -> bytes:
    entry = b'{"x":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (size // 4, size)
    return len(entry).to_bytes(8, "little") + entry


def _zip(member: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member, b"")
    return buffer.getvalue()


def _sparse_shard(folder: Path) -> Path:
    write(folder / "a.ckpt", {"x": np.ones(2, np.float32)}, {})
    return _sparse("a.ckpt.data-00000-of-00001", bytes(8), beside="a.ckpt.index").write(folder)


SPARSE: dict[str, BadFile] = {
    "4 TiB of nothing": _sparse("a", b""),
    "4 TiB of safetensors": _sparse("a", _safetensors_header(2**42 - 66)),
    "a header of 4 TiB": _sparse("a", (2**42 - 8).to_bytes(8, "little") + b"{"),
    "4 TiB of .npz": _sparse("a.npz", b"PK\3\4", _zip("x.npy")),
    "4 TiB of .keras": _sparse("a.keras", b"PK\3\4", _zip("model.weights.h5")),
    "4 TiB of .h5": _sparse("a.h5", b"\x89HDF\r\n\x1a\n"),
    "an index of 4 TiB": _sparse("a.index", b"", MAGIC),
    "a V1 checkpoint of 4 TiB": _sparse("a", b"", MAGIC),
    "a shard of 4 TiB": BadFile(_sparse_shard, LimitError, r"a\.ckpt\.data.* are holes"),
}

_KNOWN = (
    r".*TensorFlow checkpoints \(V1 and V2\), PyTorch's \.pth, Keras' \.h5, Keras' \.keras, \.npz, safetensors and "
    r"ONNX\."
)
BAD: dict[str, BadFile] = {
    **{f"empty, named {name}": content(b"", FormatError, "empty", name) for name in ("a.npz", "a.index", "a")},
    "a gzip archive": content(b"\x1f\x8b\x08", FormatError, "unpack" + _KNOWN),
    "a pickle": content(b"\x80\x02csomething", FormatError, "pickle" + _KNOWN, "a.npz"),
    "a single array": content(b"\x93NUMPY\x01", FormatError, r"numpy\.savez" + _KNOWN),
    "text": content(b"text", FormatError, "unknown format" + _KNOWN),
    "one byte": content(b"x", FormatError, "unknown format" + _KNOWN),
    "a directory of other files": BadFile(_other_files, FormatError, "no 'checkpoint' file and holds no checkpoint"),
    "a FIFO": BadFile(_fifo, FormatError, "is a FIFO; it must be a regular file"),
    **SPARSE,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


def test_a_file_with_some_holes_is_no_bomb(tmp_path: Path) -> None:
    """Copies leave out blocks of zeros; and some file systems know neither blocks nor holes."""
    arrays = {"x": np.zeros(4_000_000, np.float32), "y": np.ones(100_000, np.float32)}
    write(tmp_path / "a.safetensors", arrays, {})
    content = (tmp_path / "a.safetensors").read_bytes()
    with (tmp_path / "b").open("wb") as file:
        for start in range(0, len(content), 4096):
            if any(block := content[start : start + 4096]):
                file.seek(start)
                file.write(block)
    assert (tmp_path / "b").stat().st_blocks < (tmp_path / "a.safetensors").stat().st_blocks
    assert np.array_equal(read(tmp_path / "b").tensors["y"], arrays["y"])


def test_a_file_system_that_counts_no_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(4096))
    monkeypatch.setattr("refnet.files._SMALL_BYTES", 0)
    monkeypatch.setattr("refnet.files._BLOCK_BYTES", 0)
    assert regular_file_size(str(tmp_path / "a")) == 4096
    os.truncate(tmp_path / "a", 1 << 20)
    with pytest.raises(LimitError, match="are holes"):
        regular_file_size(str(tmp_path / "a"))


def test_many_sparse_shards_count_together(tmp_path: Path) -> None:
    paths = [str(tmp_path / str(number)) for number in range(3)]
    for path in paths:
        Path(path).touch()
        os.truncate(path, 30 << 20)
    assert regular_file_size(*paths[:2]) == 60 << 20
    with pytest.raises(LimitError, match="0 and 2 other files have 94371840 bytes, but only 0"):
        regular_file_size(*paths)


def test_extension_that_lies(v1: Any, tmp_path: Path) -> None:
    assert read(shutil.copy(v1.prefix, tmp_path / "a.npz")).format == "TF checkpoint V1"
    np.savez(tmp_path / "b.npz", x=np.ones(2))
    for name in ("b.ckpt", "b.index", "b.meta", "b.data-00000-of-00001"):
        assert read(shutil.copy(tmp_path / "b.npz", tmp_path / name)).format == "npz"


def _large_and_small() -> dict[str, np.ndarray]:
    """Arrays that are read in threads, and between them some that are not."""
    rng = np.random.default_rng(0)
    sizes = {"a": 300_000, "b": 3, "c": 200_000, "d": 5, "e": 400_000, "f": 0}
    return {name: rng.standard_normal(size, np.float32) for name, size in sizes.items()}


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors", "x.ckpt"])
def test_large_arrays_beside_small_ones(name: str, tmp_path: Path) -> None:
    arrays = _large_and_small()
    write(tmp_path / name, arrays, {})
    found = read(tmp_path / name).tensors
    assert list(found) == list(arrays)
    for key, array in found.items():
        np.testing.assert_array_equal(array, arrays[key], strict=True)
        # There kernels are packed in place.
        assert array.ctypes.data % 64 == 0


@pytest.mark.parametrize(("name", "file"), [("x.npz", "x.npz"), ("x.ckpt", "x.ckpt.data-00000-of-00001")])
def test_every_damaged_array_is_named(name: str, file: str, tmp_path: Path) -> None:
    arrays = _large_and_small()
    write(tmp_path / name, arrays, {})
    content = bytearray((tmp_path / file).read_bytes())
    for key in ("a", "d", "e"):
        content[content.index(arrays[key].tobytes())] ^= 1
    (tmp_path / file).write_bytes(content)
    with pytest.raises(CorruptError, match=r"(?s)3 problems.* 'a(\.npy)?'.* 'd(\.npy)?'.* 'e(\.npy)?'"):
        read(tmp_path / name)


def test_the_same_problem_of_many_tensors_is_told_once(tmp_path: Path) -> None:
    write(tmp_path / "a.ckpt", {f"x{number:03d}": np.ones(2, np.float32) for number in range(272)}, {})
    (tmp_path / "a.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(CorruptError, match=r"^[^\n]*a\.ckpt\.index: 272 problems were found:\n") as caught:
        read(tmp_path / "a.ckpt")
    assert caught.value.message.count("its shard a.ckpt.data-00000-of-00001 is missing; put it beside the index.") == 1
    assert "(272 of them: tensor 'x000', tensor 'x001', " in caught.value.message
    assert caught.value.tensor == "x000"
    assert len(caught.value.message) < 1000


def test_a_list_of_problems_is_short(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for number in range(300):
            archive.writestr(f"{number}.npy", b"\x93NUMPY\x01\x00" + bytes([number % 200, 0]) + b"x" * number)
    with pytest.raises(FormatError, match=r"and [0-9]+ more$") as caught:
        read(tmp_path / "a.npz")
    assert caught.value.message.count("\n") == 51


def test_what_is_no_bad_file_ends_the_reading() -> None:
    seen = []

    def read_entry(entry: int) -> None:
        seen.append(entry)
        if entry == 0:
            raise MemoryError
        time.sleep(0.02)

    with pytest.raises(MemoryError):
        read_all(read_entry, range(1000), lambda entry: 1 << 20)
    assert len(seen) < 500


def test_fifo_socket_and_device_do_not_hang(tmp_path: Path, watch: Any) -> None:
    os.mkfifo(tmp_path / "fifo")
    os.mkfifo(tmp_path / "prefix.index")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for path, kind in (("fifo", "FIFO"), ("prefix", "FIFO"), ("socket", "socket"), ("/dev/zero", "device")):
            with watch(), pytest.raises(FormatError, match=f"is a {kind}; it must be a regular file"):
                read(tmp_path / path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"PK\3\4")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError):
        read(tmp_path / "a")


def test_forged_sizes_take_no_memory(tables: Any, tmp_path: Path) -> None:
    """8 TiB in each format, read with 256 MiB to spare."""
    elements = 2**41
    dimension = tables.field(2, tables.shape(elements))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({elements},), }}".encode().ljust(117) + b"\n"
    with open(tmp_path / "npz", "wb") as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    tables.v2(tmp_path / "v2", {"x": tables.entry(b"", 1, (elements,), size=4 * elements)}, b"")
    meta = tables.field(1, b"x") + dimension + tables.field(3, 1) + tables.field(4, tables.field(1, b""))
    header = tables.field(1, tables.field(1, meta))
    data = tables.field(2, tables.field(3, tables.field(5, b"")))
    (tmp_path / "v1").write_bytes(tables.table({b"": header, b"\0x\0\1\1\1\x80\x7f": data}))
    tables_end = tables.from_blocks([(b"a", tables.varint(2**43) + b"\0k", 1)])
    (tmp_path / "snappy").write_bytes(tables_end)
    entry = b'{"x":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}' % (elements, 4 * elements)
    (tmp_path / "safetensors").write_bytes(len(entry).to_bytes(8, "little") + entry)
    # Text that takes much more memory as objects, as long as a header may be.
    dense = b'{"x":[' + b'{"":[]},' * ((4 << 20) // 8 - 2) + b"{}]}"
    (tmp_path / "header").write_bytes(len(dense).to_bytes(8, "little") + dense)
    script = """
import resource, sys
from refnet.errors import RefnetError
from refnet.weights.formats import read
from tests.refnet.formats.bad_files import BadFile, check_refused, content
for path in sys.argv[1:]:
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
    try:
        read(path)
    except RefnetError as error:
        print(type(error).__name__)
"""
    paths = [str(tmp_path / name) for name in ("npz", "v2", "v1", "snappy", "safetensors", "header")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script, *paths], env=environment, capture_output=True, text=True)
    errors = ["CorruptError", "CorruptError", "FormatError", "LimitError", "CorruptError", "FormatError"]
    assert done.stdout.split() == errors, done.stderr


def test_the_watch_sees_what_a_reader_must_not_do(tmp_path: Path, watch: Any) -> None:
    (tmp_path / "a").touch()
    with watch(str(tmp_path / "a")):
        (tmp_path / "a").read_bytes()
    with pytest.raises(AssertionError, match="did more"), watch(str(tmp_path / "b")):
        (tmp_path / "a").read_bytes()
    with pytest.raises(AssertionError, match="exec"), watch():
        eval("1")
