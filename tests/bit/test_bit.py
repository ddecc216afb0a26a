"""BiT and timm's network with group norm: their files from every home, and every layer against the same function."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnet
from refnet import errors
from refnet.cli import main
from refnet.summary import summarize
from refnet.weights.homes.standardize import standardized
from tests.bit.networks import (
    EPSILON,
    GOOGLES_EPSILON,
    by_google,
    by_hugging_face,
    net_of,
    run_timm,
    run_transformers,
    timm_model,
)
from tests.slim import error_bound
from tests.slim.networks import assert_all_within, assert_close_to_truth, assert_is_the_truth
from tests.slim.oracle import Net
from tests.support.arrays import digest, random_images
from tests.timm.networks import Description, TensorFlow, Torch, draw_state, run

State = dict[str, np.ndarray]

#: Group norm needs a multiple of 32 channels everywhere.
BIT = Description(((32, 2), (32, 1), (64, 1)), 7, grouped=True, epsilon=EPSILON)
GOOGLES = BIT._replace(epsilon=GOOGLES_EPSILON)
WIDE = Description(((64, 1), (96, 2)), 5, grouped=True, epsilon=EPSILON, root=96)
DEEP_GN = Description(((32, 2), (32, 1), (64, 1)), 7, deep=True, grouped=True)

BIT_OPTIONS = {"pool_mode": "keras", "stride_place": "first_unit"}
HALVES = (0.5, 0.5, 0.5)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")
#: What a bare state dict of timm's cannot tell.
BARE = "no moving statistics, so it was taken for timm's"
bare = pytest.mark.filterwarnings(f"ignore:.*{BARE}")


def write_npz(path: Path, state: Mapping[str, np.ndarray], prefix: str = "resnet/") -> Path:
    np.savez(path, **by_google(state, prefix))
    return path


def write_hugging_face(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    save_file({name: np.ascontiguousarray(value) for name, value in by_hugging_face(state).items()}, path)
    return path


def write_timm(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    save_file(dict(state), path)
    return path


class House:
    """A home: how it writes a file, and of which network."""

    def __init__(self, name: str, write: Callable[..., Path], description: Description) -> None:
        self.name, self.write, self.description = name, write, description

    def load(self, directory: Path, state: Mapping[str, np.ndarray], **options: Any) -> refnet.Weights:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", f".*{BARE}")
            return refnet.load_weights(self.write(directory / f"a.{self.name}", state), strict=True, **options)


HOUSES = [
    House("npz", write_npz, GOOGLES),
    House("hf", write_hugging_face, BIT),
    House("timm", write_timm, BIT),
    House("wide", write_timm, WIDE),
    House("gn", write_timm, DEEP_GN),
]
EVERY = pytest.mark.parametrize("house", HOUSES, ids=lambda house: house.name)
#: One of each function: Hugging Face's is timm's.
FUNCTIONS = pytest.mark.parametrize("house", [HOUSES[0], *HOUSES[2:]], ids=lambda house: house.name)
FRAMEWORKS = pytest.mark.parametrize("framework", ["tensorflow", "torch"])


def operations(framework: str, dtype: str) -> Any:
    pytest.importorskip(framework)
    return TensorFlow(dtype) if framework == "tensorflow" else Torch(dtype)


# The function.


@FRAMEWORKS
@FUNCTIONS
def test_float64_is_the_truth(house: House, framework: str, tmp_path: Path) -> None:
    state, images = draw_state(house.description, 3), random_images(1, 67, 50, 3, seed=4)
    truth = run(operations(framework, "float64"), house.description, state, images, "resnet_v2")
    weights = house.load(tmp_path, state)
    assert_is_the_truth(net_of(house.description), weights, images, truth)


@FUNCTIONS
def test_every_layer(house: House, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    state, images = draw_state(house.description, 5), random_images(2, 65, 48, 3, seed=6)
    truth, theirs = (
        run(operations("tensorflow", dtype), house.description, state, images, "resnet_v2")
        for dtype in ("float64", "float32")
    )
    weights = house.load(tmp_path, state)
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert_close_to_truth(net_of(house.description), weights, images, end_points, theirs, truth)


def assert_layers_are_theirs(
    net: Net, weights: Mapping[str, np.ndarray], images: np.ndarray, truth: Mapping[str, np.ndarray]
) -> None:
    """Each layer of a library, from the library's own inputs, is refnet's exact definition with rounded kernels.

    A standardised kernel was rounded to binary32 once. Beside that the library's own order of its sums counts: 2**9
    times the bound of binary64, as in `assert_is_the_truth`.
    """
    precision = error_bound.BINARY64
    truth = {**truth, "predictions": np.zeros(1)}  # nothing follows it
    exact = error_bound.end_points(net, weights, images, truth, precision)
    rounded = error_bound.end_points(net, weights, images, truth, precision, kernel_error=2.0**-24)
    for name, theirs in list(truth.items())[:-1]:
        allowed = rounded[name].bound + 2.0**9 * exact[name].bound
        worst = np.abs(theirs - exact[name].value) - allowed
        assert (worst <= 0).all(), f"{name}: {worst.max()} beyond {allowed.max()}"


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("description", [BIT, WIDE, DEEP_GN], ids=["bit", "wide", "gn"])
def test_the_libraries_own_layers(library: str, description: Description, tmp_path: Path) -> None:
    pytest.importorskip(library)
    state, images = draw_state(description, 7), random_images(1, 67, 50, 3, seed=8)
    if library == "timm":
        truth = run_timm(timm_model(description), description, state, images, "resnet_v2", "float64")
        weights = HOUSES[2].load(tmp_path, state)
    elif description.deep:
        pytest.skip("transformers has no deep stems")
    else:
        truth = run_transformers(description, by_hugging_face(state), images, "resnet_v2", "float64")
        weights = HOUSES[1].load(tmp_path, state)
    net = net_of(description)
    assert_layers_are_theirs(net, weights, images, truth)
    # And by the file alone, in either precision, refnet runs that definition.
    for dtype, precision in (("float32", error_bound.BINARY32), ("float64", error_bound.BINARY64)):
        _, found = refnet.forward(weights, images, end_points=True, spatial_squeeze=False, dtype=dtype)
        layers = error_bound.end_points(net, weights, images, found, precision)
        assert_all_within(found, {name: layers[name] for name in truth})


@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_strides_are_timms(output_stride: int, tmp_path: Path) -> None:
    """To within a rounding of each kernel to binary32."""
    pytest.importorskip("timm")
    state, images = draw_state(BIT, 7), random_images(1, 65, 64, 3, seed=8)
    net = timm_model(BIT, output_stride=output_stride)
    truth = run_timm(net, BIT, state, images, "resnet_v2", "float64")
    weights, options = HOUSES[2].load(tmp_path, state), {"output_stride": output_stride, "spatial_squeeze": False}
    _, found = refnet.forward(weights, images, end_points=True, dtype="float64", **options)
    for name, value in truth.items():
        assert np.abs(found[name] - value).max() <= len(state) * 2.0**-24 * np.abs(value).max(), name
    assert found["resnet_v2/block3"].shape[1:3] == (-(-65 // output_stride), 64 // output_stride)


def test_names_and_shapes_are_the_libraries() -> None:
    timm, transformers = pytest.importorskip("timm"), pytest.importorskip("transformers")
    halves = ((64, 3), (128, 4), (256, 6), (512, 3))
    for name, description in {
        "resnetv2_50x1_bit": Description(halves, 1000, grouped=True),
        "resnetv2_50x3_bit": Description(tuple((3 * w, n) for w, n in halves), 1000, grouped=True, root=192),
        "resnetv2_50d_gn": Description(halves, 1000, grouped=True, deep=True),
    }.items():
        state = timm.create_model(name).state_dict()
        assert {key: tuple(value.shape) for key, value in state.items()} == description.shapes()
    published = transformers.BitForImageClassification(transformers.BitConfig(num_labels=1000)).state_dict()
    shapes = Description(halves, 1000, grouped=True).shapes()
    ours = by_hugging_face({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()})
    assert {name: tuple(value.shape) for name, value in published.items()} == {n: v.shape for n, v in ours.items()}


# Kernels.


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("epsilon", [EPSILON, GOOGLES_EPSILON])
def test_standardised_kernels(dtype: str, epsilon: float) -> None:
    """The order of the sums is the defined one, in Python's floats; and they are what exact sums give."""
    random = np.random.default_rng(1)
    kernel = (random.standard_normal((3, 2, 5, 4)) * [1, 1e-5, 30, 1] + [0, 0.5, 0, -1]).astype(dtype)
    kernel[..., 3] = 0.75
    found = standardized(kernel, epsilon)
    assert found.dtype == np.float32
    for output in range(4):
        values = [float(value) for value in kernel[..., output].ravel()]
        mean = sum_in_order(values) / len(values)
        variance = sum_in_order([(value - mean) * (value - mean) for value in values]) / len(values)
        expected = [np.float32((value - mean) / math.sqrt(variance + epsilon)) for value in values]
        assert found[..., output].ravel().tolist() == [float(value) for value in expected]
        exact = [Fraction(value) for value in values]
        centre = sum(exact) / len(exact)
        spread = math.sqrt(float(sum((value - centre) ** 2 for value in exact) / len(exact) + Fraction(epsilon)))
        truth = np.array([float(value - centre) / spread for value in exact])
        assert np.abs(found[..., output].ravel() - truth).max() <= 2.0**-24 * np.abs(truth).max() * 1.001
    assert not found[..., 3].any()


