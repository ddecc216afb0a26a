"""The parts of both versions of the network: TF-Slim's ``resnet_utils.py``, under the same names.

Each decorated function takes a symbolic `refnet.graph.graph.Tensor`, as in TF-Slim, or a NumPy array; then it computes
immediately, with the weights given as ``variables=``.

Sources: tf_slim 1.1.0, ``tf_slim/nets/resnet_utils.py``, and what its ``resnet_v1.py`` and ``resnet_v2.py`` share;
tensorflow/models, ``research/slim/nets`` for ``store_non_strided_activations``, ``spatial_squeeze``, ``activation_fn``
and ``use_batch_norm``, and ``research/deeplab/core/resnet_v1_beta.py`` for ``multi_grid``; timm,
``models/resnetv2.py`` for ``root_depths`` and ``avg_down``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import MOST, as_int, check_bool, check_choice, check_positive, check_text, shown
from refnet.errors import ConfigError, InputError
from refnet.graph.graph import ACTIVATIONS, Graph, Tensor
from refnet.network.eager import works_on_arrays
from refnet.resources import for_images
from refnet.run.compute import compute
from refnet.run.inputs import as_array, converted

#: Runs of equal units that a block's one line shows.
_SHOWN_RUNS = 6


class Block(NamedTuple):
    """A ResNet block (TF-Slim: ``resnet_utils.Block``).

    Attributes
    ----------
    scope : str
        Its name, "block1".
    unit_fn : callable
        The function that makes a unit: `bottleneck` or `basic`.
    args : sequence of dict
        The arguments of each unit: ``depth``, ``depth_bottleneck``, ``stride``; and ``unit_rate``, if it is not 1, and
        ``stride_in_1x1``, if it is not False.

    Examples
    --------
    >>> import refnet
    >>> units = [{"depth": 256, "depth_bottleneck": 64, "stride": stride} for stride in (1, 2)]
    >>> refnet.Block("block1", refnet.bottleneck, units)
    <Block block1: bottleneck 256, 256/2>
    """

    scope: str
    unit_fn: Callable[..., Any]
    args: Sequence[Mapping[str, int]]

    def __repr__(self) -> str:
        """The depth and the stride of each unit, with a count where neighbours are equal."""
        unit = getattr(self.unit_fn, "__name__", type(self.unit_fn).__name__)
        return f"<Block {self.scope}: {unit} {_runs(self.args)}>"


def _runs(units: Sequence[Mapping[str, int]]) -> str:
    """``2 x 256, 256/2``: equal neighbours are counted, and a stride stands behind a slash."""
    words = [f"{unit.get('depth')}" + (f"/{unit['stride']}" if unit.get("stride", 1) != 1 else "") for unit in units]
    runs = [(word, len(list(same))) for word, same in groupby(words)]
    text = ", ".join(word if count == 1 else f"{count} x {word}" for word, count in runs[:_SHOWN_RUNS])
    return text + (", ..." if len(runs) > _SHOWN_RUNS else "")


class Convolution(NamedTuple):
    """One of a unit's convolutions ``conv1``, ``conv2``, ..."""

    num_outputs: int
    kernel_size: int
    stride: int
    rate: int


@for_images
def softmax(logits: Any, *, device: str = "cpu", threads: int | None = None) -> Any:
    """Probabilities from logits, over the last axis (TF-Slim: ``slim.softmax``), with the bits of ``predictions``.

    Parameters
    ----------
    logits : float array [classes] or [.., classes], or Tensor
    device, threads
        As for `refnet.Engine`.

    Returns
    -------
    array of the same shape, or Tensor
        float64 for float64, else float32.

    Raises
    ------
    InputError
        The logits are not such an array.
    ConfigError, DeviceError
        As `refnet.Engine` raises them.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> refnet.softmax(np.zeros(4, np.float32))
    array([0.25, 0.25, 0.25, 0.25], dtype=float32)
    """
    if isinstance(logits, Tensor):
        return logits.graph.softmax(logits)
    array = as_array(logits, "The logits")
    if array.dtype.kind != "f" or array.ndim == 0 or array.shape[-1] == 0:
        raise InputError(
            f"The logits are {array.dtype} of shape {array.shape}; they are floats of shape [.., classes].",
            found=array.shape,
        )
    dtype = np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
    pixels = converted(array, dtype).reshape(-1, 1, 1, array.shape[-1])
    graph = Graph({})
    return compute(graph, pixels, graph.softmax(graph.placeholder(pixels.shape)), device, threads).reshape(array.shape)


