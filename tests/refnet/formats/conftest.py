"""Checkpoints that TensorFlow wrote, and a watch over what a reader does."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import refnet.weights.formats.foreign  # noqa: F401
from refnet.weights.formats import FORMATS
from refnet.weights.homes import HOMES
from tests.refnet.formats.tables import Tables
from tests.support.tensorflow import quiet

UNIT = "resnet_v2_50/block1/unit_1/bottleneck_v2"


class Checkpoint(NamedTuple):
    prefix: str
    tensors: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def tables() -> type[Tables]:
    return Tables


def _variables(tf: Any, version: int) -> dict[str, Any]:
    """Variables named as TF-Slim names them, of every numeric dtype that the format holds, and three that are none."""
    rng = np.random.default_rng(5)
    values: dict[str, Any] = {
        "resnet_v2_50/conv1/weights": rng.standard_normal((7, 7, 3, 4), np.float32),
        "resnet_v2_50/conv1/biases": rng.standard_normal(4, np.float32),
        f"{UNIT}/preact/gamma": np.float32([np.nan, np.inf, -0.0, 1e-42]),
        f"{UNIT}/preact/moving_variance": rng.random(4),
        f"{UNIT}/conv1/weights": rng.standard_normal((1, 1, 4, 2)).astype(np.float16),
        "global_step": np.int64(-(2**40)),
        "empty": np.zeros((0, 3), np.float32),
        "slots/flags": np.array([True, False]),
        "slots/text": np.array([b"a", b"bb"]),
        "slots/complex": np.array([1j, 2], np.complex64),
    }
    for dtype in (np.int32, np.int16, np.int8, np.uint8, np.uint16, *((np.uint32, np.uint64) if version == 2 else ())):
        limits = np.iinfo(dtype)
        values[f"integers/{np.dtype(dtype).name}"] = np.array([[limits.min, limits.max, 1]], dtype)
    variables = {name: tf.compat.v1.Variable(tf.constant(value), name=name) for name, value in values.items()}
    if version == 2:
        variables["half/bfloat16"] = tf.compat.v1.Variable(tf.constant([1.5, -3.25, 1e30], tf.bfloat16))
    return variables


def save(tf: Any, prefix: Path, version: int, *, sharded: bool = False) -> Checkpoint:
    """Write a checkpoint with TensorFlow's own Saver; its tensors as TensorFlow evaluates them."""
    with quiet(), tf.compat.v1.Graph().as_default():
        variables: dict[str, Any] = {}
        with tf.device("/cpu:1" if sharded else "/cpu:0"):
            variables |= _variables(tf, version)
        with tf.compat.v1.variable_scope(
            "resnet_v2_50/logits", partitioner=tf.compat.v1.fixed_size_partitioner(3, axis=2)
        ):
            shape, normal = (1, 1, 200, 2), tf.compat.v1.random_normal_initializer(seed=1)
            logits = tf.compat.v1.get_variable("weights", shape=shape, initializer=normal)
        saver = tf.compat.v1.train.Saver(
            {**variables, "resnet_v2_50/logits/weights": logits}, write_version=version, sharded=sharded
        )
        config = tf.compat.v1.ConfigProto(device_count={"CPU": 2})
        with tf.compat.v1.Session(config=config) as session:
            session.run(tf.compat.v1.global_variables_initializer())
            saver.save(session, str(prefix), write_state=False)
            tensors = session.run({**variables, "resnet_v2_50/logits/weights": tf.convert_to_tensor(logits)})
    return Checkpoint(str(prefix), tensors)


@pytest.fixture(scope="session")
def v1(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save(tf, tmp_path_factory.mktemp("v1") / "model.ckpt", 1)


@pytest.fixture(scope="session")
def v2(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save(tf, tmp_path_factory.mktemp("v2") / "model.ckpt", 2)


@pytest.fixture(scope="session")
def v2_sharded(tf: Any, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return save(tf, tmp_path_factory.mktemp("sharded") / "model.ckpt", 2, sharded=True)


_EXECUTION = ("import", "exec", "subprocess.Popen", "os.system", "os.exec", "pickle.find_class", "ctypes.dlopen")
_recorders: list[list[tuple[str, Any]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for recorder in _recorders:
        if event == "open" or event in _EXECUTION or event.startswith("socket."):
            recorder.append((event, arguments[0]))


@contextlib.contextmanager
def _watch(*allowed: str) -> Iterator[None]:
    events: list[tuple[str, Any]] = []
    _recorders.append(events)
    try:
        yield
    finally:
        _recorders.remove(events)
        strange = [
            (event, subject)
            for event, subject in events
            if event != "open" or isinstance(subject, int) or os.fsdecode(subject) not in allowed
        ]
        assert not strange, f"the reader did more than read its files: {strange[:5]}"


@pytest.fixture(scope="session")
def watch() -> Any:
    """A context in which only the given paths may be opened, and nothing imported or executed."""
    for row in (*FORMATS, *HOMES):
        assert row.title  # imports its module, if nothing has
    # An audit hook cannot be taken away again.
    sys.addaudithook(_hook)
    return _watch
