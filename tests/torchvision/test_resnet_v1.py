"""torchvision's and timm's ResNet v1.5: files, and every layer against the same function in float64."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import refnet
from refnet import errors
from tests.slim.networks import assert_close_to_truth, assert_is_the_truth
from tests.support.arrays import random_images
from tests.timm.networks import BASIC, STAGES
from tests.torchvision.networks import Description, TensorFlowV1, TorchV1, draw_state, published, run, run_modules

SHAPE = (2, 97, 64, 3)
SMALL = Description(((3, 2), (5, 1), (4, 2)), 7)
#: The first unit of the first block keeps its depth, and has no convolution in its shortcut.
SMALL_BASIC = Description(((64, 2), (5, 1), (4, 2)), 7, basic=True)
#: timm's variants c, s and t are deep, and only t is pooled; no published one is pooled and not deep.
DESCRIPTIONS = {
    f"{name} {kind}".strip(): description._replace(**options)
    for name, description in {"bottleneck": SMALL, "basic": SMALL_BASIC}.items()
    for kind, options in {
        "": {}, "deep": {"deep": (5, 6, 64)}, "pooled": {"pooled": True}, "d": {"deep": (6, 5, 64), "pooled": True},
    }.items()
}  # fmt: skip

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The images are .* recipe")


def write(path: Path, state: Mapping[str, np.ndarray]) -> Path:
    """A state dict as PyTorch's save_file leaves it: with the counters of batches."""
    norms = {name.removesuffix(".running_mean") for name in state if name.endswith(".running_mean")}
    save_file({**state, **{f"{name}.num_batches_tracked": np.array(3) for name in norms}}, path)
    return path


def test_every_tensor_has_its_place(tmp_path: Path) -> None:
    state = draw_state(published(50), 1)
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit"}
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")
    assert weights.conversion.renamed.keys() == weights.keys()
    assert set(weights.conversion.renamed.values()) == state.keys()
    for slim, name in weights.conversion.renamed.items():
        same = weights[slim].transpose(3, 2, 0, 1) if slim.endswith("/weights") else weights[slim]
        assert same.tobytes() == state[name].tobytes(), slim
    assert len(weights.conversion.left_out) == 53
    found = weights.architecture
    assert found.scope == "resnet_v1_50"
    assert [(block.scope, list(block.args)) for block in found.blocks] == published(50).blocks()


def layers_of(
    framework: str, depth: int, deep: bool, state: Mapping[str, np.ndarray], images: np.ndarray, dtype: str
) -> Any:
    """Every layer of a published network; skipped where the framework is missing."""
    module, scope, description = pytest.importorskip(framework), f"resnet_v1_{depth}", published(depth, deep)
    if framework in ("torchvision", "timm"):
        name = f"resnet{depth}{'d' if deep else ''}"
        net = module.create_model(name) if framework == "timm" else getattr(module.models, name)(weights=None)
        return run_modules(net, description, state, images, scope, dtype)
    operations = TensorFlowV1(dtype) if framework == "tensorflow" else TorchV1(dtype)
    return run(operations, description, state, images, scope)


@pytest.mark.parametrize(
    ("framework", "depth", "deep"),
    [
        (framework, depth, deep) if (depth, deep) == (50, False) and framework != "timm" else
        pytest.param(framework, depth, deep, marks=pytest.mark.slow)
        for framework in ("tensorflow", "torch", "torchvision", "timm")
        for depth in (BASIC | STAGES)
        for deep in (False, True)
        if not (deep and framework == "torchvision")
    ],
)  # fmt: skip
def test_every_layer(framework: str, depth: int, deep: bool, tmp_path: Path) -> None:
    """By the file alone: what differs from TF-Slim travels with the weights."""
    description = published(depth, deep)
    state, images = draw_state(description, 1), random_images(*SHAPE, seed=2)
    truth, theirs = (layers_of(framework, depth, deep, state, images, dtype) for dtype in ("float64", "float32"))
    assert all(value.dtype == np.float64 for value in truth.values())
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state))
    _, end_points = refnet.forward(weights, images, end_points=True, spatial_squeeze=False)
    assert end_points.keys() - truth.keys() == {"global_pool", "predictions"} | {
        f"resnet_v1_{depth}/block{i}" for i in range(1, 5)
    }
    assert_close_to_truth(description.net(f"resnet_v1_{depth}"), weights, images, end_points, theirs, truth)


