"""Names of other frameworks lead to the values of the reference."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import refnet
from refnet.comparison.alignment import align
from refnet.comparison.dialects import sites_of
from refnet.comparison.reference import ComputedReference, GivenReference
from refnet.errors import ConfigError, InputError
from tests.support.nets import lively_weights

BLOCKS = [refnet.resnet_v2_block("block1", 3, 2, 2), refnet.resnet_v2_block("block2", 5, 1, 1)]
V1_BLOCKS = [refnet.resnet_v1_block("block1", 3, 2, 2), refnet.resnet_v1_block("block2", 5, 1, 1)]
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 33, 29, 3)).astype(np.float32)

#: For each framework the names of values in the network, and TF-Slim's below the scope.
NAMES_V2 = {
    "timm": {
        "stem.conv": "conv1",
        "stem.pool": "pool1",
        "stages.0.blocks.0.norm1": "block1/unit_1/preact",
        "stages.0.blocks.0.downsample": "block1/unit_1/shortcut",
        "stages.0.blocks.0.conv1": "block1/unit_1/conv1/Conv2D",
        "stages.0.blocks.0.norm2": "block1/unit_1/conv1",
        "stages.0.blocks.0.conv2": "block1/unit_1/conv2/Conv2D",
        "stages.0.blocks.0.conv3": "block1/unit_1/conv3",
        "stages.0.blocks.0": "block1/unit_1",
        "stages.0": "block1",
        "norm": "postnorm",
        "head.global_pool": "pool5",
        "head.fc": "spatial_squeeze",
    },
    "Keras": {
        "conv1_conv": "conv1",
        "pool1_pool": "pool1",
        "conv2_block1_preact_bn": "block1/unit_1/preact/FusedBatchNorm",
        "conv2_block1_preact_relu": "block1/unit_1/preact",
        "conv2_block1_0_conv": "block1/unit_1/shortcut",
        "conv2_block1_1_conv": "block1/unit_1/conv1/Conv2D",
        "conv2_block1_1_bn": "block1/unit_1/conv1/FusedBatchNorm",
        "conv2_block1_1_relu": "block1/unit_1/conv1",
        "conv2_block1_out": "block1/unit_1",
        "conv3_block1_out": "block2/unit_1",
        "post_bn": "postnorm/FusedBatchNorm",
        "post_relu": "postnorm",
        "avg_pool": "pool5",
        "predictions": "predictions",
    },
    "pytorchcv": {
        "features.init_block.conv": "conv1",
        "features.stage1.unit1.body.conv1.bn": "block1/unit_1/preact/FusedBatchNorm",
        "features.stage1.unit1.body.conv1.activ": "block1/unit_1/preact",
        "features.stage1.unit1.body.conv1": "block1/unit_1/conv1/Conv2D",
        "features.stage1.unit1.body.conv3": "block1/unit_1/conv3",
        "features.stage1.unit1": "block1/unit_1",
        "features.stage1": "block1",
        "features.post_activ": "postnorm",
        "output": "spatial_squeeze",
    },
    "TF-Slim's operations": {
        "net/resnet_v2/conv1/BiasAdd:0": "conv1",
        "net/resnet_v2/pool1/MaxPool:0": "pool1",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/preact/FusedBatchNormV3:0": "block1/unit_1/preact/FusedBatchNorm",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/preact/Relu:0": "block1/unit_1/preact",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/conv1/Conv2D:0": "block1/unit_1/conv1/Conv2D",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/conv1/BatchNorm/FusedBatchNormV3:0":
            "block1/unit_1/conv1/FusedBatchNorm",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/conv1/Relu:0": "block1/unit_1/conv1",
        "net/resnet_v2/block1/unit_1/bottleneck_v2/add:0": "block1/unit_1",
        "net/resnet_v2/postnorm/Relu:0": "postnorm",
        "net/resnet_v2/logits/BiasAdd:0": "logits",
        "net/resnet_v2/SpatialSqueeze:0": "spatial_squeeze",
    },
}  # fmt: skip
NAMES_V1 = {
    "torchvision": {
        "conv1": "conv1/Conv2D",
        "bn1": "conv1/FusedBatchNorm",
        "relu": "conv1",
        "maxpool": "pool1",
        "layer1.0.conv1": "block1/unit_1/conv1/Conv2D",
        "layer1.0.bn1": "block1/unit_1/conv1/FusedBatchNorm",
        "layer1.0.bn3": "block1/unit_1/conv3",
        "layer1.0.relu": "block1/unit_1",
        "layer1.0.downsample.0": "block1/unit_1/shortcut/Conv2D",
        "layer1.0.downsample": "block1/unit_1/shortcut",
        "layer1.1": "block1/unit_2",
        "layer1": "block1",
        "avgpool": "pool5",
        "fc": "spatial_squeeze",
    },
    "torch.onnx": {
        "/conv1/Conv_output_0": "conv1/Conv2D",
        "/relu/Relu_output_0": "conv1",
        "/layer1/layer1.0/conv1/Conv_output_0": "block1/unit_1/conv1/Conv2D",
        "/layer1/layer1.0/relu/Relu_output_0": "block1/unit_1/conv1",
        "/layer1/layer1.0/relu_1/Relu_output_0": "block1/unit_1/conv2",
        "/layer1/layer1.0/relu_2/Relu_output_0": "block1/unit_1",
        "/layer1/layer1.0/Add_output_0": "block1/unit_1/add",
        "/layer1/layer1.0/downsample/downsample.1/BatchNormalization_output_0": "block1/unit_1/shortcut",
        "/avgpool/GlobalAveragePool_output_0": "pool5",
        "/fc/Gemm_output_0": "spatial_squeeze",
    },
    "Hugging Face": {
        "resnet.embedder.embedder.convolution": "conv1/Conv2D",
        "resnet.embedder.embedder": "conv1",
        "resnet.embedder": "pool1",
        "resnet.encoder.stages.0.layers.0.layer.0.convolution": "block1/unit_1/conv1/Conv2D",
        "resnet.encoder.stages.0.layers.0.layer.0.normalization": "block1/unit_1/conv1/FusedBatchNorm",
        "resnet.encoder.stages.0.layers.0.layer.0": "block1/unit_1/conv1",
        "resnet.encoder.stages.0.layers.0.shortcut": "block1/unit_1/shortcut",
        "resnet.encoder.stages.0.layers.0": "block1/unit_1",
        "resnet.encoder.stages.0": "block1",
        "resnet.pooler": "pool5",
        "classifier": "spatial_squeeze",
    },
    "Keras": {
        "conv1_bn": "conv1/FusedBatchNorm",
        "conv1_relu": "conv1",
        "conv2_block1_1_relu": "block1/unit_1/conv1",
        "conv2_block1_0_bn": "block1/unit_1/shortcut",
        "conv2_block1_3_bn": "block1/unit_1/conv3",
        "conv2_block1_add": "block1/unit_1/add",
        "conv2_block1_out": "block1/unit_1",
    },
    "Keras 2's first": {
        "bn_conv1": "conv1/FusedBatchNorm",
        "res2a_branch2a": "block1/unit_1/conv1/Conv2D",
        "bn2a_branch2a": "block1/unit_1/conv1/FusedBatchNorm",
        "bn2a_branch1": "block1/unit_1/shortcut",
    },
    "KerasHub": {
        "stack0_block0_1_conv": "block1/unit_1/conv1/Conv2D",
        "stack0_block0_1_relu": "block1/unit_1/conv1",
        "stack0_block0_add": "block1/unit_1/add",
        "stack0_block0_out": "block1/unit_1",
    },
}
PREFIXES = ("", "model.", "module.", "module.backbone.")


@pytest.fixture(scope="module")
def v2() -> ComputedReference:
    return ComputedReference(lively_weights(0, BLOCKS), IMAGES)


@pytest.fixture(scope="module")
def v1() -> ComputedReference:
    return ComputedReference(lively_weights(0, V1_BLOCKS), IMAGES)


def _cases() -> Iterator[tuple[str, str, dict[str, str]]]:
    for network, tables in (("v2", NAMES_V2), ("v1", NAMES_V1)):
        for framework, names in tables.items():
            yield network, framework, names


def _full(reference: ComputedReference, below: str) -> str:
    """The full name of a value, by its name below the scope and without its unit's kind."""
    kind = "bottleneck_v2" if "resnet_v2/conv1" in reference.names else "bottleneck_v1"
    name = f"resnet_{kind[-2:]}/" + "/".join(
        f"{part}/{kind}" if part.startswith("unit_") else part for part in below.split("/")
    )
    return name if name in reference.names else below


