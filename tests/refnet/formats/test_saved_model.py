"""SavedModels and object-based checkpoints, as TensorFlow 2 writes them: variables by their own names."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import lively_weights

import refnet
from refnet.errors import CorruptError, FormatError
from refnet.formats import read
from refnet.formats.tf_objects import KEY

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


@pytest.fixture(scope="module")
def weights() -> dict[str, np.ndarray]:
    return lively_weights()


@pytest.fixture(scope="module")
def folder(tf: Any, weights: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``saved`` and ``tf1``, SavedModels of both TensorFlows; ``saver``, a folder of an object-based checkpoint."""
    root = tmp_path_factory.mktemp("objects")
    module = tf.Module()
    module.weights = [tf.Variable(value, name=name) for name, value in weights.items()]
    module.step = tf.Variable(3, name="global_step", dtype=tf.int64)
    tf.saved_model.save(module, str(root / "saved"))
    checkpoint = tf.train.Checkpoint(net=module, again=module.weights[0])
    checkpoint.save(str(root / "saver" / "model"))
    v1 = tf.compat.v1
    with v1.Graph().as_default(), v1.Session() as session:
        variables = [v1.get_variable(name, initializer=value) for name, value in weights.items()]
        session.run(v1.global_variables_initializer())
        images = v1.placeholder("float32", [None])
        outputs = {"y": images + v1.reduce_sum(variables[0])}
        v1.saved_model.simple_save(session, str(root / "tf1"), {"x": images}, outputs)
    return root


@pytest.mark.parametrize(
    "path",
    [
        "saved", "saved/saved_model.pb", "saved/variables", "saved/variables/variables", "tf1",
        "saver", "saver/model-1", "saver/model-1.index",
    ],
)  # fmt: skip
def test_variables_have_their_own_names(path: str, folder: Path, weights: dict[str, np.ndarray]) -> None:
    found = refnet.load_weights(folder / path)
    assert found.keys() == weights.keys()
    assert all(found[name].tobytes() == value.tobytes() for name, value in weights.items())
    assert found.source == "TF checkpoint V2"
    assert (found.conversion.extra, found.conversion.remarks) == ([], [])
    left_out = {"saved": {"global_step"}, "saver": {"global_step", "save_counter"}, "tf1": set()}
    assert found.conversion.left_out.keys() == left_out[path.split("/")[0]]
    assert all(key.endswith(VALUE) for key in found.conversion.renamed.values())


def test_opens_nothing_but_the_variables(folder: Path, watch: Any) -> None:
    inner = folder / "saved" / "variables"
    with watch(str(inner / "variables.index"), str(inner / "variables.data-00000-of-00001")):
        read(folder / "saved")


def test_names_that_tell_no_variables_apart(tf: Any, tmp_path: Path) -> None:
    """Equal tensors of one name are one variable; others keep their keys, and it is said."""
    named = {"a": [1.0, 2.0], "b": [3.0, 3.0]}
    variables = {key: [tf.Variable(value, name=key) for value in values] for key, values in named.items()}
    tf.train.Checkpoint(**variables).write(str(tmp_path / "c"))
    loaded = read(tmp_path / "c")
    assert {name: float(value) for name, value in loaded.tensors.items()} == {
        f"a/0{VALUE}": 1.0, f"a/1{VALUE}": 2.0, "b": 3.0,
    }  # fmt: skip
    assert loaded.conversion.remarks == ["2 variables are named 'a': they keep the file's keys"]


# Keras converts its arrays in a way that NumPy deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["tf_keras", "keras"])
def test_keras_models_in_checkpoints(kind: str, tf: Any, tmp_path: Path) -> None:
    import importlib

    model = importlib.import_module(kind).applications.ResNet50V2(weights=None, input_shape=(32, 32, 3), classes=3)
    tf.train.Checkpoint(model=model).save(str(tmp_path / "saved" / "model"))
    model.save_weights(str(tmp_path / "a.h5" if kind == "tf_keras" else tmp_path / "a.weights.h5"))
    found = refnet.load_weights(tmp_path / "saved")
    expected = refnet.load_weights(next(tmp_path.glob("a.*")))
    assert found.keys() == expected.keys()
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)
    assert (found.options, found.recipe) == (expected.options, expected.recipe)


def graph_entry(tables: Any, graph: bytes, **changes: Any) -> tuple[bytes, bytes]:
    """The object graph as a string tensor: its bytes in the shard, and its entry, with valid checksums."""
    length = len(graph).to_bytes(4, "little")
    plain = length + tables.masked_crc(length).to_bytes(4, "little") + graph
    data = tables.varint(len(graph)) + plain[4:]
    return data, tables.entry(data, 7, **{"crc": tables.masked_crc(plain), "offset": 8} | changes)


