"""Keras' files as h5py writes them, sound and hostile; Keras' own files are in tests/keras."""

from __future__ import annotations

import pickle
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refnet
from refnet.errors import CorruptError, DtypeError, FormatError, LimitError, MissingTensorError, RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.hdf5_structures import checksum
from tests.refnet.formats import bad_files
from tests.refnet.formats.bad_files import BadFile, check_refused, read_or_refuse
from tests.support.limits import within_limits

ARRAYS = {
    "conv1_conv/kernel": np.arange(24, dtype=np.float32).reshape(2, 1, 3, 4),
    "conv1_conv/bias": np.float16([1, 2, 3, 4]),
    "post_bn/gamma": np.array([0.5, np.nan]),
    "post_bn/beta": np.float32([-0.0, 1e-42]),
    "post_bn/moving_mean": np.arange(2, dtype=">f4"),
    "post_bn/moving_variance": np.float32([1, 2]),
}


def write(path: Path, arrays: dict[str, np.ndarray] = ARRAYS, group: str = "", suffix: str = ":0") -> Path:
    """The legacy layout: layer/layer/variable."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, role = name.split("/")
            file[f"{group}{layer}/{layer}/{role}{suffix}"] = array
    return path


def write_numbered(path: Path) -> Path:
    """Keras 3's layout."""
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = ARRAYS["conv1_conv/kernel"]
        file["layers/conv2d/vars/1"] = ARRAYS["conv1_conv/bias"]
        file["layers/conv2d/vars"].attrs["name"] = "conv1_conv"
        for index, role in enumerate(("gamma", "beta", "moving_mean", "moving_variance")):
            file[f"layers/batch_normalization/vars/{index}"] = ARRAYS[f"post_bn/{role}"]
        file["layers/batch_normalization/vars"].attrs["name"] = "post_bn"
        file.create_group("layers/activation")
        file["optimizer/vars/0"] = np.ones(3)
    return path


def write_archive(path: Path, tmp_path: Path, **members: bytes) -> Path:
    content = write_numbered(tmp_path / "inner.h5").read_bytes()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", '{"class_name": "Lambda", "module": "os", "registered_name": "system"}')
        archive.writestr("model.weights.h5", content)
        for name, member in members.items():
            archive.writestr(name, member)
    return path


def assert_same(found: dict[str, np.ndarray]) -> None:
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype.newbyteorder("=")
        assert array.shape == ARRAYS[name].shape
        assert array.tobytes() == ARRAYS[name].astype(array.dtype).tobytes()
        assert array.flags.c_contiguous


@pytest.mark.parametrize("group", ["", "model_weights/"])
@pytest.mark.parametrize("suffix", ["", ":0"])
@pytest.mark.parametrize("name", ["a.h5", "a.npz", "a"])
def test_legacy_files_by_name(tmp_path: Path, watch: Any, group: str, suffix: str, name: str) -> None:
    path = write(tmp_path / name, group=group, suffix=suffix)
    read(path)
    with watch(str(path)):
        loaded = read(path)
    assert loaded.format == "Keras .h5"
    assert_same(loaded.tensors)


def test_numbered_variables_have_their_layers_names(tmp_path: Path, watch: Any) -> None:
    path = write_numbered(tmp_path / "a.weights.h5")
    read(path)
    with watch(str(path)):
        loaded = read(path)
    assert loaded.format == "Keras .weights.h5"
    assert_same(loaded.tensors)


def test_an_archives_config_is_never_opened(tmp_path: Path, watch: Any) -> None:
    """It names code that Keras would import; damage in it, which its checksum tells, is not even seen."""
    path = write_archive(tmp_path / "a.keras", tmp_path)
    content = path.read_bytes()
    read(path)
    path.write_bytes(content.replace(b'"Lambda"', b'"lambda"', 1))
    with watch(str(path)):
        loaded = read(path)
    assert loaded.format == "Keras .keras"
    assert_same(loaded.tensors)


def test_compressed_values(tmp_path: Path) -> None:
    values = np.arange(10_000, dtype=np.float32).reshape(100, 100)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        options = {"compression": "gzip", "shuffle": True, "chunks": (30, 70)}
        file.create_dataset("a/a/kernel:0", data=values, **options)
    np.testing.assert_array_equal(read(tmp_path / "a.h5").tensors["a/kernel"], values, strict=True)


def test_neither_h5py_nor_keras_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5")
    for name in ("h5py", "keras", "tensorflow"):
        monkeypatch.setitem(sys.modules, name, None)
    assert_same(read(path).tensors)


Change = Callable[[h5py.File, Path], Any]


