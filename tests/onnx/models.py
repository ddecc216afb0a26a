"""Small ONNX files with the structure that exporters give ResNets, and their values by ONNX's own evaluator.

The names of nodes and values are numbers: what a graph computes must be read from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from tests.slim.oracle import Net

DEEP = (4, 4, 6)


class Style(NamedTuple):
    """How a home builds a network, and how an exporter writes it.

    Attributes
    ----------
    norm : str
        "kept", "folded" into the convolutions before it, or "scaled": a product and a sum.
    biased : tuple of str
        Layers that have biases beside a norm.
    shared : bool
        Whether equal biases are one tensor, which the others name through Identity nodes.
    merged : bool
        Whether tensors of one shape are equal, and equal tensors are one.
    """

    version: int
    unit: str = "bottleneck"
    place: str = "first_unit"
    pool: str = "torch"
    norm: str = "kept"
    biased: tuple[str, ...] = ()
    image_norm: bool = False
    active_root: bool = False
    deep: bool = False
    avg_down: bool = False
    head: str = "gemm"
    nhwc: bool = False
    free: bool = True
    shared: bool = False
    merged: bool = False
    opset: int = 17
    epsilon: float = 1e-5
    stages: tuple[tuple[int, int], ...] = ((3, 2), (5, 1), (4, 2))
    root: int = 64
    classes: int = 7

    def net(self) -> Net:
        """The network for the bounds."""
        blocks = []
        for i, (width, count) in enumerate(self.stages):
            units = [{"depth": self.depth(width), "depth_bottleneck": width, "stride": 1} for _ in range(count)]
            if self.place == "last_unit":
                units[-1]["stride"] = 1 if i == len(self.stages) - 1 else 2
            elif i > 0:
                units[0]["stride"] = 2
                if self.place == "first_conv":
                    units[0]["stride_in_1x1"] = True
            blocks.append((f"block{i + 1}", units))
        root = {"root_depths": DEEP} if self.deep else {}
        return Net(
            blocks, self.classes, pool_mode=self.pool, batch_norm_epsilon=self.epsilon, version=self.version,
            unit=self.unit, avg_down=self.avg_down, scope=f"resnet_v{self.version}", bias_before_batch_norm=None,
            **root,
        )  # fmt: skip

    def depth(self, width: int) -> int:
        """Channels of a unit's output."""
        return width if self.unit == "basic" else 4 * width


class Model(NamedTuple):
    """A file, and the value in it that each end point of refnet must have."""

    proto: onnx.ModelProto
    points: dict[str, str]


