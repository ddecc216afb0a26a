"""TF-Slim's ``resnet_v2.py``: the same functions under the same names.

In this version of ResNet batch norm and ReLU come *before* each convolution of a unit ("pre-activation"), not after it.
So the path of the shortcuts is free of them: a unit adds to its input, and changes nothing else on that path.

Each function takes symbolic tensors or NumPy arrays, as in `refnet.network.resnet_utils`.

Sources: tf_slim 1.1.0, ``tf_slim/nets/resnet_v2.py``; DeepLab's ``resnet_v1_beta.py`` for ``unit_rate``; for the other
options `refnet.network.resnet_utils`. He et al., "Identity Mappings in Deep Residual Networks", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from refnet.checks import check_bool, check_positive, check_text
from refnet.errors import ConfigError
from refnet.graph.graph import Tensor
from refnet.network.eager import works_on_arrays
from refnet.network.resnet_utils import (
    Block,
    Convolution,
    after_root,
    basic_convolutions,
    bottleneck_convolutions,
    head,
    norm,
    residual,
    root_block,
    shortcut,
    stack_blocks_dense,
    with_multi_grid,
)
from refnet.signatures import keywords_of, shows


@works_on_arrays
def bottleneck(
    inputs: Tensor,
    depth: int,
    depth_bottleneck: int,
    stride: int,
    rate: int = 1,
    scope: str = "bottleneck_v2",
    unit_rate: int = 1,
    stride_in_1x1: bool = False,
    left_out: int = 1,
) -> Tensor:
    """The bottleneck unit with batch norm before the convolutions (``resnet_v2.bottleneck``).

    ``shortcut + conv3(conv2(conv1(preact)))``, where ``preact`` is the input after batch norm and ReLU.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    depth : int
        Channels of the output. If it equals C, the shortcut is the input itself, subsampled, unless the variables have
        a convolution for it.
    depth_bottleneck : int
        Channels of conv1 and conv2, a quarter of ``depth`` in the published networks: the 3x3 convolution, which costs
        the most per channel, works on few.
    stride : int
        Stride of the 3x3 convolution and of the shortcut.
    rate : int
        Rate of the 3x3 convolution: the distance between the pixels that it reads ("atrous" if it is above 1).
    scope : str
        Name before the names of the unit's variables and end points.
    unit_rate : int
        Multiplies ``rate`` for this unit only, as in DeepLab.
    stride_in_1x1 : bool
        Whether conv1 strides in place of the 3x3 convolution, as in He et al.'s own network.
    left_out : int
        A stride that the unit leaves out, for atrous convolution: it multiplies the rate of the convolutions that come
        after the one that would have strided.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), depth]

    Examples
    --------
    >>> import numpy as np, refnet
    >>> weights = refnet.random_weights([refnet.resnet_v2_block("block1", base_depth=4, num_units=2, stride=2)])
    >>> images = np.zeros((1, 9, 9, 64), np.float32)
    >>> unit = "resnet_v2/block1/unit_1/bottleneck_v2"
    >>> refnet.bottleneck(images, depth=16, depth_bottleneck=4, stride=2, scope=unit, variables=weights).shape
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
    scope: str = "basic_v2",
    unit_rate: int = 1,
    left_out: int = 1,
) -> Tensor:
    """The basic unit with batch norm before the convolutions, of ResNet-18 and 34; TF-Slim does not have it.

    ``shortcut + conv2(conv1(preact))``: two 3x3 convolutions, the first of which strides.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    depth : int
        Channels of the output.
    depth_bottleneck : int
        Channels of conv1; in the published networks equal to ``depth``.
    stride : int
        Stride of conv1 and of the shortcut.
    rate, scope, unit_rate, left_out
        As for `bottleneck`, for both convolutions.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), depth]

    Examples
    --------
    >>> import numpy as np, refnet
    >>> weights = refnet.random_weights([refnet.resnet_v2_basic_block("block1", base_depth=4, num_units=2, stride=2)])
    >>> images = np.zeros((1, 9, 9, 64), np.float32)
    >>> unit = "resnet_v2/block1/unit_1/basic_v2"
    >>> refnet.basic(images, depth=4, depth_bottleneck=4, stride=2, scope=unit, variables=weights).shape
    (1, 5, 5, 4)
    """
    check_positive(rate=rate, unit_rate=unit_rate)
    convolutions = basic_convolutions(depth, depth_bottleneck, stride, rate * unit_rate, left_out)
    return _unit(inputs, convolutions, stride, scope)


def _unit(inputs: Tensor, convolutions: Sequence[Convolution], stride: int, scope: str) -> Tensor:
    graph = inputs.graph
    with graph.variable_scope(scope) as name:
        preact = graph.collect(f"{name}/preact", graph.relu(norm(inputs, "preact")))
        # The input itself, unchanged. If the depth changes, a convolution replaces it. That reads the preact, as every
        # convolution in this version reads normalised values; like the last one's, its output goes into the sum as it
        # is.
        identity = shortcut(inputs, preact, convolutions[-1].num_outputs, stride, None)
        # The norms and ReLUs after conv1 and conv2 are those before the convolutions that follow. The last one has no
        # norm, as the next preact has it.
        return graph.collect(name, graph.add(identity, residual(preact, convolutions, None)))


