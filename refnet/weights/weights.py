"""The weights of a network by TF-Slim's names, and what else their file says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NoReturn

import numpy as np

from refnet.errors import ConfigError, ImmutableError
from refnet.graph.graph import ArgScope
from refnet.images.preprocess import Recipe
from refnet.network.architecture import Architecture, infer_architecture
from refnet.network.networks import FAMILIES, Family
from refnet.network.options import SLIM_OPTIONS
from refnet.run.variables import as_variables
from refnet.weights.conversion import Conversion
from refnet_kernels.contract import Float32Array


class Weights(Mapping[str, Float32Array]):
    """A mapping of TF-Slim's variable names to float32 arrays, and what else the file said. Nothing in it changes.

    `replace` gives weights of which something is different. Two weights are equal if they are the same object.

    Parameters
    ----------
    tensors : mapping of str to array
    recipe, labels, options, source, conversion
        See the attributes.
    copy : bool
        False takes the arrays themselves, and makes them read-only.

    Attributes
    ----------
    recipe : Recipe
        How raw uint8 pixels become the network's input; where nobody says it, what TF-Slim does for these names.
    image_size : tuple of int or None, or None
        Height and width of the images that the weights classify best, where the recipe was given.
    labels : tuple of str or None
        A name for each class.
    options : mapping of str to Any
        The options of `refnet.Engine` that the network was trained with, where they are not TF-Slim's:
        ``batch_norm_epsilon``, ``pool_mode``, ``bias_before_batch_norm``, ``stride_place``, ``avg_down``.
    source : str
        The format that the weights were read from.
    conversion : Conversion
        What was converted or left out on the way; ``notes`` says it in sentences.

    Raises
    ------
    WeightsError, DtypeError
        A name is not a string, a value not an array, or a tensor of the network not of floats.
    ConfigError
        There is no option of such a name that belongs to weights.

    Examples
    --------
    >>> weights = refnet.load_weights("resnet_v2_50.ckpt")
    >>> smaller = weights.replace(recipe=weights.recipe._replace(height=224, width=224))
    """

    recipe: Recipe
    image_size: tuple[int | None, int | None] | None
    labels: tuple[str, ...] | None
    options: Mapping[str, Any]
    source: str
    conversion: Conversion
    _tensors: dict[str, Float32Array]

    def __init__(
        self,
        tensors: Mapping[str, Any],
        *,
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        source: str = "arrays",
        conversion: Conversion | None = None,
        copy: bool = True,
    ) -> None:
        arrays, converted, left_out = as_variables(tensors, copy)
        found = conversion or Conversion()
        found = replace(found, converted=found.converted | converted, left_out=found.left_out | left_out)
        self._set(
            _tensors=arrays,
            recipe=recipe or slim_recipe(arrays),
            image_size=None if recipe is None else (recipe.height, recipe.width),
            labels=_labels(labels),
            options=_options(options),
            source=source,
            conversion=found,
        )

    def replace(
        self,
        *,
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        conversion: Conversion | None = None,
    ) -> Weights:
        """The same weights with another recipe, other labels or other options; they share the arrays.

        Parameters
        ----------
        recipe : Recipe, optional
            ``image_size`` stays as it is: the weights still classify images of that size best.
        labels : sequence of str, optional
        options : mapping of str to Any, optional
            In place of all the options that there are.
        conversion : Conversion, optional

        Returns
        -------
        Weights
        """
        changes: dict[str, Any] = {}
        if recipe is not None:
            changes["recipe"] = recipe
        if labels is not None:
            changes["labels"] = _labels(labels)
        if options is not None:
            changes["options"] = _options(options)
        if conversion is not None:
            changes["conversion"] = conversion
        return _remade(self._state | changes)

    def __getitem__(self, name: str) -> Float32Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    # A comparison of all arrays is not what anybody expects of "==".
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ImmutableError(f"Weights do not change: make others by weights.replace({name}=...).")

    def __delattr__(self, name: str) -> NoReturn:
        raise ImmutableError(f"Weights do not change, so that {name} stays.")

    def __reduce__(self) -> Any:
        return _remade, ({**self._state, "options": dict(self.options)},)

    @property
    def _state(self) -> dict[str, Any]:
        """All that there is, without what is derived from it."""
        return {name: self.__dict__[name] for name in Weights.__annotations__}

    def _set(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    @cached_property
    def architecture(self) -> Architecture:
        """What the names and shapes tell of the network.

        Raises
        ------
        MissingTensorError, ConfigError, WeightsError
            As `refnet.network.architecture.infer_architecture` raises them.
        """
        return infer_architecture(self, stride_place=self.options.get("stride_place"))

    @property
    def arg_scope(self) -> ArgScope:
        """The options that the graph is made with."""
        return ArgScope(**{name: value for name, value in self.options.items() if name in ArgScope._fields})

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The options that make another function of the tensors than TF-Slim does: their values and TF-Slim's."""
        return {
            name: (value, SLIM_OPTIONS[name]) for name, value in self.options.items() if value != SLIM_OPTIONS[name]
        }

    @property
    def notes(self) -> list[str]:
        """What was converted or left out on the way, in sentences."""
        return self.conversion.notes

    def __repr__(self) -> str:
        parameters = sum(tensor.size for tensor in self._tensors.values())
        return f"<Weights from {self.source}: {len(self)} tensors, {parameters:,} parameters>"


def _remade(state: Mapping[str, Any]) -> Weights:
    """Weights of this state; their arrays are read-only, which a pickle forgets."""
    for array in state["_tensors"].values():
        array.flags.writeable = False
    weights = object.__new__(Weights)
    weights._set(**{**state, "options": MappingProxyType(dict(state["options"]))})
    return weights


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else tuple(labels)


def _options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    unknown = sorted(set(options or {}) - set(SLIM_OPTIONS))
    if unknown:
        raise ConfigError(
            f"No options that belong to weights: {', '.join(map(str, unknown))}; there are {', '.join(SLIM_OPTIONS)}.",
            found=unknown,
        )
    return MappingProxyType(dict(options or {}))


def slim_recipe(tensors: Mapping[str, Any]) -> Recipe:
    """What TF-Slim prepares images by: the recipe of the released checkpoints that have these names and classes."""
    family = released_family(tensors)
    return (family or FAMILIES[0]).recipe


def released_family(tensors: Mapping[str, Any]) -> Family | None:
    """The family of a checkpoint that TF-Slim released, by its names and classes; None of any other."""
    for family in FAMILIES:
        biases = [tensors[name] for network in family.published if (name := f"{network}/logits/biases") in tensors]
        if any(np.shape(tensor) == (family.num_classes,) for tensor in biases):
            return family
    return None
