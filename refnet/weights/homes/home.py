"""A home of weights: a framework whose files hold a ResNet under names other than TF-Slim's."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from refnet.errors import FormatError, WeightsError
from refnet.images.preprocess import Recipe
from refnet.weights.conversion import Moments
from refnet.weights.formats.loaded import Loaded, raise_problems


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
    untold : str
        What only a file of configuration can tell about the network, or "".
    not_run : sequence of str
        Tensors of heads that do not stand before the classifier, by their names in the file.
    doubt : str
        What a user should know before trusting the result, or "".
    unsettled : str
        What only a file of configuration can tell, where the result is wrong if it is another network; or "".
    standardized : mapping of str to Moments
        For each kernel that was standardised, what it had before.
    """

    tensors: dict[str, np.ndarray]
    renamed: dict[str, str]
    options: Mapping[str, Any]
    recipe: Recipe | None
    added: list[str]
    remarks: list[str]
    inside: Sequence[str] = ()
    untold: str = ""
    not_run: Sequence[str] = ()
    doubt: str = ""
    unsettled: str = ""
    standardized: Mapping[str, Moments] = MappingProxyType({})


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
    layers : callable, optional
        Gives, for the names of some layers, the function from a layer's name to TF-Slim's, below any scope, or to
        None.
    in_unit : sequence of str
        The names of the layers in a unit, without the unit's.
    """

    title: str
    fits: Callable[[Loaded], bool]
    read: Callable[[Mapping[str, np.ndarray]], Named]
    unit: re.Pattern[str] | None = None
    outputs_first: bool = False
    layers: Callable[[Collection[str]], Callable[[str], str | None]] | None = None
    in_unit: Sequence[str] = ()


def missing_biases(tensors: Mapping[str, np.ndarray], biased: re.Pattern[str]) -> dict[str, np.ndarray]:
    """Zeros for the biases that TF-Slim has and a home lacks.

    They change no bit: a convolution's sum starts at +0, so it is never -0 (rule A1).

    Parameters
    ----------
    tensors : mapping of str to array
        By TF-Slim's names.
    biased : re.Pattern
        Matches the names of kernels that have biases in TF-Slim: ``layer``.

    Returns
    -------
    dict of str to array
    """
    kernels = {match["layer"]: kernel for name, kernel in tensors.items() if (match := biased.match(name))}
    return {
        biases: np.zeros(kernel.shape[-1:], np.float32)
        for layer, kernel in kernels.items()
        if (biases := f"{layer}/biases") not in tensors
    }


def names_by_slim(names: Iterable[str], scope: str, slim_name: Callable[[str], str | None]) -> dict[str, str]:
    """The name in the file of each tensor, by its name from now on.

    Every tensor of the network has a name of the home's, so that none that the home does not know can take a place.

    Parameters
    ----------
    names : iterable of str
        The names in the file.
    scope : str
        The first part of all the network's names.
    slim_name : callable
        Gives TF-Slim's name of a tensor, or None for one that is not part of the network, which keeps its name.

    Returns
    -------
    dict of str to str

    Raises
    ------
    FormatError
        Two tensors would have one name, or one has a name of the network's already.
    """
    found: dict[str, str] = {}
    problems: list[WeightsError] = []
    for name in names:
        slim = slim_name(name)
        if slim is None:
            problems += _own_name(name, scope)
        elif slim in found:
            message = f"{found[slim]!r} and {name!r} are both TF-Slim's {slim}: leave out the one that is not meant."
            problems.append(FormatError(message, tensor=slim, found=(found[slim], name)))
        found[slim or name] = name
    raise_problems(problems)
    return found


def refuse_slim_names(names: Iterable[str], scope: str) -> None:
    """Refuse tensors that another framework's file has under the names that the network gets.

    Parameters
    ----------
    names : iterable of str
        The names of tensors that keep them.
    scope : str
        The first part of all the network's names.

    Raises
    ------
    FormatError
    """
    raise_problems([problem for name in names for problem in _own_name(name, scope)])


def _own_name(name: str, scope: str) -> list[WeightsError]:
    message = f"{name!r} is a name of TF-Slim's among another framework's."
    return [FormatError(message, tensor=name)] if name.startswith(f"{scope}/") else []