@pytest.mark.parametrize(("network", "framework", "names"), list(_cases()))
def test_names_of_a_framework(
    network: str, framework: str, names: dict[str, str], v1: ComputedReference, v2: ComputedReference
) -> None:
    """The arrays hold the right values plus a little, in NCHW: names and values agree."""
    reference = v1 if network == "v1" else v2
    for prefix in PREFIXES if "." in next(iter(names)) else PREFIXES[:1]:
        expected = {prefix + name: reference.names[_full(reference, below)] for name, below in names.items()}
        arrays = reference.arrays(expected.values())
        theirs = {}
        for name, value in expected.items():
            array = arrays[value.index] * np.float32(1 + 1e-6)
            theirs[name] = np.moveaxis(array, -1, 1).copy() if array.ndim == 4 else array
        found = align(theirs, reference, by_value=False)
        assert not found.unmatched
        assert {pair.name: pair.value.name for pair in found.pairs} == {n: v.name for n, v in expected.items()}
        assert all(pair.layout is not None and "NCHW" in pair.layout.text for pair in found.pairs
                   if theirs[pair.name].ndim == 4 and theirs[pair.name].shape[2] > 1)  # fmt: skip


@pytest.mark.parametrize(("network", "framework", "names"), list(_cases()))
def test_names_alone_lead_to_the_place(
    network: str, framework: str, names: dict[str, str], v1: ComputedReference, v2: ComputedReference
) -> None:
    """Where the values are wrong altogether, the name decides, up to what its layer may include."""
    reference = v1 if network == "v1" else v2
    generator = np.random.default_rng(0)
    expected = {name: reference.names[_full(reference, below)] for name, below in names.items()}
    theirs = {name: generator.standard_normal(value.shape).astype(np.float32) for name, value in expected.items()}
    found = align(theirs, reference, by_value=False)
    places = {pair.name: pair.value.place for pair in found.pairs}
    for name, value in expected.items():
        assert places[name] == value.place or {places[name], value.place} <= {"logits", "predictions"}, name


