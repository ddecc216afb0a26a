"""A home of weights: a framework whose files hold a ResNet under names other than TF-Slim's."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.weights.formats.loaded import Loaded


class Named(NamedTuple):
    """The tensors of a file under TF-Slim's names, and how their home differs from TF-Slim.

    Attributes
    ----------
    tensors : dict of str to array
        Kernels are HWIO. Tensors that are not part of the network keep their names.
    renamed : dict of str to str
        For each tensor that has another name now, its name in the file.
    options : mapping of str to Any
        As in `refnet.Weights`.
    recipe : Recipe or None
        How the home prepares its images.
    added : list of str
        Variables that the home's network does not have; they are zeros.
    remarks : list of str
        Other differences, in sentences.
    inside : sequence of str
        Tensors in the units that have no place in refnet's units, by their names in the file.
    """

    tensors: dict[str, np.ndarray]
    renamed: dict[str, str]
    options: Mapping[str, Any]
    recipe: Recipe | None
    added: list[str]
    remarks: list[str]
    inside: Sequence[str] = ()


class Home(NamedTuple):
    """A row of `refnet.weights.homes.HOMES`.

    Attributes
    ----------
    title : str
        Its name in messages.
    fits : callable
        Tells from a file's format and its tensors' names whether it comes from this home.
    read : callable
        Gives the tensors TF-Slim's names. For a network that refnet does not have, it raises a MissingTensorError with
        the reason.
    unit : re.Pattern, optional
        Matches the name of a unit's tensor. Its group ``scope`` is what stands before the names of the network, with
        the separator at its end. None: nothing can stand there.
    outputs_first : bool
        Whether the matrices of dense layers are [outputs, inputs], as PyTorch has them.
    """

    title: str
    fits: Callable[[Loaded], bool]
    read: Callable[[Mapping[str, np.ndarray]], Named]
    unit: re.Pattern[str] | None = None
    outputs_first: bool = False
