"""Keras' files as h5py writes them, sound and hostile; Keras' own files are in tests/keras."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pickle
import re
import subprocess
import sys
import zipfile
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
from refnet.weights.formats import hdf5, read
from tests.refnet.formats import bad_files
from tests.refnet.formats.bad_files import BadFile, check_refused, read_or_refuse

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


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5")
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FormatError, match=r"uv run --extra keras"):
        read(path)


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


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


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


def forge(path: Path, mark: bytes, offset: int, value: bytes) -> Path:
    content = bytearray(path.read_bytes())
    place = content.index(mark) + offset
    content[place : place + len(value)] = value
    path.write_bytes(content)
    return path


def _free_space(size: int) -> Callable[[Path], Path]:
    """Keras 3's file whose global heap ends in free space of this size, after one layer's name."""

    def forged(folder: Path) -> Path:
        with h5py.File(folder / "a.h5", "w") as file:
            file["layers/c/vars/0"] = np.zeros(3, "f4")
            file["layers/c/vars"].attrs["name"] = "conv"
        return forge(folder / "a.h5", b"GCOL", 48, size.to_bytes(8, "little"))

    return forged


def _virtual_without_end(folder: Path) -> Path:
    """A virtual dataset is described in the global heap, which is read when the dataset is opened."""
    with h5py.File(write(folder / "a.h5"), "a") as file:
        _virtual(file, folder)
    content = (folder / "a.h5").read_bytes()
    collection = content.index(b"GCOL\x01")
    size = int.from_bytes(content[collection + 24 : collection + 32], "little")
    return forge(folder / "a.h5", b"GCOL\x01", 16 + 16 + -(-size // 8) * 8 + 8, bytes(8))


def _circle(folder: Path) -> Path:
    """The free blocks of a local heap, which holds the names in a group: the first follows itself."""
    content = write(folder / "a.h5").read_bytes()
    heap = content.index(b"HEAP\0")
    first, address = (int.from_bytes(content[heap + at : heap + at + 8], "little") for at in (16, 24))
    return forge(folder / "a.h5", b"HEAP\0", address + first - heap, first.to_bytes(8, "little"))


HEAP = "the HDF5 file is damaged: its heap at byte"
#: Files that HDF5 itself should not see.
CRASHES = {
    "a chunk shorter than its checksum": BadFile(
        lambda f: forge(write_filtered(f / "a.h5", fletcher32=True), b"TREE\x01", 24, bytes(4)),
        FormatError, "fletcher32",
    ),
    "free space of no size": BadFile(_free_space(0), CorruptError, HEAP),
    "free space shorter than its head": BadFile(_free_space(8), CorruptError, HEAP),
    "free space beyond the end": BadFile(_free_space(2**63), CorruptError, HEAP),
    "a virtual dataset's free space of no size": BadFile(_virtual_without_end, CorruptError, HEAP),
    "an object that wraps around": BadFile(
        lambda f: forge(_free_space(4064)(f), b"GCOL", 24, (2**64 - 16).to_bytes(8, "little")), CorruptError, HEAP
    ),
    "free blocks in a circle": BadFile(_circle, CorruptError, HEAP),
    "addresses that count from elsewhere": BadFile(
        lambda f: forge(write(f / "a.h5"), b"HDF", 23, b"\x08"), CorruptError, "does not begin"
    ),
    "lengths of 4 bytes": BadFile(
        lambda f: forge(write(f / "a.h5"), b"HDF", 13, b"\x04"), CorruptError, "does not begin"
    ),
}  # fmt: skip
BAD |= CRASHES

READING = """
import random, signal, sys
from pathlib import Path
from refnet.errors import RefnetError
from refnet.weights.formats import read
from tests.refnet.formats.test_keras import mutated

def attempt(path):
    signal.alarm(20)  # ends a process that hangs in C
    try:
        read(path)
    except RefnetError as error:
        return error

path, seeds = Path(sys.argv[1]), range(*map(int, sys.argv[2:]))
if not seeds:
    print(attempt(path))
content = path.read_bytes()
for seed in seeds:
    path.write_bytes(mutated(content, random.Random(seed)))
    print(seed, end=" ", flush=True)
    attempt(path)
