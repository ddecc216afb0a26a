"""Weights by TF-Slim's names: load, save, draw at random, and read the architecture off them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from refnet.graph.graph import ArgScope
from refnet.images.labels import IMAGENET
from refnet.images.preprocess import VGG, Recipe
from refnet.network.architecture import STRIDE_PLACES, Architecture, infer_architecture
from refnet.network.resnet_v1 import NETWORKS as V1_NETWORKS
from refnet.run.variables import as_variables
from refnet.weights.conversion import Conversion
from refnet_kernels.contract import Float32Array


class Weights(Mapping[str, Float32Array]):
    """A read-only mapping of TF-Slim's variable names to float32 arrays, and what else the file said.

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
    labels : list of str or None
        A name for each class.
    options : dict of str to Any
        The options of `refnet.Engine` that the network was trained with, where they are not TF-Slim's:
        ``batch_norm_epsilon``, ``pool_mode``, ``bias_before_batch_norm``, ``stride_place``, ``avg_down``.
    source : str
        The format that the weights were read from.
    conversion : Conversion
        What was converted or left out on the way; ``notes`` says it in sentences.
    engines : dict
        The engines that `forward` made for these weights.
    """

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
        self.conversion = conversion or Conversion()
        self._tensors, converted, left_out = as_variables(tensors, copy)
        self.conversion.converted |= converted
        self.conversion.left_out |= left_out
        self.recipe = recipe or slim_recipe(self._tensors)
        self.image_size = None if recipe is None else (recipe.height, recipe.width)
        self.labels = list(labels) if labels is not None else None
        self.options = dict(options or {})
        self.source = source
        self.engines: dict[Any, Any] = {}

    def __getitem__(self, name: str) -> Float32Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

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
            name: (value, SLIM_OPTIONS.get(name))
            for name, value in self.options.items()
            if value != SLIM_OPTIONS.get(name)
        }

    @property
    def notes(self) -> list[str]:
        """What was converted or left out on the way, in sentences."""
        return self.conversion.notes

    def __repr__(self) -> str:
        parameters = sum(tensor.size for tensor in self._tensors.values())
        return f"<Weights from {self.source}: {len(self)} tensors, {parameters:,} parameters>"


#: The options that belong to weights, with TF-Slim's values.
SLIM_OPTIONS: dict[str, Any] = {
    "batch_norm_epsilon": ArgScope().batch_norm_epsilon,
    "pool_mode": ArgScope().pool_mode,
    "bias_before_batch_norm": ArgScope().bias_before_batch_norm,
    "stride_place": STRIDE_PLACES[0],
    "avg_down": ArgScope().avg_down,
}


def slim_recipe(tensors: Mapping[str, Any]) -> Recipe:
    """What TF-Slim prepares images by: VGG's recipe for its ResNet v1, else Inception's."""
    return VGG if _has_classes(tensors, V1_NETWORKS, IMAGENET) else Recipe()


def _has_classes(tensors: Mapping[str, Any], networks: Iterable[str], count: int) -> bool:
    """Whether the tensors are those of one of the published networks, with so many classes."""
    biases = [tensors[name] for network in networks if (name := f"{network}/logits/biases") in tensors]
    return any(np.shape(tensor) == (count,) for tensor in biases)