def sum_in_order(values: list[float]) -> float:
    """Python's own sum compensates."""
    total = 0.0
    for value in values:
        total += value
    return total


@pytest.mark.parametrize("shape", [(1, 1, 9000, 1), (3, 3, 500, 63), (3, 3, 500, 64), (1, 1, 4097, 70), (1, 1, 1, 3)])
def test_the_order_of_the_sums_is_that_of_any_shape(shape: tuple[int, ...]) -> None:
    kernel = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    rows = list(kernel.reshape(-1, shape[3]).astype(np.float64))
    total, squares = np.zeros(shape[3]), np.zeros(shape[3])
    for row in rows:
        total = total + row
    for row in rows:
        squares = squares + (row - total / len(rows)) * (row - total / len(rows))
    expected = [(row - total / len(rows)) / np.sqrt(squares / len(rows) + EPSILON) for row in rows]
    assert standardized(kernel, EPSILON).tobytes() == np.float32(expected).tobytes()


@pytest.mark.parametrize("kernel", [np.ones((2, 3)), np.ones((1, 1, 2, 2), int), np.ones((1, 1, 0, 2)), np.ones(())])
def test_what_is_no_kernel_is_left_to_the_checks(kernel: np.ndarray) -> None:
    assert standardized(kernel, EPSILON) is kernel


