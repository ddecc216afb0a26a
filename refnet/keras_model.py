"""A network of Keras Applications, with Keras' arguments and outputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.checks import as_int, check_bool, check_choice, check_positive
from refnet.engine import Engine
from refnet.errors import ConfigError
from refnet.graph.graph import Tensor
from refnet.images.preprocess import is_raw_list
from refnet.network.eager import works_on_arrays
from refnet.network.options import KEYWORDS
from refnet.resources import for_images
from refnet.run.inputs import as_array
from refnet.signatures import shows
from refnet_kernels.contract import FloatArray


class KerasModel:
    """The counterpart of ``keras.applications.ResNet50(weights="resnet50.h5")``, and of the other five networks.

    The weights say which of them it is.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
        A file that Keras saved, for instance; refnet downloads nothing.
    include_top : bool
        Whether the classifier comes last. False: the features.
    pooling : {None, "avg", "max"}
        How the features are pooled over height and width; it has no meaning where the classifier comes last.
    classes : int, optional
        None: as many as the weights have. A number has to agree with them.
    classifier_activation : {"softmax", None}
        None: the logits.
    **options
        As for `Engine`: ``device``, ``threads``, ``dtype`` ...

    Raises
    ------
    ConfigError
        An argument has a value that it cannot have, or that does not fit the weights.
    WeightsError, DeviceError
        As `Engine` raises them.

    Examples
    --------
    >>> import refnet
    >>> model = refnet.KerasModel("digits.ckpt")
    >>> images = [refnet.load_image(f"digit{digit}.png") for digit in range(5)]
    >>> model.predict(images).argmax(axis=1).tolist()
    [0, 1, 2, 3, 4]
    >>> refnet.KerasModel("digits.ckpt", include_top=False, pooling="max").predict(images).shape
    (5, 128)
    """

    @shows(KEYWORDS, without=("num_classes", "global_pool"))
    def __init__(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str],
        *,
        include_top: bool = True,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | None = "softmax",
        **options: Any,
    ) -> None:
        if isinstance(weights, str) and weights == "imagenet":
            raise ConfigError(
                "refnet downloads no weights: save Keras' own by model.save_weights('resnet50.weights.h5'), and pass "
                "that path in place of 'imagenet'."
            )
        check_bool(include_top=include_top)
        if classes is not None:
            check_positive(classes=as_int(classes))
        check_choice("pooling", pooling, (None, "avg", "max"))
        check_choice("classifier_activation", classifier_activation, ("softmax", None))
        if not include_top:
            options |= {"num_classes": None, "global_pool": pooling == "avg"}
        elif classes is not None:
            options["num_classes"] = classes
        self._engine = Engine(weights, **options)
        if include_top and self._engine.num_classes is None:
            raise ConfigError("These weights have no classifier: pass include_top=False.")
        self._softmax = include_top and classifier_activation == "softmax"
        self._pooling = None if include_top else pooling

    def __repr__(self) -> str:
        last = "softmax" if self._softmax else self._pooling or "no pooling"
        return f"<KerasModel: {last} after {repr(self._engine)[1:-1]}>"

    def summary(self, size: int = 224) -> None:
        """Print the layers of the network, for images of ``size`` x ``size`` pixels.

        Examples
        --------
        >>> import refnet
        >>> refnet.KerasModel("digits.ckpt").summary(32)
        layer                          operation       output    parameters  connected to
        input                          input           32x32x3            0
        ...
        """
        print(self._engine.summary(size))

    def predict(self, images: Any, batch_size: int | None = None, verbose: str | int = 0) -> FloatArray:
        """Run the network.

        Parameters
        ----------
        images : array [N, H, W, 3] or [H, W, 3], or a list of uint8 arrays [H, W, 3] of any sizes
            uint8: raw pixels, which go through the weights' recipe; floats: what Keras' ``preprocess_input`` gives.
        batch_size : int, optional
            How many images are computed at once, which changes no bit. None: all.
        verbose : {0, 1, 2, "auto"}
            1: a line on stderr after each batch. Keras' other values are accepted, and silent.

        Returns
        -------
        float array
            [N, classes]; without the top [N, channels], or without pooling [N, h, w, channels]. A single image is a
            batch of 1.

        Raises
        ------
        InputError, WeightsError, DeviceError
            As a call of `Engine` raises them.

        Examples
        --------
        >>> import refnet
        >>> images = [refnet.load_image(f"digit{digit}.png") for digit in range(5)]
        >>> refnet.KerasModel("digits.ckpt").predict(images, batch_size=2).shape
        (5, 10)
        """
        check_choice("verbose", verbose, (0, 1, 2, "auto"))
        if batch_size is None:
            return self._predict(images)
        size = as_int(batch_size)
        check_positive(batch_size=size)
        # An image without a batch axis, or on a device, is one batch.
        is_batch = is_raw_list(images) or (isinstance(images, np.ndarray) and images.ndim == 4)
        if not is_batch or len(images) <= size:
            return self._predict(images)
        parts = []
        for start in range(0, len(images), size):
            parts.append(self._predict(images[start : start + size]))
            if verbose == 1:
                print(f"{min(start + size, len(images))}/{len(images)} images", file=sys.stderr, flush=True)
        return np.concatenate(parts)

    @for_images
    def _predict(self, images: Any) -> FloatArray:
        try:
            rank = np.ndim(images)
        except Exception:  # the engine says what is wrong with them
            rank = 0
        batch = images
        if rank == 3:
            batch = (images if hasattr(images, "ndim") else as_array(images))[np.newaxis]
        if self._softmax:
            _, end_points = self._engine(batch, end_points=["predictions"])
            predictions: FloatArray = end_points["predictions"]
            return predictions
        net: FloatArray = self._engine(batch)
        if self._pooling == "max":
            net = _global_max(net, dtype=net.dtype)
        return net if self._pooling is None else net[:, 0, 0]


@works_on_arrays
def _global_max(net: Tensor) -> Tensor:
    """One square window that covers the image; padding never wins."""
    size = max(net.shape[1:3])
    return net.graph.max_pool(net, size, size)