def resnet_v2_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of bottleneck units, the last of which strides (``resnet_v2.resnet_v2_block``).

    In He et al.'s own network the first unit of a block strides, in its 1x1 convolutions, which read only every second
    row and column of the block before. In TF-Slim the last unit of that block computes only these: the values are the
    same, with less work and memory.

    Parameters
    ----------
    scope : str
        The block's name, "block1".
    base_depth : int
        Channels inside the units; their output has four times as many.
    num_units : int
        Number of units.
    stride : int
        Stride of the last unit; that of the others is 1.

    Returns
    -------
    Block

    Examples
    --------
    >>> import refnet
    >>> [unit["stride"] for unit in refnet.resnet_v2_block("block1", base_depth=64, num_units=3, stride=2).args]
    [1, 1, 2]
    """
    check_text(scope=scope)
    check_positive(base_depth=base_depth, num_units=num_units, stride=stride)
    unit = {"depth": base_depth * 4, "depth_bottleneck": base_depth}
    return Block(scope, bottleneck, [{**unit, "stride": 1}] * (num_units - 1) + [{**unit, "stride": stride}])


def resnet_v2_basic_block(scope: str, base_depth: int, num_units: int, stride: int) -> Block:
    """A block of basic units, the last of which strides.

    Parameters
    ----------
    scope : str
        The block's name, "block1".
    base_depth : int
        Channels of the units.
    num_units : int
        Number of units.
    stride : int
        Stride of the last unit; that of the others is 1.

    Returns
    -------
    Block

    Examples
    --------
    >>> import refnet
    >>> [unit["depth"] for unit in refnet.resnet_v2_basic_block("block1", base_depth=64, num_units=2, stride=2).args]
    [64, 64]
    """
    block = resnet_v2_block(scope, base_depth, num_units, stride)
    return Block(scope, basic, [{**unit, "depth": base_depth} for unit in block.args])


@works_on_arrays
def resnet_v2(
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
    scope: str = "resnet_v2",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The whole network (``resnet_v2.resnet_v2``).

    The published networks shrink an image by 32 (their nominal stride): 224 x 224 pixels give 7 x 7 features. For dense
    features, as in segmentation, pass ``global_pool=False``, an ``output_stride`` of 16 or 8, and images whose sides
    are a multiple of 32, plus 1, such as 321. Then the features have sides of ``(side - 1) / output_stride + 1``, and
    those at the corners are exactly on the corners of the image, so that features and pixels are easy to align.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
        Normalised images; without the root block, the output of a convolution that no activation follows.
    blocks : sequence of Block
        See `resnet_v2_block`.
    num_classes : int, optional
        None: no logits; the features are returned.
    global_pool : bool
        Average over height and width before the logits. False gives dense features or dense logits.
    output_stride : int, optional
        How much smaller the features are than the images; with the root block a multiple of 4. Once the strides have
        reached it, the units after that do not stride, but read pixels further apart (atrous convolution). A feature
        still sees the same pixels, so the dense features, subsampled, are the nominal ones; with group norm they are
        not, as its statistics are those of the denser grid.
    include_root_block : bool
        Whether the 7x7 convolution of stride 2 and the max pool come first.
    spatial_squeeze : bool, optional
        Logits of shape [N, num_classes]; False keeps [N, h, w, num_classes]. By default they are squeezed after the
        global pool and kept dense without it.
    store_non_strided_activations : bool
        See `stack_blocks_dense`.
    multi_grid : sequence of int, optional
        DeepLab's: the ``unit_rate`` of each unit of the last block.
    root_depths : sequence of int, optional
        Channels of the 3x3 convolutions ``conv1_1``, ``conv1_2``, ... that replace the 7x7 one, as in ResNet-D; the
        first one strides, and the last one has neither batch norm nor activation, unless the variables have a norm for
        it.
    scope : str
        Name before the names of all variables and end points.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    net : Tensor or array
        Logits, or without classes the features after ``postnorm``: [N, num_classes] by default, [N, h, w, num_classes]
        if they are dense, [N, 1, 1, C] or [N, h, w, C] without classes.
    end_points : dict
        TF-Slim's end points in its order, and between them others that it lacks: ``pool1``, each unit's ``preact``,
        ``postnorm``, ``pool5``, ``global_pool``; and ``input`` if the variables have a batch norm for the images.

    Raises
    ------
    ConfigError
        The options break one of TF-Slim's rules.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [
    ...     refnet.resnet_v2_block("block1", base_depth=4, num_units=2, stride=2),
    ...     refnet.resnet_v2_block("block2", base_depth=8, num_units=2, stride=1),
    ... ]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> images = np.zeros((2, 33, 33, 3), np.float32)
    >>> net, end_points = refnet.resnet_v2(images, blocks, 10, variables=weights)
    >>> net.shape, end_points["resnet_v2/block2"].shape
    ((2, 10), (2, 5, 5, 32))
    >>> net, _ = refnet.resnet_v2(images, blocks, global_pool=False, output_stride=4, variables=weights)
    >>> net.shape
    (2, 9, 9, 32)
    """
    check_bool(include_root_block=include_root_block)
    graph = inputs.graph
    if multi_grid is not None:
        blocks = with_multi_grid(blocks, multi_grid)
    with graph.variable_scope(scope) as name:
        net = inputs
        if include_root_block:
            output_stride = after_root(output_stride)
            # conv1 has neither batch norm nor activation, as the first unit begins with both. MXNet's has them all the
            # same, and its variables say so.
            net = root_block(net, root_depths, activate=False)
        net = stack_blocks_dense(net, blocks, output_stride, store_non_strided_activations)
        # The last unit ends in a bare sum, and no unit follows whose preact would normalise it.
        net = graph.collect(f"{name}/postnorm", graph.relu(norm(net, "postnorm")))
        net = head(net, num_classes, global_pool, spatial_squeeze)
    return net, graph.end_points