"""


def read_apart(path: Path, first: int = 0, last: int = 0) -> subprocess.CompletedProcess[str]:
    """Read a file, or its mutations by the seeds from first to last, in a process that may crash."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", READING, path, str(first), str(last)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3000)


@pytest.mark.parametrize("name", CRASHES)
def test_files_that_hdf5_should_not_see(name: str, tmp_path: Path) -> None:
    done = read_apart(CRASHES[name].write(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(CRASHES[name].message, done.stdout)


def mutated(content: bytes, random: Random) -> bytes:
    """A file with some bytes changed, most of them in the structures of HDF5."""
    changed = bytearray(content)
    marks = [found.start() for found in re.finditer(rb"GCOL|TREE|SNOD|HEAP|name\0", content)]
    for _ in range(random.randint(1, 4)):
        place = random.choice(marks) + random.randrange(64) if random.random() < 0.7 else random.randrange(len(content))
        value = random.choice([bytes(8), b"\xff" * 8, bytes(4), random.randbytes(1), random.randbytes(1)])
        changed[place : place + len(value)] = value
    return bytes(changed[: len(content)])


KINDS: dict[str, Callable[[Path], Path]] = {
    "legacy": write,
    "numbered": write_numbered,
    "one layer": lambda path: _free_space(4064)(path.parent),
    "fletcher32": lambda path: write_filtered(path, fletcher32=True),
    "gzip and shuffle": lambda path: write_filtered(path, compression="gzip", shuffle=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_files(kind: str, tmp_path: Path) -> None:
    done = read_apart(KINDS[kind](tmp_path / "a.h5"), 0, 200)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_mutated_files(kind: str, tmp_path: Path) -> None:
    done = read_apart(KINDS[kind](tmp_path / "a.h5"), 200, 20_000)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout[-100:]


def test_the_global_heap_is_found_wherever_it_is(tmp_path: Path) -> None:
    """Across two reads of the file too; what only looks like a collection in a tensor's values is left alone."""
    for shift in (0, 1, 3, 4, 5, 6):
        place = hdf5._SCANNED_BYTES - shift
        for size, refused in ((4096, True), (4095, False), (2**40, False)):
            content = bytes(place) + b"GCOL\x01\0\0\0" + size.to_bytes(8, "little") + bytes(8192)
            with contextlib.nullcontext() if not refused else pytest.raises(CorruptError, match=f"at byte {place}"):
                hdf5._check_heaps(io.BytesIO(content), len(content))


def test_collections_do_not_overlap() -> None:
    """Their sizes sum up to no more than the file's, so that checking them takes no longer than reading it."""
    head = b"GCOL\x01\0\0\0"
    inner = head + (4096).to_bytes(8, "little") + bytes(8) + (4080).to_bytes(8, "little") + bytes(4064)
    hdf5._check_heaps(io.BytesIO(inner * 2), 8192)
    outer = head + (8192).to_bytes(8, "little") + b"\1" + bytes(7) + (4096).to_bytes(8, "little") + inner
    outer += bytes(8) + (8192 - len(outer)).to_bytes(8, "little") + bytes(8176 - len(outer))
    with pytest.raises(CorruptError, match="its heap at byte"):
        hdf5._check_heaps(io.BytesIO(outer), len(outer))


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


def test_flipped_bytes_in_a_process_of_its_own(tmp_path: Path) -> None:
    """HDF5's parser is C, and nothing has a checksum: damage gives values or an error, in little memory."""
    write_numbered(tmp_path / "a.h5")
    script = """
import random, resource, sys
import h5py
from refnet.errors import RefnetError
from refnet.weights.formats import read
path = sys.argv[1]
content = open(path, "rb").read()
read(path)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20), resource.RLIM_INFINITY))
refused = 0
for seed in range(300):
    draw = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        damaged[draw.randrange(len(damaged))] ^= draw.randint(1, 255)
    open(path, "wb").write(damaged)
    try:
        read(path)
    except RefnetError:
        refused += 1
print(refused)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, str(tmp_path / "a.h5")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 30
