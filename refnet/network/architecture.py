"""The architecture of a network, read from the names and shapes of its variables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import check_choice, listed
from refnet.errors import ConfigError, MissingTensorError, ShapeMismatchError, WeightsError
from refnet.graph.graph import ArgScope, Graph, Tensor
from refnet.network.names import NUMBER, natural
from refnet.network.networks import BY_UNIT, Family, family_of
from refnet.network.resnet_utils import Block
from refnet.network.shapes import check_ranks


class Architecture(NamedTuple):
    """What the names and shapes of a network's variables show about it.

    Attributes
    ----------
    scope : str
        The prefix of every name.
    blocks : list of Block
        Widths and units by the shapes; strides as in `infer_architecture`.
    num_classes : int or None
        None if there are no logits.
    include_root_block : bool
    channels : int
        Channels of the input.
    root_depths : tuple of int or None
        See `refnet.network.resnet_v2.resnet_v2`.
    """

    scope: str
    blocks: list[Block]
    num_classes: int | None
    include_root_block: bool
    channels: int
    root_depths: tuple[int, ...] | None = None

    def __repr__(self) -> str:
        units = sum(len(block.args) for block in self.blocks)
        head = "no logits" if self.num_classes is None else f"{self.num_classes} classes"
        return f"<Architecture of {self.scope}: {units} units in {len(self.blocks)} blocks, {head}>"

    @property
    def family(self) -> Family:
        """The family of its units."""
        return family_of(self.blocks)

    def trace(
        self,
        variables: Mapping[str, Any],
        shape: tuple[int, ...],
        arg_scope: ArgScope | None = None,
        make: Callable[[Mapping[str, Any], ArgScope | None], Graph] = Graph,
        **options: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The network as operations.

        Parameters
        ----------
        variables : mapping of str to array
            The graph records which are missing or have another shape: `refnet.graph.Graph.check_variables`.
        shape : tuple of int
            Shape of the images, [N, H, W, C].
        arg_scope : ArgScope, optional
        make : callable
            Makes the graph to which the network's functions add their operations.
        **options
            As for `refnet.network.resnet_v2.resnet_v2`.

        Returns
        -------
        net : Tensor
        end_points : dict of str to Tensor
            In network order.
        """
        graph = make(variables, arg_scope)
        own = {"include_root_block": self.include_root_block, "root_depths": self.root_depths, "scope": self.scope}
        traced: tuple[Tensor, dict[str, Tensor]] = self.family.network(
            graph.placeholder(shape), self.blocks, self.num_classes, **(own | options)
        )
        return traced

    def graph(self, variables: Mapping[str, Any], arg_scope: ArgScope | None = None) -> Graph:
        """The graph of the network for a small image; it records which variables are missing.

        Parameters
        ----------
        variables : mapping of str to array
        arg_scope : ArgScope, optional

        Returns
        -------
        Graph
        """
        net, _ = self.trace(variables, (1, 32, 32, self.channels), arg_scope)
        return net.graph

    def variables(self, arg_scope: ArgScope | None = None) -> list[tuple[str, tuple[int, ...]]]:
        """Names and shapes of all its variables.

        Parameters
        ----------
        arg_scope : ArgScope, optional

        Returns
        -------
        list of (str, tuple of int)
            In network order.
        """
        # All the variables that a graph without any is missing.
        return self.graph({}, arg_scope).missing


#: Which unit of a block strides, and where in it.
STRIDE_PLACES = ("last_unit", "first_unit", "first_conv")

_UNIT = re.compile(
    f"(?:(?P<scope>.+)/)?(?P<block>[^/]+)/unit_(?P<unit>{NUMBER})/(?P<kind>{'|'.join(BY_UNIT)})/", re.DOTALL
)


def scopes_of(names: Iterable[str]) -> list[str]:
    """The scopes of the networks among some names.

    Parameters
    ----------
    names : iterable of str

    Returns
    -------
    list of str
        Sorted; "" for a network whose names have no prefix.
    """
    return sorted({match["scope"] or "" for match in map(_UNIT.match, names) if match})