def _external_storage(file: h5py.File, folder: Path) -> None:
    (folder / "secret").write_bytes(bytes(100))
    file.create_dataset("x/x/kernel:0", (2,), "f4", external=[(str(folder / "secret"), 0, 8)])


def _virtual(file: h5py.File, folder: Path) -> None:
    write(folder / "other.h5")
    layout = h5py.VirtualLayout((2,), "f4")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "post_bn/post_bn/beta:0", (2,))
    file.create_virtual_dataset("x/x/kernel:0", layout)


def _cycle(file: h5py.File, _: Path) -> None:
    file["x/again"] = file.create_group("x/y")
    file["x/y/top"] = file["x"]


def _plugin(file: h5py.File, _: Path) -> None:
    """A filter that nobody has: values can be stored past it."""
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((2,))
    creation.set_filter(31_999, h5py.h5z.FLAG_OPTIONAL, ())
    group = file.create_group("x/x")
    dataset = h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((2,)), creation)
    dataset.write_direct_chunk((0,), bytes(8), 1)


def dataset(**options: Any) -> Change:
    return lambda file, _: file.create_dataset("x/x/kernel:0", **options)


def link(name: str, target: Any) -> Change:
    return lambda file, _: file.__setitem__(name, target)


def _link_on_the_way(file: h5py.File, _: Path) -> None:
    del file["post_bn/post_bn"]
    file["post_bn/post_bn"] = h5py.SoftLink("/conv1_conv")


CHANGES: dict[str, tuple[Change, type[RefnetError], str]] = {
    "external link": (link("x", h5py.ExternalLink("other.h5", "/x")), FormatError, "'x' is a link"),
    "external link to a device": (link("x", h5py.ExternalLink("/dev/zero", "/")), FormatError, "'x' is a link"),
    "soft link": (link("x/y", h5py.SoftLink("/post_bn")), FormatError, "'x/y' is a link"),
    "soft link to itself": (link("x", h5py.SoftLink("/x")), FormatError, "'x' is a link"),
    "dangling soft link": (link("x", h5py.SoftLink("/nothing")), FormatError, "'x' is a link"),
    "link on the way": (_link_on_the_way, FormatError, "'post_bn/post_bn' is a link"),
    "cycle of groups": (_cycle, FormatError, "has another name too"),
    "a dataset twice": (lambda f, _: f.__setitem__("x", f["post_bn"]), FormatError, "has another name too"),
    "external storage": (_external_storage, FormatError, "'x/x/kernel:0'.*are in other files"),
    "virtual dataset": (_virtual, FormatError, "'x/x/kernel:0'.*are in other files"),
    "1 TiB in chunks": (dataset(shape=(2**38,), dtype="f4", chunks=(2**20,)), LimitError, "'x/x/kernel:0'.*holds 0"),
    "1 TiB, never written": (dataset(shape=(2**38,), dtype="f4"), LimitError, "'x/x/kernel:0'.*holds 0"),
    "1 TiB, compressed": (
        dataset(shape=(2**38,), dtype="f4", chunks=(2**20,), compression="gzip"), LimitError, "'x/x/kernel:0'",
    ),
    "more than can be addressed": (
        dataset(shape=(2**62, 4), dtype="f4", chunks=(1, 4)), LimitError, "more bytes than a computer",
    ),
    "strings": (dataset(data=np.array([b"a"], object), dtype=h5py.string_dtype()), DtypeError, "varying length"),
    "arrays of varying length": (dataset(shape=(2,), dtype=h5py.vlen_dtype("f4")), DtypeError, "varying length"),
    "records": (dataset(data=np.zeros(2, "f4,i4")), DtypeError, "records"),
    "references": (dataset(shape=(2,), dtype=h5py.ref_dtype), DtypeError, "references"),
    "no shape": (dataset(data=h5py.Empty("f4")), FormatError, "no shape"),
    "another compression": (dataset(data=np.zeros(99), compression="lzf"), FormatError, r"filters \[32000\]"),
    "checksums": (dataset(data=np.zeros(99), chunks=(9,), fletcher32=True), FormatError, r"filters \[3\] \(fletcher32"),
    "a filter's plug-in": (_plugin, FormatError, r"filters \[31999\]"),
    "a long name": (link("x" * 1025, np.zeros(1)), LimitError, "a name has 1025 bytes"),
    "two of a name": (link("post_bn/post_bn/beta", np.zeros(2)), FormatError, "have the name 'post_bn/beta'"),
}  # fmt: skip


def bad(change: Change, error: type[RefnetError], message: str) -> BadFile:
    """A sound file with a change."""

    def changed(folder: Path) -> Path:
        with h5py.File(write(folder / "a.h5"), "a") as file:
            change(file, folder)
        return folder / "a.h5"

    return BadFile(changed, error, message)