@works_on_arrays
def subsample(inputs: Tensor, factor: int, scope: str | None = None) -> Tensor:
    """Every ``factor``-th row and column (TF-Slim: ``resnet_utils.subsample``).

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    factor : int
        1 gives the input itself.
    scope : str, optional
        Only for TF-Slim's signature; nothing is stored under it.
    variables, device, threads, dtype, ... : optional
        Only with an array: where and how it is computed, as for `conv2d_same`. There are no weights.

    Returns
    -------
    Tensor or array [N, ceil(H / factor), ceil(W / factor), C]

    Examples
    --------
    >>> import numpy as np, refnet
    >>> refnet.subsample(np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1), 2).ravel().tolist()
    [0.0, 2.0, 8.0, 10.0]
    """
    check_positive(factor=factor)
    return inputs if factor == 1 else inputs.graph.subsample(inputs, factor)


@works_on_arrays
def conv2d_same(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int,
    stride: int,
    rate: int = 1,
    scope: str = "Conv",
    *,
    activation_fn: str | None = "relu",
    normalizer_fn: str | None = None,
) -> Tensor:
    """Strided convolution whose padding does not depend on the image's size (``resnet_utils.conv2d_same``).

    With stride s it equals the convolution of stride 1, "SAME"-padded, then `subsample` by s. TensorFlow's own "SAME"
    does not: if the size is even, a strided one pads less at the top and left, which moves the grid by a pixel.

    Parameters
    ----------
    inputs : Tensor or float array [N, H, W, C]
    num_outputs : int
        Channels of the output.
    kernel_size : int
        Height and width of the kernel.
    stride, rate : int
        At most one of them is above 1, as in TF-Slim.
    scope : str
        Name before ``weights`` and ``biases`` (or ``BatchNorm/...``).
    activation_fn : {"relu", None}
        The activation that follows; ReLU is ``slim.conv2d``'s default.
    normalizer_fn : {None, "batch_norm"}
        With it there is no bias, unless the arg scope has ``bias_before_batch_norm``, or the variables have biases; and
        it is a group norm if the variables have ``GroupNorm``.
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / stride), ceil(W / stride), num_outputs]

    Raises
    ------
    ConfigError
        An argument is out of range, or stride and rate are both above 1.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> weights = {"Conv/weights": np.ones((3, 3, 1, 5), np.float32), "Conv/biases": np.zeros(5, np.float32)}
    >>> net = refnet.conv2d_same(np.ones((1, 8, 8, 1), np.float32), 5, 3, stride=2, variables=weights)
    >>> net.shape, net[0, :2, :2, 0].tolist()
    ((1, 4, 4, 5), [[4.0, 6.0], [6.0, 9.0]])
    """
    check_positive(num_outputs=num_outputs, kernel_size=kernel_size, stride=stride, rate=rate)
    if stride > 1 and rate > 1:
        raise ConfigError("`strides > 1` not supported in conjunction with `dilation_rate > 1`.")
    return conv2d(inputs, num_outputs, kernel_size, stride, rate, scope, False, activation_fn, normalizer_fn)


