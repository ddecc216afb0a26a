"""The same network for other engines, written from refnet's own graph: as ONNX, for LiteRT and for PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import refnet
from benchmarks.common import Case
from benchmarks.slim import tensorflow
from refnet.benchmark import layers
from refnet.graph.graph import Graph, Tensor
from refnet.network.resnet_v2 import network_blocks, resnet_v2
from refnet_kernels.contract import ConvGeometry, PoolGeometry


def network_graph(case: Case, weights: Mapping[str, np.ndarray]) -> tuple[list[Tensor], Tensor]:
    """The operations that lead to the net, in order, and the net."""
    graph = Graph(weights)
    net, _ = resnet_v2(graph.placeholder(case.shape), network_blocks(case.network), scope=case.network, **case.options)
    graph.check_variables()
    return [tensor for tensor in graph.tensors if tensor.index <= net.index], net


def share_of_zeros(case: Case, weights: Mapping[str, np.ndarray], images: np.ndarray) -> float:
    """The share of the products inside the image, in all convolutions of the network, whose input is 0."""
    given = refnet.Weights(weights)
    return layers.share_of_zeros(refnet.Engine(given, **case.options), given, images, case.threads)


def _pads(g: ConvGeometry | PoolGeometry, reach_height: int, reach_width: int) -> tuple[int, int, int, int]:
    """Top, left, bottom and right pads of windows that span these numbers of rows and columns."""
    bottom = (g.out_height - 1) * g.stride + reach_height - g.pad_top - g.height
    right = (g.out_width - 1) * g.stride + reach_width - g.pad_left - g.width
    return g.pad_top, g.pad_left, max(bottom, 0), max(right, 0)


def _conv_pads(g: ConvGeometry) -> tuple[int, int, int, int]:
    return _pads(g, (g.kernel_height - 1) * g.rate + 1, (g.kernel_width - 1) * g.rate + 1)


class _OnnxWriter:
    """Nodes and constants of an NCHW model; a tensor's name is its index in refnet's graph."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: np.ndarray | None = None) -> str:
        """A constant in the model; by default the weights of that name."""
        from onnx import numpy_helper

        value = self.weights[name] if value is None else value
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, kind: str, tensor: Tensor, *constants: str, **attributes: Any) -> None:
        """A node for a tensor of the graph, with its inputs and then the constants."""
        from onnx import helper

        inputs = [str(source.index) for source in tensor.inputs]
        self.nodes.append(helper.make_node(kind, [*inputs, *constants], [str(tensor.index)], **attributes))

    def add(self, tensor: Tensor, bias: Tensor | None) -> None:
        """A tensor's operation; a convolution takes the bias that follows it."""
        g, names = tensor.geometry, tensor.variables
        if tensor.op == "conv":
            kernel = self.constant(names["weights"], self.weights[names["weights"]].transpose(3, 2, 0, 1))
            constants = [kernel] if bias is None else [kernel, self.constant(bias.variables["biases"])]
            shape = {"kernel_shape": [g.kernel_height, g.kernel_width], "strides": [g.stride] * 2}
            self.node("Conv", tensor, *constants, **shape, dilations=[g.rate] * 2, pads=_conv_pads(g))
        elif tensor.op == "bias_add":
            self.node("Identity", tensor)
        elif tensor.op == "batch_norm":
            roles = ("gamma", "beta", "moving_mean", "moving_variance")
            self.node("BatchNormalization", tensor, *(self.constant(names[role]) for role in roles), epsilon=g.epsilon)
        elif tensor.op == "max_pool":
            pads = _pads(g, g.window, g.window)
            self.node("MaxPool", tensor, kernel_shape=[g.window] * 2, strides=[g.stride] * 2, pads=pads)
        elif tensor.op == "subsample":
            # As TF-Slim does it; it also keeps the blocked layouts that engines choose.
            self.node("MaxPool", tensor, kernel_shape=[1, 1], strides=[g.factor] * 2)
        elif tensor.op == "squeeze":
            self.node("Flatten", tensor)
        else:
            self.node({"relu": "Relu", "residual": "Add", "mean": "GlobalAveragePool"}[tensor.op], tensor)


