"""Both versions of the network: the published ones by name, and the version to which blocks belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from refnet.errors import ConfigError
from refnet.network.resnet_utils import Block
from refnet.network.resnet_v1 import NETWORKS as V1_NETWORKS
from refnet.network.resnet_v1 import bottleneck as bottleneck_v1
from refnet.network.resnet_v1 import network_blocks as v1_blocks
from refnet.network.resnet_v1 import resnet_v1
from refnet.network.resnet_v2 import NETWORKS as V2_NETWORKS
from refnet.network.resnet_v2 import bottleneck, resnet_v2
from refnet.network.resnet_v2 import network_blocks as v2_blocks

#: Base depth, units and stride of each block of the published networks.
NETWORKS = {**V2_NETWORKS, **V1_NETWORKS}
#: The unit of each version, by the name that stands before its variables.
UNITS: dict[str, Callable[..., Any]] = {"bottleneck_v1": bottleneck_v1, "bottleneck_v2": bottleneck}


def network_blocks(name: str) -> list[Block]:
    """The blocks of a published network, "resnet_v2_50" or another one of `NETWORKS`.

    Raises
    ------
    ConfigError
        There is no network of that name.
    """
    if name not in NETWORKS:
        raise ConfigError(f"There is no network {name!r}; there are {', '.join(NETWORKS)}.", found=name)
    return v1_blocks(name) if name in V1_NETWORKS else v2_blocks(name)


def network_name(units: tuple[int, ...], version: int = 2) -> str:
    """The published network whose blocks have these numbers of units; else "resnet_v2" or "resnet_v1"."""
    networks = V1_NETWORKS if version == 1 else V2_NETWORKS
    known = {tuple(block[1] for block in blocks): name for name, blocks in networks.items()}
    return known.get(units, f"resnet_v{version}")


def resnet_of(blocks: Sequence[Block]) -> Callable[..., Any]:
    """`resnet_v1` where the first unit is its bottleneck, else `resnet_v2`."""
    return resnet_v1 if blocks and blocks[0].unit_fn is bottleneck_v1 else resnet_v2