def conv2d(
    inputs: Tensor,
    num_outputs: int,
    kernel_size: int,
    stride: int,
    rate: int,
    scope: str,
    same: bool,
    activation_fn: str | None,
    normalizer_fn: str | None,
) -> Tensor:
    """``slim.conv2d``: convolution, then bias or batch norm, then the activation.

    The variables say which of the two, or both, where they hold either (see `ArgScope`).

    Parameters
    ----------
    inputs : Tensor [N, H, W, C]
    num_outputs : int
        Channels of the output.
    kernel_size : int
        Height and width of the kernel.
    stride, rate : int
        At most one of them is above 1.
    scope : str
        Name before the names of the layer's variables.
    same : bool
        True: TensorFlow's "SAME" padding; False: that of `conv2d_same`.
    activation_fn : {"relu", None}
    normalizer_fn : {None, "batch_norm"}

    Returns
    -------
    Tensor [N, ceil(H / stride), ceil(W / stride), num_outputs]

    Raises
    ------
    ConfigError
        The activation or the normaliser is unknown.
    """
    check_choice("activation_fn", activation_fn, ACTIVATIONS)
    check_choice("normalizer_fn", normalizer_fn, (None, "batch_norm"))
    graph = inputs.graph
    with graph.variable_scope(scope):
        net = graph.conv(inputs, num_outputs, (kernel_size, kernel_size), stride, rate, same)
        biased, normalized = _bias_and_norm(graph) if normalizer_fn else (True, False)
        if biased:
            net = graph.bias_add(net)
        if normalized:
            net = norm(net, "GroupNorm" if graph.has_group_norm("GroupNorm") else "BatchNorm")
    return graph.relu(net) if activation_fn else net


def _bias_and_norm(graph: Graph) -> tuple[bool, bool]:
    """Whether the convolution of the current scope, which has a batch norm in TF-Slim, has biases and a batch norm."""
    biases, before = graph.has("biases"), graph.arg_scope.bias_before_batch_norm
    normalized = graph.has_batch_norm("BatchNorm") or graph.has_group_norm("GroupNorm")
    if biases and not normalized and not before:
        graph.folded.append(graph.name())
        return True, False
    return (biases if before is None else before), True


def norm(inputs: Tensor, scope: str) -> Tensor:
    """The norm of a scope: group norm if the variables have one there, else batch norm.

    Parameters
    ----------
    inputs : Tensor [N, H, W, C]
    scope : str
        Name before the names of its variables.

    Returns
    -------
    Tensor [N, H, W, C]
    """
    graph = inputs.graph
    return graph.group_norm(inputs, scope) if graph.has_group_norm(scope) else graph.batch_norm(inputs, scope)


def activation_and_normalizer(graph: Graph) -> tuple[str | None, str | None]:
    """The activation and the normaliser after a convolution, from the graph's arg scope.

    Returns
    -------
    activation_fn : {"relu", None}
    normalizer_fn : {"batch_norm", None}
    """
    return graph.arg_scope.activation_fn, "batch_norm" if graph.arg_scope.use_batch_norm else None


def shortcut(inputs: Tensor, source: Tensor, depth: int, stride: int, normalizer_fn: str | None) -> Tensor:
    """The shortcut of a unit: its input, subsampled; or, if the depth changes, a 1x1 convolution of ``source``.

    A convolution that the variables hold runs even if the depth does not change. With the arg scope's ``avg_down`` one
    that strides has stride 1 instead, after an average pool.

    Parameters
    ----------
    inputs : Tensor [N, H, W, C]
        The unit's input.
    source : Tensor [N, H, W, C]
        The input of the convolution.
    depth : int
        Channels of the output.
    stride : int
    normalizer_fn : {None, "batch_norm"}
        Normaliser of the convolution.

    Returns
    -------
    Tensor [N, ceil(H / stride), ceil(W / stride), depth]
    """
    graph = source.graph
    if depth == inputs.depth and not graph.has("shortcut/weights"):
        subsampled: Tensor = subsample(inputs, stride)
        return subsampled
    if stride > 1 and graph.arg_scope.avg_down:
        source, stride = graph.collect(graph.name("avg_pool"), graph.avg_pool(source, 2, stride)), 1
    net = conv2d(source, depth, 1, stride, 1, "shortcut", True, None, normalizer_fn)
    return graph.collect(graph.name("shortcut"), net)


