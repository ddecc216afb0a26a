"""What the state dicts of PyTorch's ResNets have in common: names with dots, and kernels in OIHW."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from refnet.errors import MissingTensorError
from refnet.images.preprocess import Recipe
from refnet.network.networks import Family, network_name
from refnet.network.shapes import hwio
from refnet.weights.conversion import Moments
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named, missing_biases, names_by_slim
from refnet_kernels.system.forks import making

_OF_CONVOLUTION = {"weight": "weights", "bias": "biases"}
_OF_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def grouped(norms: Mapping[str, str]) -> dict[str, str]:
    """TF-Slim's names of norms, where those of the convolutions are group norms.

    Parameters
    ----------
    norms : mapping of str to str
        As in `StateDict`.

    Returns
    -------
    dict of str to str
    """
    return {layer: slim.replace("/BatchNorm", "/GroupNorm") for layer, slim in norms.items()}


def below_scope(unit: re.Pattern[str]) -> re.Pattern[str]:
    """The pattern of a unit's tensor below any scope, as `Home.unit`.

    Parameters
    ----------
    unit : re.Pattern
        Matches the names of a unit's tensors from their start.

    Returns
    -------
    re.Pattern
    """
    # As few components as possible: the names of a unit do not contain a unit.
    return re.compile(r"^(?P<scope>(?:[^./]+\.)*?)" + unit.pattern)


class StateDict(NamedTuple):
    """A library: its names for what TF-Slim calls ``blockB/unit_U/...``, and how its network differs from TF-Slim's.

    Attributes
    ----------
    title : str
        The name of the library's networks in messages.
    known : str
        The networks among them that refnet has.
    family : Family
        Of the networks with bottleneck units. Without a third convolution the units are basic ones.
    unit : re.Pattern
        The name of a unit's tensor: ``block``, ``unit``, ``layer`` and ``role``.
    first_block : int
        The number of the first block.
    convolutions, norms : dict of str to str
        TF-Slim's names for the layers of a unit.
    end_convolutions, end_norms : dict of str to str
        TF-Slim's names for the layers outside the units.
    variants : dict of str to str
        What refnet does not have, by a pattern that only the names in such networks match.
    unlike : callable
        Lists other differences between the tensors and the networks that refnet has.
    options : callable
        Gives the options, as in `refnet.Weights`, from the tensors' names.
    recipe : Recipe
        How the library prepares images, where no file says it.
    remark : str
        What else differs in the library, or "".
    biased : re.Pattern, optional
        Matches TF-Slim's names of kernels that have biases in TF-Slim but not in the library: ``layer``. The biases
        become zeros.
    first_unit : int
        The number of a block's first unit.
    resize_sides : dict of str to int
        The ``resize_side`` of the recipe, by the network's name, where the library has another one for it.
    untold : str
        What the tensors do not tell, or "".
    unsettled : str
        What the tensors do not tell, where the result is wrong if it is another network; or "".
    standardized : float, optional
        The epsilon with which all convolutions but the classifier standardise their kernels; None: they do not.
    adapted : callable, optional
        Gives the record for a file, from this one and the names of its tensors, where names depend on each other.
    by_tensors : callable, optional
        The same from its tensors, where they show another kind of norm.
    """

    title: str
    known: str
    family: Family
    unit: re.Pattern[str]
    first_block: int
    convolutions: Mapping[str, str]
    norms: Mapping[str, str]
    end_convolutions: Mapping[str, str]
    end_norms: Mapping[str, str]
    variants: Mapping[str, str]
    unlike: Callable[[Mapping[str, np.ndarray]], list[str]]
    options: Callable[[Iterable[str]], Mapping[str, Any]]
    recipe: Recipe
    remark: str = ""
    biased: re.Pattern[str] | None = None
    first_unit: int = 0
    resize_sides: Mapping[str, int] = MappingProxyType({})
    untold: str = ""
    unsettled: str = ""
    standardized: float | None = None
    adapted: Callable[[StateDict, Collection[str]], StateDict] | None = None
    by_tensors: Callable[[StateDict, Mapping[str, np.ndarray]], StateDict] | None = None

    def home(self) -> Home:
        """The row of `refnet.weights.homes.HOMES`.

        Returns
        -------
        Home
        """
        scoped = below_scope(self.unit)

        def fits(loaded: Loaded) -> bool:
            return any(map(scoped.match, loaded.tensors))

        return Home(self.title, fits, self._read, scoped, True, self._layers, [*self.convolutions, *self.norms])

    def _layers(self, layers: Collection[str]) -> Callable[[str], str | None]:
        """TF-Slim's names of layers, as `Home.layers` gives them."""
        tensors = {f"{layer}.weight" for layer in layers}
        home = self.adapted(self, tensors) if self.adapted else self
        family = home._family(tensors)

        def slim_layer(layer: str) -> str | None:
            slim = home._slim_name(f"{layer}.weight", family.name, family)
            return None if slim is None else slim.rpartition("/")[0]

        return slim_layer

    def _read(self, tensors: Mapping[str, np.ndarray]) -> Named:
        """Rename the tensors, put their axes in TF-Slim's order, and add the biases that the network lacks."""
        self._refuse_variants(tensors)
        home = self.adapted(self, tensors) if self.adapted else self
        home = home.by_tensors(home, tensors) if home.by_tensors else home
        return home._renamed(tensors, home._family(tensors))

    def _family(self, names: Iterable[str]) -> Family:
        """The family of the units."""
        layers = {match["layer"] for match in map(self.unit.match, names) if match}
        return self.family if any(self.convolutions.get(layer) == "conv3" for layer in layers) else self.family.basic

    def _renamed(self, tensors: Mapping[str, np.ndarray], family: Family) -> Named:
        scope = network_name(tuple(self._units(tensors)), family)
        names = names_by_slim(tensors, scope, lambda name: self._slim_name(name, scope, family))
        renamed = {slim: name for slim, name in names.items() if slim != name}
        result = {
            slim: hwio(tensors[name], outputs_first=True)
            if slim in renamed and slim.endswith("/weights")
            else tensors[name]
            for slim, name in names.items()
        }
        units = tuple({name[: match.start("layer")] for name in tensors if (match := self.unit.match(name))})
        inside = [name for slim, name in names.items() if slim == name and name.startswith(units)]
        remarks = [self.remark] if self.remark else []
        moments: Mapping[str, Moments] = {}
        if self.standardized is not None:
            with making:
                from refnet.weights.homes.standardize import standardized_kernels

            result, remark, moments = standardized_kernels(result, renamed, self.standardized)
            remarks.append(remark)
        biases = missing_biases(result, self.biased) if self.biased else {}
        recipe = self.recipe._replace(resize_side=self.resize_sides.get(scope, self.recipe.resize_side))
        options = self.options(tensors)
        named = Named(result | biases, renamed, options, recipe, list(biases), remarks, inside, self.untold)
        return named._replace(unsettled=self.unsettled, standardized=moments)

    def _refuse_variants(self, tensors: Mapping[str, np.ndarray]) -> None:
        found = [what for pattern, what in self.variants.items() if any(map(re.compile(pattern).search, tensors))]
        found += self.unlike(tensors)
        if found:
            raise MissingTensorError(
                f"These are the weights of a variant of {self.title} that refnet does not have, with "
                f"{', and with '.join(found)}. refnet has {self.known}.",
                found=found,
            )

    def _units(self, names: Iterable[str]) -> Iterator[int]:
        """How many units each block has."""
        counts: dict[int, int] = {}
        for match in filter(None, map(self.unit.match, names)):
            block = int(match["block"])
            counts[block] = max(counts.get(block, 0), int(match["unit"]) - self.first_unit + 1)
        return (counts[block] for block in sorted(counts))

    def _slim_name(self, name: str, scope: str, family: Family) -> str | None:
        """TF-Slim's name of a tensor, or None."""
        match = self.unit.match(name)
        if match:
            block, unit = int(match["block"]) - self.first_block + 1, int(match["unit"]) - self.first_unit + 1
            place = f"{scope}/block{block}/unit_{unit}/{family.unit_name}"
            layer, role, convolutions, norms = match["layer"], match["role"], self.convolutions, self.norms
        else:
            place, (layer, _, role) = scope, name.rpartition(".")
            convolutions, norms = self.end_convolutions, self.end_norms
        for layers, roles in ((convolutions, _OF_CONVOLUTION), (norms, _OF_NORM)):
            if layer in layers and role in roles:
                return f"{place}/{layers[layer]}/{roles[role]}"
        return None
