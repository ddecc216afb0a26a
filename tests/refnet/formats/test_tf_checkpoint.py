from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
import pytest

from refnet.errors import CorruptError, FormatError, LimitError
from refnet.formats import read
from refnet.formats.table import read_table

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
    with pytest.raises(FormatError, match=r"give it its name PREFIX\.index"):
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


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shard": 1}, FormatError, "shard 1, and there are 1"),
        ({"shard": -1}, FormatError, "negative"),
        ({"shard": 2**62}, FormatError, "and there are 1"),
        ({"offset": 1}, CorruptError, "ends at byte 25 of a.data-00000-of-00001, which has 24"),
        ({"offset": -1}, FormatError, "negative"),
        ({"offset": 2**63 - 1}, CorruptError, "cut off"),
        ({"size": 23}, FormatError, r"\(2, 3\) takes 24 bytes and the index gives it 23"),
        ({"size": -24}, FormatError, "negative"),
        ({"crc": 0}, CorruptError, "checksum"),
        ({"dtype": 99}, FormatError, "number 99"),
        ({"dtype": 0}, FormatError, "number 0"),
        ({"dtype": 2}, FormatError, "48 bytes"),
        ({"shape": (2**60, 2**60)}, LimitError, "more bytes than a computer can address"),
        ({"shape": (0, 2**62)}, LimitError, "more bytes than a computer can address"),
        ({"shape": (2**41,)}, FormatError, "8796093022208 bytes"),
        ({"shape": (-2, -3)}, FormatError, "negative dimension"),
        ({"shape": (1,) * 33}, FormatError, "33 dimensions"),
    ],
)
def test_forged_entry(tables: Any, tmp_path: Path, change: dict[str, Any], error: type, message: str) -> None:
    entry = tables.entry(DATA, **({"dtype": 1, "shape": (2, 3)} | change))
    prefix = tables.v2(tmp_path / "a", {"good": tables.entry(b"", 1, (0,)), "x": entry}, DATA)
    with pytest.raises(error, match=message) as caught:
        read(prefix)
    assert "'x'" in caught.value.message


@pytest.mark.parametrize(
    "entry",
    [
        b"\x08" + b"\x80" * 10 + b"\x01",
        b"\x08" + b"\xff" * 9 + b"\x7f",
        b"\x08\x80",
        b"\x12\x05\x00",
        b"\x0b",
        b"\x0a\x00",
        b"\x10\x01",
    ],
    ids=["overlong", "65 bits", "cut off", "past the end", "group", "bytes for a number", "number for bytes"],
)
def test_malformed_protobuf(tables: Any, tmp_path: Path, entry: bytes) -> None:
    with pytest.raises(FormatError, match=r"'x'.*(varint|protobuf field)"):
        read(tables.v2(tmp_path / "a", {"x": entry}, DATA))


def test_several_problems_are_all_listed(tables: Any, tmp_path: Path) -> None:
    entries = {"a": tables.entry(DATA[:8], 1, (2,), crc=0), "b": tables.entry(DATA[8:16], 1, (2,), offset=8, crc=0)}
    with pytest.raises(CorruptError, match=r"2 problems(.|\n)*'a'(.|\n)*'b'"):
        read(tables.v2(tmp_path / "a", entries, DATA))


def test_tensors_that_share_bytes(tables: Any, tmp_path: Path) -> None:
    entries = {name: tables.entry(DATA, 1, (6,)) for name in "ab"}
    with pytest.raises(FormatError, match="'a' and b'b' claim the same bytes"):
        read(tables.v2(tmp_path / "a", entries, DATA))


def test_big_endian(tables: Any, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="big-endian"):
        read(tables.v2(tmp_path / "a", {"x": tables.entry(DATA, 1, (6,))}, DATA, endian=1))


def test_rank_unknown(tables: Any, tmp_path: Path) -> None:
    entry = tables.field(1, 1) + tables.field(2, tables.field(3, 1))
    with pytest.raises(FormatError, match="rank is not known"):
        read(tables.v2(tmp_path / "a", {"x": entry}, DATA))


