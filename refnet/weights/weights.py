"""The weights of a network under TF-Slim's names, and what else their file holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from refnet.checks import check_bool, check_mapping, check_text, labels_of, listed, shown
from refnet.errors import ConfigError, ImmutableError
from refnet.graph.graph import ArgScope
from refnet.images.preprocess import Recipe, check_recipe
from refnet.network.architecture import Architecture, infer_architecture, scopes_of
from refnet.network.networks import FAMILIES, Family
from refnet.network.options import SLIM_OPTIONS, check_slim_options
from refnet.resources import for_weights
from refnet.run.variables import as_variables
from refnet.tables import html_table
from refnet.weights.conversion import Conversion
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.forks import making

if TYPE_CHECKING:
    from refnet.weights.interpretation import Interpretation


#: Characters of the source that the weights' one line shows.
_SHOWN_SOURCE = 80

#: Where a recipe comes from that the caller gave.
GIVEN = "recipe="


class Weights(Mapping[str, Float32Array]):
    """A read-only mapping of TF-Slim's variable names to float32 arrays, with what else their file holds.

    `replace` returns weights with something changed. Two `Weights` are equal only if they are the same object.

    Parameters
    ----------
    tensors : mapping of str to array
        By TF-Slim's names, or by those of another framework: a state dict of PyTorch, for instance.
    scope : str, optional
        As for `refnet.load_weights`; None: all that the mapping holds.
    recipe, labels, options, source, conversion
        See the attributes.
    copy : bool
        False: keep the arrays themselves, and make them read-only.

    Attributes
    ----------
    recipe : Recipe
        How raw uint8 pixels become the network's input; if it was not given, TF-Slim's for these names.
    image_size : tuple of int or None, or None
        Height and width of the images that the weights classify best; None if no recipe was given.
    labels : tuple of str or None
        A name for each class.
    options : mapping of str to Any
        The options of `refnet.Engine` with which the network was trained, where they are not TF-Slim's:
        ``batch_norm_epsilon``, ``pool_mode``, ``bias_before_batch_norm``, ``stride_place``, ``avg_down``.
    source : str
        Where the weights come from: the format of their file, for instance.
    conversion : Conversion
        What was converted, renamed or left out; ``notes`` has the same in sentences.

    Raises
    ------
    WeightsError, DtypeError
        A name is not a string, a value is not an array, or a tensor of the network does not hold floats.
    ConfigError
        An option does not belong to weights, or has a value that it cannot have; or ``recipe`` or ``labels`` has.

    Examples
    --------
    >>> import refnet
    >>> weights = refnet.load_weights("digits.ckpt")
    >>> weights["resnet_v2_digits/logits/biases"].shape, weights.labels[3]
    ((10,), '3')
    >>> weights.architecture
    <Architecture of resnet_v2_digits: 6 units in 3 blocks, 10 classes>
    >>> weights.arg_scope.batch_norm_epsilon, weights.changes, weights.notes
    (1e-05, {}, [])
    """

    recipe: Recipe
    image_size: tuple[int | None, int | None] | None
    labels: tuple[str, ...] | None
    options: Mapping[str, Any]
    source: str
    conversion: Conversion
    _tensors: dict[str, Float32Array]

    @for_weights
    def __init__(
        self,
        tensors: Mapping[str, Any],
        *,
        scope: str | None = None,
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        source: str = "arrays",
        conversion: Conversion | None = None,
        copy: bool = True,
    ) -> None:
        check_bool(copy=copy)
        check_text(source=source)
        interpretation = _interpreted(tensors, scope)
        if interpretation is not None:
            tensors, conversion = interpretation.tensors, interpretation.conversion
            if recipe is None:
                recipe = interpretation.recipe
            else:
                conversion = replace(conversion, recipe_from=GIVEN)
            options = {**interpretation.options, **(options or {})}
        recipe = None if recipe is None else check_recipe(recipe)
        arrays, converted, left_out = as_variables(tensors, bool(copy))
        found = Conversion() if conversion is None else _conversion(conversion)
        found = replace(found, converted=found.converted | converted, left_out=found.left_out | left_out)
        self._set(
            _tensors=arrays,
            recipe=slim_recipe(arrays) if recipe is None else recipe,
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
        """The same weights with another recipe, other labels or other options; the arrays are shared.

        Parameters
        ----------
        recipe : Recipe, optional
            ``image_size`` stays as it is: the weights still classify images of that size best.
        labels : sequence of str, optional
        options : mapping of str to Any, optional
            They replace all the options.
        conversion : Conversion, optional

        Returns
        -------
        Weights

        Raises
        ------
        ConfigError
            As for the class.

        Examples
        --------
        >>> import refnet
        >>> weights = refnet.load_weights("digits.ckpt")
        >>> larger = weights.replace(recipe=weights.recipe._replace(height=64, width=64))
        >>> larger.recipe.height, larger.image_size, weights.recipe.height
        (64, (32, 32), 32)
        """
        changes: dict[str, Any] = {}
        if recipe is not None:
            changes |= {"recipe": check_recipe(recipe), "conversion": replace(self.conversion, recipe_from=GIVEN)}
        if labels is not None:
            changes["labels"] = _labels(labels)
        if options is not None:
            changes["options"] = _options(options)
        if conversion is not None:
            changes["conversion"] = _conversion(conversion)
        made = _remade(self._state | changes)
        if made.options.get("stride_place") == self.options.get("stride_place"):
            made._set(_architecture=self.__dict__.get("_architecture"))
        return made

    def __getitem__(self, name: str) -> Float32Array:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    # Nobody expects "==" to compare all the arrays.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise ImmutableError(f"Weights cannot be changed; make others with weights.replace({name}=...).")

    def __delattr__(self, name: str) -> NoReturn:
        raise ImmutableError(f"Weights cannot be changed, so {name} cannot be deleted.")

    def __reduce__(self) -> Any:
        return _remade, ({**self._state, "options": dict(self.options)},)

    @property
    def _state(self) -> dict[str, Any]:
        """All attributes except those derived from others."""
        return {name: self.__dict__[name] for name in Weights.__annotations__}

    def _set(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    @property
    def architecture(self) -> Architecture:
        """The network's architecture, read from the names and shapes.

        Raises
        ------
        MissingTensorError, ConfigError, WeightsError
            As `refnet.network.architecture.infer_architecture` raises them.
        """
        # Before Python 3.12 a cached_property has a lock, which could be held for ever in the child of a fork.
        found: Architecture | None = self.__dict__.get("_architecture")
        if found is None:
            found = infer_architecture(self, stride_place=self.options.get("stride_place"))
            self._set(_architecture=found)
        return found

    @property
    def arg_scope(self) -> ArgScope:
        """The options with which the graph is made."""
        return ArgScope(**{name: value for name, value in self.options.items() if name in ArgScope._fields})

    @property
    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The options that differ from TF-Slim's: for each its value and TF-Slim's."""
        return {
            name: (value, SLIM_OPTIONS[name]) for name, value in self.options.items() if value != SLIM_OPTIONS[name]
        }

    @property
    def notes(self) -> list[str]:
        """What was converted, renamed or left out, in sentences."""
        return self.conversion.notes

    def __repr__(self) -> str:
        parameters = sum(tensor.size for tensor in self._tensors.values())
        return f"<Weights from {self.source[:_SHOWN_SOURCE]}: {len(self)} tensors, {parameters:,} parameters>"

    def _repr_html_(self) -> str:
        rows = [[name, list(tensor.shape), tensor.size] for name, tensor in self._tensors.items()]
        return html_table(repr(self)[1:-1], ["tensor", "shape", "parameters"], rows)