def node(tables: Any, name: bytes, key: bytes) -> bytes:
    field = tables.field
    return bytes(field(1, field(2, field(1, b"VARIABLE_VALUE") + field(2, name) + field(3, key))))


def write(tables: Any, prefix: Path, graph: bytes, entry: bytes | None = None, data: bytes | None = None) -> Path:
    """A checkpoint of one tensor, ``x/.ATTRIBUTES/VARIABLE_VALUE``, behind its object graph."""
    stored, sound = graph_entry(tables, graph)
    stored = stored if data is None else data
    value = np.float32([1, 2]).tobytes()
    tensor = tables.entry(value, 1, (2,))
    tables.v2(prefix, {KEY: sound if entry is None else entry, f"x{VALUE}": tensor}, value + stored)
    return prefix


def test_a_sound_graph(tables: Any, tmp_path: Path) -> None:
    key = f"x{VALUE}".encode()
    for graph, name in (
        (node(tables, b"conv1/weights", key), "conv1/weights"),
        (b"", f"x{VALUE}"),
        (node(tables, b"", key), f"x{VALUE}"),
        (node(tables, b"gone", b"y" + key) * 2 + node(tables, b"here", key), "here"),
    ):
        assert list(read(write(tables, tmp_path / "c", graph)).tensors) == [name]


def bad(tables: Any) -> dict[str, tuple[dict[str, Any], type[Exception], str]]:
    key = f"x{VALUE}".encode()
    graph = node(tables, b"conv1/weights", key)
    data, _ = graph_entry(tables, graph)
    entry = lambda **changes: graph_entry(tables, graph, **changes)[1]  # noqa: E731
    flipped = bytearray(data)
    flipped[-1] ^= 1
    long = tables.varint(1 << 40) + data[1:]
    return {
        "no graph": ({"entry": b""}, FormatError, "is missing"),
        "booleans": ({"entry": tables.entry(data, 10, (len(data),), offset=8)}, FormatError, "not the one string"),
        "a vector of strings": ({"entry": tables.entry(data, 7, (1,), offset=8)}, FormatError, "not the one string"),
        "checksum": ({"entry": entry(crc=1)}, CorruptError, "checksums"),
        "a flipped byte": ({"data": bytes(flipped)}, CorruptError, "checksums"),
        "a length of 1 TiB": ({"data": long, "entry": entry(size=len(long))}, FormatError, "1099511627776 bytes"),
        "cut off": ({"entry": entry(size=1 << 40)}, CorruptError, "cut off"),
        "another shard": ({"entry": entry(shard=4)}, FormatError, "shard 4"),
        "no protobuf": ({"graph": b"\xff"}, FormatError, "varint is cut off"),
        "two names": ({"graph": graph + node(tables, b"b", key)}, FormatError, "names the tensor .* twice"),
        "a name that is no text": ({"graph": node(tables, b"\xff", key)}, FormatError, "not UTF-8"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "no graph", "booleans", "a vector of strings", "checksum", "a flipped byte", "a length of 1 TiB", "cut off",
        "another shard", "no protobuf", "two names", "a name that is no text",
    ],
)  # fmt: skip
def test_bad_graphs(name: str, tables: Any, tmp_path: Path) -> None:
    changes, error, message = bad(tables)[name]
    assert len(bad(tables)) == 11
    if changes.get("entry") == b"":
        tables.v2(tmp_path / "c", {f"x{VALUE}": tables.entry(b"", 1, (0,))}, b"")
    else:
        write(tables, tmp_path / "c", **{"graph": node(tables, b"conv1/weights", f"x{VALUE}".encode())} | changes)
    with pytest.raises(error, match=message) as caught:
        read(tmp_path / "c")
    assert str(tmp_path / "c.index") in str(caught.value)


def test_a_saved_model_without_variables(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    shutil.copy(folder / "saved" / "saved_model.pb", tmp_path / "empty")
    for path in ("empty", "empty/saved_model.pb"):
        with pytest.raises(FormatError, match="SavedModel without variables"):
            read(tmp_path / path)
    shutil.copytree(folder / "saved", tmp_path / "halved")
    (tmp_path / "halved" / "variables" / "variables.data-00000-of-00001").unlink()
    with pytest.raises(CorruptError, match=r"variables\.data-00000-of-00001 is missing"):
        read(tmp_path / "halved")