def test_slices_that_overlap(tables: Any, tmp_path: Path) -> None:
    """Four values from 0 and two from 3 are six in number and leave the last place empty."""
    slices = [((0, 4), DATA[:16]), ((3, 2), DATA[16:24])]
    entry = tables.field(1, 1) + tables.field(2, tables.shape(6))
    entry += b"".join(tables.field(7, extent(tables, *each)) for each, _ in slices)
    parts = {
        b"\0x\0\1\1\1" + bytes([0x80 + start, 0x80 + length]): tables.entry(
            values, 1, (length,), offset=DATA.index(values)
        )
        for (start, length), values in slices
    }
    table = {b"": tables.field(1, 1)} | parts | {b"x": entry}
    (tmp_path / "a.index").write_bytes(tables.table(table))
    (tmp_path / "a.data-00000-of-00001").write_bytes(DATA)
    with pytest.raises(FormatError, match="'x': its slices overlap"):
        read(tmp_path / "a")


def extent(tables: Any, start: int, length: int) -> bytes:
    return tables.field(1, tables.field(1, start) + tables.field(2, length))


@pytest.mark.parametrize(
    ("extents", "message"),
    [
        ([(0, 3), (3, 3)], "not in the index"),
        ([(0, 3)], "do not make up its shape"),
        ([(0, 3), (2, 5)], "spans 2 to 7"),
        ([(-1, 3), (2, 4)], "spans -1 to 2"),
        ([(0, 4), (4, -2)], "spans 4 to 2"),
        ([(0, 3), (0, 3)], "listed twice"),
    ],
)
def test_slices(tables: Any, tmp_path: Path, extents: list[tuple[int, int]], message: str) -> None:
    slices = b"".join(tables.field(7, extent(tables, *each)) for each in extents)
    entry = tables.field(1, 1) + tables.field(2, tables.shape(6)) + slices
    with pytest.raises((FormatError, CorruptError), match=f"'x'.*{message}"):
        read(tables.v2(tmp_path / "a", {"x": entry}, DATA))


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


