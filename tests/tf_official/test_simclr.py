"""SimCLR's ResNets, by the order of their variables: every layer against the same function in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet import errors
from tests.slim.networks import assert_is_the_truth
from tests.support.arrays import random_images
from tests.tf_official.networks import Description, Model

#: Networks of width 1 and 2, of either kind of unit.
DESCRIPTIONS = {
    f"{'bottleneck' if bottleneck else 'basic'} x{root // 64}": Description(
        1, ((5, 2), (6, 1), (4, 2)), bottleneck, root=root
    )
    for bottleneck in (True, False)
    for root in (64, 128)
}
SMALL = DESCRIPTIONS["bottleneck x1"]
FEATURES = 16
IMAGES = random_images(2, 33, 40, 3, seed=4)
CLASSIFIER = "head_supervised/linear_layer/dense"
DRAW = np.random.default_rng(5)

# TensorFlow's own; and the images are small.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore:The images are .* recipe", "ignore:Float images are"
)


def model_of(description: Description) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A state by SimCLR's names, and the float64 truth for it."""
    state: dict[str, np.ndarray] = {}
    truth = Model(description, state, "float64", "resnet_v1").run(IMAGES)
    dense = {f"{CLASSIFIER}/{role}": state.pop(f"resnet_model/dense/{role}") for role in ("kernel", "bias")}
    return {name.replace("resnet_model/", "base_model/"): value for name, value in state.items()} | dense, truth


def projection_head(layers: int) -> dict[str, np.ndarray]:
    """The variables of a projection head; the last of its batch norms has no beta."""
    state = {}
    for i in range(layers):
        outputs, place = FEATURES if i < layers - 1 else 3, f"head_contrastive/nl_{i}"
        state[f"{place}/dense/kernel"] = DRAW.standard_normal((FEATURES, outputs)).astype(np.float32)
        roles = ["gamma", "beta", "moving_mean", "moving_variance"]
        for role in roles if i < layers - 1 else [role for role in roles if role != "beta"]:
            state[f"{place}/batch_normalization/{role}"] = DRAW.uniform(0.5, 1.5, outputs).astype(np.float32)
    return state


def saved(path: Path, state: dict[str, np.ndarray]) -> Path:
    np.savez(path / "a.npz", **state)
    return path / "a.npz"


@pytest.mark.parametrize("description", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
@pytest.mark.parametrize("scope", ["", "ema_model/"])
def test_float64_is_the_truth(description: Description, scope: str, tmp_path: Path) -> None:
    state, truth = model_of(description)
    state = {scope + name: value for name, value in state.items()}
    weights = refnet.load_weights(saved(tmp_path, state), strict=True)
    assert weights.options == {"stride_place": "first_unit"}
    assert set(weights.conversion.renamed.values()) == state.keys()
    assert weights.labels is None
    assert_is_the_truth(description.net("resnet_v1"), weights, IMAGES, truth)


def test_pixels_are_scaled_to_0_1(tmp_path: Path) -> None:
    """SimCLR keeps the middle 87.5 % of the shorter side, in 224 x 224, and converts uint8 to float32 only."""
    weights = refnet.load_weights(saved(tmp_path, model_of(SMALL)[0]))
    pixels = np.random.default_rng(1).integers(0, 256, (256, 300, 3), dtype=np.uint8)
    found = refnet.preprocess(pixels, weights.recipe)
    assert np.abs(found - pixels[16:-16, 38:-38] / 255.0).max() < 1e-6
    assert any("bicubically" in note for note in weights.notes)


@pytest.mark.parametrize("layers", [2, 3])
def test_the_projection_head_is_not_run(layers: int, tmp_path: Path) -> None:
    state, truth = model_of(SMALL)
    head = projection_head(layers)
    path = saved(tmp_path, state | head)
    with pytest.warns(refnet.RefnetWarning, match=r"projection head \(head_contrastive\) is not run.*ft_proj_selector"):
        weights = refnet.load_weights(path)
    assert {name for name, why in weights.conversion.left_out.items() if "not run" in why} == head.keys()
    logits = truth["resnet_v1/logits"][:, 0, 0]
    assert np.abs(refnet.forward(weights, IMAGES, dtype="float64") - logits).max() < 1e-12 * np.abs(logits).max()
    features = refnet.load_weights(path, head=None, strict=True)
    assert features.architecture.num_classes is None
    with pytest.raises(errors.WeightsError, match="tensors that are not part of the network: head_contrastive"):
        refnet.load_weights(path, strict=True)


def test_a_projection_head_alone_gives_features(tmp_path: Path) -> None:
    state = {name: value for name, value in model_of(SMALL)[0].items() if name.startswith("base_model/")}
    with pytest.warns(refnet.RefnetWarning, match=r"features only, without logits: of the head, head_contrastive/nl_0"):
        weights = refnet.load_weights(saved(tmp_path, state | projection_head(3)))
    assert weights.architecture.num_classes is None


def test_what_the_optimizer_keeps_is_known(tmp_path: Path) -> None:
    state, _ = model_of(SMALL)
    slots = {f"{name}/{slot}": value for name, value in state.items() for slot in ("Momentum", "LARSOptimizer")}
    path = saved(tmp_path, state | slots | {"global_step": np.float32(7)})
    weights = refnet.load_weights(path)  # a warning would be an error
    assert set(weights.conversion.kinds.values()) == {"state of the training"}
    assert weights.conversion.kinds.keys() == slots.keys() | {"global_step"}


REFUSED = {
    "selective kernels": (
        {"base_model/conv2d/kernel": (3, 3, 3, 32), "base_model/conv2d_1/kernel": (3, 3, 32, 32),
         "base_model/conv2d_2/kernel": (3, 3, 32, 64)},
        r"three kernels of 3 x 3, as with selective kernels \(sk_ratio\)",
    ),
    "the root of CIFAR": ({"base_model/conv2d/kernel": (3, 3, 3, 64)}, "kernels of the sizes 3, 1, 1, 3, 1"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_others_are_refused_by_name(what: str, tmp_path: Path) -> None:
    shapes, words = REFUSED[what]
    state = model_of(SMALL)[0] | {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    with pytest.raises(errors.MissingTensorError, match=f"numbered as in SimCLR's ResNets.*{words}"):
        refnet.load_weights(saved(tmp_path, state))


def test_several_networks(tmp_path: Path) -> None:
    state, truth = model_of(SMALL)
    ema = {f"ema_model/{name}": value * np.float32(2) for name, value in state.items()}
    path = saved(tmp_path, state | ema)
    with pytest.raises(errors.ConfigError, match="several networks; scope= can be '', 'ema_model'"):
        refnet.load_weights(path)
    logits = truth["resnet_v1/logits"][:, 0, 0]
    found = refnet.forward(refnet.load_weights(path, scope=""), IMAGES, dtype="float64")
    assert np.abs(found - logits).max() < 1e-12 * np.abs(logits).max()