#: Base depth, units and stride of each block of the four published networks (He et al., 2016).
NETWORKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "resnet_v2_50": ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)),
    "resnet_v2_101": ((64, 3, 2), (128, 4, 2), (256, 23, 2), (512, 3, 1)),
    "resnet_v2_152": ((64, 3, 2), (128, 8, 2), (256, 36, 2), (512, 3, 1)),
    "resnet_v2_200": ((64, 3, 2), (128, 24, 2), (256, 36, 2), (512, 3, 1)),
}

#: The same for the networks of basic units (He et al., 2015), which TF-Slim does not have.
BASIC_NETWORKS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "resnet_v2_18": ((64, 2, 2), (128, 2, 2), (256, 2, 2), (512, 2, 1)),
    "resnet_v2_34": ((64, 3, 2), (128, 4, 2), (256, 6, 2), (512, 3, 1)),
}


def network_blocks(name: str) -> list[Block]:
    """The blocks of a published network.

    Parameters
    ----------
    name : {"resnet_v2_50", "resnet_v2_101", "resnet_v2_152", "resnet_v2_200", "resnet_v2_18", "resnet_v2_34"}

    Returns
    -------
    list of Block

    Raises
    ------
    ConfigError
        There is no such network.
    """
    networks = NETWORKS | BASIC_NETWORKS
    if name not in networks:
        raise ConfigError(f"There is no network {name!r}; there are {', '.join(networks)}.", found=name)
    block = resnet_v2_basic_block if name in BASIC_NETWORKS else resnet_v2_block
    return [block(f"block{i}", *sizes) for i, sizes in enumerate(networks[name], 1)]


#: What the published networks pass on.
_OPTIONS = keywords_of(resnet_v2)


@shows(_OPTIONS)
def resnet_v2_18(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_18", **options: Any) -> Any:
    """ResNet-18, of basic units; TF-Slim does not have it.

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_18(images, 1001)
    >>> net.shape, end_points["resnet_v2_18/block4"].shape
    ((1, 1001), (1, 7, 7, 512))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_18"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v2_34(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_34", **options: Any) -> Any:
    """ResNet-34, of basic units; TF-Slim does not have it.

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_34(images, 1001)
    >>> net.shape, end_points["resnet_v2_34/block4"].shape
    ((1, 1001), (1, 7, 7, 512))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_34"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v2_50(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_50", **options: Any) -> Any:
    """ResNet-50 (``resnet_v2.resnet_v2_50``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_50(images, 1001)
    >>> net.shape, end_points["resnet_v2_50/block4"].shape
    ((1, 1001), (1, 7, 7, 2048))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_50"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v2_101(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_101", **options: Any) -> Any:
    """ResNet-101 (``resnet_v2.resnet_v2_101``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_101(images, 1001)
    >>> net.shape, end_points["resnet_v2_101/block4"].shape
    ((1, 1001), (1, 7, 7, 2048))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_101"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v2_152(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_152", **options: Any) -> Any:
    """ResNet-152 (``resnet_v2.resnet_v2_152``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_152(images, 1001)
    >>> net.shape, end_points["resnet_v2_152/block4"].shape
    ((1, 1001), (1, 7, 7, 2048))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_152"), num_classes, scope=scope, **options)


@shows(_OPTIONS)
def resnet_v2_200(inputs: Any, num_classes: int | None = None, *, scope: str = "resnet_v2_200", **options: Any) -> Any:
    """ResNet-200 (``resnet_v2.resnet_v2_200``).

    Parameters
    ----------
    inputs, num_classes, scope, **options
        As for `resnet_v2`, which has the blocks as a further argument.

    Returns
    -------
    net, end_points
        As for `resnet_v2`.

    Examples
    --------
    >>> import refnet
    >>> from refnet.graph.graph import Graph
    >>> images = Graph({}).placeholder((1, 224, 224, 3))  # symbolic: nothing is computed
    >>> net, end_points = refnet.resnet_v2_200(images, 1001)
    >>> net.shape, end_points["resnet_v2_200/block4"].shape
    ((1, 1001), (1, 7, 7, 2048))
    """
    return resnet_v2(inputs, network_blocks("resnet_v2_200"), num_classes, scope=scope, **options)