def _archive(folder: Path, *members: tuple[str, bytes], sound: bool = False) -> Path:
    path = folder / "a.keras"
    if sound:
        return write_archive(path, folder, **dict(members))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def _link_in_an_archive(folder: Path) -> Path:
    with h5py.File(folder / "b.h5", "w") as file:
        file["x"] = h5py.ExternalLink("/dev/zero", "/")
    return _archive(folder, (INNER, (folder / "b.h5").read_bytes()))


INNER = "model.weights.h5"
BAD = {name: bad(*row) for name, row in CHANGES.items()} | {
    "truncated": BadFile(lambda f: _cut(write(f / "a.h5"), -1), CorruptError, "damaged"),
    "a pickle by the name": bad_files.content(pickle.dumps({"a": 1}, 2), FormatError, "pickle", "a.h5"),
    ".keras: a name that leads outside": BadFile(
        lambda f: _archive(f, ("../../x", b""), sound=True), FormatError, "leads outside"
    ),
    ".keras: no weights": BadFile(
        lambda f: _archive(f, ("config.json", b"{}")), CorruptError, "which holds the weights .* missing"
    ),
    ".keras: a zip bomb": BadFile(
        lambda f: _archive(f, (INNER, bytes(200_000_000))), LimitError, "expand to 200000000"
    ),
    ".keras: no HDF5 in it": BadFile(
        lambda f: _archive(f, (INNER, b"no HDF5")), CorruptError, r"'model\.weights\.h5': the HDF5 file is damaged"
    ),
    ".keras: an external link in it": BadFile(_link_in_an_archive, FormatError, "'x' is a link"),
    "compressed zeros": BadFile(lambda f: zeros(f / "a.h5", 80), LimitError, "expand to 83886080"),
}


