"""The network as TF-Slim itself builds and runs it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Case
from tests.support import tensorflow as support
from tests.support.tensorflow import quiet, tf_slim


@cache
def tensorflow(threads: int) -> Any:
    """TensorFlow 2 with this number of threads.

    It is for the whole process: sessions share the pool of whatever runs first, the converter included.
    """
    tf = support.tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    return tf


class SlimNetwork:
    """A TF-Slim session of the network in a graph of its own; ``run(images)`` gives logits or dense features."""

    def __init__(self, case: Case, dtype: str = "float32") -> None:
        tensorflow(case.threads)
        library = tf_slim()
        tf, resnet_v2 = library.tf, library.resnet_v2
        self.dtype = np.dtype(dtype)
        self._squeeze = case.classes is not None
        graph = tf.Graph()
        config = tf.ConfigProto(intra_op_parallelism_threads=case.threads, inter_op_parallelism_threads=1)
        with quiet(), graph.as_default(), library.slim.arg_scope(resnet_v2.resnet_arg_scope()):
            images = tf.placeholder(dtype, case.shape)
            net, _ = getattr(resnet_v2, case.network)(images, is_training=False, **case.options)
            self._session = tf.Session(config=config)
            self._saver = tf.train.Saver()
            self._variables = tf.global_variables()
            self._assign = self._session.make_callable(
                [variable.initializer for variable in self._variables],
                feed_list=[variable.initial_value for variable in self._variables],
            )
        self._net = self._session.make_callable(net, feed_list=[images])

    def assign(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the variables."""
        self._assign(*(weights[variable.op.name].astype(self.dtype) for variable in self._variables))

    def save(self, path: Path) -> None:
        """Write the variables as a checkpoint."""
        with self._session.graph.as_default():
            self._saver.save(self._session, str(path), write_meta_graph=False)

    def restore(self, path: Path) -> None:
        """Set the variables from a checkpoint."""
        with self._session.graph.as_default():
            self._saver.restore(self._session, str(path))

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits [N, classes], or dense features."""
        net: np.ndarray = self._net(images.astype(self.dtype, copy=False))
        return net[:, 0, 0] if self._squeeze else net
