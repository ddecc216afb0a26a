"""Ports without a mistake, on every engine that is installed: what a diagnosis must call right."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from tests.ports import tensorflow_port, torch_port
from tests.ports.networks import Variables, norm_name, run_numpy, units
from tests.slim.oracle import Net, run_slim
from tests.support.tensorflow import quiet, tensorflow

Arrays = dict[str, np.ndarray]
Port = Callable[[Variables, np.ndarray, Net], Arrays]


def _wide(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    """Computed in float64, and cast."""
    found = tensorflow_port.run(variables, images, net, dtype="float64")
    return {name: value.astype(np.float32) for name, value in found.items()}


def _in_batch(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    """The image in the middle of others."""
    batch = np.concatenate([images[:, ::-1], images, images * np.float32(0.5)])
    found = tensorflow_port.run(variables, batch, net, how="function", norm="fused")
    return {name: value[1:2] for name, value in found.items()}


def _session(threads: int, norm: str, variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    """TensorFlow 1's way, with so many threads."""
    tf = tensorflow().compat.v1
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    with tf.Graph().as_default(), tf.Session(config=config) as session:
        found = tensorflow_port.TensorFlowPort(variables, net, norm=norm)(tf.constant(images))
        return dict(session.run(found))


def _slim(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    return run_slim(net, variables, images)[1]


class Builder:
    """The network, layer by layer, in an engine that has layers rather than functions."""

    def __init__(self, variables: Variables, net: Net) -> None:
        self.variables, self.net = variables, net

    def weights(self, path: str) -> np.ndarray:
        return self.variables[f"{self.net.scope}/{path}/weights"]

    def biases(self, path: str) -> np.ndarray | None:
        return self.variables.get(f"{self.net.scope}/{path}/biases")

    def vectors(self, path: str) -> list[np.ndarray]:
        name = norm_name(self.net, path)
        return [self.variables[f"{name}/{leaf}"] for leaf in ("gamma", "beta", "moving_mean", "moving_variance")]

    # What an engine has.

    def convolution(self, path: str, x: Any, stride: int) -> Any:
        raise NotImplementedError

    def norm(self, path: str, x: Any) -> Any:
        raise NotImplementedError

    def relu(self, x: Any) -> Any:
        raise NotImplementedError

    def add(self, x: Any, y: Any) -> Any:
        raise NotImplementedError

    def max_pool(self, x: Any) -> Any:
        raise NotImplementedError

    def subsample(self, x: Any, stride: int) -> Any:
        raise NotImplementedError

    def mean(self, x: Any) -> Any:
        raise NotImplementedError

    # The network.

    def layer(self, path: str, x: Any, stride: int = 1, active: bool = True) -> Any:
        x = self.convolution(path, x, stride)
        if self.biases(path) is None:
            x = self.norm(path, x)
        return self.relu(x) if active else x

    def logits(self, x: Any) -> Any:
        first = self.net.version == 1
        x = self.max_pool(self.layer("conv1", x, 2, first))
        for path, unit, projects in units(self.net):
            stride = unit["stride"]
            source = x if first else self.relu(self.norm(f"{path}/preact", x))
            if projects:
                shortcut = self.layer(f"{path}/shortcut", source, stride, False)
            else:
                shortcut = self.subsample(x, stride) if stride > 1 else x
            residual = self.layer(f"{path}/conv2", self.layer(f"{path}/conv1", source), stride)
            x = self.add(shortcut, self.layer(f"{path}/conv3", residual, 1, False))
            x = self.relu(x) if first else x
        x = x if first else self.relu(self.norm("postnorm", x))
        return self.layer("logits", self.mean(x), 1, False)


class KerasBuilder(Builder):
    """Keras' own layers."""

    def __init__(self, variables: Variables, net: Net) -> None:
        super().__init__(variables, net)
        self.layers = tensorflow().keras.layers

    def convolution(self, path: str, x: Any, stride: int) -> Any:
        kernel, biases = self.weights(path), self.biases(path)
        size = kernel.shape[0]
        if stride > 1 and size > 1:
            x = self.layers.ZeroPadding2D(((size - 1) // 2, size // 2))(x)
        layer = self.layers.Conv2D(
            kernel.shape[3], size, stride, "valid" if stride > 1 else "same", use_bias=biases is not None
        )
        x = layer(x)
        layer.set_weights([kernel] if biases is None else [kernel, biases])
        return x

    def norm(self, path: str, x: Any) -> Any:
        layer = self.layers.BatchNormalization(epsilon=self.net.batch_norm_epsilon)
        x = layer(x)
        layer.set_weights(self.vectors(path))
        return x

    def relu(self, x: Any) -> Any:
        return self.layers.ReLU()(x)

    def add(self, x: Any, y: Any) -> Any:
        return self.layers.Add()([x, y])

    def max_pool(self, x: Any) -> Any:
        if self.net.pool_mode == "keras":
            return self.layers.MaxPooling2D(3, 2)(self.layers.ZeroPadding2D(1)(x))
        return self.layers.MaxPooling2D(3, 2, "same")(x)

    def subsample(self, x: Any, stride: int) -> Any:
        return self.layers.MaxPooling2D(1, stride)(x)

    def mean(self, x: Any) -> Any:
        return self.layers.GlobalAveragePooling2D(keepdims=True)(x)


def _keras(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    with quiet():
        builder = KerasBuilder(variables, net)
        inputs = tensorflow().keras.Input(images.shape[1:])
        model = tensorflow().keras.Model(inputs, builder.logits(inputs))
        return {f"{net.scope}/logits": model.predict(images, verbose=0)}


class OnnxBuilder(Builder):
    """Nodes of ONNX, channels first."""

    def __init__(self, variables: Variables, net: Net) -> None:
        super().__init__(variables, net)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        from onnx import helper

        name = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def convolution(self, path: str, x: str, stride: int) -> str:
        kernel, biases = self.weights(path), self.biases(path)
        more = [] if biases is None else [self.constant(biases)]
        pad = kernel.shape[0] // 2
        kernel = self.constant(kernel.transpose(3, 2, 0, 1))
        return self.node("Conv", x, kernel, *more, pads=[pad] * 4, strides=[stride] * 2)

    def norm(self, path: str, x: str) -> str:
        vectors = map(self.constant, self.vectors(path))
        return self.node("BatchNormalization", x, *vectors, epsilon=self.net.batch_norm_epsilon)

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def add(self, x: str, y: str) -> str:
        return self.node("Add", x, y)

    def max_pool(self, x: str) -> str:
        window = {"kernel_shape": [3, 3], "strides": [2, 2]}
        if self.net.pool_mode == "keras":
            return self.node("MaxPool", self.node("Pad", x, self.constant(np.array([0, 0, 1, 1] * 2))), **window)
        return self.node("MaxPool", x, **window, auto_pad="SAME_UPPER")

    def subsample(self, x: str, stride: int) -> str:
        return self.node("MaxPool", x, kernel_shape=[1, 1], strides=[stride] * 2)

    def mean(self, x: str) -> str:
        return self.node("GlobalAveragePool", x)

    def model(self, shape: tuple[int, ...]) -> bytes:
        from onnx import TensorProto, helper

        output = self.logits("images")
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, shape)]
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, "network", inputs, outputs, self.tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        return bytes(proto.SerializeToString())


def _nchw(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _onnx_runtime(level: str, threads: int, variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    import onnxruntime as ort

    options, x = ort.SessionOptions(), _nchw(images)
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.intra_op_num_threads = threads
    model = OnnxBuilder(variables, net).model(x.shape)
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return {f"{net.scope}/logits": session.run(None, {"images": x})[0].transpose(0, 2, 3, 1)}


def _openvino(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    import openvino

    x, core = _nchw(images), openvino.Core()
    model = core.read_model(OnnxBuilder(variables, net).model(x.shape))
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {f"{net.scope}/logits": compiled(x)[0].transpose(0, 2, 3, 1)}


def _litert(variables: Variables, images: np.ndarray, net: Net) -> Arrays:
    """TensorFlow's converter, and XNNPACK."""
    from ai_edge_litert.interpreter import Interpreter

    tf = tensorflow()
    with quiet():
        port = tensorflow_port.TensorFlowPort(variables, net)
        function = tf.function(lambda x: port(x)[f"{net.scope}/logits"], autograph=False)
        concrete = function.get_concrete_function(tf.TensorSpec(images.shape, tf.float32))
        interpreter = Interpreter(model_content=tf.lite.TFLiteConverter.from_concrete_functions([concrete]).convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
    interpreter.invoke()
    return {f"{net.scope}/logits": interpreter.get_tensor(interpreter.get_output_details()[0]["index"])}


def correct_ports(net: Net) -> dict[str, Port]:
    """By name, those that are installed and have what the network needs."""
    ports: dict[str, Any] = {}
    plain = net.output_stride is None and not net.avg_down and net.pool_mode in ("slim", "keras")
    if find_spec("tensorflow"):
        ports |= {
            f"TensorFlow, {how}, {norm}": partial(tensorflow_port.run, how=how, norm=norm)
            for how in ("eager", "function", "xla")
            for norm in ("plain", "fused", "library", "folded")
        }
        ports |= {
            f"TensorFlow session, {threads} threads, {norm}": partial(_session, threads, norm)
            for threads in (1, 2)
            for norm in ("plain", "fused")
        }
        ports |= {"TensorFlow in float64": _wide, "TensorFlow, a batch of three": _in_batch}
        if plain:
            ports["Keras' layers"] = _keras
            if net.pool_mode == "slim":
                ports["tf_slim"] = _slim
            if find_spec("ai_edge_litert"):
                ports["LiteRT"] = _litert
    if plain and find_spec("onnxruntime"):
        ports |= {
            f"ONNX Runtime, {level}, {threads} threads": partial(_onnx_runtime, level, threads)
            for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL")
            for threads in (1, 2)
        }
        if find_spec("openvino"):
            ports["OpenVINO"] = _openvino
    if plain and find_spec("torch"):
        ports |= {
            "PyTorch": torch_port.run,
            "PyTorch, channels last": partial(torch_port.run, channels_last=True),
            "PyTorch without oneDNN": partial(torch_port.run, onednn=False),
        }
    if plain and net.pool_mode == "slim":
        ports["NumPy"] = run_numpy
    return ports
