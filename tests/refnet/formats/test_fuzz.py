"""Damaged and forged files: the right arrays or one of refnet's errors, no other file opened, nothing executed."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from refnet.errors import RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.npz import write_npz
from refnet.weights.formats.table import read_table
from tests.refnet.formats import torch_files
from tests.refnet.formats.bad_files import flip, read_or_refuse

fuzzed = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)

# Where (as a part of the file), and what to combine the byte with.
FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)


class Victim(NamedTuple):
    """Small sound files: the path to read, each file's contents, and the tensors."""

    path: Path
    files: dict[Path, bytes]
    tensors: dict[str, np.ndarray]

    def restore(self) -> None:
        for path, content in self.files.items():
            path.write_bytes(content)


def victim(path: Path, *files: Path) -> Victim:
    return Victim(path, {file: file.read_bytes() for file in files or (path,)}, read(path).tensors)


def save(tf: Any, path: Path, version: int) -> None:
    with tf.compat.v1.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.Variable(np.arange(6, dtype=np.float32).reshape(2, 3), name="conv1/weights")
        tf.compat.v1.Variable(np.array([-1, 300], np.int32), name="conv1/biases")
        tf.compat.v1.Variable(np.array(["a"]), name="text")
        partitioner = tf.compat.v1.fixed_size_partitioner(2)
        with tf.compat.v1.variable_scope("logits", partitioner=partitioner):
            tf.compat.v1.get_variable("weights", shape=(4, 2), initializer=tf.compat.v1.ones_initializer())
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(write_version=version).save(
            session, str(path), write_state=False, write_meta_graph=False
        )


@pytest.fixture(scope="module")
def victims(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Victim]:
    root = tmp_path_factory.mktemp("fuzz")
    for version in (1, 2):
        save(tf, root / f"v{version}", version)
    tf.train.Checkpoint(variable=tf.Variable([1.0, 2.0], name="conv1/weights")).write(str(root / "objects"))
    arrays = {"conv1/weights": np.arange(6, dtype=np.float32).reshape(2, 3), "half": np.ones(3, np.float16)}
    write_npz(root / "stored.npz", arrays, {"classes": 2})
    np.savez_compressed(root / "deflated.npz", **arrays)
    torch_files.save(root / "a.pth", arrays)
    torch_files.save(root / "legacy.pth", arrays, zipped=False)
    # NumPy and the json module import what they need for malformed texts at the first one.
    for name, content in (("x.npy", b"\x93NUMPY\1\0\2\0(\n"), ("__refnet__", b"{")):
        with zipfile.ZipFile(root / "malformed", "w") as archive:
            archive.writestr(name, content)
        with pytest.raises(RefnetError):
            read(root / "malformed")
    return {
        "v1": victim(root / "v1"),
        "v2": victim(root / "v2.index", root / "v2.index", root / "v2.data-00000-of-00001"),
        "objects": victim(root / "objects.index", root / "objects.index", root / "objects.data-00000-of-00001"),
        "stored": victim(root / "stored.npz"),
        "deflated": victim(root / "deflated.npz"),
        "pth": victim(root / "a.pth"),
        "legacy pth": victim(root / "legacy.pth"),
    }


KINDS = pytest.mark.parametrize("kind", ["v1", "v2", "objects", "stored", "deflated", "pth", "legacy pth"])
# Without checksums, damage to a value or a name goes unnoticed.
UNCHECKED = ("legacy pth",)


def tensors_or_none(victim: Victim, watch: Any) -> dict[str, np.ndarray] | None:
    """What is read of the files as they are; then they are sound again."""
    try:
        with watch(*map(str, victim.files)):
            found = read_or_refuse(victim.path)
    finally:
        victim.restore()
    return None if found is None else found.tensors


def check_equal(victim: Victim, found: dict[str, np.ndarray] | None) -> None:
    if found is not None:
        assert found.keys() == victim.tensors.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, victim.tensors[name], strict=True)


@KINDS
@fuzzed
@given(which=st.integers(0, 1), flips=FLIPS)
def test_flipped_bytes(kind: str, which: int, flips: Any, victims: dict[str, Victim], watch: Any) -> None:
    files = list(victims[kind].files.items())
    path, content = files[which % len(files)]
    path.write_bytes(flip(content, flips))
    found = tensors_or_none(victims[kind], watch)
    if kind not in UNCHECKED:
        check_equal(victims[kind], found)


@KINDS
@fuzzed
@given(which=st.integers(0, 1), keep=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=60))
def test_cut_and_extended(
    kind: str, which: int, keep: float, more: bytes, victims: dict[str, Victim], watch: Any
) -> None:
    files = list(victims[kind].files.items())
    path, content = files[which % len(files)]
    path.write_bytes(content[: int(keep * len(content))] + more)
    found = tensors_or_none(victims[kind], watch)
    if kind not in UNCHECKED:
        check_equal(victims[kind], found)


@pytest.mark.parametrize("kind", ["v1", "v2", "objects"])
@pytest.mark.parametrize("snappy", [False, True])
@fuzzed
@given(
    entry=st.integers(0, 20),
    flips=FLIPS,
    drop=st.integers(0, 3),
    in_key=st.booleans(),
)
def test_forged_entries_with_valid_checksums(
    kind: str,
    snappy: bool,
    entry: int,
    flips: Any,
    drop: int,
    in_key: bool,
    victims: dict[str, Victim],
    watch: Any,
    tables: Any,
) -> None:
    """A forger can say something else, so only the kind of the answer is certain."""
    target = victims[kind]
    entries = {key: bytes(value) for key, value in read_table(target.files[target.path]).items()}
    key = list(entries)[entry % len(entries)]
    value = entries.pop(key)
    value = value[: len(value) - drop]
    key, value = (flip(key, flips), value) if in_key else (key, flip(value, flips))
    target.path.write_bytes(tables.table(dict(sorted((entries | {key: value}).items())), snappy=snappy))
    tensors_or_none(target, watch)


@pytest.mark.parametrize("kind", ["v1", "v2"])
@fuzzed
@given(where=st.integers(0, 2), content=st.binary(max_size=60), snappy=st.booleans())
def test_any_bytes_as_a_block(
    kind: str, where: int, content: bytes, snappy: bool, victims: dict[str, Victim], watch: Any, tables: Any
) -> None:
    target = victims[kind]
    blocks = [(b"a", tables.block([(b"", b"\x08\1")]), 0), (b"b", tables.block([(b"a", content)]), 0)]
    blocks.insert(where, (b"c", content, int(snappy)))
    target.path.write_bytes(tables.from_blocks(blocks))
    tensors_or_none(target, watch)
