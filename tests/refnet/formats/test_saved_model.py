"""SavedModels and object-based checkpoints, as TensorFlow 2 writes them: variables by their own names."""

from __future__ import annotations

import operator
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.errors import CorruptError, FormatError, RefnetError
from refnet.weights.formats import read
from refnet.weights.formats.tf_objects import KEY
from tests.refnet.formats.bad_files import BadFile, check_refused
from tests.refnet.formats.tables import Tables
from tests.support.nets import lively_weights

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
KEY_OF_X = f"x{VALUE}".encode()


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


# Keras converts its arrays in a way that NumPy deprecates.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("tf_keras", "SGD"), ("tf_keras", "Adam"), ("tf_keras", "legacy.Adam"), ("keras", "RMSprop"), ("keras", "Adam")],
)
@pytest.mark.parametrize("how", ["model and optimizer", "compiled model", "SavedModel"])
def test_optimizers_and_metrics_in_checkpoints(kind: str, optimizer: str, how: str, tf: Any, tmp_path: Path) -> None:
    """Their variables have the names of the network's behind a scope, or numbers: neither are a network."""
    import importlib

    keras = importlib.import_module(kind)
    draw = np.random.default_rng(1)
    model = keras.Sequential(
        [
            keras.layers.Input((None, None, 3)),
            *(keras.layers.Conv2D(4, 1, name=f"conv2_block1_{i}_conv") for i in (1, 2, 3)),
        ]
    )
    model.set_weights([draw.standard_normal(value.shape) for value in model.get_weights()])
    made = operator.attrgetter(optimizer)(keras.optimizers)()
    model.compile(optimizer=made, loss="mse", metrics=["mae"])
    model.train_on_batch(np.ones((1, 2, 2, 3), np.float32), np.ones((1, 2, 2, 4), np.float32))
    if how == "SavedModel" and kind == "keras":
        model.export(str(tmp_path), verbose=False)
    elif how == "SavedModel":
        model.save(str(tmp_path), save_format="tf")
    else:
        objects = {"net": model, "opt": made} if how == "model and optimizer" else {"root": model}
        tf.train.Checkpoint(**objects).save(str(tmp_path / "model"))
    loaded = read(tmp_path)
    # Keras 3 puts the model's name before those of its variables.
    outer = f"{model.name}/" if kind == "keras" else ""
    variables = {f"{outer}conv2_block1_{i}_conv/{role}" for i in (1, 2, 3) for role in ("kernel", "bias")}
    floats = {name for name, value in loaded.tensors.items() if value.dtype.kind == "f"}
    assert floats == variables
    expected = {value.tobytes() for value in model.get_weights()}
    assert {loaded.tensors[name].tobytes() for name in variables} == expected
    slots = [name for name, why in loaded.conversion.left_out.items() if why == "it is the state of a training"]
    assert len(slots) >= (0 if how == "SavedModel" and kind == "keras" else 6)


def graph_entry(graph: bytes, **changes: Any) -> tuple[bytes, bytes]:
    """The object graph as a string tensor: its bytes in the shard, and its entry, with valid checksums."""
    length = len(graph).to_bytes(4, "little")
    plain = length + Tables.masked_crc(length).to_bytes(4, "little") + graph
    data = Tables.varint(len(graph)) + plain[4:]
    return data, Tables.entry(data, 7, **{"crc": Tables.masked_crc(plain), "offset": 8} | changes)


def node(name: bytes, key: bytes) -> bytes:
    field = Tables.field
    return bytes(field(1, field(2, field(1, b"VARIABLE_VALUE") + field(2, name) + field(3, key))))


def write(prefix: Path, graph: bytes, entry: bytes | None = None, data: bytes | None = None) -> Path:
    """A checkpoint of one tensor, ``x/.ATTRIBUTES/VARIABLE_VALUE``, behind its object graph."""
    stored, sound = graph_entry(graph)
    stored = stored if data is None else data
    value = np.float32([1, 2]).tobytes()
    tensor = Tables.entry(value, 1, (2,))
    Tables.v2(prefix, {KEY: sound if entry is None else entry, f"x{VALUE}": tensor}, value + stored)
    return prefix


def test_a_sound_graph(tmp_path: Path) -> None:
    for graph, name in (
        (node(b"conv1/weights", KEY_OF_X), "conv1/weights"),
        (b"", f"x{VALUE}"),
        (node(b"", KEY_OF_X), f"x{VALUE}"),
        (node(b"gone", b"y" + KEY_OF_X) * 2 + node(b"here", KEY_OF_X), "here"),
    ):
        assert list(read(write(tmp_path / "c", graph)).tensors) == [name]


GRAPH = node(b"conv1/weights", KEY_OF_X)
STRING, _ = graph_entry(GRAPH)
FLIPPED = STRING[:-1] + bytes([STRING[-1] ^ 1])
LONG = Tables.varint(1 << 40) + STRING[1:]


def entry(**changes: Any) -> bytes:
    return graph_entry(GRAPH, **changes)[1]


def _bad(changes: dict[str, Any], error: type[RefnetError], message: str) -> BadFile:
    return BadFile(lambda f: write(f / "c", **{"graph": GRAPH} | changes), error, message)


def _without_a_graph(folder: Path) -> Path:
    return Path(Tables.v2(folder / "c", {f"x{VALUE}": Tables.entry(b"", 1, (0,))}, b""))


def _without_variables(folder: Path) -> Path:
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder / "saved"


BAD: dict[str, BadFile] = {
    "no variables": BadFile(_without_variables, FormatError, "SavedModel without variables"),
    "no graph": BadFile(_without_a_graph, FormatError, "is missing"),
    "booleans": _bad({"entry": Tables.entry(STRING, 10, (len(STRING),), offset=8)}, FormatError, "not the one string"),
    "a vector of strings": _bad({"entry": Tables.entry(STRING, 7, (1,), offset=8)}, FormatError, "not the one string"),
    "checksum": _bad({"entry": entry(crc=1)}, CorruptError, "checksums"),
    "a flipped byte": _bad({"data": FLIPPED}, CorruptError, "checksums"),
    "a length of 1 TiB": _bad({"data": LONG, "entry": entry(size=len(LONG))}, FormatError, "1099511627776 bytes"),
    "cut off": _bad({"entry": entry(size=1 << 40)}, CorruptError, "cut off"),
    "another shard": _bad({"entry": entry(shard=4)}, FormatError, "shard 4"),
    "no protobuf": _bad({"graph": b"\xff"}, FormatError, "varint is cut off"),
    "two names": _bad({"graph": GRAPH + node(b"b", KEY_OF_X)}, FormatError, "names the tensor .* twice"),
    "a name that is no text": _bad({"graph": node(b"\xff", KEY_OF_X)}, FormatError, "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


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
