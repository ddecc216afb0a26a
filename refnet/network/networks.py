"""The families of networks: one record per version of the ResNet, which holds all that depends on the version."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from refnet.checks import shown
from refnet.errors import ConfigError
from refnet.images.preprocess import VGG, Recipe
from refnet.network import resnet_v1, resnet_v2
from refnet.network.resnet_utils import Block


class Family(NamedTuple):
    """The networks that are built from one kind of unit.

    Attributes
    ----------
    name : str
        The name of the function that makes the network; also the scope of networks that are not published.
    title : str
        Its name in messages.
    unit_name : str
        The part before the names of a unit's variables: ``block1/unit_1/<unit_name>/conv1/weights``.
    unit : callable
        The function that makes a unit.
    network : callable
        The function that makes the network.
    blocks : callable
        The function that makes the blocks of a published network, by its name.
    published : mapping of str to tuple of (int, int, int)
        Base depth, units and stride of each block of the published networks.
    num_classes : int or None
        Number of classes of the checkpoints that TF-Slim released; None: it released none.
    recipe : Recipe
        How TF-Slim prepares the images for those checkpoints.
    kernel_sizes : tuple of int
        Kernel sizes of a unit's convolutions, ``conv1`` and so on.
    """

    name: str
    title: str
    unit_name: str
    unit: Callable[..., Any]
    network: Callable[..., Any]
    blocks: Callable[[str], list[Block]]
    published: Mapping[str, tuple[tuple[int, int, int], ...]]
    num_classes: int | None
    recipe: Recipe
    kernel_sizes: tuple[int, ...] = (1, 3, 1)

    @property
    def last(self) -> str:
        """The name of a unit's last convolution."""
        return f"conv{len(self.kernel_sizes)}"

    @property
    def basic(self) -> Family:
        """The family of the same version whose units have two convolutions."""
        return BY_UNIT[self.unit_name.replace("bottleneck", "basic")]


#: The first one is the default.
FAMILIES = (
    Family(
        "resnet_v2", "ResNet v2", "bottleneck_v2",
        resnet_v2.bottleneck, resnet_v2.resnet_v2, resnet_v2.network_blocks, resnet_v2.NETWORKS, 1001, Recipe(),
    ),
    Family(
        "resnet_v1", "ResNet v1", "bottleneck_v1",
        resnet_v1.bottleneck, resnet_v1.resnet_v1, resnet_v1.network_blocks, resnet_v1.NETWORKS, 1000, VGG,
    ),
    Family(
        "resnet_v2", "ResNet v2", "basic_v2",
        resnet_v2.basic, resnet_v2.resnet_v2, resnet_v2.network_blocks, resnet_v2.BASIC_NETWORKS, None, Recipe(),
        (3, 3),
    ),
    Family(
        "resnet_v1", "ResNet v1", "basic_v1",
        resnet_v1.basic, resnet_v1.resnet_v1, resnet_v1.network_blocks, resnet_v1.BASIC_NETWORKS, None, VGG,
        (3, 3),
    ),
)  # fmt: skip
#: By `Family.unit_name`.
BY_UNIT = {family.unit_name: family for family in FAMILIES}
#: Base depth, units and stride of each block of the published networks.
NETWORKS = {name: blocks for family in FAMILIES for name, blocks in family.published.items()}


def family_of(blocks: Sequence[Block]) -> Family:
    """The family of a network's units.

    Parameters
    ----------
    blocks : sequence of Block

    Returns
    -------
    Family
        That of the first unit; without units, or with units of the caller's own, the default family.
    """
    return next((family for family in FAMILIES if blocks and blocks[0].unit_fn is family.unit), FAMILIES[0])


def family_named(name: str) -> Family:
    """The family of bottleneck units of a name.

    Parameters
    ----------
    name : {"resnet_v2", "resnet_v1"}

    Returns
    -------
    Family
    """
    return next(family for family in FAMILIES if family.name == name)


def network_blocks(name: str) -> list[Block]:
    """The blocks of a published network.

    Parameters
    ----------
    name : str
        "resnet_v2_50", or another one of `NETWORKS`.

    Returns
    -------
    list of Block

    Raises
    ------
    ConfigError
        There is no network of that name.
    """
    for family in FAMILIES:
        if name in family.published:
            return family.blocks(name)
    raise ConfigError(f"There is no network {shown(name)}; there are {', '.join(NETWORKS)}.", found=name)


def network_name(units: tuple[int, ...], family: Family) -> str:
    """The name of a network, by the numbers of its units.

    Parameters
    ----------
    units : tuple of int
        Units of each block.
    family : Family

    Returns
    -------
    str
        The published network with these units; if there is none, the family's name.
    """
    known = {tuple(block[1] for block in blocks): name for name, blocks in family.published.items()}
    return known.get(units, family.name)