def write_onnx(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    """The network as an ONNX file: images [N, 3, H, W] to logits [N, classes] or dense features [N, C, h, w]."""
    import onnx
    from onnx import TensorProto, helper

    tensors, net = network_graph(case, weights)
    biases = {tensor.inputs[0].index: tensor for tensor in tensors if tensor.op == "bias_add"}
    writer = _OnnxWriter(weights)
    for tensor in tensors[1:]:
        writer.add(tensor, biases.get(tensor.index))
    batch, height, width, channels = case.shape
    shape = [batch, channels, height, width]
    net_shape = list(net.shape) if len(net.shape) == 2 else [net.shape[0], net.shape[3], *net.shape[1:3]]
    graph = helper.make_graph(
        writer.nodes,
        case.network,
        [helper.make_tensor_value_info(str(tensors[0].index), TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(str(net.index), TensorProto.FLOAT, net_shape)],
        writer.constants,
    )
    # IR 10 and opset 17 are old enough for every engine of recent years.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


def write_litert(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    """The network as a LiteRT flatbuffer, by TensorFlow's converter: NHWC images to logits or dense features."""
    tf = tensorflow(case.threads)
    tensors, net = network_graph(case, weights)

    def network(images: Any) -> Any:
        values = {tensors[0].index: images}
        for tensor in tensors[1:]:
            values[tensor.index] = _tensorflow_value(tf, tensor, [values[x.index] for x in tensor.inputs], weights)
        return values[net.index]

    function = tf.function(network, input_signature=[tf.TensorSpec(case.shape, tf.float32)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
        path.write_bytes(converter.convert())


def _tensorflow_value(tf: Any, tensor: Tensor, inputs: list[Any], weights: Mapping[str, np.ndarray]) -> Any:
    g, x = tensor.geometry, inputs[0]
    values = {role: tf.constant(weights[name]) for role, name in tensor.variables.items()}
    if tensor.op == "conv":
        if g.stride == 1:
            return tf.nn.conv2d(x, values["weights"], 1, "SAME", dilations=g.rate)
        top, left, bottom, right = _conv_pads(g)
        x = tf.pad(x, [[0, 0], [top, bottom], [left, right], [0, 0]]) if top + left + bottom + right else x
        return tf.nn.conv2d(x, values["weights"], g.stride, "VALID")
    if tensor.op == "batch_norm":
        roles = ("moving_mean", "moving_variance", "beta", "gamma")
        return tf.nn.batch_normalization(x, *(values[role] for role in roles), g.epsilon)
    if tensor.op == "max_pool":
        return tf.nn.max_pool2d(x, g.window, g.stride, "SAME")
    simple: dict[str, Callable[[], Any]] = {
        "bias_add": lambda: tf.nn.bias_add(x, values["biases"]),
        "relu": lambda: tf.nn.relu(x),
        "residual": lambda: x + inputs[1],
        "subsample": lambda: tf.nn.max_pool2d(x, 1, g.factor, "VALID"),
        "mean": lambda: tf.reduce_mean(x, [1, 2], keepdims=True),
        "squeeze": lambda: tf.squeeze(x, [1, 2]),
    }
    return simple[tensor.op]()


def write_torch(case: Case, weights: Mapping[str, np.ndarray], path: Path) -> None:
    """The network as an exported PyTorch program: NCHW images, in channels-last memory, to logits or dense features."""
    import torch

    tensors, net = network_graph(case, weights)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in {name for tensor in tensors for name in tensor.variables.values()}:
                value = torch.from_numpy(np.array(weights[name]))
                if value.ndim == 4:
                    value = value.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
                self.register_buffer(name.replace("/", "-"), value)

        def forward(self, images: Any) -> Any:
            values = {tensors[0].index: images}
            for tensor in tensors[1:]:
                variables = {role: getattr(self, name.replace("/", "-")) for role, name in tensor.variables.items()}
                values[tensor.index] = _torch_value(tensor, [values[x.index] for x in tensor.inputs], variables)
            return values[net.index]

    images = torch.zeros(case.batch, 3, case.size, case.size).to(memory_format=torch.channels_last)
    torch.export.save(torch.export.export(Network().eval(), (images,)), path)


def _torch_value(tensor: Tensor, inputs: list[Any], variables: Mapping[str, Any]) -> Any:
    from torch.nn import functional

    g, x = tensor.geometry, inputs[0]
    if tensor.op == "conv":
        top, left, bottom, right = _conv_pads(g)
        symmetric = top == bottom and left == right
        x = x if symmetric else functional.pad(x, (left, right, top, bottom))
        pads = (top, left) if symmetric else 0
        return functional.conv2d(x, variables["weights"], None, g.stride, pads, g.rate)
    if tensor.op == "batch_norm":
        roles = ("moving_mean", "moving_variance", "gamma", "beta")
        return functional.batch_norm(x, *(variables[role] for role in roles), False, 0.0, g.epsilon)
    if tensor.op == "max_pool":
        top, left, bottom, right = _pads(g, g.window, g.window)
        return functional.max_pool2d(functional.pad(x, (left, right, top, bottom), value=-np.inf), g.window, g.stride)
    simple: dict[str, Callable[[], Any]] = {
        "bias_add": lambda: x + variables["biases"].reshape(-1, 1, 1),
        "relu": lambda: functional.relu(x),
        "residual": lambda: x + inputs[1],
        "subsample": lambda: x[:, :, :: g.factor, :: g.factor],
        "mean": lambda: x.mean((2, 3), keepdim=True),
        "squeeze": lambda: x.flatten(1),
    }
    return simple[tensor.op]()
