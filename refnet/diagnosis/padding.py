"""Mistakes of padding, strides and rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from refnet.diagnosis.mistake import Context, Edit, Hypothesis, Mend, Mistake, fixed, in_graph
from refnet.diagnosis.patched import Around, Call, PatchedGraph
from refnet.graph.graph import Graph, Tensor
from refnet.network.architecture import STRIDE_PLACES
from refnet_kernels.contract import PoolGeometry, border_padding, same_padding, valid_padding


def _strides(call: Call) -> bool:
    """Whether it is a convolution that strides, with a window."""
    _, _, kernel_size, stride, *_ = call.arguments
    return bool(stride > 1 and kernel_size[0] > 1)


def _same(
    call: Call, proceed: Callable[..., Tensor], inputs: Tensor, outputs: int, size: tuple[int, int], stride: int,
    rate: int, same: bool,
) -> Tensor:  # fmt: skip
    return proceed(inputs, outputs, size, stride, rate, True)


def _ceil(size: int, window: int, stride: int, pad: int) -> tuple[int, int]:
    """PyTorch's and Caffe's ``ceil_mode``: the last window begins within the image or the padding before it."""
    out = -(-(size + 2 * pad - window) // stride) + 1
    return out - ((out - 1) * stride >= size + pad), pad


#: How ports pad a max pool.
POOLS: dict[str, Callable[[int, int, int], tuple[int, int]]] = {
    "slim": same_padding,
    "keras": border_padding,
    "torch": border_padding,
    "valid": valid_padding,
    "ceil": partial(_ceil, pad=1),
    "ceil without padding": partial(_ceil, pad=0),
}


def max_pool(graph: PatchedGraph, inputs: Tensor, window: int, stride: int, mode: str) -> Tensor:
    """A max pool that pads in one of the ways of `POOLS`."""
    geometry = PoolGeometry.padded(inputs.shape, window, stride, POOLS[mode], int(mode == "keras"))
    shape = (geometry.batch, geometry.out_height, geometry.out_width, geometry.channels)
    return graph._add("max_pool", (inputs,), shape, geometry)


def _pool1(mode: str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, window: int, stride: int) -> Tensor:
        return max_pool(call.graph, inputs, window, stride, mode)

    return around


def _pool1s(mistake: Mistake, context: Context) -> list[Hypothesis]:
    values = [mode for mode in POOLS if mode != context.options["pool_mode"]]
    return list(in_graph(Edit("max_pool", lambda call: True, _pool1), values=values)(mistake, context))


def _stride_places(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    if context.options["blocks"] is None and len(context.architecture.blocks) > 1:
        meant = context.options["stride_place"] or STRIDE_PLACES[0]
        for place in STRIDE_PLACES:
            if place != meant:
                yield Hypothesis(mistake, value=place, options={"stride_place": place})


def _pooled(graph: PatchedGraph, inputs: Tensor, factor: int, value: str) -> Tensor:
    if value == "average 2x2":
        return Graph.avg_pool(graph, inputs, 2, factor)
    window = 2 if value == "max 2x2" else 3
    return max_pool(graph, inputs, window, factor, "slim" if value != "max 3x3 border" else "torch")


def _pool_for_subsample(value: str) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, factor: int) -> Tensor:
        return _pooled(call.graph, inputs, factor, value)

    return around


def _pool_for_stride(value: str) -> Around:
    def around(
        call: Call, proceed: Callable[..., Tensor], inputs: Tensor, outputs: int, size: tuple[int, int], stride: int,
        rate: int, same: bool,
    ) -> Tensor:  # fmt: skip
        return proceed(_pooled(call.graph, inputs, stride, value), outputs, size, 1, rate, same)

    return around


def _rate(call: Call) -> int:
    rate: int = call.arguments[4]
    return rate


def _dense(rate: int) -> Around:
    def around(
        call: Call, proceed: Callable[..., Tensor], inputs: Tensor, outputs: int, size: tuple[int, int], stride: int,
        _: int, same: bool,
    ) -> Tensor:  # fmt: skip
        return proceed(inputs, outputs, size, stride, rate, same)

    return around


def _early(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
    """In each unit that has left its stride out, its own window already has the rate of those after it."""
    strides = {
        f"{block.scope}/unit_{number}/{context.architecture.family.unit_name}": unit.get("stride", 1)
        for block in context.architecture.blocks
        for number, unit in enumerate(block.args, 1)
    }

    def where(call: Call) -> bool:
        _, _, size, stride, *_ = call.arguments
        return size[0] > 1 and stride == 1 < strides.get(call.unit, 1) and context.options["output_stride"] is not None

    def around(
        call: Call, proceed: Callable[..., Tensor], inputs: Tensor, outputs: int, size: tuple[int, int], stride: int,
        rate: int, same: bool,
    ) -> Tensor:  # fmt: skip
        return proceed(inputs, outputs, size, stride, rate * strides[call.unit], same)

    yield from in_graph(Edit("conv", where, fixed(around)), by_unit=True)(mistake, context)


def _counts_padding(value: None) -> Around:
    def around(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, window: int, stride: int) -> Tensor:
        made = proceed(inputs, window, stride)
        return call.graph.host(f"counting_pool:{window}", inputs, made.shape)

    return around


MISTAKES = (
    Mistake(
        "conv1-same",
        'pads conv1 as TensorFlow\'s "SAME" does: (2, 3) for an even side',
        "pad 3 on each side, then convolve without padding",
        Mend(
            pytorch="nn.Conv2d(3, 64, 7, stride=2, padding=3).",
            keras='layers.ZeroPadding2D(3), then layers.Conv2D(64, 7, strides=2, padding="valid").',
            tensorflow='tf.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]]), then tf.nn.conv2d(..., padding="VALID").',
            onnx="Set pads=[3, 3, 3, 3] on the Conv, not auto_pad=SAME_UPPER.",
        ),
        ("keras#16363", "tensornets#25"),
        in_graph(Edit("conv", lambda call: not call.unit and _strides(call), fixed(_same))),
    ),
    Mistake(
        "conv2-same",
        'pads the strided convolution of {site} as TensorFlow\'s "SAME" does: (0, 1) for an even side',
        "pad 1 on each side, then convolve without padding (conv2d_same)",
        Mend(
            pytorch="nn.Conv2d(c, c, 3, stride=2, padding=1).",
            keras='layers.ZeroPadding2D(1), then layers.Conv2D(c, 3, strides=2, padding="valid").',
            tensorflow='tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), then tf.nn.conv2d(..., padding="VALID").',
            onnx="Set pads=[1, 1, 1, 1] on the Conv, not auto_pad=SAME_UPPER.",
        ),
        ("MMdnn#379", "generative-inpainting-pytorch#58"),
        in_graph(Edit("conv", lambda call: bool(call.unit) and _strides(call), fixed(_same))),
    ),
    Mistake(
        "pool1",
        "pads pool1 in the way of {value}",
        "pad it in the way of {pool_mode}",
        Mend(
            pytorch="F.pad(x, (0, 1, 0, 1), value=-inf) and nn.MaxPool2d(3, 2) for slim at even sides; "
            "nn.MaxPool2d(3, 2, padding=1) for torch.",
            keras='layers.MaxPooling2D(3, 2, padding="same") for slim; layers.ZeroPadding2D(1) before '
            "layers.MaxPooling2D(3, 2) for keras.",
            tensorflow='tf.nn.max_pool2d(x, 3, 2, "SAME") for slim.',
            onnx="auto_pad=SAME_UPPER for slim; pads=[1, 1, 1, 1] for torch; ceil_mode=0.",
        ),
        ("simclr#26", "tensorflow#48105", "keras-applications#30", "PytorchToCaffe#4"),
        _pool1s,
    ),
    Mistake(
        "stride-place",
        "strides elsewhere in each block: {value}",
        "stride in the right unit: {stride_place}",
        Mend(
            pytorch="Give stride=2 to the 3x3 convolution, and to the shortcut, of the right unit.",
            keras="Give strides=2 to the 3x3 convolution, and to the shortcut, of the right unit.",
            tensorflow="resnet_v2_block(scope, base_depth, num_units, stride) strides in its last unit.",
            onnx="Set strides=[2, 2] on the 3x3 Conv and the shortcut of the right unit.",
        ),
        ("benchopt/benchmark_resnet_classif#9", "deeplab-pytorch#80"),
        _stride_places,
    ),
    Mistake(
        "shortcut-pool",
        "takes the {value} pool in the shortcut of {site}",
        "take every second pixel, x[:, ::2, ::2, :]",
        Mend(
            pytorch="nn.MaxPool2d(1, stride=2), or x[:, :, ::2, ::2].",
            keras="layers.MaxPooling2D(1, strides=2).",
            tensorflow="tf.nn.max_pool2d(x, 1, 2, 'SAME'), or x[:, ::2, ::2].",
            onnx="MaxPool with kernel_shape=[1, 1] and strides=[2, 2].",
        ),
        (),
        in_graph(
            Edit("subsample", lambda call: bool(call.unit), _pool_for_subsample),
            Edit("conv", lambda call: call.layer == "shortcut" and call.arguments[3] > 1, _pool_for_stride),
            values=("average 2x2", "max 2x2", "max 3x3", "max 3x3 border"),
            by_unit=True,
        ),
    ),
    Mistake(
        "dilation-early",
        "begins the higher rate already in {site}, which left its stride out",
        "keep the old rate in that unit; the units after it have the higher one",
        Mend(
            pytorch="Keep the previous dilation in the first 3x3 convolution after the stride is left out.",
            keras="Keep the previous dilation_rate in that unit.",
            tensorflow="stack_blocks_dense multiplies the rate after the unit, not before it.",
            onnx="Set dilations of that Conv to those of the unit before.",
        ),
        ("detectron2#2598", "segmentation_models.pytorch#183"),
        _early,
    ),
    Mistake(
        "dilation-first-only",
        "has the rate in the first unit of each block alone",
        "have it in all units of the block",
        Mend(
            pytorch="Pass dilation=rate, padding=rate to every 3x3 convolution of the block.",
            keras="Pass dilation_rate to every 3x3 convolution of the block.",
            tensorflow="Pass rate= to every unit of the block.",
            onnx="Set dilations on every 3x3 Conv of the block.",
        ),
        ("pytorch-deeplab-xception#34",),
        in_graph(
            Edit("conv", lambda call: _rate(call) > 1 and "/unit_1/" not in call.unit, fixed(_dense(1))),
            by_unit=True,
            only_everywhere=True,
        ),
    ),
    Mistake(
        "dilation-missing",
        "leaves the stride out, but has no rate in its place, in {site}",
        "multiply the rate by each stride that is left out",
        Mend(
            pytorch="Pass dilation=rate, padding=rate to the 3x3 convolutions.",
            keras="Pass dilation_rate=rate to the 3x3 convolutions.",
            tensorflow="Pass rate=rate to the units.",
            onnx="Set dilations=[rate, rate] and pads to match on the 3x3 Convs.",
        ),
        ("pytorch-deeplab-xception#34",),
        in_graph(Edit("conv", lambda call: _rate(call) > 1, fixed(_dense(1))), by_unit=True),
    ),
    Mistake(
        "pool-counts-padding",
        "counts the padding in the average pool of {site}",
        "divide by the number of pixels inside the image",
        Mend(
            pytorch="nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False).",
            keras='layers.AveragePooling2D(2, 2, padding="same") leaves the padding out.',
            tensorflow='tf.nn.avg_pool2d(x, 2, 2, "SAME") leaves the padding out.',
            onnx="Set count_include_pad=0 on AveragePool.",
        ),
        ("tract#2654", "MMdnn#909", "onnxruntime#16203"),
        in_graph(Edit("avg_pool", lambda call: True, _counts_padding)),
    ),
)