def bottleneck_convolutions(
    depth: int, depth_bottleneck: int, stride: int, rate: int, stride_in_1x1: bool, left_out: int
) -> list[Convolution]:
    """The convolutions of a bottleneck unit: 1x1, 3x3 and 1x1.

    Parameters
    ----------
    depth, depth_bottleneck, stride, rate, stride_in_1x1, left_out
        As for `refnet.network.resnet_v2.bottleneck`; ``rate`` with the unit's own.

    Returns
    -------
    list of Convolution
    """
    check_bool(stride_in_1x1=stride_in_1x1)
    check_positive(depth=depth, depth_bottleneck=depth_bottleneck, stride=stride, rate=rate, left_out=left_out)
    first, second = (stride, 1) if stride_in_1x1 else (1, stride)
    return [
        Convolution(depth_bottleneck, 1, first, 1),
        Convolution(depth_bottleneck, 3, second, rate * left_out if stride_in_1x1 else rate),
        Convolution(depth, 1, 1, 1),
    ]


def basic_convolutions(depth: int, depth_bottleneck: int, stride: int, rate: int, left_out: int) -> list[Convolution]:
    """The convolutions of a basic unit: 3x3 and 3x3.

    Parameters
    ----------
    depth, depth_bottleneck, stride, rate, left_out
        As for `refnet.network.resnet_v2.basic`; ``rate`` with the unit's own.

    Returns
    -------
    list of Convolution
    """
    check_positive(depth=depth, depth_bottleneck=depth_bottleneck, stride=stride, rate=rate, left_out=left_out)
    return [Convolution(depth_bottleneck, 3, stride, rate), Convolution(depth, 3, 1, rate * left_out)]


def residual(net: Tensor, convolutions: Sequence[Convolution], last_normalizer_fn: str | None) -> Tensor:
    """A unit's convolutions, one after the other, each an end point.

    The last one has no activation: after a ReLU a unit could only increase its input.

    Parameters
    ----------
    net : Tensor [N, H, W, C]
    convolutions : sequence of Convolution
    last_normalizer_fn : {None, "batch_norm"}
        Normaliser of the last one; that of the others is the arg scope's.

    Returns
    -------
    Tensor [N, ceil(H / stride), ceil(W / stride), depth]
    """
    graph = net.graph
    activation_fn, normalizer_fn = activation_and_normalizer(graph)
    for i, convolution in enumerate(convolutions, 1):
        if i == len(convolutions):
            activation_fn, normalizer_fn = None, last_normalizer_fn
        net = conv2d_same(net, *convolution, scope=f"conv{i}", activation_fn=activation_fn, normalizer_fn=normalizer_fn)
        graph.collect(graph.name(f"conv{i}"), net)
    return net