class _Writer:
    def __init__(self, style: Style, seed: int) -> None:
        self.style = style
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.points: dict[str, str] = {}
        self.biases: dict[int, str] = {}
        self.merged: dict[tuple[Any, ...], str] = {}
        self.count = 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, array: np.ndarray) -> str:
        key = (array.dtype, array.shape, array.tobytes())
        if self.style.merged and key in self.merged:
            return self.merged[key]
        name = self.merged[key] = self.name()
        if array.dtype == np.float32 and self.style.opset < 9:
            # As MXNet writes them.
            self.tensors.append(helper.make_tensor(name, TensorProto.FLOAT, array.shape, array.ravel()))
        else:
            self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = self.name()
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def uniform(self, low: float, high: float, *shape: int) -> np.ndarray:
        random = np.random.default_rng([7, *shape]) if self.style.merged else self.random
        return random.uniform(low, high, shape).astype(np.float32)

    def bias(self, depth: int) -> str:
        if not self.style.shared:
            return self.constant(self.uniform(-0.3, 0.3, depth))
        if depth not in self.biases:
            self.biases[depth] = self.constant(self.uniform(-0.3, 0.3, depth))
            return self.biases[depth]
        return self.node("Identity", self.biases[depth])

    def norm(self, x: str, depth: int) -> str:
        scale, shift = self.uniform(0.5, 1.5, depth), self.uniform(-0.3, 0.3, depth)
        if self.style.norm == "scaled":
            product = self.node("Mul", x, self.constant(scale.reshape(1, depth, 1, 1)))
            return self.node("Add", self.constant(shift.reshape(1, depth, 1, 1)), product)
        vectors = (scale, shift, self.uniform(-0.3, 0.3, depth), self.uniform(0.5, 1.5, depth))
        more = {"spatial": 1, "momentum": 0.9} if self.style.opset < 9 else {}
        names = map(self.constant, vectors)
        return self.node("BatchNormalization", x, *names, epsilon=self.style.epsilon, **more)

    def convolution(self, x: str, depths: tuple[int, int], size: int, stride: int, layer: str, normed: bool) -> str:
        """A convolution, in TensorFlow's style with TensorFlow's padding, and the norm after it."""
        style, (inputs, depth) = self.style, depths
        limit = np.sqrt(3.0 / (inputs * size * size)) * (0.3 if layer == "last" else 1)
        kernel = self.constant(self.uniform(-limit, limit, depth, inputs, size, size))
        folded = style.norm == "folded" or not normed
        has_bias = layer in style.biased or (folded and (normed or style.nhwc))
        pads: dict[str, Any] = {"pads": [size // 2] * 4}
        if style.nhwc and stride == 1:
            pads = {"auto_pad": "SAME_UPPER"}
        elif style.nhwc and size > 1:
            values = [0, 0, size // 2, size // 2] * 2
            x = self.node("Pad", x, self.constant(np.array(values, np.int64)), self.constant(np.zeros((), np.float32)))
            pads = {"auto_pad": "VALID"}
        more = [self.bias(depth)] if has_bias else []
        x = self.node("Conv", x, kernel, *more, kernel_shape=[size] * 2, strides=[stride] * 2, **pads)
        return self.norm(x, depth) if normed and not folded else x

    def root(self, x: str) -> str:
        style = self.style
        if style.image_norm:
            x = self.points["input"] = self.norm(x, 3)
        sizes = [("conv1", 3, style.root, 7)]
        if style.deep:
            depths = zip((3, *DEEP[:-1]), DEEP, strict=True)
            sizes = [(f"conv1_{i}", before, after, 3) for i, (before, after) in enumerate(depths, 1)]
        for name, before, after, size in sizes:
            is_active = style.version == 1 or style.active_root or name != sizes[-1][0]
            x = self.convolution(x, (before, after), size, 2 if before == 3 else 1, "root", is_active)
            x = self.points[name] = self.node("Relu", x) if is_active else x
        window = {"kernel_shape": [3, 3], "strides": [2, 2]}
        if style.pool == "keras":
            pads, zero = np.array([0, 0, 1, 1] * 2, np.int64), np.zeros((), np.float32)
            x = self.node("MaxPool", self.node("Pad", x, self.constant(pads), self.constant(zero)), **window)
        else:
            pad = {"slim": {"auto_pad": "SAME_UPPER"}, "torch": {"pads": [1] * 4}, "valid": {"pads": [0] * 4}}
            x = self.node("MaxPool", x, **window, **pad[style.pool])
        self.points["pool1"] = x
        return x

    def unit(self, name: str, x: str, before: int, unit: Mapping[str, int]) -> str:
        style, stride, depth, width = self.style, unit["stride"], unit["depth"], unit["depth_bottleneck"]
        source = x
        if style.version == 2:
            source = self.points[f"{name}/preact"] = self.node("Relu", self.norm(x, before))
        first = style.version == 1
        shortcut = x
        if before != depth or (stride > 1 and style.place != "last_unit"):
            pooled = source
            if stride > 1 and style.avg_down:
                window = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1, "count_include_pad": 0}
                pooled = self.points[f"{name}/avg_pool"] = self.node("AveragePool", source, **window)
            by = 1 if style.avg_down else stride
            shortcut = self.convolution(pooled, (before, depth), 1, by, "shortcut", first)
            self.points[f"{name}/shortcut"] = shortcut
        elif stride > 1:
            shortcut = self.node("MaxPool", x, kernel_shape=[1, 1], strides=[stride] * 2)
        sizes = [3, 3] if style.unit == "basic" else [1, 3, 1]
        strided = 0 if style.unit == "basic" or style.place == "first_conv" else 1
        for i, size in enumerate(sizes):
            last = i == len(sizes) - 1
            after = depth if last else width
            layer = "last" if last else f"conv{i + 1}"
            inputs = before if i == 0 else width
            by = stride if i == strided else 1
            source = self.convolution(source, (inputs, after), size, by, layer, first or not last)
            source = self.points[f"{name}/conv{i + 1}"] = source if last else self.node("Relu", source)
        total = self.node("Add", *((shortcut, source) if first else (source, shortcut)))
        self.points[name] = self.node("Relu", total) if first else total
        return self.points[name]

    def head(self, x: str, depth: int) -> str:
        style = self.style
        if style.version == 2:
            x = self.points["postnorm"] = self.node("Relu", self.norm(x, depth))
        if style.head == "mean":
            # As torch.export has it.
            x = self.node("ReduceMean", x, axes=[-1, -2], keepdims=1)
        else:
            x = self.node("GlobalAveragePool", x)
        self.points["pool5"] = x
        kernel = self.uniform(-0.5, 0.5, style.classes, depth)
        biases = self.constant(self.uniform(-1, 1, style.classes))
        if style.head == "conv":
            x = self.node("Conv", x, self.constant(kernel[:, :, np.newaxis, np.newaxis]), biases)
            return self.node("Softmax", self.node("Squeeze", x, self.constant(np.array([2, 3]))), axis=-1)
        if style.head == "matmul":
            x = self.node("Squeeze", x, self.constant(np.array([2, 3])))
            x = self.node("MatMul", x, self.constant(np.ascontiguousarray(kernel.T)))
            return self.node("Softmax", self.node("Add", x, biases), axis=-1)
        if style.head == "mean":
            x = self.node("Reshape", x, self.constant(np.array([-1, depth])))
        else:
            x = self.node("Flatten", x)
        return self.node("Gemm", x, self.constant(kernel), biases, transB=1)


def model(style: Style, seed: int = 0, size: tuple[int, int] | None = None) -> Model:
    """A file in a style; its image's size is free, or fixed."""
    writer, net = _Writer(style, seed), style.net()
    x = writer.node("Transpose", "image", perm=[0, 3, 1, 2]) if style.nhwc else "image"
    x = writer.root(x)
    depth = DEEP[-1] if style.deep else style.root
    for scope, units in net.blocks:
        for i, unit in enumerate(units):
            x = writer.unit(f"{scope}/unit_{i + 1}/{net.unit_name}", x, depth, unit)
            depth = unit["depth"]
    output = writer.head(x, depth)
    height, width = size or ("height", "width")
    shape = ["batch", height, width, 3] if style.nhwc else ["batch", 3, height, width]
    graph = helper.make_graph(
        writer.nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", style.classes])],
        writer.tensors,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", style.opset)], ir_version=8)
    onnx.checker.check_model(proto)
    points = {f"{net.scope}/{name}": value for name, value in writer.points.items()}
    return Model(proto, points | {"output": output})


def values(
    proto: onnx.ModelProto, images: np.ndarray, names: Sequence[str], dtype: str, epsilon: float = 1e-5
) -> list[np.ndarray]:
    """Some values of the graph: in float64 by ONNX's reference evaluator, in float32 by ONNX Runtime.

    The file has epsilon in float32. In float64 the home's own takes its place, as a part of the variance.
    """
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    del proto.graph.output[:]
    kind = TensorProto.DOUBLE if dtype == "float64" else TensorProto.FLOAT
    proto.graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in names)
    source = proto.graph.input[0]
    if images.shape[-1] == 3 and source.type.tensor_type.shape.dim[1].dim_value == 3:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if dtype == "float32":
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {source.name: images})
    else:
        source.type.tensor_type.elem_type = kind
        for tensor in proto.graph.initializer:
            if tensor.data_type == TensorProto.FLOAT:
                tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
        stored = {tensor.name: tensor for tensor in proto.graph.initializer}
        for i, node in enumerate(proto.graph.node):
            if node.op_type == "BatchNormalization":
                # A variance can be another layer's gamma too.
                variance = numpy_helper.to_array(stored[node.input[4]]) + epsilon
                node.input[4] = f"variance{i}"
                proto.graph.initializer.append(numpy_helper.from_array(variance, node.input[4]))
        for node in proto.graph.node:
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 0
        if proto.opset_import[0].version < 14:
            # The evaluator has batch norm right since version 14; there this attribute is gone.
            proto.opset_import[0].version = 14
            for node in proto.graph.node:
                for attribute in [attribute for attribute in node.attribute if attribute.name == "spatial"]:
                    node.attribute.remove(attribute)
        found = ReferenceEvaluator(proto).run(None, {source.name: images.astype(np.float64)})
    assert all(value.dtype == dtype for value in found)
    return found


#: Each exporter's structure.
STYLES = {
    "Gluon v1": Style(1, place="first_conv", biased=("conv1", "last"), opset=7),
    "Gluon v1, basic": Style(1, "basic", opset=7, stages=((64, 2), (5, 1), (4, 2))),
    "Gluon V2": Style(2, image_norm=True, active_root=True, opset=7),
    "Gluon V2, basic": Style(2, "basic", image_norm=True, active_root=True, opset=7),
    "torch.onnx, v1": Style(1, norm="folded", shared=True),
    "torch.onnx, v1 basic, norms kept": Style(1, "basic", head="mean"),
    "torch.onnx, V2": Style(2, norm="folded", head="mean"),
    "torch.onnx, V2 basic": Style(2, "basic", norm="folded", shared=True),
    "torch.onnx, V2 deep": Style(2, norm="folded", deep=True, avg_down=True, head="conv"),
    "torch.onnx, v1 deep": Style(1, norm="folded", deep=True, avg_down=True),
    "torch.onnx, activated root": Style(2, norm="folded", active_root=True),
    "tf2onnx, Keras v1": Style(
        1, place="first_conv", pool="keras", norm="scaled", biased=("root", "conv1", "conv2", "last", "shortcut"),
        nhwc=True, head="matmul",
    ),
    "tf2onnx, Keras V2": Style(2, place="last_unit", pool="keras", norm="scaled", nhwc=True, head="matmul"),
    "tf2onnx, Keras V2, norms kept": Style(
        2, place="last_unit", pool="keras", nhwc=True, head="matmul", epsilon=1.001e-5
    ),
    "tf2onnx, TF-Slim v1": Style(1, place="last_unit", pool="slim", norm="folded", nhwc=True, head="conv"),
    "tf2onnx, TF-Slim V2": Style(2, place="last_unit", pool="slim", norm="folded", nhwc=True, head="conv"),
    "a pool without padding": Style(1, pool="valid"),
    "equal tensors are one, v1": Style(1, norm="folded", merged=True),
    "equal tensors are one, v1 basic": Style(1, "basic", merged=True, stages=((64, 2), (64, 2), (4, 2))),
    "equal tensors are one, V2": Style(2, merged=True, image_norm=True, active_root=True),
    "equal tensors are one, TF-Slim V2": Style(
        2, place="last_unit", pool="slim", norm="scaled", nhwc=True, head="matmul", merged=True
    ),
    "a narrow root": Style(2, norm="folded", root=6),
}  # fmt: skip