@pytest.mark.parametrize("shape", [(2, 33, 40, 3), (1, 48, 35, 3)])
@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_float64_is_the_truth(framework: str, description: Description, shape: tuple[int, ...], tmp_path: Path) -> None:
    pytest.importorskip(framework)
    state, images = draw_state(description, 3), random_images(*shape, seed=4)
    operations = TensorFlowV1("float64") if framework == "tensorflow" else TorchV1("float64")
    truth = run(operations, description, state, images, "resnet_v1")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit"} | (
        {"avg_down": True} if description.pooled else {}
    )
    assert_is_the_truth(description.net("resnet_v1"), weights, images, truth)


@pytest.mark.parametrize("framework", ["tensorflow", "torch"])
def test_strides_in_the_first_convolution(framework: str, tmp_path: Path) -> None:
    """As Caffe's networks, and torchvision's that were trained in their style; the names do not tell."""
    pytest.importorskip(framework)
    description = SMALL._replace(in_1x1=True)
    state, images = draw_state(description, 3), random_images(2, 33, 40, 3, seed=4)
    operations = TensorFlowV1("float64") if framework == "tensorflow" else TorchV1("float64")
    truth = run(operations, description, state, images, "resnet_v1")
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    weights = weights.replace(options={**weights.options, "stride_place": "first_conv"})
    assert [(block.scope, list(block.args)) for block in weights.architecture.blocks] == description.blocks()
    assert_is_the_truth(description.net("resnet_v1"), weights, images, truth)


@pytest.mark.parametrize("depth", BASIC)
def test_published_networks_of_basic_units(depth: int, tmp_path: Path) -> None:
    shapes = published(depth).shapes()
    np.savez(tmp_path / "a.npz", **{name: np.full(shape, 0.5, np.float16) for name, shape in shapes.items()})
    weights = refnet.load_weights(tmp_path / "a.npz", strict=True)
    architecture = weights.architecture
    assert (architecture.scope, architecture.num_classes) == (f"resnet_v1_{depth}", 1000)
    assert [(block.scope, list(block.args)) for block in architecture.blocks] == published(depth).blocks()
    assert len(weights) == len(shapes)


@pytest.mark.parametrize("framework", ["torchvision", "timm"])
def test_names_and_shapes_are_theirs(framework: str) -> None:
    module = pytest.importorskip(framework)
    for depth in BASIC | STAGES:
        for deep in (False, True) if framework == "timm" else (False,):
            name = f"resnet{depth}{'d' if deep else ''}"
            net = module.create_model(name) if framework == "timm" else getattr(module.models, name)(weights=None)
            state = net.state_dict()
            found = {
                name: tuple(value.shape) for name, value in state.items() if not name.endswith("num_batches_tracked")
            }
            assert found == published(depth, deep).shapes()


VARIANTS = {
    "resnext50_32x4d": ({"layer1.0.conv2.weight": (128, 4, 3, 3)}, "ResNeXt"),
    "seresnet50": ({"layer1.0.se.fc1.weight": (8, 8, 1, 1)}, "squeeze"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_are_refused_by_name(variant: str, tmp_path: Path) -> None:
    more, words = VARIANTS[variant]
    state = draw_state(SMALL, 1) | {name: np.ones(shape, np.float32) for name, shape in more.items()}
    with pytest.raises(errors.MissingTensorError, match=f"refnet does not have, with.*{words}.*resnet18"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))


def test_group_norm_is_named(tmp_path: Path) -> None:
    """timm's resnet50_gn: the same names, without statistics."""
    state = {name: value for name, value in draw_state(SMALL, 1).items() if ".running_" not in name}
    save_file(state, tmp_path / "a.safetensors")
    with pytest.raises(errors.MissingTensorError, match=r"no moving statistics, as with group norm"):
        refnet.load_weights(tmp_path / "a.safetensors")


def test_a_bottleneck_without_a_kernel_is_not_a_basic_unit(tmp_path: Path) -> None:
    state = draw_state(SMALL, 1)
    del state["layer1.1.conv3.weight"]
    with pytest.raises(errors.MissingTensorError, match="block1/unit_2/bottleneck_v1/conv3/weights is missing"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))


#: The children of torchvision's and timm's networks that have tensors, in their order.
CHILDREN = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def numbered(state: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, np.ndarray]:
    """The names that nn.Sequential(*list(net.children())[:-1]) gives."""
    split = {name: name.partition(".") for name in state}
    return {
        f"{prefix}{CHILDREN[child]}.{rest}": state[name] for name, (child, _, rest) in split.items() if child != "fc"
    }