def test_every_value_equals_the_engines_end_point(v2: ComputedReference) -> None:
    _, end_points = refnet.forward(lively_weights(0, BLOCKS), IMAGES, end_points=True)
    arrays = v2.arrays(v2.values)
    for name, value in end_points.items():
        assert np.array_equal(arrays[v2.names[name].index].view(np.uint32), value.view(np.uint32)), name


def test_a_value_is_recomputed_from_observed_ones(v2: ComputedReference) -> None:
    """From the observed input of a unit, its sum: twice the input of a last convolution, twice its product."""
    logits, pool5 = v2.names["resnet_v2/logits"], v2.names["resnet_v2/pool5"]
    tensor = v2.graph.tensors[logits.index]
    doubled = 2 * v2.arrays([pool5])[pool5.index]
    assert v2.sources(tensor, [pool5.index]) == [pool5.index]
    biases = v2.weights["resnet_v2/logits/biases"]
    expected = doubled.astype(np.float64) @ v2.weights["resnet_v2/logits/weights"][0, 0] + biases
    found = v2.recomputed(tensor, {pool5.index: doubled}, "float64")
    assert np.allclose(found, expected, rtol=1e-12)


def test_an_in_place_relu_is_recognised(v1: ComputedReference) -> None:
    after = v1.names["resnet_v1/block1/unit_1/bottleneck_v1/conv1"]
    found = align({"layer1.0.bn1": v1.arrays([after])[after.index]}, v1)
    assert found.pairs[0].value is after
    assert "in-place ReLU" in found.pairs[0].note


def test_an_in_place_sum_is_recognised(v1: ComputedReference) -> None:
    after = v1.names["resnet_v1/block1/unit_2/bottleneck_v1"]
    found = align({"layer1.1.bn3": v1.arrays([after])[after.index]}, v1)
    assert found.pairs[0].value is after
    assert "made in place" in found.pairs[0].note


def test_an_explicit_relu_stays_one(v1: ComputedReference) -> None:
    """A ReLU whose result is the value before it is missing: no name explains that."""
    before = v1.names["resnet_v1/block1/unit_1/bottleneck_v1/conv1/FusedBatchNorm"]
    found = align({"conv2_block1_1_relu": v1.arrays([before])[before.index]}, v1)
    assert found.pairs[0].value.name == "resnet_v1/block1/unit_1/bottleneck_v1/conv1"