def infer_architecture(
    variables: Mapping[str, Any], scope: str | None = None, stride_place: str | None = None
) -> Architecture:
    """Read scope, blocks, classes and root block from the names and shapes of the variables.

    Parameters
    ----------
    variables : mapping of str to array
    scope : str, optional
        Which network to read, if the mapping holds several.
    stride_place : {"last_unit", "first_unit", "first_conv"}, optional
        "last_unit" is TF-Slim's rule: the last unit of each block except the last block strides by 2. "first_unit" is
        timm's: the first unit of each block except the first block does, in its 3x3 convolution. "first_conv" is He et
        al.'s own: that unit strides in its first convolution. None: TF-Slim's.

    Returns
    -------
    Architecture

    Raises
    ------
    MissingTensorError
        There is no ResNet among the variables, and the message lists some of their names; or a kernel is missing.
    ShapeMismatchError
        Kernels do not have four dimensions, or other variables one; a size is 0; or a kernel is OIHW.
    ConfigError
        There are several networks, and ``scope`` does not choose one; or there is no such ``stride_place``.
    WeightsError
        Some units are of v1, others of v2; or some are bottlenecks, others are not.
    """
    place = STRIDE_PLACES[0] if stride_place is None else stride_place
    check_choice("stride_place", place, STRIDE_PLACES)
    units: dict[tuple[str, str], dict[str, int]] = {}
    for match in filter(None, map(_UNIT.match, variables)):
        if scope is None or (match["scope"] or "") == scope:
            blocks = units.setdefault((match["scope"] or "", match["kind"]), {})
            blocks[match["block"]] = max(blocks.get(match["block"], 1), int(match["unit"]))
    if not units:
        names = listed(sorted(variables)) or "none"
        raise MissingTensorError(
            f"These are not the weights of a ResNet: no tensor is named .../unit_1/{'/... or '.join(BY_UNIT)}. "
            f"There are {len(variables)} tensors: {names}."
        )
    scopes = sorted({found for found, _ in units})
    if len(scopes) > 1:
        raise ConfigError(f"The weights hold several networks; scope= can be {listed(map(repr, scopes))}.")
    if len(units) > 1:
        kinds = sorted(kind for _, kind in units)
        what = "both versions" if len({BY_UNIT[kind].name for kind in kinds}) > 1 else "two kinds"
        raise WeightsError(f"The weights hold units of {what} below {scopes[0]!r}: {', '.join(kinds)}.")
    (found_scope, kind), blocks = next(iter(units.items()))
    check_ranks(variables, found_scope)
    return _architecture(found_scope, kind, blocks, variables, place)


def _architecture(
    scope: str, kind: str, units: Mapping[str, int], variables: Mapping[str, Any], stride_place: str
) -> Architecture:
    """The architecture whose blocks have these numbers of units of a kind."""

    def full(place: str) -> str:
        return f"{scope}/{place}/weights" if scope else f"{place}/weights"

    def kernel(place: str, size: int = 1) -> tuple[int, ...]:
        return _kernel_shape(variables, full(place), size)

    names = sorted(units, key=natural)
    family = BY_UNIT[kind]
    size = family.kernel_sizes[0]
    result = []
    for name in names:
        args: list[dict[str, int]] = []
        for unit in range(1, units[name] + 1):
            first, last = (kernel(f"{name}/unit_{unit}/{kind}/{leaf}", size) for leaf in ("conv1", family.last))
            args.append({"depth": last[3], "depth_bottleneck": first[3], "stride": 1})
        if stride_place == "last_unit":
            args[-1]["stride"] = 1 if name == names[-1] else 2
        elif name != names[0]:
            args[0]["stride"] = 2
            if stride_place == "first_conv" and size == 1:
                args[0]["stride_in_1x1"] = True
        result.append(Block(name, family.unit, args))
    deep: list[tuple[int, ...]] = []
    while full(f"conv1_{len(deep) + 1}") in variables:
        deep.append(kernel(f"conv1_{len(deep) + 1}"))
    root = full("conv1") in variables
    first = kernel("conv1") if root else deep[0] if deep else kernel(f"{names[0]}/unit_1/{kind}/conv1", size)
    return Architecture(
        scope,
        result,
        kernel("logits")[3] if full("logits") in variables else None,
        include_root_block=root or bool(deep),
        channels=first[2],
        root_depths=None if root or not deep else tuple(shape[3] for shape in deep),
    )


def _kernel_shape(variables: Mapping[str, Any], name: str, size: int) -> tuple[int, ...]:
    if name not in variables:
        raise MissingTensorError(f"{name} is missing.", tensor=name)
    found: tuple[int, ...] = np.shape(variables[name])
    if found[:2] != (size, size) and found[2:] == (size, size):
        message = f"{name} has shape {found}, which is that of an OIHW kernel; transpose the kernels to HWIO."
        raise ShapeMismatchError(message, tensor=name, found=found)
    return found
