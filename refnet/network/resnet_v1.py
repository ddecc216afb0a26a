"""TF-Slim's ``resnet_v1.py``: the same functions under the same names.

In this version of ResNet batch norm comes *after* each convolution, and a ReLU after the sum of a unit.

Each function takes symbolic tensors or NumPy arrays, as in `refnet.network.resnet_utils`.

Sources: tf_slim 1.1.0, ``tf_slim/nets/resnet_v1.py``; DeepLab's ``resnet_v1_beta.py`` for ``unit_rate``; for the other
options `refnet.network.resnet_utils`. He et al., "Deep Residual Learning for Image Recognition", 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refnet.checks import check_bool, check_positive
from refnet.graph.graph import Tensor
from refnet.network.eager import works_on_arrays
from refnet.network.resnet_utils import (
    Block,
    Convolution,
    activation_and_normalizer,
    after_root,
    basic_convolutions,
    bottleneck_convolutions,
    head,
    residual,
    root_block,
    shortcut,
    stack_blocks_dense,
    with_multi_grid,
)
from refnet.network.resnet_v2 import BASIC_NETWORKS as V2_BASIC_NETWORKS
from refnet.network.resnet_v2 import NETWORKS as V2_NETWORKS
from refnet.network.resnet_v2 import resnet_v2_basic_block, resnet_v2_block
from refnet.signatures import keywords_of, shows


@works_on_arrays
def bottleneck(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    scope: str = "bottleneck_v1",
    unit_rate: int = 1,
    stride_in_1x1: bool = False,
    left_out: int = 1,
) -> Tensor:
    """The bottleneck unit with batch norm after the convolutions (``resnet_v1.bottleneck``).

    ``relu(shortcut + conv3(conv2(conv1(inputs))))``.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    depth, depth_bottleneck, stride, rate, scope, unit_rate, stride_in_1x1, left_out
        As for `refnet.network.resnet_v2.bottleneck`.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), depth]

    Examples
    --------
    >>> import numpy as np, refnet
    >>> from refnet.network.resnet_v1 import bottleneck
    >>> weights = refnet.random_weights([refnet.resnet_v1_block("block1", base_depth=4, num_units=2, stride=2)])
    >>> images = np.zeros((1, 9, 9, 64), np.float32)
    >>> unit = "resnet_v1/block1/unit_1/bottleneck_v1"
    >>> bottleneck(images, depth=16, depth_bottleneck=4, stride=2, scope=unit, variables=weights).shape
    (1, 5, 5, 16)
    """
    check_positive(rate=rate, unit_rate=unit_rate)
    convolutions = bottleneck_convolutions(depth, depth_bottleneck, stride, rate * unit_rate, stride_in_1x1, left_out)
    return _unit(inputs, convolutions, stride, scope)


@works_on_arrays
def basic(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    scope: str = "basic_v1",
    unit_rate: int = 1,
    left_out: int = 1,
) -> Tensor:
    """The basic unit with batch norm after the convolutions, of ResNet-18 and 34; TF-Slim does not have it.

    ``relu(shortcut + conv2(conv1(inputs)))``: two 3x3 convolutions, the first of which strides.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    depth, depth_bottleneck, stride, rate, scope, unit_rate, left_out
        As for `refnet.network.resnet_v2.basic`.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), depth]

    Examples
    --------
    >>> import numpy as np, refnet
    >>> from refnet.network.resnet_v1 import basic
    >>> weights = refnet.random_weights([refnet.resnet_v1_basic_block("block1", base_depth=4, num_units=2, stride=2)])
    >>> images = np.zeros((1, 9, 9, 64), np.float32)
    >>> unit = "resnet_v1/block1/unit_1/basic_v1"
    >>> basic(images, depth=4, depth_bottleneck=4, stride=2, scope=unit, variables=weights).shape
    (1, 5, 5, 4)
    """
    check_positive(rate=rate, unit_rate=unit_rate)
    convolutions = basic_convolutions(depth, depth_bottleneck, stride, rate * unit_rate, left_out)
    return _unit(inputs, convolutions, stride, scope)


def _unit(inputs: Tensor, convolutions: Sequence[Convolution], stride: int, scope: str) -> Tensor:
    graph = inputs.graph
    _, normalizer_fn = activation_and_normalizer(graph)
    with graph.variable_scope(scope) as name:
        identity = shortcut(inputs, inputs, convolutions[-1].num_outputs, stride, normalizer_fn)
        # The activation of the last convolution comes after the sum.
        total = graph.add(identity, residual(inputs, convolutions, normalizer_fn))
        return graph.collect(name, graph.relu(total))


def resnet_v1_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units, the last of which strides (``resnet_v1.resnet_v1_block``).

    Parameters
    ----------
    scope, base_depth, num_units, stride
        As for `refnet.network.resnet_v2.resnet_v2_block`, which also says why the last one strides.

    Returns
    -------
    Block

    Examples
    --------
    >>> import refnet
    >>> [unit["stride"] for unit in refnet.resnet_v1_block("block1", base_depth=64, num_units=3, stride=2).args]
    [1, 1, 2]
    """
    return resnet_v2_block(scope, base_depth, num_units, stride)._replace(unit_fn=bottleneck)