@pytest.mark.parametrize(
    ("dtype", "shape", "field", "content", "error", "message"),
    [
        (1, (7,), 5, DATA, FormatError, r"shape \(7,\) holds 6 values"),
        (1, (2**41,), 5, DATA, FormatError, "holds 6 values"),
        (1, (6,), 5, DATA[:-1], FormatError, "no whole number of values"),
        (1, (6,), 6, DATA, FormatError, "holds 0 values"),
        (6, (1,), 7, b"\x80\x01", FormatError, "outside the range of int8"),
        (6, (1,), 7, b"\x80", FormatError, "cut off"),
        (9, (1,), 10, b"\x80" * 10 + b"\1", FormatError, "longer than 10 bytes"),
        (99, (1,), 5, DATA, FormatError, "number 99"),
        (1, (2**60, 2**60), 5, DATA, LimitError, "more bytes"),
    ],
)
def test_forged_v1(
    tables: Any, tmp_path: Path, dtype: int, shape: Any, field: int, content: bytes, error: type, message: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(v1_file(tables, dtype, shape, tables.field(field, content)))
    with pytest.raises(error, match=f"'x'.*{message}"):
        read(path)


def test_v1_tensor_listed_twice(tables: Any, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(v1_file(tables, 1, (6,), tables.field(5, DATA), copies=2))
    with pytest.raises(FormatError, match="'x' is listed twice"):
        read(path)


def test_v1_without_its_values(tables: Any, tmp_path: Path) -> None:
    content = read_table(v1_file(tables, 1, (6,), b""))
    (tmp_path / "a").write_bytes(tables.table({b"": bytes(content[b""])}))
    with pytest.raises(CorruptError, match=r"'x'.*not in the file"):
        read(tmp_path / "a")


class TestTable:
    """What only a forger writes, so it stands in no file of TensorFlow's."""

    def check(self, path: Path, content: bytes, error: type, message: str) -> None:
        path.write_bytes(content)
        with pytest.raises(error, match=message):
            read(path)

    def test_no_header(self, tables: Any, tmp_path: Path) -> None:
        self.check(tmp_path / "a", tables.table({b"k": b"v"}), FormatError, "no header")

    def test_keys_out_of_order(self, tables: Any, tmp_path: Path) -> None:
        content = tables.table({b"b": b"", b"a": b""})
        self.check(tmp_path / "a", content, FormatError, "not in increasing order at b'a'")

    def test_block_used_twice(self, tables: Any, tmp_path: Path) -> None:
        block = tables.seal(tables.block([(b"a", b"")]))
        handle = tables.varint(0) + tables.varint(len(block) - 5)
        index = tables.block([(b"a", handle), (b"b", handle)])
        body = block + tables.seal(index)
        footer = (bytes(2) + tables.varint(len(block)) + tables.varint(len(index))).ljust(40, b"\0")
        content = body + footer + bytes.fromhex("57fb808b247547db")
        self.check(tmp_path / "a", content, FormatError, "blocks of the table overlap")

    def test_block_beyond_the_end(self, tmp_path: Path) -> None:
        footer = (bytes(2) + b"\xff" * 9 + b"\1" + b"\1").ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
        self.check(tmp_path / "a", footer, CorruptError, "no 1 bytes at 18446744073709551615")

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (b"\1\1\0a" + bytes(4) + b"\1\0\0\0", "past the end of its block"),
            (b"\0\1\x7fa" + bytes(4) + b"\1\0\0\0", "past the end of its block"),
            (b"\xff\xff\xff\xff", "shorter than its list"),
            (b"", "shorter than its list"),
        ],
    )
    def test_malformed_block(self, tables: Any, tmp_path: Path, block: bytes, message: str) -> None:
        self.check(tmp_path / "a", tables.from_blocks([(b"a", block, 0)]), FormatError, message)

    def test_keys_that_repeat_a_long_prefix(self, tables: Any, tmp_path: Path) -> None:
        first = b"\0" + tables.varint(1000) + b"\0" + b"k" * 1000
        following = b"".join(tables.varint(1000 + i) + b"\1\0k" for i in range(1000))
        block = first + following + bytes(4) + b"\1\0\0\0"
        content = tables.from_blocks([(b"l", block, 0)])
        self.check(tmp_path / "a", content, LimitError, "keys of a block expand")

    def test_more_entries_and_fields_than_a_network_has(self, tables: Any, tmp_path: Path) -> None:
        names = {number.to_bytes(4, "big"): b"" for number in range(1 << 17)}
        content = tables.table({b"": b""} | names, block_entries=1 << 20)
        self.check(tmp_path / "a", content, LimitError, "more than 131072 entries")
        fields = tables.table({b"": tables.field(2, b"") * ((1 << 17) + 1)}, snappy=True)
        self.check(tmp_path / "a", fields, LimitError, "more than 131072 fields")

    def test_unknown_compression(self, tables: Any, tmp_path: Path) -> None:
        self.check(tmp_path / "a", tables.from_blocks([(b"a", b"", 7)]), FormatError, "compression type 7")

    def test_snappy_that_claims_too_much(self, tables: Any, tmp_path: Path) -> None:
        block = tables.varint(2**31) + b"\0k"
        self.check(tmp_path / "a", tables.from_blocks([(b"a", block, 1)]), LimitError, "more than snappy can")

    def test_snappy_that_is_damaged(self, tables: Any, tmp_path: Path) -> None:
        block = bytes(cramjam.snappy.compress_raw(b"abc" * 100))[:-2]
        self.check(tmp_path / "a", tables.from_blocks([(b"a", block, 1)]), CorruptError, "cannot be decompressed")

    def test_densest_snappy_is_accepted(self, tables: Any, tmp_path: Path) -> None:
        entries = {b"": tables.field(1, 1), b"x": tables.field(9, bytes(10**6)) + tables.entry(DATA, 1, (6,))}
        (tmp_path / "a.index").write_bytes(tables.table(entries, snappy=True))
        (tmp_path / "a.data-00000-of-00001").write_bytes(DATA)
        assert (tmp_path / "a.index").stat().st_size < 60_000
        assert read(tmp_path / "a").tensors["x"].shape == (6,)
