"""Runs of the real frameworks, dumped by the examples, agree value by value; a mistake in one is found where it is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.comparison.comparison import Comparison
from refnet.comparison.result import Row
from tests.slim.oracle import Net, Slim, block, draw_weights
from tests.support.tensorflow import quiet, tf_slim

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = Path(__file__).parents[1] / "onnx" / "data"
PIXELS = np.random.default_rng(0).uniform(-1, 1, (2, 65, 49, 3)).astype(np.float32)

# Keras converts its arrays in a way that NumPy deprecates; onnx's files are small networks.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*tensors are not part")


def example(name: str) -> ModuleType:
    """An example, which is a script in no package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with quiet():
        spec.loader.exec_module(module)
    return module


def by_name(comparison: Comparison) -> dict[str, Row]:
    return {row.name: row for row in comparison.rows}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


class SlimRun:
    """A TF-Slim network, whose variables a test can change."""

    def __init__(self, version: int) -> None:
        self.net = Net([block("block1", 3, 2, 2), block("block2", 5, 2, 1)], num_classes=7, version=version)
        self.slim = Slim(self.net, PIXELS.shape)
        self.weights = draw_weights(self.slim.shapes, seed=0)

    def dump(self, changes: dict[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        tf = tf_slim().tf
        values = self.weights | (changes or {})
        with quiet(), tf.Session(graph=self.slim.graph) as session:
            assign = [v.initializer for v in self.slim.variables.values()]
            session.run(assign, {v.initial_value: values[name] for name, v in self.slim.variables.items()})
            found: dict[str, np.ndarray] = example("dump_tf_slim").activations(session, self.slim.images, PIXELS)
        return found


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def slim_run(request: pytest.FixtureRequest) -> SlimRun:
    return SlimRun(request.param)


def test_every_operation_of_tf_slim_agrees(slim_run: SlimRun) -> None:
    theirs = slim_run.dump()
    comparison = refnet.compare(slim_run.weights, theirs, PIXELS)
    assert comparison.agrees, str(comparison)
    rows = by_name(comparison)
    assert rows.keys() == theirs.keys()
    assert all(row.status != "not compared" for row in comparison.rows)
    assert not comparison.not_observed
    assert comparison.top_1 == (2, 2)
    norms = [row for name, row in rows.items() if name.endswith("BatchNorm/FusedBatchNormV3:0")]
    assert norms
    assert all(row.reference in (row.name.partition("/BatchNorm")[0], norm_of(row.name)) for row in norms)


def norm_of(name: str) -> str:
    """refnet's name for a norm that a ReLU follows."""
    return name.replace("BatchNorm/FusedBatchNormV3:0", "FusedBatchNorm")


def test_a_kernel_of_tf_slim_that_is_mirrored_is_found(slim_run: SlimRun) -> None:
    layer = f"resnet/block2/unit_1/bottleneck_v{slim_run.net.version}/conv2"
    theirs = slim_run.dump({f"{layer}/weights": slim_run.weights[f"{layer}/weights"][::-1]})
    comparison = refnet.compare(slim_run.weights, theirs, PIXELS)
    first = comparison.first_divergence
    assert first is not None
    assert first.name == f"{layer}/Conv2D:0"
    assert first.origin == "born"
    assert first.since == (f"{layer.removesuffix('2')}1/Relu:0",)
    assert {row.origin for row in comparison.differing if row is not first} == {"inherited"}


def test_two_mistakes_are_both_born(slim_run: SlimRun) -> None:
    version = slim_run.net.version
    conv, norm = (
        f"resnet/block1/unit_1/bottleneck_v{version}/{leaf}" for leaf in ("conv1/weights", "conv2/BatchNorm/beta")
    )
    changes = {conv: slim_run.weights[conv] * 1.01, norm: slim_run.weights[norm] + 0.1}
    comparison = refnet.compare(slim_run.weights, slim_run.dump(changes), PIXELS)
    born = [row.name for row in comparison.differing if row.origin == "born"]
    assert born == [conv.replace("weights", "Conv2D:0"), norm.replace("beta", "FusedBatchNormV3:0")]


def test_end_points_of_tf_slim_without_weights(slim_run: SlimRun, tmp_path: Path) -> None:
    """A golden of refnet beside tf_slim's end points."""
    refnet.golden.record(tmp_path / "golden.safetensors", refnet.Weights(slim_run.weights), PIXELS)
    _, theirs = slim_run.slim.run(slim_run.weights, PIXELS)
    comparison = refnet.compare(tmp_path / "golden.safetensors", theirs)
    assert comparison.agrees, str(comparison)
    assert len(comparison.compared) == len(theirs)
    assert not comparison.measured


@pytest.fixture(scope="module", params=[1, 2], ids=["v1", "v2"])
def keras_model(request: pytest.FixtureRequest) -> Any:
    """A small network by Keras' own functions."""
    keras = pytest.importorskip("keras")
    from keras.src.applications import resnet  # type: ignore[import-untyped]

    second = request.param == 2
    stack = resnet.stack_residual_blocks_v2 if second else resnet.stack_residual_blocks_v1

    def blocks(x: Any) -> Any:
        # TF-Slim's order of strides in the second version, He et al.'s in the first.
        first, last = (2, 1) if second else (1, 2)
        return stack(stack(x, 4, 2, stride1=first, name="conv2"), 6, 2, stride1=last, name="conv3")

    keras.utils.set_random_seed(0)
    model = resnet.ResNet(blocks, second, True, weights=None, input_shape=(65, 49, 3), classes=7)
    generator = np.random.default_rng(0)
    for variable in model.variables:
        if variable.path.endswith(("moving_mean", "beta", "bias")):
            variable.assign(generator.uniform(-0.2, 0.2, variable.shape))
        elif variable.path.endswith(("gamma", "moving_variance")):
            variable.assign(generator.uniform(0.5, 1.5, variable.shape))
    return model


def weights_of(model: Any) -> refnet.Weights:
    arrays = {}
    for layer in model.layers:
        for variable in layer.weights:
            arrays[f"{layer.name}/{variable.name}"] = np.asarray(variable)
    return refnet.Weights(arrays)


def test_every_layer_of_keras_agrees(keras_model: Any) -> None:
    theirs = example("dump_keras").activations(keras_model, PIXELS)
    comparison = refnet.compare(weights_of(keras_model), theirs, PIXELS)
    assert comparison.agrees, str(comparison)
    left = {row.name for row in comparison.rows if row.status == "not compared"}
    assert all(name.endswith("_pad") or "max_pooling" in name for name in left)
    assert "predictions" in {row.name for row in comparison.compared}


def test_a_moved_mean_of_keras_is_found(keras_model: Any) -> None:
    norm = keras_model.get_layer("conv3_block1_2_bn")
    before = np.asarray(norm.moving_mean)
    weights = weights_of(keras_model)
    norm.moving_mean.assign(before + 0.5)
    try:
        comparison = refnet.compare(weights, example("dump_keras").activations(keras_model, PIXELS), PIXELS)
    finally:
        norm.moving_mean.assign(before)
    first = comparison.first_divergence
    assert first is not None
    assert (first.name, first.origin) == ("conv3_block1_2_bn", "born")


@pytest.mark.parametrize("name", ["v1_torchscript", "v2_torchscript", "v1_dynamo", "v2_dynamo"])
def test_every_node_of_an_onnx_file_agrees(name: str) -> None:
    """As PyTorch's two exporters name them: by modules, and by numbers."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = DATA / f"{name}.onnx"
    theirs = example("dump_onnxruntime").activations(onnx.load(path), PIXELS)
    comparison = refnet.compare(path, theirs, PIXELS)
    assert comparison.agrees, str(comparison)
    assert len(comparison.compared) == len(theirs)


def test_a_kernel_of_an_onnx_file_that_is_off_is_found() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = onnx.load(DATA / "v1_torchscript.onnx")
    node = next(n for n in model.graph.node if n.output[0] == "/layer2/layer2.0/conv2/Conv_output_0")
    kernel = next(tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    array = onnx.numpy_helper.to_array(kernel).copy()
    array[0, 0, 0, 0] += 1e-3
    kernel.CopyFrom(onnx.numpy_helper.from_array(array, kernel.name))
    theirs = example("dump_onnxruntime").activations(model, PIXELS)
    comparison = refnet.compare(DATA / "v1_torchscript.onnx", theirs, PIXELS)
    first = comparison.first_divergence
    assert first is not None
    assert (first.name, first.origin) == ("/layer2/layer2.0/conv2/Conv_output_0", "born")


@pytest.fixture
def torch_network() -> Any:
    torch = pytest.importorskip("torch")
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7).eval()
    for norm in network.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            for vector in (norm.bias, norm.running_mean):
                torch.nn.init.uniform_(vector, -0.3, 0.3)
            for vector in (norm.weight, norm.running_var):
                torch.nn.init.uniform_(vector, 0.5, 1.5)
    return network


def test_every_module_of_torch_agrees(torch_network: Any) -> None:
    weights = refnet.Weights({name: value.numpy() for name, value in torch_network.state_dict().items()})
    theirs = example("dump_pytorch").activations(torch_network, PIXELS)
    comparison = refnet.compare(weights, theirs, PIXELS)
    assert comparison.agrees, str(comparison)
    assert len(comparison.compared) == len(theirs)
    # As in torchvision, the second call of a module in a unit is numbered.
    assert by_name(comparison)["layer1.0.relu_1"].reference.endswith("block1/unit_1/basic_v1")


def test_hooks_that_keep_no_copies_are_recognised(torch_network: Any) -> None:
    torch = pytest.importorskip("torch")
    theirs = {}
    for name, module in torch_network.named_modules():
        if name:
            module.register_forward_hook(lambda _, __, output, name=name: theirs.update({name: output}))
    with torch.no_grad():
        torch_network(torch.from_numpy(PIXELS).permute(0, 3, 1, 2))
    weights = refnet.Weights({name: value.numpy() for name, value in torch_network.state_dict().items()})
    comparison = refnet.compare(weights, theirs, PIXELS)
    assert comparison.agrees, str(comparison)
    assert any("in-place ReLU" in note for note in comparison.notes)
    assert any("made in place" in note for note in comparison.notes)


def test_another_epsilon_in_torch_is_found(torch_network: Any) -> None:
    weights = refnet.Weights({name: value.numpy() for name, value in torch_network.state_dict().items()})
    torch_network.layer2[1].bn1.eps = 1e-3
    comparison = refnet.compare(weights, example("dump_pytorch").activations(torch_network, PIXELS), PIXELS)
    first = comparison.first_divergence
    assert first is not None
    assert (first.name, first.origin) == ("layer2.1.bn1", "born")