def resnet_v1_basic_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of basic units, the last of which strides.

    Parameters
    ----------
    scope, base_depth, num_units, stride
        As for `refnet.network.resnet_v2.resnet_v2_basic_block`.

    Returns
    -------
    Block

    Examples
    --------
    >>> import refnet
    >>> [unit["depth"] for unit in refnet.resnet_v1_basic_block("block1", base_depth=64, num_units=2, stride=2).args]
    [64, 64]
    """
    return resnet_v2_basic_block(scope, base_depth, num_units, stride)._replace(unit_fn=basic)


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

    There is no ``postnorm``, because each unit ends in a ReLU; conv1 has batch norm and activation, because no unit
    begins with them.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
        Normalised images; without the root block, the output of another network.
    blocks, num_classes, global_pool, output_stride, include_root_block, spatial_squeeze, \
    store_non_strided_activations, multi_grid, root_depths, scope
        As for `refnet.network.resnet_v2.resnet_v2`.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    net : Tensor or array
        Logits, or without classes the features after the last block; the shapes are those of
        `refnet.network.resnet_v2.resnet_v2`.
    end_points : dict
        TF-Slim's end points in its order, and between them others that it lacks: ``pool1``, ``pool5``, ``global_pool``;
        and ``input`` if the variables have a batch norm for the images.

    Raises
    ------
    ConfigError
        The options break one of TF-Slim's rules.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v1_block("block1", base_depth=4, num_units=2, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> net, end_points = refnet.resnet_v1(np.zeros((2, 33, 33, 3), np.float32), blocks, 10, variables=weights)
    >>> net.shape, end_points["resnet_v1/block1"].shape
    ((2, 10), (2, 9, 9, 16))
    """
    check_bool(include_root_block=include_root_block)
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
#: The same for the networks of basic units, which TF-Slim does not have.
BASIC_NETWORKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    name.replace("v2", "v1"): blocks for name, blocks in V2_BASIC_NETWORKS.items()
}


def network_blocks(name: str) -> list[Block]:
    """The blocks of a published network.

    Parameters
    ----------
    name : {"resnet_v1_50", "resnet_v1_101", "resnet_v1_152", "resnet_v1_200", "resnet_v1_18", "resnet_v1_34"}

    Returns
    -------
    list of Block
    """
    block = resnet_v1_basic_block if name in BASIC_NETWORKS else resnet_v1_block
    return [block(f"block{i}", *sizes) for i, sizes in enumerate((NETWORKS | BASIC_NETWORKS)[name], 1)]


#: What the published networks pass on.
_OPTIONS = keywords_of(resnet_v1)


@shows(_OPTIONS)
def resnet_v1_18(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_18", **options: Any) -> Any:
    """ResNet-18, of basic units; TF-Slim does not have it.

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_18(images, 1000)
    >>> net.shape, end_points["resnet_v1_18/block4"].shape
    ((1, 1000), (1, 7, 7, 512))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_18"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v1_34(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_34", **options: Any) -> Any:
    """ResNet-34, of basic units; TF-Slim does not have it.

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_34(images, 1000)
    >>> net.shape, end_points["resnet_v1_34/block4"].shape
    ((1, 1000), (1, 7, 7, 512))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_34"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v1_50(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_50", **options: Any) -> Any:
    """ResNet-50 (``resnet_v1.resnet_v1_50``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_50(images, 1000)
    >>> net.shape, end_points["resnet_v1_50/block4"].shape
    ((1, 1000), (1, 7, 7, 2048))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_50"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v1_101(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_101", **options: Any) -> Any:
    """ResNet-101 (``resnet_v1.resnet_v1_101``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_101(images, 1000)
    >>> net.shape, end_points["resnet_v1_101/block4"].shape
    ((1, 1000), (1, 7, 7, 2048))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_101"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v1_152(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_152", **options: Any) -> Any:
    """ResNet-152 (``resnet_v1.resnet_v1_152``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_152(images, 1000)
    >>> net.shape, end_points["resnet_v1_152/block4"].shape
    ((1, 1000), (1, 7, 7, 2048))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_152"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v1_200(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v1_200", **options: Any) -> Any:
    """ResNet-200 (``resnet_v1.resnet_v1_200``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v1`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v1`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v1_200(images, 1000)
    >>> net.shape, end_points["resnet_v1_200/block4"].shape
    ((1, 1000), (1, 7, 7, 2048))
    """
    return resnet_v1(inputs, network_blocks("resnet_v1_200"), num_classes, scope=scope, **options)
