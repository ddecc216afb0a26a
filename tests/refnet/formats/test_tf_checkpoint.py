from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest

from refnet.errors import CorruptError, FormatError, LimitError, RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.table import read_table
from tests.refnet.formats import bad_files
from tests.refnet.formats.bad_files import BadFile, check_refused
from tests.refnet.formats.tables import MAGIC, Tables

DATA = np.arange(6, dtype="<f4").tobytes()
SKIPPED = {"slots/flags", "slots/text", "slots/complex"}


def assert_equal_tensors(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys() - SKIPPED
    for name, array in found.items():
        truth = expected[name]
        if truth.dtype.name == "bfloat16":
            truth = truth.astype(np.float32)
        assert array.dtype == truth.dtype, name
        assert array.shape == truth.shape, name
        assert array.tobytes() == truth.tobytes(), name
        assert array.dtype.isnative
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.parametrize("kind", ["v1", "v2", "v2_sharded"])
def test_reads_what_tensorflow_saved(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    loaded = read(checkpoint.prefix)
    assert loaded.format == ("TF checkpoint V1" if kind == "v1" else "TF checkpoint V2")
    assert loaded.metadata == {}
    assert_equal_tensors(loaded.tensors, checkpoint.tensors)
    for name, dtype in (("flags", "bool"), ("text", "string"), ("complex", "complex64")):
        assert any(f"slots/{name} was left out: {dtype}" in note for note in loaded.conversion.notes)
    if kind != "v1":
        assert loaded.conversion.converted == {"half/bfloat16": "bfloat16"}
    if kind == "v2_sharded":
        assert Path(f"{checkpoint.prefix}.data-00001-of-00002").stat().st_size > 0


@pytest.mark.parametrize("suffix", ["", ".index", ".meta", ".data-00000-of-00001"])
def test_any_file_of_a_v2_checkpoint_names_it(v2: Any, suffix: str) -> None:
    assert_equal_tensors(read(v2.prefix + suffix).tensors, v2.tensors)


@pytest.mark.parametrize("suffix", ["", ".meta"])
def test_any_file_of_a_v1_checkpoint_names_it(v1: Any, suffix: str) -> None:
    assert_equal_tensors(read(v1.prefix + suffix).tensors, v1.tensors)


def test_opens_only_the_files_of_the_checkpoint(v1: Any, v2_sharded: Any, watch: Any) -> None:
    p = v2_sharded.prefix
    with watch(p, f"{p}.index", f"{p}.data-00000-of-00002", f"{p}.data-00001-of-00002", v1.prefix):
        read(p)
        read(v1.prefix)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_snappy_blocks(kind: str, tf: Any, tables: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    suffix = "" if kind == "v1" else ".index"
    raw = Path(checkpoint.prefix + suffix).read_bytes()
    packed = tmp_path / ("model.ckpt" + suffix)
    packed.write_bytes(tables.table({k: bytes(v) for k, v in read_table(raw).items()}, snappy=True))
    if kind == "v2":
        shutil.copy(checkpoint.prefix + ".data-00000-of-00001", tmp_path)
    prefix = str(tmp_path / "model.ckpt")
    assert_equal_tensors(read(prefix).tensors, checkpoint.tensors)
    # The test's table is a table to TensorFlow as well.
    theirs = tf.compat.v1.train.NewCheckpointReader(prefix).get_tensor("resnet_v2_50/conv1/weights")
    np.testing.assert_array_equal(theirs, checkpoint.tensors["resnet_v2_50/conv1/weights"])


def test_directory_with_a_state_file(v2: Any, tmp_path: Path, watch: Any) -> None:
    for name in os.listdir(os.path.dirname(v2.prefix)):
        for prefix in ("model.ckpt-1", "model.ckpt-2"):
            shutil.copy(os.path.join(os.path.dirname(v2.prefix), name), tmp_path / name.replace("model.ckpt", prefix))
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/moved/away/model.ckpt-2"\n')
    allowed = [
        str(tmp_path / name) for name in ("checkpoint", "model.ckpt-2.index", "model.ckpt-2.data-00000-of-00001")
    ]
    with watch(*allowed):
        assert_equal_tensors(read(tmp_path).tensors, v2.tensors)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(FormatError, match=r"holds 2 checkpoints \(model.ckpt-1.index, model.ckpt-2.index\)"):
        read(tmp_path)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "gone"\n')
    with pytest.raises(FileNotFoundError, match=r"gone\.index"):
        read(tmp_path)
    (tmp_path / "checkpoint").write_text("nothing")
    with pytest.raises(FormatError, match="model_checkpoint_path"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_directory_with_one_checkpoint(kind: str, request: pytest.FixtureRequest) -> None:
    checkpoint = request.getfixturevalue(kind)
    assert_equal_tensors(read(os.path.dirname(checkpoint.prefix)).tensors, checkpoint.tensors)


def test_missing_companions_name_what_was_looked_for(v2: Any, tmp_path: Path) -> None:
    meta = shutil.copy(v2.prefix + ".meta", tmp_path / "model.ckpt.meta")
    with pytest.raises(FileNotFoundError, match=r"model\.ckpt\.index, .*model\.ckpt\b"):
        read(meta)


def test_renamed_index(v2: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"rename it to PREFIX\.index"):
        read(shutil.copy(v2.prefix + ".index", tmp_path / "weights.bin"))


def test_missing_shard(v2_sharded: Any, tmp_path: Path) -> None:
    shutil.copy(v2_sharded.prefix + ".index", tmp_path)
    with pytest.raises(CorruptError, match=r"shard model\.ckpt\.data-0000\d-of-00002 is missing"):
        read(tmp_path / "model.ckpt")


def test_truncated_shard_lists_every_tensor_that_is_lost(v2: Any, tmp_path: Path) -> None:
    shutil.copy(v2.prefix + ".index", tmp_path)
    content = Path(v2.prefix + ".data-00000-of-00001").read_bytes()
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(content[:10])
    with pytest.raises(CorruptError, match="cut off") as caught:
        read(tmp_path / "model.ckpt")
    lost = {n for n, t in v2.tensors.items() if t.size and n not in SKIPPED and n != "global_step"}
    missing = [name for name in lost if f"{name!r}" not in caught.value.message]
    assert not missing
    assert str(tmp_path / "model.ckpt.index") in caught.value.message


@pytest.mark.parametrize("keep", [0, 1, 47, 48, -1, -8, -48])
def test_truncated_index(v2: Any, tmp_path: Path, keep: int) -> None:
    content = Path(v2.prefix + ".index").read_bytes()
    (tmp_path / "a.index").write_bytes(content[:keep])
    with pytest.raises(FormatError, match="empty" if keep == 0 else "cut off"):
        read(tmp_path / "a")


@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_damaged_block(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = Path(request.getfixturevalue(kind).prefix + ("" if kind == "v1" else ".index"))
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    damaged = tmp_path / path.name
    damaged.write_bytes(content)
    with pytest.raises(CorruptError, match=r"block at byte 0 .* checksum"):
        read(damaged)


def test_damaged_tensor_is_named(v2: Any, tmp_path: Path) -> None:
    shutil.copy(v2.prefix + ".index", tmp_path)
    content = bytearray(Path(v2.prefix + ".data-00000-of-00001").read_bytes())
    content[content.index(v2.tensors["resnet_v2_50/conv1/biases"].tobytes())] ^= 1
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(content)
    with pytest.raises(
        CorruptError, match=r"'resnet_v2_50/conv1/biases'.*model\.ckpt\.data-00000.* checksum"
    ) as caught:
        read(tmp_path / "model.ckpt")
    assert caught.value.tensor == "resnet_v2_50/conv1/biases"


def test_forged_checkpoint_is_sound_unless_a_test_breaks_it(tables: Any, tmp_path: Path) -> None:
    prefix = tables.v2(tmp_path / "a", {"x": tables.entry(DATA, 1, (2, 3))}, DATA)
    np.testing.assert_array_equal(read(prefix).tensors["x"], [[0, 1, 2], [3, 4, 5]])


def test_several_problems_are_all_listed(tables: Any, tmp_path: Path) -> None:
    entries = {"a": tables.entry(DATA[:8], 1, (2,), crc=0), "b": tables.entry(DATA[8:16], 1, (2,), offset=8, crc=0)}
    with pytest.raises(CorruptError, match=r"2 problems(.|\n)*'a'(.|\n)*'b'"):
        read(tables.v2(tmp_path / "a", entries, DATA))


def extent(tables: Any, start: int, length: int) -> bytes:
    return tables.field(1, tables.field(1, start) + tables.field(2, length))


def v1_file(tables: Any, dtype: int, shape: tuple[int, ...], proto: bytes, *, copies: int = 1) -> bytes:
    whole = tables.field(4, b"".join(tables.field(1, b"") for _ in shape))
    meta = tables.field(1, b"x") + tables.field(2, tables.shape(*shape)) + tables.field(3, dtype) + whole
    header = tables.field(1, tables.field(1, meta) * copies)
    key = b"\0x\0\1" + (bytes([1, len(shape)]) if shape else b"\0") + b"\x80\x7f" * len(shape)
    return tables.table({b"": header, key: tables.field(2, tables.field(3, proto))})


def test_v1_values_in_tensor_content(tables: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(v1_file(tables, 1, (2, 3), tables.field(4, DATA)))
    np.testing.assert_array_equal(read(path).tensors["x"], [[0, 1, 2], [3, 4, 5]])


def test_a_shape_in_two_messages_has_the_dimensions_of_both(tf: Any, tables: Any, tmp_path: Path) -> None:
    entry = tables.entry(DATA, 1, (2,)) + tables.field(2, tables.shape(3))
    prefix = tables.v2(tmp_path / "a", {"x": entry}, DATA)
    expected = tf.train.load_checkpoint(prefix).get_tensor("x")
    assert expected.shape == (2, 3)
    np.testing.assert_array_equal(read(prefix).tensors["x"], expected)


Row = tuple[Any, type[RefnetError], str]

ENTRIES: dict[str, Row] = {
    "a shard that is not there": ({"shard": 1}, FormatError, "shard 1, but there are 1"),
    "a negative shard": ({"shard": -1}, FormatError, "negative"),
    "shard 2^62": ({"shard": 2**62}, FormatError, "but there are 1"),
    "a range past the end": ({"offset": 1}, CorruptError, "ends at byte 25 of a.data-00000-of-00001, which has 24"),
    "a negative offset": ({"offset": -1}, FormatError, "negative"),
    "an offset past the end": ({"offset": 2**63 - 1}, CorruptError, "cut off"),
    "a size too small": ({"size": 23}, FormatError, r"\(2, 3\) takes 24 bytes, but the index gives it 23"),
    "a negative size": ({"size": -24}, FormatError, "negative"),
    "a wrong checksum": ({"crc": 0}, CorruptError, "checksum"),
    "dtype 99": ({"dtype": 99}, FormatError, "number 99"),
    "dtype 0": ({"dtype": 0}, FormatError, "number 0"),
    "a wider dtype": ({"dtype": 2}, FormatError, "48 bytes"),
    "a product over 2^64": ({"shape": (2**60, 2**60)}, LimitError, "more bytes than a computer can address"),
    "a product over 2^64 with a zero": ({"shape": (0, 2**62)}, LimitError, "more bytes than a computer can address"),
    "8 TiB": ({"shape": (2**41,)}, FormatError, "8796093022208 bytes"),
    "negative dimensions": ({"shape": (-2, -3)}, FormatError, "negative dimension"),
    "33 dimensions": ({"shape": (1,) * 33}, FormatError, "33 dimensions"),
}
PROTOBUF = {
    "an overlong varint": b"\x08" + b"\x80" * 10 + b"\x01",
    "a varint of 65 bits": b"\x08" + b"\xff" * 9 + b"\x7f",
    "a varint that is cut off": b"\x08\x80",
    "a field past the end": b"\x12\x05\x00",
    "a group": b"\x0b",
    "bytes for a number": b"\x0a\x00",
    "a number for bytes": b"\x10\x01",
}
SLICES: dict[str, tuple[list[tuple[int, int]], str]] = {
    "a slice that is not in the index": ([(0, 3), (3, 3)], "not in the index"),
    "a slice too few": ([(0, 3)], "do not make up its shape"),
    "a slice past the end": ([(0, 3), (2, 5)], "spans 2 to 7"),
    "a slice that starts before 0": ([(-1, 3), (2, 4)], "spans -1 to 2"),
    "a slice that runs backwards": ([(0, 4), (4, -2)], "spans 4 to 2"),
    "a slice twice": ([(0, 3), (0, 3)], "listed twice"),
}
#: dtype, shape, the field with the values, and they.
VALUES_OF_V1: dict[str, tuple[int, tuple[int, ...], int, bytes, type[RefnetError], str]] = {
    "more shape than values": (1, (7,), 5, DATA, FormatError, r"shape \(7,\) holds 6 values"),
    "8 TiB of shape": (1, (2**41,), 5, DATA, FormatError, "holds 6 values"),
    "half a value": (1, (6,), 5, DATA[:-1], FormatError, "not a whole number of values"),
    "values of another type": (1, (6,), 6, DATA, FormatError, "holds 0 values"),
    "a value out of range": (6, (1,), 7, b"\x80\x01", FormatError, "outside the range of int8"),
    "a value that is cut off": (6, (1,), 7, b"\x80", FormatError, "cut off"),
    "a value that is overlong": (9, (1,), 10, b"\x80" * 10 + b"\1", FormatError, "longer than 10 bytes"),
    "dtype 99": (99, (1,), 5, DATA, FormatError, "number 99"),
    "a product over 2^64": (1, (2**60, 2**60), 5, DATA, LimitError, "more bytes"),
}


def _v2(entries: dict[str, bytes], error: type[RefnetError], message: str, **options: int) -> BadFile:
    return BadFile(lambda f: Path(Tables.v2(f / "a", entries, DATA, **options)), error, message)


def _entry(change: dict[str, Any], error: type[RefnetError], message: str) -> BadFile:
    entry = Tables.entry(DATA, **({"dtype": 1, "shape": (2, 3)} | change))
    return _v2({"good": Tables.entry(b"", 1, (0,)), "x": entry}, error, f"'x'.*{message}")


def _slices(extents: list[tuple[int, int]], message: str) -> BadFile:
    slices = b"".join(Tables.field(7, extent(Tables, *each)) for each in extents)
    entry = Tables.field(1, 1) + Tables.field(2, Tables.shape(6)) + slices
    error = CorruptError if "index" in message else FormatError
    return _v2({"x": entry}, error, f"'x'.*{message}")


def _overlapping_slices(folder: Path) -> Path:
    """Four values from 0 and two from 3 are six in number and leave the last place empty."""
    slices = [((0, 4), DATA[:16]), ((3, 2), DATA[16:24])]
    entry = Tables.field(1, 1) + Tables.field(2, Tables.shape(6))
    entry += b"".join(Tables.field(7, extent(Tables, *each)) for each, _ in slices)
    parts = {
        b"\0x\0\1\1\1" + bytes([0x80 + start, 0x80 + length]): Tables.entry(
            values, 1, (length,), offset=DATA.index(values)
        )
        for (start, length), values in slices
    }
    table = {b"": Tables.field(1, 1)} | parts | {b"x": entry}
    (folder / "a.index").write_bytes(Tables.table(table))
    (folder / "a.data-00000-of-00001").write_bytes(DATA)
    return folder / "a"


def _table(block: bytes, error: type[RefnetError], message: str, kind: int = 0) -> BadFile:
    """What only a forger writes, so it stands in no file of TensorFlow's."""
    return bad_files.content(Tables.from_blocks([(b"l", block, kind)]), error, message)


def _block_used_twice() -> bytes:
    block = Tables.seal(Tables.block([(b"a", b"")]))
    handle = Tables.varint(0) + Tables.varint(len(block) - 5)
    index = Tables.block([(b"a", handle), (b"b", handle)])
    footer = (bytes(2) + Tables.varint(len(block)) + Tables.varint(len(index))).ljust(40, b"\0")
    return block + Tables.seal(index) + footer + MAGIC


def _long_prefixes() -> bytes:
    first = b"\0" + Tables.varint(1000) + b"\0" + b"k" * 1000
    return first + b"".join(Tables.varint(1000 + i) + b"\1\0k" for i in range(1000)) + bytes(4) + b"\1\0\0\0"


def _many_entries(folder: Path) -> Path:
    names = {number.to_bytes(4, "big"): b"" for number in range(1 << 17)}
    (folder / "a").write_bytes(Tables.table({b"": b""} | names, block_entries=1 << 20))
    return folder / "a"


def _many_fields(folder: Path) -> Path:
    (folder / "a").write_bytes(Tables.table({b"": Tables.field(2, b"") * ((1 << 17) + 1)}, snappy=True))
    return folder / "a"


_BEYOND = (bytes(2) + b"\xff" * 9 + b"\1" + b"\1").ljust(40, b"\0") + MAGIC
_CUT_SNAPPY = bytes(cramjam.snappy.compress_raw(b"abc" * 100))[:-2]
_V1 = v1_file(Tables, 1, (6,), Tables.field(5, DATA))

TABLES: dict[str, BadFile] = {
    "no header": bad_files.content(Tables.table({b"k": b"v"}), FormatError, "no header"),
    "keys out of order": bad_files.content(
        Tables.table({b"b": b"", b"a": b""}), FormatError, "not in increasing order at b'a'"
    ),
    "a block twice": bad_files.content(_block_used_twice(), FormatError, "blocks of the table overlap"),
    "a block past the end": bad_files.content(_BEYOND, CorruptError, "takes 1 bytes at 18446744073709551615"),
    "a key that shares too much": _table(b"\1\1\0a" + bytes(4) + b"\1\0\0\0", FormatError, "past the end of its block"),
    "a value past the end": _table(b"\0\1\x7fa" + bytes(4) + b"\1\0\0\0", FormatError, "past the end of its block"),
    "too many restarts": _table(b"\xff\xff\xff\xff", FormatError, "shorter than its list"),
    "an empty block": _table(b"", FormatError, "shorter than its list"),
    "keys that repeat a long prefix": _table(_long_prefixes(), LimitError, "keys of a block expand"),
    "an unknown compression": _table(b"", FormatError, "compression type 7", 7),
    "snappy that claims too much": _table(Tables.varint(2**31) + b"\0k", LimitError, "more than snappy can", 1),
    "snappy that is damaged": _table(_CUT_SNAPPY, CorruptError, "cannot be decompressed", 1),
    "131,073 entries": BadFile(_many_entries, LimitError, "more than 131072 entries"),
    "131,073 fields": BadFile(_many_fields, LimitError, "more than 131072 fields"),
}

BAD: dict[str, BadFile] = {
    **{name: _entry(*row) for name, row in ENTRIES.items()},
    **{name: _v2({"x": entry}, FormatError, r"'x'.*(varint|protobuf field)") for name, entry in PROTOBUF.items()},
    **{name: _slices(*row) for name, row in SLICES.items()},
    "slices that overlap": BadFile(_overlapping_slices, FormatError, "'x': its slices overlap"),
    "tensors that share bytes": _v2(
        {name: Tables.entry(DATA, 1, (6,)) for name in "ab"}, FormatError, "'a' and b'b' claim the same bytes"
    ),
    "big-endian": _v2({"x": Tables.entry(DATA, 1, (6,))}, FormatError, "big-endian", endian=1),
    "an unknown rank": _v2(
        {"x": Tables.field(1, 1) + Tables.field(2, Tables.field(3, 1))}, FormatError, "rank is not known"
    ),
    **{
        f"V1: {name}": bad_files.content(
            v1_file(Tables, dtype, shape, Tables.field(field, values)), error, f"'x'.*{message}"
        )
        for name, (dtype, shape, field, values, error, message) in VALUES_OF_V1.items()
    },
    "V1: a tensor twice": bad_files.content(
        v1_file(Tables, 1, (6,), Tables.field(5, DATA), copies=2), FormatError, "'x' is listed twice"
    ),
    "V1: without its values": bad_files.content(
        Tables.table({b"": bytes(read_table(_V1)[b""])}), CorruptError, r"'x'.*not in the file"
    ),
    **TABLES,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


def test_densest_snappy_is_accepted(tables: Any, tmp_path: Path) -> None:
    entries = {b"": tables.field(1, 1), b"x": tables.field(9, bytes(10**6)) + tables.entry(DATA, 1, (6,))}
    (tmp_path / "a.index").write_bytes(tables.table(entries, snappy=True))
    (tmp_path / "a.data-00000-of-00001").write_bytes(DATA)
    assert (tmp_path / "a.index").stat().st_size < 60_000
    assert read(tmp_path / "a").tensors["x"].shape == (6,)
