"""Mistakes in how a unit is put together, and after the last one."""

from __future__ import annotations

from collections.abc import Callable

from refnet.diagnosis.mistake import Edit, Mend, Mistake, anywhere, fixed, in_graph
from refnet.diagnosis.patched import Around, Call
from refnet.graph.graph import Graph, Tensor


def _unit_input(call: Call) -> Tensor | None:
    return call.graph.unit_inputs.get(call.site)


def _has_identity(call: Call) -> bool:
    """Whether the shortcut of a sum is the unit's input, perhaps subsampled."""
    shortcut: Tensor = call.arguments[0]
    source = shortcut.inputs[0] if shortcut.op == "subsample" else shortcut
    unit_input = _unit_input(call)
    return unit_input is not None and source.index == unit_input.index


def _is_unit(call: Call) -> bool:
    """Whether an end point is a unit's output."""
    return call.site == call.unit


def _keeps_shape(call: Call) -> bool:
    unit_input = _unit_input(call)
    return _is_unit(call) and unit_input is not None and unit_input.shape == call.arguments[1].shape


def _from_input(
    call: Call, proceed: Callable[..., Tensor], inputs: Tensor, outputs: int, size: tuple[int, int], stride: int,
    rate: int, same: bool,
) -> Tensor:  # fmt: skip
    source = call.graph.unit_inputs[call.unit]
    if inputs.op == "avg_pool":
        source = Graph.avg_pool(call.graph, source, inputs.geometry.window, inputs.geometry.stride)  # type: ignore[attr-defined]
    return proceed(source, outputs, size, stride, rate, same)


def _from_preact(call: Call, proceed: Callable[..., Tensor], shortcut: Tensor, residual: Tensor) -> Tensor:
    preact = call.graph.end_points[call.graph.name("preact")]
    if shortcut.op == "subsample":
        preact = Graph.subsample(call.graph, preact, shortcut.geometry.factor)  # type: ignore[attr-defined]
    return proceed(preact, residual)


def _then_relu(call: Call, proceed: Callable[..., Tensor], name: str, tensor: Tensor) -> Tensor:
    return proceed(name, Graph.relu(call.graph, tensor))


def _relu_before(call: Call, proceed: Callable[..., Tensor], shortcut: Tensor, residual: Tensor) -> Tensor:
    return proceed(shortcut, Graph.relu(call.graph, residual))


def _left_out(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, *_: object) -> Tensor:
    return inputs


def _relu_first(call: Call, proceed: Callable[..., Tensor], inputs: Tensor, *arguments: object) -> Tensor:
    return proceed(Graph.relu(call.graph, inputs), *arguments)


def _alone(value: str | None) -> Around:
    """The shortcut of a unit, or with its stride left out too the unit's input."""

    def around(call: Call, proceed: Callable[..., Tensor], shortcut: Tensor, residual: Tensor) -> Tensor:
        return shortcut.inputs[0] if value and shortcut.op == "subsample" else shortcut

    return around


def _twice(call: Call, proceed: Callable[..., Tensor], name: str, tensor: Tensor) -> Tensor:
    once = call.graph.unit_inputs[call.site]
    return proceed(name, call.graph.again(tensor, once, tensor))


def _postnorm(what: str) -> Callable[[str], Around]:
    """Leave out the batch norm, and the ReLU after it unless the value says that it is there."""

    def around(value: str) -> Around:
        return _left_out if what == "norm" or value != "the ReLU alone" else _as_meant

    return around


def _as_meant(call: Call, proceed: Callable[..., Tensor], *arguments: object) -> Tensor:
    return proceed(*arguments)


_PREACT = Mend(
    pytorch="out = relu(norm1(x)); shortcut = downsample(out) if depths differ, else x.",
    keras="preact = ReLU(BatchNormalization(x)); shortcut = Conv2D(...)(preact) if depths differ, else x.",
    tensorflow="shortcut = conv2d(preact, depth, 1, stride) if depths differ, else subsample(inputs, stride).",
    onnx="Lead the output of the unit's first Relu to the shortcut's Conv, and the unit's input to a bare Add.",
)

_RELU = Mend(
    pytorch="v2: relu(bn(x)) before each convolution, nothing after the sum; v1: relu after bn1, bn2 and the sum.",
    keras="v2: BatchNormalization and ReLU before each convolution; v1: ReLU after the first norms and after the Add.",
    tensorflow="v2: activation_fn=None in conv3 and shortcut; v1: tf.nn.relu(shortcut + residual).",
    onnx="Compare the Relu nodes with `refnet summary`, unit by unit.",
)