def test_what_is_no_number_is_left_out(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5"), "a") as file:
        file["x/x/flag:0"] = np.array([True])
        file["x/x/complex:0"] = np.array([1j])
    loaded = read(tmp_path / "a.h5")
    assert_same(loaded.tensors)
    assert loaded.conversion.left_out.keys() == {"x/flag", "x/complex"}


def test_a_group_for_a_dataset_and_the_reverse(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv1_conv"] = np.ones(2)
        file.create_group("post_bn/post_bn/gamma:0")
    with pytest.raises(MissingTensorError, match="not the weights of Keras' ResNets"):
        refnet.load_weights(tmp_path / "a.h5")


def _cut(path: Path, keep: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    return path


@pytest.mark.parametrize("keep", [8, 100, 0.5, 0.9, -1])
def test_truncated(tmp_path: Path, keep: float) -> None:
    _cut(write(tmp_path / "a.h5"), keep)
    with pytest.raises(CorruptError, match="damaged"):
        read(tmp_path / "a.h5")


def zeros(path: Path, megabytes: int) -> Path:
    with h5py.File(path, "w") as file:
        shape, chunks = (megabytes, 2**18), (1, 2**18)
        file.create_dataset("x/x/kernel:0", shape, "f4", chunks=chunks, compression="gzip")[:] = 0
    assert path.stat().st_size < 200_000
    return path


def test_a_bomb_in_a_bomb_counts_from_the_outer_file(tmp_path: Path) -> None:
    inner = zeros(tmp_path / "a.h5", 70)
    assert read(inner).tensors["x/kernel"].nbytes == 70 << 20
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, "model.weights.h5")
    with pytest.raises(LimitError, match=f"expand to {70 << 20}"):
        read(tmp_path / "a.keras")


def write_filtered(path: Path, **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("z/z/kernel:0", data=np.arange(40, dtype=np.float32), chunks=(16,), **options)
    return path


#: How structures start that end in a checksum.
CHECKED = (b"OHDR", b"BTHD", b"BTIN", b"BTLF", b"FRHP", b"FHIB", b"FAHD", b"FADB", b"EAHD")


def forge(path: Path, mark: bytes, offset: int, value: bytes, summed: bool = True) -> Path:
    """Overwrite bytes near the first mark; what has a checksum gets the right one."""
    content = bytearray(path.read_bytes())
    start = content.index(mark)
    stop = _end(bytes(content), start) if summed and mark in CHECKED else None
    content[start + offset : start + offset + len(value)] = value
    if stop is not None:
        content[stop : stop + 4] = checksum(bytes(content[start:stop])).to_bytes(4, "little")
    path.write_bytes(content)
    return path


def _end(content: bytes, start: int) -> int:
    return next(
        stop
        for stop in range(start + 4, len(content))
        if content[stop : stop + 4] == checksum(content[start:stop]).to_bytes(4, "little")
    )


def own_address(path: Path, mark: bytes, offset: int) -> Path:
    """Have a structure lead to itself."""
    return forge(path, mark, offset, path.read_bytes().index(mark).to_bytes(8, "little"))


def _free_space(size: int) -> Callable[[Path], Path]:
    """Keras 3's file whose global heap ends in free space of this size, after one layer's name."""

    def forged(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            file["layers/c/vars/0"] = np.zeros(3, "f4")
            file["layers/c/vars"].attrs["name"] = "conv"
        return forge(folder / "a.h5", b"GCOL", 48, size.to_bytes(8, "little"))

    return forged


def newest(path: Path, links: int = 600) -> Path:
    """The structures of later versions: many links, in a heap, and two trees."""
    with h5py.File(path, "w", libver="latest") as file:
        for number in range(links):
            file[f"many/{number}"] = h5py.SoftLink("/x") if number else np.zeros(2, "f4")
    return path


def _continues_in_itself(folder: Path) -> Path:
    """The message of the outermost group, whose header is at byte 96, says that the header goes on where it is."""
    write(folder / "a.h5")
    content = bytearray((folder / "a.h5").read_bytes())
    assert content[112:116] == b"\x11\0\x10\0"
    content[112] = 0x10
    content[120:136] = (112).to_bytes(8, "little") + (24).to_bytes(8, "little")
    (folder / "a.h5").write_bytes(content)
    return folder / "a.h5"


def _own_child(folder: Path) -> Path:
    """A tree of names whose only child is itself."""
    path = own_address(write(folder / "a.h5"), b"TREE", 32)
    return forge(path, b"TREE", 5, b"\1")


def _shares_its_own_type(folder: Path) -> Path:
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        file["t"] = np.dtype("f4")
        file.create_dataset("x/x/kernel:0", data=np.zeros(3, "f4"), dtype=file["t"])
        address, own = (h5py.h5o.get_info(file[name].id).addr for name in ("t", "x/x/kernel:0"))
    content = path.read_bytes()
    start = content.index(address.to_bytes(8, "little"), own)
    path.write_bytes(content[:start] + own.to_bytes(8, "little") + content[start + 8 :])
    return path


def _many_in_one_place(folder: Path) -> Path:
    """Each dataset has as many values as the file, all of them the same bytes."""
    path = folder / "a.h5"
    with h5py.File(path, "w") as file:
        for number in range(30):
            file.create_dataset(f"x/x/{number}", (10_000,), "f4")
        file["y/y/kernel"] = np.ones(10_000, "f4")
        place = file["y/y/kernel"].id.get_offset()
    nowhere, size = b"\xff" * 8, (40_000).to_bytes(8, "little")
    content = path.read_bytes()
    assert content.count(nowhere + size) == 30
    path.write_bytes(content.replace(nowhere + size, place.to_bytes(8, "little") + size))
    return path


def _swollen_chunk(folder: Path) -> Path:
    """A chunk of 4096 bytes that decompresses to 300 million."""
    packer = zlib.compressobj(1)
    content = b"".join(packer.compress(bytes(1_000_000)) for _ in range(300)) + packer.flush()
    with h5py.File(folder / "a.h5", "w") as file:
        made = file.create_dataset("x/x/kernel:0", (1024,), "f4", chunks=(1024,), compression="gzip")
        made.id.write_direct_chunk((0,), content)
    return folder / "a.h5"


def _chunk(content: bytes) -> Callable[[Path], Path]:
    def written(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            made = file.create_dataset("x/x/kernel:0", (2,), "f4", chunks=(2,), compression="gzip")
            made.id.write_direct_chunk((0,), content)
        return folder / "a.h5"

    return written


def _absent_chunk(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        made = file.create_dataset("x/x/kernel:0", (6,), "f4", chunks=(2,), compression="gzip")
        made[:2] = 1
        made[4:] = 1
    return folder / "a.h5"


def _growing(path: Path) -> Path:
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("x/x/kernel", data=np.zeros(6, "f4"), chunks=(2,), maxshape=(None,))
    return path


def _deep(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file["/".join(["x"] * 5000)] = np.zeros(3)
    return folder / "a.h5"


def _names_in_one_place(folder: Path) -> Path:
    """Two names of a group are the ends of a third."""
    path = write(folder / "a.h5", {f"{layer}/kernel": np.ones(2) for layer in ("x" * 900, "y" * 40, "z" * 40)})
    content = path.read_bytes()
    node = content.index(b"SNOD")
    place = int.from_bytes(content[node + 8 : node + 16], "little")
    for number in (1, 2):
        forge(path, b"SNOD", 8 + 40 * number, (place + number).to_bytes(8, "little"))
    return path


def _long_paths(folder: Path) -> Path:
    """Each repeats the long names on the way to it."""
    with h5py.File(folder / "a.h5", "w") as file:
        group = file.create_group("/".join(["x" * 1000] * 15))
        for number in range(1200):
            group[str(number)] = np.float32(1)
    return folder / "a.h5"


def _many_chunks(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w", libver="latest") as file:
        file.create_dataset("x/x/kernel", data=np.zeros(70_000, "i1"), chunks=(1,))
    return folder / "a.h5"


def _large_header(folder: Path) -> Path:
    """The outermost group is 9 MB of empty messages."""
    content = bytearray(write(folder / "a.h5").read_bytes())
    head = struct.pack("<BBHII4x", 1, 0, 65535, 1, 9_000_000)
    content[64:72] = len(content).to_bytes(8, "little")
    content += head + bytes(9_000_000)
    content[40:48] = len(content).to_bytes(8, "little")
    (folder / "a.h5").write_bytes(content)
    return folder / "a.h5"


def _shape(*sizes: int) -> bytes:
    return b"".join(size.to_bytes(8, "little") for size in sizes)


def _table(path: Path) -> bytes:
    """The message that makes the group of the first layer one, up to the address of its tree."""
    with h5py.File(path) as file:
        start = h5py.h5o.get_info(file["conv1_conv"].id).addr + 16
    return path.read_bytes()[start : start + 16]


def _in_a_heap(old: bytes, new: bytes) -> Callable[[Path], Path]:
    return lambda folder: forge(write(folder / "a.h5"), old, 0, new)


HUGE = (2**63).to_bytes(8, "little")
DAMAGED = "the HDF5 file is damaged: "
#: Structures that lie. HDF5's own library crashes or hangs on some of them.
FORGED: dict[str, tuple[Callable[[Path], Path], type[RefnetError], str]] = {
    "a chunk shorter than its checksum": (
        lambda f: forge(write_filtered(f / "a.h5", fletcher32=True), b"TREE\x01", 24, bytes(4)),
        FormatError, "fletcher32",
    ),
    "free space of no size": (_free_space(0), CorruptError, "free space .* has 0 bytes"),
    "free space shorter than its head": (_free_space(8), CorruptError, "free space .* has 8 bytes"),
    "free space beyond the end": (_free_space(2**63), CorruptError, "global heap is cut off"),
    "an object that wraps around": (
        lambda f: forge(_free_space(4056)(f), b"GCOL", 24, (2**64 - 16).to_bytes(8, "little")),
        CorruptError, "global heap is cut off",
    ),
    "a global heap that is not there": (
        lambda f: forge(_free_space(4056)(f), b"GCOL", 0, b"GCOM"), CorruptError, "starts with b'GCOM",
    ),
    "a name that the global heap does not have": (
        lambda f: forge(_free_space(4056)(f), b"GCOL", 16, b"\2"), CorruptError, "no object 1",
    ),
    "a global heap larger than the file": (
        lambda f: forge(_free_space(4056)(f), b"GCOL", 8, HUGE), CorruptError, "cut off",
    ),
    "a local heap larger than the file": (
        lambda f: forge(write(f / "a.h5"), b"HEAP", 8, HUGE), CorruptError, "cut off",
    ),
    "addresses that count from elsewhere": (
        lambda f: forge(write(f / "a.h5"), b"HDF", 23, b"\x08"), CorruptError, "does not begin",
    ),
    "lengths of 4 bytes": (lambda f: forge(write(f / "a.h5"), b"HDF", 13, b"\x04"), CorruptError, "does not begin"),
    "a header that continues in itself": (_continues_in_itself, CorruptError, "lead back to themselves"),
    "a tree that is its own child": (_own_child, CorruptError, "a node of level 1 where one of level 0"),
    "a tree of too many entries": (
        lambda f: forge(write(f / "a.h5"), b"TREE", 6, b"\xff\xff"), CorruptError, DAMAGED,
    ),
    "a node of too many names": (
        lambda f: forge(write(f / "a.h5"), b"SNOD", 6, b"\xff\xff"), CorruptError, DAMAGED,
    ),
    "a tree of chunks that is its own child": (
        lambda f: forge(own_address(write_filtered(f / "a.h5"), b"TREE\x01", 48), b"TREE\x01", 5, b"\1\1\0"),
        CorruptError, "'z/z/kernel:0'.*a node of level 1 where one of level 0",
    ),
    "a chunk within another": (
        lambda f: forge(write_filtered(f / "a.h5"), b"TREE\x01", 32, b"\1"), CorruptError, "starts within another",
    ),
    "a chunk outside its dataset": (
        lambda f: forge(write_filtered(f / "a.h5"), b"TREE\x01", 32, b"\x40"), CorruptError, "outside its dataset",
    ),
    "a chunk twice": (
        lambda f: forge(write_filtered(f / "a.h5"), b"TREE\x01", 64, bytes(8)), FormatError, "of its 3 chunks",
    ),
    "a chunk beyond the end": (
        lambda f: forge(write_filtered(f / "a.h5"), b"TREE\x01", 48, HUGE), CorruptError, "beyond its end",
    ),
    "a growing array of which nothing is used": (
        lambda f: forge(_growing(f / "a.h5"), b"EAHD", 44, bytes(8)), LimitError, "holds 0 for it",
    ),
    "a chunk that was never written": (_absent_chunk, FormatError, "2 of its 3 chunks"),
    "a chunk that expands too far": (_swollen_chunk, CorruptError, "more than its 4096 bytes"),
    "a chunk that expands too little": (_chunk(zlib.compress(bytes(7))), CorruptError, "7 bytes in place of 8"),
    "a chunk that is not deflated": (_chunk(bytes(8)), CorruptError, "cannot be decompressed"),
    "a chunk that is cut off": (_chunk(zlib.compress(bytes(8))[:-1]), CorruptError, "a compressed chunk is cut off"),
    "values that are there many times": (_many_in_one_place, CorruptError, "its parts overlap"),
    "a type that shares itself": (_shares_its_own_type, CorruptError, "a shared message is not there"),
    "groups too deep": (_deep, FormatError, "too deep groups"),
    "a name with a slash": (_in_a_heap(b"post_bn\0", b"post/bn\0"), CorruptError, "has the name 'post/bn'"),
    "a name that is not text": (_in_a_heap(b"post_bn\0", b"post\xffbn\0"), CorruptError, "is not text"),
    "a name twice": (
        lambda f: forge(write(f / "a.h5", {"a1/kernel": np.ones(2), "a2/kernel": np.ones(2)}), b"a2\0", 0, b"a1\0"),
        CorruptError, "'a1' twice",
    ),
    "a group that has lost its table": (
        lambda f: forge(write(f / "a.h5"), _table(write(f / "a.h5")), 0, b"\x13"), CorruptError, "neither a group nor",
    ),
    "a dataset that has lost its layout": (
        lambda f: forge(write(f / "a.h5"), b"\x08\0\x18\0", 0, b"\0"), CorruptError, "layout is cut off",
    ),
    "a dataset that has lost its type": (
        lambda f: forge(write(f / "a.h5"), b"\x11\x20\x1f\0", -8, b"\0"), CorruptError, "datatype is cut off",
    ),
    "an entry of an unknown kind": (
        lambda f: forge(write(f / "a.h5"), b"SNOD", 24, b"\3"), CorruptError, "an entry of kind 3",
    ),
    "a shape of fewer values than are there": (
        lambda f: forge(write(f / "a.h5"), _shape(2, 1, 3, 4), 0, b"\1"),
        CorruptError, "takes 48 bytes, and not the 96",
    ),
    "a message that is not aligned": (
        lambda f: forge(write(f / "a.h5"), b"\x08\0\x18\0", 2, b"\x17"), CorruptError, "a message of 23 bytes",
    ),
    "a float of a form of its own": (
        lambda f: forge(write(f / "a.h5"), b"\x11\x20\x1f\0", 12, b"\x16"), DtypeError, "float of 4 bytes in a form",
    ),
    "names in one place": (_names_in_one_place, CorruptError, "names in a heap overlap"),
    "long paths": (_long_paths, LimitError, "more than 16777216 letters"),
    "many chunks": (_many_chunks, LimitError, "more than 65536 chunks"),
    "large structures": (_large_header, LimitError, "more than 8388608 bytes"),
    "a wrong checksum": (
        lambda f: forge(newest(f / "a.h5"), b"OHDR", 9, b"\1", summed=False), CorruptError, DAMAGED + "the checksum of",
    ),
    "a heap's list that lists itself": (
        lambda f: own_address(newest(f / "a.h5"), b"FHIB", 17), CorruptError, DAMAGED,
    ),
    "a heap of too many rows": (
        lambda f: forge(newest(f / "a.h5"), b"FRHP", 140, b"\xff\xff"), CorruptError, "65535 rows",
    ),
    "a heap of blocks without end": (
        lambda f: forge(newest(f / "a.h5"), b"FRHP", 110, (3).to_bytes(2, "little")), CorruptError, "power of two",
    ),
    "a new tree that is its own child": (
        lambda f: own_address(newest(f / "a.h5"), b"BTIN", 6 + 11 * _records(f / "a.h5")),
        CorruptError, "a B-tree's node",
    ),
    "a new tree of many levels": (
        lambda f: forge(newest(f / "a.h5"), b"BTHD", 12, b"\xff\xff"), CorruptError, "65535 levels deep",
    ),
    "a new tree of large records": (
        lambda f: forge(newest(f / "a.h5"), b"BTHD", 10, b"\xff\xff"), CorruptError, "records of 65535 bytes",
    ),
}  # fmt: skip


def _records(path: Path) -> int:
    """The number of records in the root of a new tree; its children's addresses follow."""
    content = path.read_bytes()
    return int.from_bytes(content[content.index(b"BTHD") + 24 :][:2], "little")


BAD |= {name: BadFile(*row) for name, row in FORGED.items()}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


def test_free_blocks_in_a_circle_are_not_followed(tmp_path: Path) -> None:
    """Those of a local heap, which holds the names in a group: nothing that is read lies in them."""
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    heap = content.index(b"HEAP\0")
    first, address = (int.from_bytes(content[heap + at : heap + at + 8], "little") for at in (16, 24))
    assert_same(read(forge(path, b"HEAP\0", address + first - heap, first.to_bytes(8, "little"))).tensors)


def test_jenkins_hash() -> None:
    """The values that its author publishes with it."""
    assert checksum(b"") == 0xDEADBEEF
    assert checksum(b"Four score and seven years ago") == 0x17770551


def mutated(content: bytes, random: Random) -> bytes:
    """A file with some bytes changed, most of them in the structures of HDF5."""
    changed = bytearray(content)
    marks = [found.start() for found in re.finditer(rb"GCOL|TREE|SNOD|HEAP|name\0|OHDR", content)]
    for _ in range(random.randint(1, 4)):
        place = random.choice(marks) + random.randrange(64) if random.random() < 0.7 else random.randrange(len(content))
        value = random.choice([bytes(8), b"\xff" * 8, bytes(4), random.randbytes(1), random.randbytes(1)])
        changed[place : place + len(value)] = value
    return bytes(changed[: len(content)])


KINDS: dict[str, Callable[[Path], Path]] = {
    "legacy": write,
    "numbered": write_numbered,
    "one layer": lambda path: _free_space(4056)(path.parent),
    "fletcher32": lambda path: write_filtered(path, fletcher32=True),
    "gzip and shuffle": lambda path: write_filtered(path, compression="gzip", shuffle=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind: str, tmp_path: Path) -> None:
    """Each is read or refused; tests/reliability/fuzz.py compares what is read, and tries many more."""
    path, refused = KINDS[kind](tmp_path / "a.h5"), 0
    content = path.read_bytes()
    with within_limits():
        for seed in range(100):
            path.write_bytes(mutated(content, Random(seed)))
            refused += read_or_refuse(path) is None
    assert refused > 10


VALUES = np.arange(400, dtype=np.float32).reshape(20, 20)


def _datasets(file: h5py.File) -> dict[str, np.ndarray]:
    """What h5py reads, by refnet's names."""
    found: dict[str, np.ndarray] = {}

    def note(path: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found["/".join(path.split("/")[-2:])] = item[()]

    file.visititems(note)
    return found


def check_as_h5py(path: Path) -> None:
    with h5py.File(path, "r") as file:
        expected = _datasets(file)
    found = read(path).tensors
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name].astype(expected[name].dtype.newbyteorder("=")), strict=True)


@pytest.mark.parametrize("libver", ["earliest", "v108", "latest"])
@pytest.mark.parametrize("links", [0, 8, 9, 500])
def test_groups_of_every_kind(tmp_path: Path, libver: str, links: int) -> None:
    """Trees and heaps of the older versions; a few links in the header, or many in a heap."""
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        group = file.create_group("layer", track_order=links == 9)
        for number in range(links):
            group["name " * (number % 30) + str(number)] = np.float32(number)
        file["other/kernel"] = VALUES
    check_as_h5py(tmp_path / "a.h5")


def test_types_of_every_kind(tmp_path: Path) -> None:
    kinds = [f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8")]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for kind in [*kinds, "i1", "u1"]:
            file[f"x/{kind}"] = np.arange(100, 107).astype(kind)
        file["x/scalar"] = np.float32(7)
        file["x/empty"] = np.zeros((0, 3), "f4")
        file.create_dataset("x/empty chunks", (0, 3), "f4", chunks=(2, 3), maxshape=(None, 3))
        file["t"] = np.dtype(">f4")
        file.create_dataset("x/committed", data=np.arange(3), dtype=file["t"])
        creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        creation.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((3,))
        made = h5py.h5d.create(file["x"].id, b"compact", h5py.h5t.IEEE_F64BE, space, creation)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(3.0))
    check_as_h5py(tmp_path / "a.h5")


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        kind = h5py.h5t.IEEE_F32LE.copy()
        kind.set_fields(15, 7, 8, 0, 7)
        kind.set_size(2)
        kind.set_ebias(127)
        made = h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple((4,)))
        h5py.Dataset(made)[...] = np.float32([1, -0.5, 3e38, np.inf])
    check_as_h5py(tmp_path / "a.h5")
    assert read(tmp_path / "a.h5").conversion.converted == {"x": "bfloat16"}


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("limits", [None, (None, 20), (20, None), (None, None), (31, 50), (50, None)])
def test_chunks_by_every_kind_of_index(tmp_path: Path, libver: str, limits: tuple[int | None, ...] | None) -> None:
    """Trees of both versions, arrays of fixed and of growing size, one chunk, and chunks without an index."""
    filters: dict[str, dict[str, Any]] = {
        "plain": {}, "gzip": {"compression": "gzip"}, "shuffle": {"shuffle": True},
        "both": {"compression": "gzip", "shuffle": True},
    }  # fmt: skip
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        for name, options in filters.items():
            for chunks in ((7, 3), (1, 1), (20, 20)):
                place = f"{name}/{chunks[0]}"
                file.create_dataset(place, data=VALUES, chunks=chunks, maxshape=limits, **options)
        if limits is None:
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_chunk((7, 3))
            creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            space = h5py.h5s.create_simple(VALUES.shape)
            made = h5py.h5d.create(file["plain"].id, b"implicit", h5py.h5t.IEEE_F32LE, space, creation)
            made.write(h5py.h5s.ALL, h5py.h5s.ALL, VALUES)
    check_as_h5py(tmp_path / "a.h5")


@pytest.mark.parametrize("limit", [None, 3000, 9000])
def test_many_chunks(tmp_path: Path, limit: int | None) -> None:
    """A large array of fixed size has pages, and one that grows has blocks of blocks."""
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("a/kernel", data=np.arange(3000) % 100, dtype="i1", chunks=(1,), maxshape=(limit,))
    check_as_h5py(tmp_path / "a.h5")


@pytest.mark.parametrize("libver", ["earliest", "latest"])
@pytest.mark.parametrize("others", [0, 20])
def test_a_layers_name_among_other_attributes(tmp_path: Path, libver: str, others: int) -> None:
    """Many lie in a heap."""
    with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
        file["layers/c/vars/0"] = VALUES
        for number in range(others):
            file["layers/c/vars"].attrs[f"other {number}"] = number
        file["layers/c/vars"].attrs["name"] = "Schicht \u00e4"
    assert read(tmp_path / "a.h5").tensors.keys() == {"Schicht \u00e4/kernel"}


PARTS = {
    "sound": link("good/good/kernel", np.float32([1, 2, 3])),
    "group": lambda file, _: file.create_group("group/inner"),
    "attributes": lambda file, _: file.attrs.__setitem__("layer_names", [b"x"] * 9),
    "optimizer": link("optimizer/vars/0", np.zeros(4)),
    "optimizer's link": link("optimizer_weights", h5py.ExternalLink("/dev/zero", "/")),
}


@settings(max_examples=150, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_forged_structures(data: st.DataObject, tmp_path: Path, watch: Any) -> None:
    """What is accepted has h5py's values and no link; anything else is refused with an error that names the file."""
    parts = data.draw(st.lists(st.sampled_from(sorted(PARTS)), unique=True))
    bad = data.draw(st.none() | st.sampled_from(sorted(CHANGES)))
    numbers = data.draw(st.integers(0, 2**32 - 1))
    arrays = {name: np.random.default_rng(numbers).random(array.shape) for name, array in ARRAYS.items()}
    path = write(tmp_path / "a.h5", arrays)
    with h5py.File(path, "a") as file:
        for name in parts:
            PARTS[name](file, tmp_path)
        if bad is not None:
            CHANGES[bad][0](file, tmp_path)
    with watch(str(path)):
        found = read_or_refuse(path)
    assert (found is None) == (bad is not None or "optimizer's link" in parts)
    if found is not None:
        assert found.tensors.keys() - {"good/kernel"} == ARRAYS.keys()
        assert all(found.tensors[name].tobytes() == array.tobytes() for name, array in arrays.items())


@pytest.mark.parametrize("name", ["a.weights.h5", "a.h5"])
def test_keras_2_has_no_layer_names_in_its_newer_files(name: str, tmp_path: Path) -> None:
    """Its groups are numbered by the classes of the layers, and nothing tells their names."""
    with h5py.File(tmp_path / name, "w") as file:
        file["layers/conv2d_1/vars/0"] = np.ones((1, 1, 2, 2), np.float32)
    with pytest.raises(
        MissingTensorError, match=r"\.keras and \.weights\.h5 files of Keras 2 have no layer names: save"
    ):
        refnet.load_weights(tmp_path / name)