@pytest.mark.parametrize(
    ("description", "prefix"),
    list(zip(DESCRIPTIONS.values(), cycle(["", "0.", "module.backbone.", "encoder.0."]))),
    ids=DESCRIPTIONS,
)
def test_children_by_their_numbers(description: Description, prefix: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorflow")
    state, images = draw_state(description, 3), random_images(2, 33, 40, 3, seed=4)
    truth = run(TensorFlowV1("float64"), description, state, images, "resnet_v1")
    head = {f"{prefix}10.{role}": state[f"fc.{role}"] for role in ("weight", "bias")}
    state = numbered(state, prefix) | head
    weights = refnet.load_weights(write(tmp_path / "a.safetensors", state), strict=True)
    assert weights.recipe == refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")
    assert set(weights.conversion.renamed.values()) == state.keys()
    assert_is_the_truth(description.net("resnet_v1"), weights, images, truth)


@pytest.mark.parametrize("framework", ["torchvision", "timm"])
def test_children_are_theirs(framework: str) -> None:
    module, nn = pytest.importorskip(framework), pytest.importorskip("torch.nn")
    for deep in (False, True) if framework == "timm" else (False,):
        name = f"resnet18{'d' if deep else ''}"
        net = module.create_model(name) if framework == "timm" else getattr(module.models, name)(weights=None)
        state = nn.Sequential(*list(net.children())[:-1]).state_dict()
        assert state.keys() == numbered(net.state_dict()).keys()


@pytest.mark.parametrize(("head", "classes"), [([], None), (["fc"], 7), (["1"], 7), (["head.0", "head.3"], None)])
def test_heads_beside_numbered_children(head: list[str], classes: int | None, tmp_path: Path) -> None:
    state = draw_state(SMALL, 1)
    layers = {f"{name}.{role}": state[f"fc.{role}"] for name in head[:1] for role in ("weight", "bias")}
    layers |= {f"{name}.weight": np.ones((3, 7), np.float32) for name in head[1:]}
    write(tmp_path / "a.safetensors", numbered(state, "0.") | layers)
    if len(head) > 1:
        with pytest.warns(refnet.RefnetWarning, match="features only, without logits: of the head, head.0"):
            weights = refnet.load_weights(tmp_path / "a.safetensors")
    else:
        weights = refnet.load_weights(tmp_path / "a.safetensors", strict=True)
    assert weights.architecture.num_classes == classes


@pytest.mark.parametrize(("by", "child"), [(-1, 3), (2, 8)])
def test_numbers_of_another_network(by: int, child: int, tmp_path: Path) -> None:
    """Without a max pool, as for CIFAR, the stages are the children 3 to 6."""
    state = numbered(draw_state(SMALL, 1))
    stages = {f"{int(name[0]) + by}{name[1:]}": value for name, value in state.items() if name[0] in "4567"}
    with pytest.raises(errors.MissingTensorError, match=rf"there are units in child {child} too"):
        refnet.load_weights(write(tmp_path / "a.safetensors", {**state, **stages}))


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbered_variants_are_refused_by_name(variant: str, tmp_path: Path) -> None:
    more, words = VARIANTS[variant]
    state = draw_state(SMALL, 1) | {name: np.ones(shape, np.float32) for name, shape in more.items()}
    with pytest.raises(errors.MissingTensorError, match=f"refnet does not have, with.*{words}.*resnet18"):
        refnet.load_weights(write(tmp_path / "a.safetensors", numbered(state)))


@pytest.mark.parametrize("name", ["conv1.weight", "layer4.weight", "bn1.bias"])
def test_no_name_takes_a_numbers_place(name: str, tmp_path: Path) -> None:
    state = numbered(draw_state(SMALL, 1)) | {name: np.ones((4, 4), np.float32)}
    write(tmp_path / "a.safetensors", state)
    with pytest.raises(errors.FormatError, match=f"{name!r} is a name of torchvision's among its children's numbers"):
        refnet.load_weights(tmp_path / "a.safetensors")


def test_a_layer_within_a_numbered_unit_is_an_error(tmp_path: Path) -> None:
    state = numbered(draw_state(SMALL, 1), "net.") | {"net.4.0.attention.weight": np.ones((3, 3), np.float32)}
    with pytest.raises(errors.WeightsError, match=r"within the network .*net\.4\.0\.attention\.weight"):
        refnet.load_weights(write(tmp_path / "a.safetensors", state))
