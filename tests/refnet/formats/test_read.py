"""What holds for every format: how a file is recognised, what is refused, and how much memory it may take."""

from __future__ import annotations

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

from refnet.errors import CorruptError, FormatError
from refnet.weights.formats import read, write
from refnet.weights.formats.loaded import read_all
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


_KNOWN = (
    r".*TensorFlow checkpoints \(V1 and V2\), PyTorch's \.pth, Keras' \.h5, Keras' \.keras, \.npz and safetensors\."
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
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


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
    with pytest.raises(CorruptError, match=r"(?s)3 problems.* 'a(\.npy)?': .* 'd(\.npy)?': .* 'e(\.npy)?': "):
        read(tmp_path / name)


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