@works_on_arrays
def stack_blocks_dense(
    net: Tensor,
    blocks: Sequence[Block],
    output_stride: float | None = None,
    store_non_strided_activations: bool = False,
) -> Tensor:
    """Stack blocks, with atrous convolution after the stride has reached ``output_stride``.

    TF-Slim: ``resnet_utils.stack_blocks_dense``. Once the strides so far multiply to ``output_stride``, no further
    unit strides. The unit that would have strided keeps its rate, and its stride multiplies the rate of the units after
    it: on the denser grid their 3x3 kernels then read the same pixels as before. A unit that takes ``left_out`` gets
    that stride by this name, for those of its own convolutions that come after the one that would have strided.

    Parameters
    ----------
    net : Tensor or float array [N, H, W, C]
    blocks : sequence of Block
    output_stride : int, optional
        How much smaller the output is than ``net``: the product of the strides up to some unit. None: the product of
        all of them.
    store_non_strided_activations : bool
        Whether the end point of each block holds the activations before its stride (as in the models repository).
    variables : mapping of str to array, optional
        Only with an array: the weights by their names, which begin with the block's scope. ``device``, ``threads``
        and ``dtype`` are then options too, as for `refnet.Engine`, and so are the fields of `refnet.resnet_arg_scope`.

    Returns
    -------
    Tensor or array [N, ceil(H / s), ceil(W / s), depth]
        With s the ``output_stride``, and the depth of the last unit.

    Raises
    ------
    ConfigError
        The strides' product passes ``output_stride`` without being equal to it; or a unit would have to leave out its
        stride, but its shortcut is an average pool by that stride (``avg_down``).

    Examples
    --------
    >>> import numpy as np, refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=2, stride=2)]
    >>> weights = refnet.random_weights(blocks)
    >>> weights = {name.removeprefix("resnet_v2/"): array for name, array in weights.items()}
    >>> images = np.zeros((1, 9, 9, 64), np.float32)
    >>> refnet.stack_blocks_dense(images, blocks, variables=weights).shape
    (1, 5, 5, 16)
    >>> refnet.stack_blocks_dense(images, blocks, output_stride=1, variables=weights).shape
    (1, 9, 9, 16)
    """
    check_stride(output_stride)
    check_blocks(blocks)
    check_bool(store_non_strided_activations=store_non_strided_activations)
    graph = net.graph
    current_stride, rate = 1, 1
    for block in blocks:
        block_stride = 1
        with graph.variable_scope(block.scope) as block_name:
            for i, unit in enumerate(block.args):
                arguments = dict(unit)
                if store_non_strided_activations and i == len(block.args) - 1:
                    # The block strides after its last unit.
                    block_stride = arguments.get("stride", 1)
                    arguments |= _without_stride(graph, block, block_stride)
                with graph.variable_scope(f"unit_{i + 1}"):
                    if output_stride is not None and current_stride == output_stride:
                        stride = arguments.get("stride", 1)
                        net = _unit(block, net, {**arguments, **_without_stride(graph, block, stride), "rate": rate})
                        rate *= stride
                    else:
                        net = _unit(block, net, {**arguments, "rate": 1})
                        current_stride *= arguments.get("stride", 1)
                _check_stride(current_stride, output_stride)
            graph.collect(block_name, net)
        if output_stride is not None and current_stride == output_stride:
            rate *= block_stride
        else:
            net = subsample(net, block_stride)
            current_stride *= block_stride
            _check_stride(current_stride, output_stride)
    if output_stride is not None and current_stride != output_stride:
        raise ConfigError("The target output_stride cannot be reached.", expected=output_stride, found=current_stride)
    return net


def _without_stride(graph: Graph, block: Block, stride: int) -> dict[str, int]:
    """The arguments of a unit whose own stride is left to the layers after it."""
    check_positive(stride=stride)
    if stride == 1:
        return {"stride": 1}
    if graph.arg_scope.avg_down:
        raise ConfigError(
            "The network's shortcuts are average pools by the units' strides (avg_down), which have no atrous form: "
            "leave output_stride and store_non_strided_activations out."
        )
    takes_it = "left_out" in inspect.signature(block.unit_fn).parameters
    return {"stride": 1, "left_out": stride} if takes_it else {"stride": 1}


def check_stride(output_stride: object) -> None:
    """Refuse an output stride that is not a number, or None.

    Raises
    ------
    ConfigError
    """
    is_number = isinstance(output_stride, int | float) and not isinstance(output_stride, bool)
    if output_stride is not None and not (is_number and abs(output_stride) < 2.0**31):  # type: ignore[arg-type]
        raise ConfigError(f"output_stride is {shown(output_stride)}; it is a number, or None.", found=output_stride)