def test_infinite_kernels_become_nan_without_a_warning() -> None:
    kernel = np.ones((1, 1, 3, 2), np.float32)
    kernel[0, 0, 1, 1] = np.inf
    assert np.isnan(standardized(kernel, EPSILON)).sum() == 3


@EVERY
def test_every_tensor_has_its_place(house: House, tmp_path: Path) -> None:
    description, ops = house.description, operations("tensorflow", "float64")
    state = draw_state(description, 1)
    weights = house.load(tmp_path, state)
    names = {"npz": by_google, "hf": by_hugging_face}.get(house.name, dict)(state)
    assert set(weights.conversion.renamed.values()) == names.keys()
    assert weights.keys() - weights.conversion.renamed.keys() == set(weights.conversion.added)
    assert all(not weights[name].any() for name in weights.conversion.added)
    graph = weights.architecture.graph(weights, weights.arg_scope)
    assert graph.used == weights.keys()
    assert not graph.missing
    in_timm = {name: key for key, name in zip(state, names, strict=True)}
    for slim, name in weights.conversion.renamed.items():
        value = state[in_timm[name]]
        if value.ndim == 4 and description.epsilon is not None and not slim.endswith("logits/weights"):
            value = ops.standardized(value, description.epsilon).astype(np.float32)
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
        assert weights[slim].tobytes() == value.tobytes(), slim
    kernels = sum(value.ndim == 4 for value in state.values()) - 1
    said = [note for note in weights.notes if "kernels are standardised" in note]
    assert said == (
        []
        if description.epsilon is None
        else [
            f"{kernels} kernels are standardised, as their network does with each use (epsilon {description.epsilon:g})"
        ]
    )


