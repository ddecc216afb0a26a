"""timm's ResNetV2: its files, and every layer against the same function in float64, in three frameworks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnet
from refnet import errors
from refnet.graph.graph import Graph
from refnet.run.compute import compute
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth
from tests.slim.oracle import Net
from tests.support.arrays import random_images
from tests.timm.networks import (
    BASIC,
    DEEP,
    STAGES,
    Description,
    TensorFlow,
    Torch,
    draw_state,
    published,
    run,
    run_timm,
)

#: Odd and even: PyTorch pads both alike, TF-Slim's SAME does not.
SHAPE = (2, 97, 64, 3)
SMALL = Description(((3, 2), (5, 1), (4, 2)), 7)
SMALL_DEEP = SMALL._replace(deep=True)
#: The first unit of the first stage keeps its depth, and has no convolution in its shortcut.
SMALL_BASIC = Description(((64, 2), (5, 1), (4, 2)), 7, basic=True)
DESCRIPTIONS = {"plain": SMALL, "deep": SMALL_DEEP, "basic": SMALL_BASIC, "basic deep": SMALL_BASIC._replace(deep=True)}
OPTIONS = {"pool_mode": "torch", "stride_place": "first_unit"}

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def write(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """A state dict as PyTorch's save_file leaves it: with the counters of batches."""
    norms = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    save_file({**state, **{f"{name}.num_batches_tracked": np.array(3) for name in norms}}, path)
    return path


def net_of(description: Description, scope: str) -> Net:
    root = {"avg_down": True, "root_depths": DEEP} if description.deep else {}
    unit = "basic" if description.basic else "bottleneck"
    return Net(description.blocks(), description.classes, pool_mode="torch", scope=scope, unit=unit, **root)


def test_every_tensor_has_its_place(tmp_path: Path) -> None:
    state = draw_state(published(50), 1)
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.options == OPTIONS
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, "torch", 235, "bicubic", (0.5,) * 3, (0.5,) * 3)
    assert len(weights) == 272
    assert weights.keys() - weights.conversion.renamed.keys() == set(weights.conversion.added)
    assert set(weights.conversion.renamed.values()) == state.keys()
    for slim, name in weights.conversion.renamed.items():
        same = weights[slim].transpose(3, 2, 0, 1) if slim.endswith("/weights") else weights[slim]
        assert same.tobytes() == state[name].tobytes(), slim
    assert all(not weights[name].any() for name in weights.conversion.added)
    # The root, conv3 of 16 units and four shortcuts.
    assert len(weights.conversion.added) == 21
    assert len(weights.conversion.left_out) == 49
    assert any(note.startswith("49 tensors were left out") for note in weights.notes)
    assert weights.conversion.recipe_from == "the default of timm's ResNetV2"


@pytest.mark.parametrize("depth", {**STAGES, **BASIC})
def test_blocks_stride_in_their_first_unit(depth: int, tmp_path: Path) -> None:
    shapes = published(depth).shapes()
    state = {name: np.broadcast_to(np.float32(0.5), shape) for name, shape in shapes.items()}
    np.savez(tmp_path / "a.npz", **{name: value.astype(np.float16) for name, value in state.items()})
    weights = refnet.load_weights(tmp_path / "a.npz")
    architecture = weights.architecture
    assert (architecture.scope, architecture.num_classes) == (f"resnet_v2_{depth}", 1000)
    assert [(block.scope, list(block.args)) for block in architecture.blocks] == published(depth).blocks()
    engine = refnet.Engine(weights)
    net, _ = engine.trace((1, 224, 224, 3))
    assert net.shape == (1, 1000)


def test_a_dense_layer_at_the_end(tmp_path: Path) -> None:
    state = draw_state(SMALL, 1)
    expected = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    state["head.fc.weight"] = state["head.fc.weight"][:, :, 0, 0]
    found = refnet.load_weights(write(tmp_path / "b.safetensors", state))
    assert all(found[name].tobytes() == expected[name].tobytes() for name in expected)


def test_without_a_head_there_are_features(tmp_path: Path) -> None:
    state = {name: value for name, value in draw_state(SMALL, 1).items() if not name.startswith("head")}
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert refnet.forward(weights, random_images(*SHAPE[1:], seed=2), global_pool=False).shape == (7, 4, 16)


FRAMEWORKS = pytest.mark.parametrize("framework", ["tensorflow", "torch", "timm"])