_UNITS = Mend(
    pytorch="Count the units per block: len(layer1) and so on.",
    keras="Count the units per block: stack(..., blocks=n).",
    tensorflow="Count the units per block: resnet_v2_block(..., num_units=n).",
    onnx="Count the Add nodes: one per unit.",
)

MISTAKES = (
    Mistake(
        "shortcut-from-input",
        "projects the input of {site} in the shortcut",
        "project the preact: the input after batch norm and ReLU",
        _PREACT,
        ("pytorch-cifar#9", "tensorflow#51464"),
        in_graph(Edit("conv", lambda call: call.layer == "shortcut", fixed(_from_input)), versions=(2,), by_unit=True),
    ),
    Mistake(
        "identity-from-preact",
        "carries the preact along the identity shortcut of {site}",
        "carry the unit's input itself",
        _PREACT,
        ("pytorch-cifar#9", "tensorflow#51464"),
        in_graph(Edit("add", _has_identity, fixed(_from_preact)), versions=(2,)),
    ),
    Mistake(
        "relu-after-add",
        "has a ReLU after the sum of {site}",
        "leave the sum as it is: the next preact begins with batch norm and ReLU",
        _RELU,
        ("models#4198", "models#4254"),
        in_graph(Edit("collect", _is_unit, fixed(_then_relu)), versions=(2,)),
    ),
    Mistake(
        "relu-before-add",
        "has a ReLU before the sum of {site}, on the residual",
        "add the last convolution's output as it is",
        _RELU,
        ("models#4254", "pytorch-cifar#4"),
        in_graph(Edit("add", anywhere, fixed(_relu_before))),
    ),
    Mistake(
        "relu-missing",
        "has no ReLU in {site}",
        "put a ReLU there",
        _RELU,
        ("keras-resnet#26",),
        in_graph(Edit("relu", anywhere, fixed(_left_out))),
    ),
    Mistake(
        "root-activated",
        "has a ReLU between conv1 and pool1",
        "pool conv1's output as it is: in v2 the first unit begins with batch norm and ReLU",
        Mend(
            pytorch="x = maxpool(conv1(x)), without bn1 and relu.",
            keras="MaxPooling2D directly after conv1_conv.",
            tensorflow="activation_fn=None, normalizer_fn=None in conv1.",
            onnx="Lead Conv to MaxPool without a Relu between.",
        ),
        ("keras-resnet#26",),
        in_graph(Edit("max_pool", anywhere, fixed(_relu_first)), versions=(2,)),
    ),
    Mistake(
        "postnorm-missing",
        "leaves out the batch norm after the last block",
        "normalise, and apply ReLU, before the global pool",
        Mend(
            pytorch="x = relu(norm(x)) before the pool, with postnorm's variables.",
            keras="post_bn and post_relu after the last stack.",
            tensorflow="slim.batch_norm(net, activation_fn=tf.nn.relu, scope='postnorm').",
            onnx="BatchNormalization and Relu before GlobalAveragePool.",
        ),
        ("keras-resnet#26",),
        in_graph(
            Edit("batch_norm", lambda call: call.layer == "postnorm", _postnorm("norm")),
            Edit("relu", lambda call: call.layer == "postnorm", _postnorm("relu")),
            values=(None, "the ReLU alone"),
            versions=(2,),
            only_everywhere=True,
        ),
    ),
    Mistake(
        "bias-ignored",
        "adds no bias in {site}",
        "add the biases from the weights",
        Mend(
            pytorch="nn.Conv2d(..., bias=True), and copy the biases.",
            keras="Conv2D(..., use_bias=True); set_weights([kernel, bias]).",
            tensorflow="tf.nn.bias_add(x, biases).",
            onnx="Pass the biases as Conv's third input, B.",
        ),
        (),
        in_graph(Edit("bias_add", anywhere, fixed(_left_out))),
    ),
    Mistake(
        "unit-missing",
        "leaves {site} out",
        "have all of the units",
        _UNITS,
        (),
        in_graph(Edit("add", _has_identity, _alone), values=(None, "with its stride")),
    ),
    Mistake(
        "unit-doubled",
        "runs {site} twice",
        "run it once",
        _UNITS,
        (),
        in_graph(Edit("collect", _keeps_shape, fixed(_twice))),
    ),
)