def check_blocks(blocks: object) -> None:
    """Refuse what is not a sequence of blocks whose units have mappings of arguments.

    Raises
    ------
    ConfigError
    """
    if not isinstance(blocks, Sequence) or not all(isinstance(block, Block) for block in blocks):
        raise ConfigError(
            f"blocks is {shown(blocks)}; it is a sequence of blocks, which resnet_v2_block makes.", found=blocks
        )
    for block in blocks:
        check_text(scope=block.scope)
        units = block.args
        if not isinstance(units, Sequence) or not units or not all(isinstance(unit, Mapping) for unit in units):
            raise ConfigError(
                f"The units of {block.scope} are {shown(units)}; they are a sequence of mappings of arguments.",
                found=units,
            )


def _unit(block: Block, inputs: Tensor, arguments: Mapping[str, Any]) -> Tensor:
    """A unit of a block, whose function may be the caller's own."""
    try:
        net = block.unit_fn(inputs, **arguments)
    except TypeError as error:
        raise ConfigError(f"A unit of {block.scope} cannot be made: {error}.") from error
    if not isinstance(net, Tensor):
        raise ConfigError(f"The unit_fn of {block.scope} gave {shown(net)}; it gives a Tensor, as bottleneck does.")
    return net


def _check_stride(current_stride: int, output_stride: float | None) -> None:
    if output_stride is not None and current_stride > output_stride:
        raise ConfigError("The target output_stride cannot be reached.", expected=output_stride, found=current_stride)


def with_multi_grid(blocks: Sequence[Block], multi_grid: Sequence[int]) -> list[Block]:
    """The blocks, with these unit rates in the last one.

    Parameters
    ----------
    blocks : sequence of Block
    multi_grid : sequence of int
        The ``unit_rate`` of each unit of the last block.

    Returns
    -------
    list of Block

    Raises
    ------
    ConfigError
        There are more or fewer rates than units.
    """
    check_blocks(blocks)
    check_multi_grid(multi_grid)
    if not blocks:
        raise ConfigError("multi_grid is for the last block, and there are no blocks.", found=multi_grid)
    *others, last = blocks
    if len(multi_grid) != len(last.args):
        raise ConfigError(f"Expect multi_grid to have length {len(last.args)}.", found=multi_grid)
    units = [{**unit, "unit_rate": unit_rate} for unit, unit_rate in zip(last.args, multi_grid, strict=True)]
    return [*others, last._replace(args=units)]


def check_multi_grid(multi_grid: object) -> None:
    """Refuse what is not a sequence of rates.

    Raises
    ------
    ConfigError
    """
    if not isinstance(multi_grid, Sequence) or isinstance(multi_grid, str | bytes):
        raise ConfigError(f"multi_grid is {shown(multi_grid)}; it is a sequence of rates.", found=multi_grid)
    for rate in multi_grid:
        check_positive(multi_grid=rate)


def after_root(output_stride: float | None) -> float | None:
    """The output stride that remains after the root block's 4.

    Parameters
    ----------
    output_stride : int, optional

    Returns
    -------
    float, or None
        ``output_stride / 4``.

    Raises
    ------
    ConfigError
        It is not a number, or not a multiple of 4.
    """
    check_stride(output_stride)
    if output_stride is None:
        return None
    # A larger one cannot be reached, and an integer can be larger than every float.
    if output_stride > MOST or output_stride % 4 != 0:
        raise ConfigError("The output_stride needs to be a multiple of 4.", found=output_stride)
    return output_stride / 4