def test_values_without_names(v2: ComputedReference) -> None:
    values = [value for value in v2.values if value.operation in ("conv", "batch_norm")]
    arrays = v2.arrays(values)
    theirs = {f"tensor_{i}": np.moveaxis(arrays[value.index], -1, 1).copy() for i, value in enumerate(values)}
    found = align(theirs, v2)
    closest = {pair.name: arrays[pair.value.index] for pair in found.pairs}
    assert len(closest) == len(theirs)
    assert all(np.array_equal(np.moveaxis(theirs[name], 1, -1), array) for name, array in closest.items())


def test_values_without_names_that_are_wrong_are_taken_in_order(v2: ComputedReference) -> None:
    units = [value for value in v2.values if value.place.startswith("block") and value.place.count("/") == 1]
    units = [value for value in units if value.end_point]
    generator = np.random.default_rng(0)
    theirs = {f"out{i}": generator.standard_normal(value.shape).astype(np.float32) for i, value in enumerate(units)}
    reference = GivenReference({value.name: v2.arrays([value])[value.index] for value in units})
    assert [pair.value.name for pair in align(theirs, reference).pairs] == [value.name for value in units]


def test_a_mapping_comes_first(v2: ComputedReference) -> None:
    value = v2.names["resnet_v2/block1/unit_1/bottleneck_v2/conv1"]
    found = align({"stem.conv": v2.arrays([value])[value.index]}, v2, {"stem.conv": value.name})
    assert found.pairs[0].value is value
    assert found.pairs[0].how == "mapping"


@pytest.mark.parametrize("separator", ["_", "__", ".", "-", ":"])
def test_names_with_other_separators(v2: ComputedReference, separator: str) -> None:
    """File names cannot hold TensorFlow's."""
    values = [value for value in v2.values if value.end_point]
    generator = np.random.default_rng(0)
    theirs = {
        value.name.replace("/", separator): generator.standard_normal(value.shape).astype(np.float32)
        for value in values
    }
    found = {pair.name: pair.value.name for pair in align(theirs, v2, by_value=False).pairs}
    assert found == {value.name.replace("/", separator): value.name for value in values}


@pytest.mark.parametrize("mapping", [{"nowhere": "resnet_v2/conv1"}, {"stem.conv": "resnet_v2/conv11"}])
def test_a_mapping_to_nowhere_is_refused(v2: ComputedReference, mapping: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"is it|stem\.conv"):
        align({"stem.conv": np.zeros((1, 2))}, v2, mapping)


def test_nothing_matches(v2: ComputedReference) -> None:
    with pytest.raises(InputError, match=r"something.*resnet_v2/conv1.*--map"):
        align({"something": np.zeros((3, 7), np.float32)}, v2)


def test_what_matches_nothing_is_listed_with_the_nearest(v2: ComputedReference) -> None:
    value = v2.names["resnet_v2/conv1"]
    found = align({"stem.conv": v2.arrays([value])[value.index], "resnet_v2/block1x": np.zeros((3, 7))}, v2)
    assert found.unmatched == {"resnet_v2/block1x": "resnet_v2/block1"} or "resnet_v2/block1x" in found.unmatched


def test_a_file_with_other_names_on_both_sides(v2: ComputedReference) -> None:
    """Keras' names are compared with timm's."""
    keras = {name: v2.names[_full(v2, below)] for name, below in NAMES_V2["Keras"].items() if "out" in name}
    arrays = v2.arrays(keras.values())
    reference = GivenReference({name: arrays[value.index] for name, value in keras.items()})
    theirs = {"stages.0.blocks.0": arrays[keras["conv2_block1_out"].index]}
    theirs["stages.1.blocks.0"] = arrays[keras["conv3_block1_out"].index]
    found = align(theirs, reference)
    assert [(pair.name, pair.value.name) for pair in found.pairs] == [
        ("stages.0.blocks.0", "conv2_block1_out"), ("stages.1.blocks.0", "conv3_block1_out")
    ]  # fmt: skip


def test_long_names_take_no_time() -> None:
    names = ["/".join(["a"] * 100_000), "." * 100_000, "conv1_" * 50_000, "layer1." * 50_000]
    assert sites_of(names) == {}
