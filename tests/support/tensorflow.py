"""TensorFlow and tf_slim. To import them takes ten seconds, so the first call that needs them does it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """TensorFlow and tf_slim warn of their own deprecations, which the test run would turn into errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@cache
def tensorflow() -> Any:
    """TensorFlow 2."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet():
        import tensorflow  # type: ignore[import-untyped]

        tensorflow.get_logger().setLevel("ERROR")
    return tensorflow


@cache
def tf_slim() -> SimpleNamespace:
    """TensorFlow 1's interface and tf_slim, ready to run: tf, slim, resnet_v1, resnet_v2, resnet_utils.

    TensorFlow looks for the legacy batch norm in ``tf_keras.legacy_tf_layers``; the wheel keeps it in
    ``tf_keras.src``, so the module is handed over here.
    """
    tf = tensorflow().compat.v1
    with quiet():
        # None of these ships types.
        import tf_keras.src.legacy_tf_layers.normalization as legacy_normalization  # type: ignore[import-untyped]
        import tf_slim as slim  # type: ignore[import-untyped]
        from tensorflow.python.layers import normalization  # type: ignore[import-untyped]
        from tf_slim.nets import resnet_utils, resnet_v1, resnet_v2  # type: ignore[import-untyped]
    normalization.normalization = legacy_normalization
    return SimpleNamespace(tf=tf, slim=slim, resnet_v1=resnet_v1, resnet_v2=resnet_v2, resnet_utils=resnet_utils)
