"""The families of networks: one record per version of the ResNet, from which all else that depends on it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from refnet.errors import ConfigError
from refnet.images.preprocess import VGG, Recipe
from refnet.network import resnet_v1, resnet_v2
from refnet.network.resnet_utils import Block


class Family(NamedTuple):
    """The networks that are built from one kind of unit.

    Attributes
    ----------
    name : str
        Of the function that makes the network; the scope of networks that are not published ones.
    title : str
        For sentences.
    unit_name : str
        What stands before the variables of a unit: ``block1/unit_1/<unit_name>/conv1/weights``.
    unit : callable
        The function that makes a unit.
    network : callable
        The function that makes the network.
    block : callable
        The function that makes a block of units.
    published : mapping of str to tuple of (int, int, int)
        Base depth, units and stride of each block of the published networks.
    num_classes : int
        Of the checkpoints that TF-Slim released.
    recipe : Recipe
        How TF-Slim prepares the images for those checkpoints.
    """

    name: str
    title: str
    unit_name: str
    unit: Callable[..., Any]
    network: Callable[..., Any]
    block: Callable[..., Block]
    published: Mapping[str, tuple[tuple[int, int, int], ...]]
    num_classes: int
    recipe: Recipe


#: The first is what is meant where nothing says which.
FAMILIES = (
    Family(
        "resnet_v2", "ResNet v2", "bottleneck_v2",
        resnet_v2.bottleneck, resnet_v2.resnet_v2, resnet_v2.resnet_v2_block, resnet_v2.NETWORKS, 1001, Recipe(),
    ),
    Family(
        "resnet_v1", "ResNet v1", "bottleneck_v1",
        resnet_v1.bottleneck, resnet_v1.resnet_v1, resnet_v1.resnet_v1_block, resnet_v1.NETWORKS, 1000, VGG,
    ),
)  # fmt: skip
_BY_NAME = {family.name: family for family in FAMILIES}
#: By the name that stands before the variables of a unit.
BY_UNIT = {family.unit_name: family for family in FAMILIES}
#: Base depth, units and stride of each block of the published networks.
NETWORKS = {name: blocks for family in FAMILIES for name, blocks in family.published.items()}


def family_of(blocks: Sequence[Block]) -> Family:
    """The family of the first unit; of no units, and of units of the caller's own, the first family."""
    return next((family for family in FAMILIES if blocks and blocks[0].unit_fn is family.unit), FAMILIES[0])


def family_named(name: str) -> Family:
    """The family of this name, "resnet_v2" or "resnet_v1"."""
    return _BY_NAME[name]


def network_blocks(name: str) -> list[Block]:
    """The blocks of a published network, "resnet_v2_50" or another one of `NETWORKS`.

    Raises
    ------
    ConfigError
        There is no network of that name.
    """
    for family in FAMILIES:
        if name in family.published:
            return [family.block(f"block{i + 1}", *sizes) for i, sizes in enumerate(family.published[name])]
    raise ConfigError(f"There is no network {name!r}; there are {', '.join(NETWORKS)}.", found=name)


def network_name(units: tuple[int, ...], family: Family) -> str:
    """The published network of a family whose blocks have so many units; of others, the family's name."""
    known = {tuple(block[1] for block in blocks): name for name, blocks in family.published.items()}
    return known.get(units, family.name)