def root_block(net: Tensor, depths: Sequence[int] | None, activate: bool) -> Tensor:
    """The convolutions and pool1.

    pool1 is "SAME"-padded in TF-Slim, which keeps features and image aligned at the corners. If the variables have
    ``input/BatchNorm``, the images are normalised by it first.

    Parameters
    ----------
    net : Tensor [N, H, W, C]
    depths : sequence of int, optional
        Channels of the 3x3 convolutions ``conv1_1``, ``conv1_2``, ...; None: one 7x7 convolution, with 64 channels
        unless the variables have another one.
    activate : bool
        Whether batch norm and activation follow the last convolution too. They also do if the variables have a norm for
        it.

    Returns
    -------
    Tensor [N, ceil(H / 4), ceil(W / 4), channels of the last convolution]
    """
    graph = net.graph
    activation_fn, normalizer_fn = activation_and_normalizer(graph)
    if depths is not None:
        check_depths(depths)
    plain = [("conv1", graph.depth_of("conv1/weights", 64), 7)]
    layers = [(f"conv1_{i + 1}", depth, 3) for i, depth in enumerate(depths)] if depths else plain
    if graph.has_batch_norm("input/BatchNorm"):
        net = graph.collect(graph.name("input"), graph.batch_norm(net, "input/BatchNorm"))
    last = layers[-1][0]
    activate = activate or graph.has_batch_norm(f"{last}/BatchNorm") or graph.has_group_norm(f"{last}/GroupNorm")
    for scope, depth, kernel_size in layers:
        if scope == last and not activate:
            activation_fn = normalizer_fn = None
        net = conv2d_same(
            net, depth, kernel_size, 2 if scope == layers[0][0] else 1, scope=scope,
            activation_fn=activation_fn, normalizer_fn=normalizer_fn,
        )  # fmt: skip
        graph.collect(graph.name(scope), net)
    return graph.collect(graph.name("pool1"), graph.max_pool(net, 3, 2))


def check_depths(depths: object) -> tuple[int, ...]:
    """The channels of the root's convolutions.

    Raises
    ------
    ConfigError
        They are not a sequence of whole numbers of 1 or more.
    """
    if not isinstance(depths, Sequence) or isinstance(depths, str | bytes):
        raise ConfigError(f"root_depths is {shown(depths)}; it is a sequence of depths.", found=depths)
    for depth in depths:
        check_positive(root_depths=depth)
    return tuple(depths)


def head(net: Tensor, num_classes: int | None, global_pool: bool, spatial_squeeze: bool | None) -> Tensor:
    """The global pool and the logits.

    Parameters
    ----------
    net : Tensor [N, h, w, C]
    num_classes : int, optional
        None: no logits.
    global_pool : bool
        Whether to average over height and width.
    spatial_squeeze : bool, optional
        Whether logits have the shape [N, num_classes]; None: if there is a global pool.

    Returns
    -------
    Tensor
        Logits [N, num_classes] or [N, h, w, num_classes]; without classes the features.
    """
    graph = net.graph
    spatial_squeeze = global_pool if spatial_squeeze is None else spatial_squeeze
    check_bool(global_pool=global_pool, spatial_squeeze=spatial_squeeze)
    if global_pool:
        net = graph.collect(graph.name("pool5"), graph.reduce_mean(net))
        graph.collect("global_pool", net)
    if num_classes is None:
        return net
    num_classes = as_int(num_classes)
    check_positive(num_classes=num_classes)
    return _logits(net, num_classes, spatial_squeeze)


def _logits(net: Tensor, num_classes: int, spatial_squeeze: bool) -> Tensor:
    graph = net.graph
    net = conv2d(net, num_classes, 1, 1, 1, "logits", True, None, None)
    graph.collect(graph.name("logits"), net)
    if spatial_squeeze:
        if net.shape[1:3] != (1, 1):
            raise ConfigError(
                f"Logits of {net.shape[1]} x {net.shape[2]} places cannot be squeezed: "
                "ask for spatial_squeeze=False, or for global_pool=True."
            )
        net = graph.collect(graph.name("spatial_squeeze"), graph.squeeze(net))
    graph.collect("predictions", graph.softmax(net))
    return net
