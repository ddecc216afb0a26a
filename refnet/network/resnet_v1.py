"""TF-Slim's ``resnet_v1.py``: the same functions under the same names.

Each takes symbolic tensors or NumPy arrays, as in `refnet.network.resnet_utils`.

Sources: tf_slim 1.1.0, ``tf_slim/nets/resnet_v1.py``; DeepLab's ``resnet_v1_beta.py`` for ``unit_rate``; for the other
options `refnet.network.resnet_utils`. He et al., "Deep Residual Learning for Image Recognition", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refnet.checks import check_positive
from refnet.graph.graph import Tensor
from refnet.network.eager import works_on_arrays
from refnet.network.resnet_utils import (
    Block,
    activation_and_normalizer,
    after_root,
    conv2d,
    conv2d_same,
    head,
    root_block,
    shortcut,
    stack_blocks_dense,
    with_multi_grid,
)
from refnet.network.resnet_v2 import NETWORKS as V2_NETWORKS
from refnet.network.resnet_v2 import resnet_v2_block


@works_on_arrays
def bottleneck(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    scope: str = "bottleneck_v1",
    unit_rate: int = 1,
) -> Tensor:
    """The bottleneck unit with the batch norm after the convolutions (``resnet_v1.bottleneck``).

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    depth : int
        Channels of the output. Where it equals C the shortcut is the input itself, subsampled.
    depth_bottleneck : int
        Channels of the two convolutions inside.
    stride : int
        Of the 3x3 convolution and the shortcut.
    rate : int
        Of the 3x3 convolution.
    scope : str
    unit_rate : int
        The unit's own factor of that rate, as DeepLab has it.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), depth]
    """
    check_positive(depth=depth, depth_bottleneck=depth_bottleneck, stride=stride, rate=rate, unit_rate=unit_rate)
    graph = inputs.graph
    activation_fn, normalizer_fn = activation_and_normalizer(graph)
    with graph.variable_scope(scope) as name:
        identity = shortcut(inputs, inputs, depth, stride, normalizer_fn)
        residual = conv2d(inputs, depth_bottleneck, 1, 1, 1, "conv1", True, activation_fn, normalizer_fn)
        graph.collect(f"{name}/conv1", residual)
        residual = conv2d_same(
            residual, depth_bottleneck, 3, stride, rate * unit_rate, "conv2",
            activation_fn=activation_fn, normalizer_fn=normalizer_fn,
        )  # fmt: skip
        graph.collect(f"{name}/conv2", residual)
        residual = conv2d(residual, depth, 1, 1, 1, "conv3", True, None, normalizer_fn)
        graph.collect(f"{name}/conv3", residual)
        return graph.collect(name, graph.relu(graph.add(identity, residual)))


def resnet_v1_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units of which the last one strides (``resnet_v1.resnet_v1_block``).

    Parameters
    ----------
    scope, base_depth, num_units, stride
        As for `refnet.network.resnet_v2.resnet_v2_block`.
    """
    return resnet_v2_block(scope, base_depth, num_units, stride)._replace(unit_fn=bottleneck)


@works_on_arrays
def resnet_v1(
    inputs: Tensor,
    blocks: Sequence[Block],
    num_classes: int | None = None,
    *,
    global_pool: bool = True,
    output_stride: float | None = None,
    include_root_block: bool = True,
    spatial_squeeze: bool | None = None,
    store_non_strided_activations: bool = False,
    multi_grid: Sequence[int] | None = None,
    root_depths: Sequence[int] | None = None,
    scope: str = "resnet_v1",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole network (``resnet_v1.resnet_v1``).

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
        Normalised images; without the root block, the output of another network.
    blocks, num_classes, global_pool, output_stride, include_root_block, spatial_squeeze, \
    store_non_strided_activations, multi_grid, root_depths, scope
        As for `refnet.network.resnet_v2.resnet_v2`.

    Returns
    -------
    net : Tensor or array
        Logits, or without classes the features after the last block.
    end_points : dict
        TF-Slim's end points in its order, and between them those that it lacks: ``pool1``, ``pool5``, ``global_pool``.

    Raises
    ------
    ConfigError
        The options break one of TF-Slim's rules.
    """
    graph = inputs.graph
    if multi_grid is not None:
        blocks = with_multi_grid(blocks, multi_grid)
    with graph.variable_scope(scope):
        net = inputs
        if include_root_block:
            output_stride = after_root(output_stride)
            net = root_block(net, root_depths, activate=True)
        net = stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations)
        net = head(net, num_classes, global_pool, spatial_squeeze)
    return net, graph.end_points


#: Base depth, units and stride of each block: the same as the second version's.
NETWORKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    name.replace("v2", "v1"): blocks for name, blocks in V2_NETWORKS.items()
}


def network_blocks(name: str) -> list[Block]:
    """The blocks of "resnet_v1_50", "resnet_v1_101", "resnet_v1_152" or "resnet_v1_200"."""
    return [resnet_v1_block(f"block{i + 1}", *block) for i, block in enumerate(NETWORKS[name])]


def resnet_v1_50(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_50", **options: Any) -> Any:
    """ResNet-50 of `resnet_v1`, with its arguments (``resnet_v1.resnet_v1_50``)."""
    return resnet_v1(inputs, network_blocks("resnet_v1_50"), num_classes, scope=scope, **options)


def resnet_v1_101(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_101", **options: Any) -> Any:
    """ResNet-101 of `resnet_v1`, with its arguments (``resnet_v1.resnet_v1_101``)."""
    return resnet_v1(inputs, network_blocks("resnet_v1_101"), num_classes, scope=scope, **options)


def resnet_v1_152(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_152", **options: Any) -> Any:
    """ResNet-152 of `resnet_v1`, with its arguments (``resnet_v1.resnet_v1_152``)."""
    return resnet_v1(inputs, network_blocks("resnet_v1_152"), num_classes, scope=scope, **options)


def resnet_v1_200(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_200", **options: Any) -> Any:
    """ResNet-200 of `resnet_v1`, with its arguments (``resnet_v1.resnet_v1_200``)."""
    return resnet_v1(inputs, network_blocks("resnet_v1_200"), num_classes, scope=scope, **options)