def test_the_same_kernels_by_each_home(tmp_path: Path) -> None:
    """Hugging Face's and timm's are one function, and Google's has another epsilon."""
    state, image = draw_state(BIT, 1), random_images(64, 64, 3, seed=1)
    google, hugging_face, timm = (house.load(tmp_path, state) for house in HOUSES[:3])
    assert google.keys() == hugging_face.keys() == timm.keys()
    assert google.options == hugging_face.options == timm.options == BIT_OPTIONS
    logits = refnet.forward(timm, image)
    assert digest(refnet.forward(hugging_face, image)) == digest(logits)
    assert np.abs(refnet.forward(google, image) - logits).max() > 1e-3 * np.abs(logits).max()


def test_each_difference_from_tf_slim_matters(tmp_path: Path) -> None:
    weights = HOUSES[1].load(tmp_path, draw_state(BIT, 3))
    image = random_images(64, 64, 3, seed=4)
    logits = refnet.forward(weights, image)
    assert digest(refnet.forward(dict(weights), image, **BIT_OPTIONS)) == digest(logits)
    for name, value in {"pool_mode": "torch", "stride_place": "last_unit"}.items():
        other = refnet.forward(weights, image, **{name: value})
        # The border wins at few pixels.
        assert np.abs(other - logits).max() > 2.0**-15 * np.abs(logits).max(), name


# Networks of the published shapes.

UNITS = {"resnet_v2_50": (3, 4, 6, 3), "resnet_v2_101": (3, 4, 23, 3), "resnet_v2_152": (3, 8, 36, 3)}


@pytest.mark.parametrize("home", ["google", "hugging face", "timm"])
@pytest.mark.parametrize("name", [*UNITS, "resnet_v2"])
@bare
def test_depths(name: str, home: str, tmp_path: Path) -> None:
    stages = tuple((32, units) for units in UNITS.get(name, (1, 2, 1, 1)))
    description = Description(stages, 3, grouped=True)
    state = {key: np.broadcast_to(np.float16(0.5), shape) for key, shape in description.shapes().items()}
    names = {"google": by_google, "hugging face": by_hugging_face, "timm": dict}[home](state)
    weights = refnet.Weights(names)
    assert (weights.architecture.scope, weights.architecture.num_classes) == (name, 3)
    assert [(block.scope, list(block.args)) for block in weights.architecture.blocks] == description.blocks()
    assert refnet.Engine(weights).trace((1, 224, 224, 3))[0].shape == (1, 3)
    assert weights.options == BIT_OPTIONS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("width", "units", "name"),
    [(1, UNITS["resnet_v2_50"], "resnet_v2_50"), *((w, (1,) * 4, "resnet_v2") for w in (2, 3))],
)
def test_published_widths(width: int, units: tuple[int, ...], name: str, tmp_path: Path) -> None:
    """On random weights, to the logits."""
    stages = tuple((64 * width * 2**i, count) for i, count in enumerate(units))
    description = GOOGLES._replace(stages=stages, classes=10, root=64 * width)
    state, images = draw_state(description, 1), random_images(1, 64, 64, 3, seed=2)
    truth = run(operations("tensorflow", "float64"), description, state, images, name)
    weights = HOUSES[0].load(tmp_path, state)
    assert_is_the_truth(net_of(description, name), weights, images, truth)


# What travels with the weights.


@EVERY
@pytest.mark.parametrize("target", ["b.npz", "b.safetensors", "b.ckpt"])
def test_the_same_bits_after_every_format(house: House, target: str, tmp_path: Path) -> None:
    weights, image = house.load(tmp_path, draw_state(house.description, 3)), random_images(64, 64, 3, seed=4)
    refnet.save_weights(tmp_path / target, weights)
    loaded = refnet.load_weights(tmp_path / target, strict=True)
    assert (loaded.options, loaded.recipe) == (weights.options, weights.recipe)
    assert digest(*(loaded[name] for name in weights)) == digest(*weights.values())
    for device in ("cpu", "reference"):
        assert digest(refnet.forward(loaded, image, device=device)) == digest(refnet.forward(weights, image))