def layers_of(
    framework: str, depth: int, deep: bool, state: Mapping[str, np.ndarray], images: np.ndarray, dtype: str
) -> Any:
    """Every layer of a published network; skipped where the framework is missing."""
    scope = f"resnet_v2_{depth}"
    if framework == "timm":
        pytest.importorskip("timm")
        return run_timm(depth, state, images, scope, dtype, deep)
    pytest.importorskip(framework)
    operations = TensorFlow(dtype) if framework == "tensorflow" else Torch(dtype)
    return run(operations, published(depth, deep=deep), state, images, scope)


@FRAMEWORKS
@pytest.mark.parametrize(
    ("depth", "deep"),
    [
        (50, False),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (101, False),
                (152, False),
                (50, True),
                (101, True),
                (18, False),
                (34, False),
                (18, True),
                (34, True),
            )
        ),
    ],
)
def test_every_layer(framework: str, depth: int, deep: bool, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    state, images = draw_state(published(depth, deep=deep), 1), random_images(*SHAPE, seed=2)
    truth, theirs = (layers_of(framework, depth, deep, state, images, dtype) for dtype in ("float64", "float32"))
    assert all(value.dtype == np.float64 for value in truth.values())
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert end_points.keys() - truth.keys() == {"global_pool", "predictions"} | {
        f"resnet_v2_{depth}/block{i}" for i in range(1, 5)
    }
    net = net_of(published(depth, deep=deep), f"resnet_v2_{depth}")
    assert_close_to_truth(net, weights, images, end_points, theirs, truth)


@pytest.mark.parametrize("shape", [(2, 33, 40, 3), (1, 48, 35, 3)])
@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_float64_is_the_truth(framework: str, description: Description, shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, images = draw_state(description, 3), random_images(*shape, seed=4)
    operations = TensorFlow("float64") if framework == "tensorflow" else Torch("float64")
    truth = run(operations, description, state, images, "resnet_v2")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert_is_the_truth(net_of(description, "resnet_v2"), weights, images, truth)


@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_every_layer_of_a_deep_stem_and_pooled_shortcuts(framework: str, tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, images = draw_state(SMALL_DEEP, 3), random_images(2, 75, 66, 3, seed=4)
    make = TensorFlow if framework == "tensorflow" else Torch
    truth, theirs = (run(make(dtype), SMALL_DEEP, state, images, "resnet_v2") for dtype in ("float64", "float32"))
    # Odd and even sizes: windows are cut off.
    assert {
        size % 2 for name, x in truth.items() if name.endswith("unit_1/bottleneck_v2/preact") for size in x.shape[1:3]
    } == {0, 1}
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert_close_to_truth(net_of(SMALL_DEEP, "resnet_v2"), weights, images, end_points, theirs, truth)


@pytest.mark.parametrize("depth", [50, 18])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_output_strides_are_timms(output_stride: int, depth: int, tmp_path: Path) -> None:
    """timm dilates as TF-Slim does: what comes before the stride that is left out keeps the old rate."""
    pytest.importorskip("timm")
    scope = f"resnet_v2_{depth}"
    state, images = draw_state(published(depth), 1), random_images(1, 65, 64, 3, seed=2)
    truth, theirs = (
        run_timm(depth, state, images, scope, dtype, output_stride=output_stride) for dtype in ("float64", "float32")
    )
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    net = net_of(published(depth), scope).replace(output_stride=output_stride)
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False, output_stride=output_stride)
    assert_close_to_truth(net, weights, images, end_points, theirs, truth)


def test_names_and_shapes_are_timms() -> None:
    timm = pytest.importorskip("timm")
    for depth, deep in itertools.product(STAGES | BASIC, (False, True)):
        state = timm.create_model(f"resnetv2_{depth}{'d' if deep else ''}").state_dict()
        found = {name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")}
        assert found == published(depth, deep=deep).shapes()


def test_each_difference_from_tf_slim_matters(tmp_path: Path) -> None:
    """TF-Slim's rule for strides or for pool1's padding gives another function."""
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", draw_state(SMALL, 3)))
    image = random_images(48, 48, 3, seed=4)
    logits = refnet.forward(weights, image)
    same = refnet.forward(dict(weights), image, **OPTIONS)
    assert logits.tobytes() == same.tobytes()
    for name, value in {"pool_mode": "slim", "stride_place": "last_unit"}.items():
        other = refnet.forward(weights, image, **{name: value})
        assert np.abs(other - logits).max() > 1e-3 * np.abs(logits).max()


def test_a_deep_stem_and_pooled_shortcuts_travel_with_the_weights(tmp_path: Path) -> None:
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", draw_state(SMALL_DEEP, 3)))
    assert weights.options == {**OPTIONS, "avg_down": True}
    assert weights.architecture.root_depths == DEEP
    image = random_images(49, 48, 3, seed=4)
    logits = refnet.forward(weights, image)
    for options in ({**OPTIONS, "avg_down": True}, {**OPTIONS, "avg_down": True, "device": "reference"}):
        assert refnet.forward(dict(weights), image, **options).tobytes() == logits.tobytes()
    other = refnet.forward(weights, image, avg_down=False)
    assert np.abs(other - logits).max() > 1e-3 * np.abs(logits).max()
    refnet.save_weights(tmp_path / "b.safetensors", weights)
    assert refnet.forward(tmp_path / "b.safetensors", image).tobytes() == logits.tobytes()


@pytest.mark.parametrize("options", [{"output_stride": 4}, {"output_stride": 8}])
def test_pooled_shortcuts_have_no_atrous_form(options: dict[str, Any], tmp_path: Path) -> None:
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", draw_state(SMALL_DEEP, 3)))
    image = random_images(49, 48, 3, seed=4)
    with pytest.raises(errors.ConfigError, match="average pools by the units' strides"):
        refnet.forward(weights, image, **options)
    assert refnet.forward(weights, image, output_stride=16).tobytes() == refnet.forward(weights, image).tobytes()


def test_zero_biases_change_no_bit(tmp_path: Path) -> None:
    """A convolution's sum is never -0, to which +0 would give another sign."""
    state = draw_state(SMALL, 3)
    state["stem.conv.weight"][0] = -0.0
    state["stem.conv.weight"][1, :, 3, 3] = -1e-42
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    images = np.where(random_images(1, 33, 33, 3, seed=4) < 0, np.float32(-0.0), np.float32(1e-3))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    graph = Graph(dict(weights))
    x = graph.placeholder(images.shape)
    with graph.variable_scope("resnet_v2/conv1"):
        bare = graph.conv(x, 64, (7, 7), 2, 1, False)
    without = compute(graph, images, bare)
    assert without.tobytes() == end_points["resnet_v2/conv1"].tobytes()
    assert (without == 0).any()
    assert not np.signbit(without[without == 0]).any()


@pytest.mark.parametrize("target", ["b.npz", "b.safetensors", "b.ckpt"])
def test_options_travel_through_every_format(target: str, tmp_path: Path) -> None:
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", draw_state(SMALL, 3)))
    image = random_images(48, 48, 3, seed=4)
    refnet.save_weights(tmp_path / target, weights)
    loaded = refnet.load_weights(tmp_path / target)
    assert (loaded.options, loaded.recipe) == (weights.options, weights.recipe)
    assert refnet.forward(loaded, image).tobytes() == refnet.forward(weights, image).tobytes()


def test_an_unknown_stride_place(tmp_path: Path) -> None:
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", draw_state(SMALL, 3)))
    with pytest.raises(
        errors.ConfigError, match=r"stride_place is 'middle'; it can be 'last_unit', 'first_unit' or 'first_conv'"
    ):
        refnet.Engine(weights, stride_place="middle")


def changed(state: dict[str, np.ndarray], drop: str = "", **more: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Without the tensors whose names end so, and with some of these shapes; ``__`` stands for a dot."""
    kept = {name: value for name, value in state.items() if not drop or not name.endswith(drop)}
    return kept | {name.replace("__", "."): np.ones(shape, np.float32) for name, shape in more.items()}


VARIANTS = {
    "no statistics": (
        {name: value for name, value in draw_state(SMALL, 1).items() if ".running_" not in name},
        "no moving statistics",
    ),
    "resnetv2_50d_evos": (changed(draw_state(SMALL, 1), stages__0__blocks__0__norm1__v=(64,)), "EvoNorm"),
    "resnetv2_50d_frn": (changed(draw_state(SMALL, 1), stages__0__blocks__0__norm1__tau=(64,)), "filter response"),
    "a hybrid ViT's": (changed(draw_state(SMALL, 1), stem__norm__weight=(64,)), "hybrid"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_refused_by_name(variant: str, tmp_path: Path) -> None:
    state, words = VARIANTS[variant]
    with pytest.raises(errors.MissingTensorError, match=f"refnet does not have, with.*{words}.*resnetv2_18"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("resnetv2_50d_evos", r"EvoNorm"),
        ("resnetv2_50d_frn", r"filter response norm"),
    ],
)
def test_timms_own_variants_are_refused_by_name(variant: str, words: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    state = {name: value.numpy() for name, value in timm.create_model(variant).state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(errors.MissingTensorError, match=words):
        refnet.load_weights(tmp_path / "a.safetensors")
