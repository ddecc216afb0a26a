"""What a home of weights is: a framework whose files hold a ResNet by other names than TF-Slim's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.images.preprocess import Recipe
from refnet.weights.formats.loaded import Loaded


class Named(NamedTuple):
    """The tensors of a file by TF-Slim's names, and what their home does otherwise than TF-Slim.

    Attributes
    ----------
    tensors : dict of str to array
        Kernels are HWIO. What is not part of the network keeps its own name.
    renamed : dict of str to str
        The name before, of each tensor that has another one now.
    options : mapping of str to Any
        As `refnet.Weights` has them.
    recipe : Recipe or None
        How the home prepares its images.
    added : list of str
        Variables that the home's network does without: zeros.
    remarks : list of str
        What else the home does otherwise, in sentences.
    """

    tensors: dict[str, np.ndarray]
    renamed: dict[str, str]
    options: Mapping[str, Any]
    recipe: Recipe | None
    added: list[str]
    remarks: list[str]


class Home(NamedTuple):
    """A row of `refnet.weights.homes.HOMES`.

    Attributes
    ----------
    title : str
        For sentences.
    fits : callable
        Whether a file is from there, by its format and by its tensors' names.
    read : callable
        Gives the tensors TF-Slim's names. It raises a MissingTensorError that says why, for a network that refnet does
        not have.
    """

    title: str
    fits: Callable[[Loaded], bool]
    read: Callable[[Mapping[str, np.ndarray]], Named]