def test_recipes(tmp_path: Path) -> None:
    state = draw_state(BIT, 1)
    assert HOUSES[0].load(tmp_path, state).recipe == refnet.Recipe(480, 480, 1.0, "tf", None, "tensorflow2")
    bit = refnet.Recipe(448, 448, 1.0, "torch", 448, "bilinear", HALVES, HALVES)
    assert HOUSES[1].load(tmp_path, state).recipe == bit._replace(crop_offset="down")
    assert HOUSES[2].load(tmp_path, state).recipe == bit
    many = {name: np.zeros((21843, *value.shape[1:]), "f") if "fc" in name else value for name, value in state.items()}
    assert HOUSES[2].load(tmp_path, many).recipe == bit._replace(height=224, width=224, resize_side=256)
    recipe = refnet.Recipe(224, 224, 1.0, "torch", 256, "bicubic", HALVES, HALVES)
    deep = DEEP_GN._replace(stages=((32, 3), (32, 4), (32, 6), (32, 3)))
    assert HOUSES[4].load(tmp_path, draw_state(deep, 1)).recipe == recipe._replace(resize_side=235)


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, target = write_npz(tmp_path / "a.npz", draw_state(GOOGLES, 1)), tmp_path / "b.safetensors"
    assert main(["summary", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "group" in shown
    assert "kernels are standardised" in shown
    assert main(["convert", str(path), str(target)]) == 0
    assert "kernels are standardised" in capsys.readouterr().out
    assert main(["convert", str(path), str(tmp_path / "c.ckpt")]) != 0
    assert "tensors that TF-Slim does not read" in capsys.readouterr().err
    image = random_images(64, 64, 3, seed=1)
    assert digest(refnet.forward(target, image)) == digest(refnet.forward(path, image))
    layers = {layer.name: layer for layer in summarize(refnet.load_weights(path), 64).layers}
    norm = layers["resnet_v2/block1/unit_1/bottleneck_v2/conv1/GroupNorm"]
    assert "group" in norm.operation
    assert norm.parameters == 64


def test_features_of_a_model_without_its_classifier(tmp_path: Path) -> None:
    """``BitModel`` has no prefix, ``BitBackbone`` has one, and timm's ``num_classes=0`` no head."""
    state = {name: value for name, value in draw_state(BIT, 1).items() if not name.startswith("head")}
    named = by_hugging_face(state)
    image = random_images(64, 64, 3, seed=1)
    short = {name.removeprefix("bit."): value for name, value in named.items()}
    found = [refnet.forward(weights, image, global_pool=False) for weights in (named, short, state)]
    assert found[0].shape == (4, 4, 256)
    assert len({digest(features) for features in found}) == 1


@pytest.mark.parametrize("prefix", ["", "resnet/", "model/backbone/resnet/"])
def test_a_prefix_of_any_kind(prefix: str, tmp_path: Path) -> None:
    state, image = draw_state(GOOGLES, 1), random_images(64, 64, 3, seed=1)
    expected = refnet.forward(HOUSES[0].load(tmp_path, state), image)
    assert digest(refnet.forward(write_npz(tmp_path / "b.npz", state, prefix), image)) == digest(expected)
    dotted = prefix.replace("/", ".")
    behind = {f"{dotted}{name}": value for name, value in by_hugging_face(draw_state(BIT, 1)).items()}
    assert refnet.Weights(behind).architecture.num_classes == 7


def test_two_networks_and_a_scope(tmp_path: Path) -> None:
    both = by_google(draw_state(GOOGLES, 1), "student/resnet/") | by_google(draw_state(GOOGLES, 2), "teacher/resnet/")
    np.savez(tmp_path / "a.npz", **both)
    with pytest.raises(errors.ConfigError, match="several networks"):
        refnet.load_weights(tmp_path / "a.npz")
    image = random_images(64, 64, 3, seed=1)
    found = refnet.forward(refnet.load_weights(tmp_path / "a.npz", scope="teacher/resnet"), image)
    assert digest(found) == digest(refnet.forward(by_google(draw_state(GOOGLES, 2)), image))


# What is left over, and what is refused.


def test_what_else_a_file_holds(tmp_path: Path) -> None:
    state = by_google(draw_state(GOOGLES, 1))
    expected = refnet.forward(state, random_images(64, 64, 3, seed=1))
    more = {
        "resnet/block1/unit01/a/standardized_conv2d/kernel/Momentum": np.ones((1, 1, 64, 32), np.float32),
        "global_step": np.array(7),
    }
    np.savez(tmp_path / "a.npz", **state, **more)
    weights = refnet.load_weights(tmp_path / "a.npz", strict=False)
    assert digest(refnet.forward(weights, random_images(64, 64, 3, seed=1))) == digest(expected)
    np.savez(tmp_path / "b.npz", **state, **{"resnet/pre_logits/kernel": np.ones((256, 256), np.float32)})
    with pytest.raises(errors.WeightsError, match="Between the 256 features and the classifier"):
        refnet.load_weights(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", **state, **{"resnet/block1/unit01/a/conv2d/kernel": np.ones((1, 1, 64, 32), "f")})
    with pytest.raises(errors.WeightsError, match="layers within the network that refnet does not have"):
        refnet.load_weights(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", **state, **{"resnet/block1/unit01/b/proj/group_norm/beta": np.ones(32, "f")})
    with pytest.raises(errors.WeightsError, match="layers within the network that refnet does not have"):
        refnet.load_weights(tmp_path / "d.npz")


@pytest.mark.parametrize("left_out", ["conv2.weight", "norm2.weight", "norm2.bias", "norm1.bias"])
@EVERY
def test_missing_tensors_are_named(house: House, left_out: str, tmp_path: Path) -> None:
    state = {
        name: value
        for name, value in draw_state(house.description, 1).items()
        if name != f"stages.1.blocks.0.{left_out}"
    }
    place = {"conv2": "conv2/weights", "norm2": "conv1/GroupNorm", "norm1": "preact"}[left_out.split(".")[0]]
    weights = house.load(tmp_path, state)
    with pytest.raises(errors.MissingTensorError, match=f"block2/unit_1/bottleneck_v2/{place}"):
        refnet.forward(weights, random_images(64, 64, 3, seed=1))


@pytest.mark.parametrize("deep", [False, True])
def test_a_bare_state_dict_of_timms_is_a_doubt(deep: bool, tmp_path: Path) -> None:
    """Nothing tells it from a network with batch norm that was saved without its statistics."""
    description = DEEP_GN if deep else BIT
    path = write_timm(tmp_path / "a.safetensors", draw_state(description, 1))
    kernels = "resnetv2_50d_gn, with group norm and plain" if deep else "BiT, with group norm and standardised"
    with pytest.warns(refnet.RefnetWarning, match=f"{BARE} {kernels} kernels"):
        weights = refnet.load_weights(path)
    assert sum(BARE in note for note in weights.notes) == 1
    assert sum(BARE in note for note in refnet.Weights(draw_state(description, 1)).notes) == 1


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (Description(((32, 1), (32, 1)), 7, basic=True), "no moving statistics, in basic units"),
        (Description(((32, 1), (32, 1)), 7, basic=True, deep=True), "no moving statistics, in basic units"),
        (Description(((4, 1), (5, 1)), 7), "no moving statistics, in channels that are no multiple of 32"),
    ],
)
def test_networks_that_no_home_has(description: Description, words: str, tmp_path: Path) -> None:
    path = write_timm(tmp_path / "a.safetensors", draw_state(description._replace(grouped=True), 1))
    with pytest.raises(errors.MissingTensorError, match=words):
        refnet.load_weights(path)


@pytest.mark.parametrize("lacking", [r"norm2\.running", "running_mean", "running_var", "running"])
def test_batch_norms_that_lack_statistics_are_no_group_norms(lacking: str, tmp_path: Path) -> None:
    """A counter of batches is a sign too."""
    state = draw_state(BIT._replace(grouped=False, epsilon=None), 1)
    state = {name: value for name, value in state.items() if not re.search(lacking, name)}
    state["norm.num_batches_tracked"] = np.array(3)
    weights = refnet.load_weights(write_timm(tmp_path / "a.safetensors", state))
    with pytest.raises(errors.MissingTensorError, match="conv1/BatchNorm/moving_"):
        refnet.forward(weights, random_images(64, 64, 3, seed=1))


@pytest.mark.parametrize("name", ["bit.embedder.norm.weight", "bit.encoder.stages.0.layers.0.downsample.norm.bias"])
def test_hybrid_vits_are_refused_by_name(name: str, tmp_path: Path) -> None:
    save_file({**by_hugging_face(draw_state(BIT, 1)), name: np.ones(64, np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(errors.MissingTensorError, match=r"hybrid ViTs.*layer_type"):
        refnet.load_weights(tmp_path / "a.safetensors")