def _interpreted(tensors: Any, scope: str | None) -> Interpretation | None:
    """The network in a mapping by another framework's names, or the one below a scope; None: the mapping as it is."""
    if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
        return None
    if scope is None and (scopes_of(tensors) or not any("." in name or "/" in name for name in tensors)):
        return None
    with making:
        from refnet.weights.interpretation import interpret_arrays

    return interpret_arrays(tensors, scope)


def _remade(state: Mapping[str, Any]) -> Weights:
    """Weights with these attributes. A pickle forgets that the arrays are read-only."""
    for array in state["_tensors"].values():
        array.flags.writeable = False
    weights = object.__new__(Weights)
    weights._set(**{**state, "options": MappingProxyType(dict(state["options"]))})
    return weights


def _labels(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if labels is None else labels_of(labels)


def _conversion(conversion: object) -> Conversion:
    if not isinstance(conversion, Conversion):
        raise ConfigError(f"conversion is {shown(conversion)}; it is the conversion of other weights.")
    return conversion


def _options(options: Mapping[str, Any] | None) -> Mapping[str, Any]:
    options = {} if options is None else options
    check_mapping(options=options)
    unknown = sorted(map(str, set(options) - set(SLIM_OPTIONS)))
    if unknown:
        raise ConfigError(
            f"Weights cannot have these options: {listed(unknown)}; they can have {', '.join(SLIM_OPTIONS)}.",
            found=unknown,
        )
    check_slim_options(options)
    # Files hold these types alone.
    return MappingProxyType({name: type(SLIM_OPTIONS[name])(value) for name, value in options.items()})


def slim_recipe(tensors: Mapping[str, Any]) -> Recipe:
    """TF-Slim's recipe for images.

    Parameters
    ----------
    tensors : mapping of str to array

    Returns
    -------
    Recipe
        That of the released checkpoints with these names and classes; for other tensors, the first family's.
    """
    family = released_family(tensors)
    return (family or FAMILIES[0]).recipe


def released_family(tensors: Mapping[str, Any]) -> Family | None:
    """The family of a checkpoint that TF-Slim released.

    Parameters
    ----------
    tensors : mapping of str to array

    Returns
    -------
    Family or None
        None if the names and classes are not those of a released checkpoint.
    """
    for family in FAMILIES:
        biases = [tensors[name] for network in family.published if (name := f"{network}/logits/biases") in tensors]
        if any(np.shape(tensor) == (family.num_classes,) for tensor in biases):
            return family
    return None
