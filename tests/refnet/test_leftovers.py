"""What a file holds beside the network: several networks, other heads, averages, layers that refnet does not have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet.cli import main
from refnet.network.resnet_v1 import resnet_v1_block
from tests.support.arrays import random_images
from tests.support.nets import lively_weights, small_blocks
from tests.torchvision.networks import Description, draw_state

IMAGE = random_images(40, 33, 3)
STAGES = ((3, 2), (5, 1), (4, 2))
FEATURES = 16
DRAW = np.random.default_rng(5)

pytestmark = pytest.mark.filterwarnings("ignore:The images are .* recipe")


def saved(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    np.savez(path / "a.npz", **tensors)  # type: ignore[arg-type]
    return path / "a.npz"


def state_dict(prefix: str = "", seed: int = 1, classes: int = 7) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in draw_state(Description(STAGES, classes), seed).items()}


def without(state: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in state.items() if not name.startswith(start)}


def drawn(*shape: int) -> np.ndarray:
    return np.asarray(DRAW.standard_normal(shape), np.float32)


def norm(name: str, size: int = FEATURES) -> dict[str, np.ndarray]:
    return {f"{name}.{role}": np.abs(drawn(size)) for role in ("weight", "bias", "running_mean", "running_var")}


def features_of(state: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    features: np.ndarray = refnet.forward(saved(path, state), IMAGE, num_classes=None)
    return features.reshape(-1)


# Networks behind prefixes.


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder_q.", "0.", "model.backbone.body."])
def test_a_prefix_changes_nothing(prefix: str, tmp_path: Path) -> None:
    expected = refnet.forward(saved(tmp_path, state_dict()), IMAGE)
    path = saved(tmp_path, state_dict(prefix))
    weights = refnet.load_weights(path, strict=True)
    assert refnet.forward(weights, IMAGE).tobytes() == expected.tobytes()
    assert set(weights.conversion.renamed.values()) == state_dict(prefix).keys()
    named = refnet.load_weights(path, scope=prefix.rstrip("."))
    assert refnet.forward(named, IMAGE).tobytes() == expected.tobytes()
    with pytest.raises(errors.ConfigError, match=f"no network below scope 'head'.*{prefix.rstrip('.')}"):
        refnet.load_weights(path, scope="head")


def test_of_several_networks_one_is_chosen(tmp_path: Path) -> None:
    """MoCo keeps two encoders."""
    path = saved(tmp_path, state_dict("module.encoder_q.", 1) | state_dict("module.encoder_k.", 2))
    with pytest.raises(errors.ConfigError, match=r"scope= can be 'module.encoder_k', 'module.encoder_q'"):
        refnet.load_weights(path)
    for scope, seed in (("module.encoder_q", 1), ("module.encoder_k", 2)):
        weights = refnet.load_weights(path, scope=scope, strict=True)
        expected = refnet.forward(state_dict(seed=seed), IMAGE)
        assert refnet.forward(weights, IMAGE).tobytes() == expected.tobytes()
        assert refnet.Engine(path, scope=scope)(IMAGE).tobytes() == expected.tobytes()
        assert all("another network" in why for why in weights.conversion.left_out.values())
        assert len(weights.conversion.left_out) == len(state_dict())


def test_the_two_stages_of_a_detector(tmp_path: Path) -> None:
    blocks = [resnet_v1_block(f"block{i}", base_depth=2 + i, num_units=2, stride=2) for i in (1, 2, 3)]
    first = lively_weights(1, blocks, num_classes=None, scope="First/resnet_v1_101")
    last = [resnet_v1_block("block4", base_depth=4, num_units=2, stride=1)]
    second = lively_weights(2, last, num_classes=None, scope="Second/resnet_v1_101", include_root_block=False)
    path = saved(tmp_path, first | second | {"Second/BoxPredictor/weights": drawn(16, 8)})
    with pytest.raises(errors.ConfigError, match=r"scope= can be 'First/resnet_v1_101', 'Second/resnet_v1_101'"):
        refnet.load_weights(path)
    expected = refnet.forward(first, IMAGE)
    with pytest.warns(refnet.RefnetWarning, match="not part of the network: Second/BoxPredictor/weights"):
        found = refnet.forward(path, IMAGE, scope="First/resnet_v1_101")
    assert found.tobytes() == expected.tobytes()


def test_names_in_memory_are_understood() -> None:
    state = state_dict("module.")
    expected = refnet.forward(state_dict(), IMAGE)
    assert expected.shape == (7,)
    assert refnet.forward(state, IMAGE).tobytes() == expected.tobytes()
    weights = refnet.Weights(state)
    assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit"}
    assert refnet.forward(weights, IMAGE).tobytes() == expected.tobytes()


def test_tensors_of_pytorch_in_memory() -> None:
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(value) for name, value in state_dict().items()}
    state["bn1.num_batches_tracked"] = torch.tensor(3)
    assert refnet.forward(state, IMAGE).tobytes() == refnet.forward(state_dict(), IMAGE).tobytes()


# Heads.


@pytest.mark.parametrize("name", ["fc", "head", "linear.0", "1", "classifier.1"])
def test_a_lone_dense_layer_is_the_classifier_whatever_its_name(name: str, tmp_path: Path) -> None:
    state = state_dict()
    expected = refnet.forward(saved(tmp_path, state), IMAGE)
    head = {f"{name}.weight": state["fc.weight"], f"{name}.bias": state["fc.bias"]}
    path = saved(tmp_path, without(state_dict("backbone."), "backbone.fc.") | head)
    weights = refnet.load_weights(path, strict=True)
    assert refnet.forward(weights, IMAGE).tobytes() == expected.tobytes()
    assert refnet.load_weights(path, head=None).architecture.num_classes is None
    # Without biases too, as if they were zeros.
    state["fc.bias"][:] = 0
    expected = refnet.forward(saved(tmp_path, state), IMAGE)
    del head[f"{name}.bias"]
    path = saved(tmp_path, without(state_dict("backbone."), "backbone.fc.") | head)
    assert refnet.forward(path, IMAGE).tobytes() == expected.tobytes()


LONGER: dict[str, dict[str, np.ndarray]] = {
    "two": {
        "fc.0.weight": drawn(9, FEATURES), "fc.0.bias": drawn(9), "fc.2.weight": drawn(5, 9), "fc.2.bias": drawn(5),
    },
    "two, the second by the classifier's name": {
        "fc1.weight": drawn(9, FEATURES), "fc1.bias": drawn(9), "fc.weight": drawn(5, 9), "fc.bias": drawn(5),
    },
    "as wide as the features": {
        "fc.0.weight": drawn(FEATURES, FEATURES), "fc.2.weight": drawn(5, FEATURES), "fc.2.bias": drawn(5),
    },
    "a convolution": {
        "classifier.0.weight": drawn(6, FEATURES, 3, 3), **norm("classifier.1", 6),
        "classifier.4.weight": drawn(5, 6, 1, 1),
    },
}  # fmt: skip


@pytest.mark.parametrize("head", LONGER)
def test_a_longer_head_gives_features_and_says_so(head: str, tmp_path: Path) -> None:
    state = without(state_dict(), "fc.")
    expected = features_of(state_dict(), tmp_path)
    path = saved(tmp_path, state | LONGER[head])
    first = next(iter(LONGER[head])).removesuffix(".weight")
    with pytest.warns(refnet.RefnetWarning, match=rf"features only, without logits: of the head, {first} \[.*head="):
        weights = refnet.load_weights(path)
    assert weights.architecture.num_classes is None
    assert refnet.forward(weights, IMAGE).reshape(-1).tobytes() == expected.tobytes()
    assert any("features only" in note for note in weights.notes)
    assert refnet.forward(refnet.load_weights(path, head=None), IMAGE).reshape(-1).tobytes() == expected.tobytes()
    with pytest.raises(errors.WeightsError, match="not part of the network"):
        refnet.load_weights(path, strict=True)


def test_a_head_by_its_name(tmp_path: Path) -> None:
    state = state_dict()
    other = {"aux.weight": drawn(4, FEATURES), "aux.bias": drawn(4)}
    path = saved(tmp_path, state | other)
    with pytest.warns(refnet.RefnetWarning, match=r"other heads are not run: aux \[16, 4\]; head= names"):
        weights = refnet.load_weights(path)
    assert weights.architecture.num_classes == 7
    swapped = refnet.forward(state | {"fc.weight": other["aux.weight"], "fc.bias": other["aux.bias"]}, IMAGE)
    found = refnet.forward(refnet.load_weights(path, head="aux"), IMAGE)
    assert (found.shape, found.tobytes()) == ((4,), swapped.tobytes())
    assert refnet.load_weights(path, head="fc").architecture.num_classes == 7
    with pytest.raises(errors.ConfigError, match=r"no dense layer 'nose' on the features; .* are 'fc', 'aux'"):
        refnet.load_weights(path, head="nose")


@pytest.mark.parametrize("between", ["norm", "dense"])
@pytest.mark.parametrize("name", ["fc", "linear"])
def test_a_layer_before_the_classifier_is_an_error(between: str, name: str, tmp_path: Path) -> None:
    state = state_dict()
    own = {f"{name}.weight": state.pop("fc.weight"), f"{name}.bias": state.pop("fc.bias")}
    extra = norm("neck") if between == "norm" else {"neck.weight": drawn(FEATURES, FEATURES)}
    path = saved(tmp_path, state | own | extra)
    if between == "dense" and name != "fc":
        with pytest.warns(refnet.RefnetWarning, match="features only"):
            refnet.load_weights(path)
        return
    with pytest.raises(
        errors.WeightsError, match=f"Between the 16 features and the classifier {name} there can be neck"
    ):
        refnet.load_weights(path)
    with pytest.raises(errors.WeightsError, match="neck"):
        refnet.forward(state | own | extra, IMAGE)
    expected = refnet.forward(state_dict(), IMAGE)
    assert refnet.forward(refnet.load_weights(path, head=name), IMAGE).tobytes() == expected.tobytes()
    assert refnet.load_weights(path, head=None).architecture.num_classes is None


# Layers within the network.


@pytest.mark.parametrize("name", ["gate.fc1.weight", "conv2.weight_u", "bn4.running_mean", "attention.bias"])
def test_a_layer_inside_a_unit_is_an_error(name: str, tmp_path: Path) -> None:
    state = state_dict("backbone.") | {f"backbone.layer2.0.{name}": drawn(3)}
    with pytest.raises(errors.WeightsError, match=rf"within the network that refnet does not have: .*layer2.0.{name}"):
        refnet.load_weights(saved(tmp_path, state))


@pytest.mark.parametrize("place", ["block1/unit_1/bottleneck_v2/conv2/mask", "conv1/mask", "postnorm/threshold"])
def test_a_tensor_inside_tf_slims_layers_is_an_error(place: str, tmp_path: Path) -> None:
    path = saved(tmp_path, lively_weights() | {f"resnet_v2/{place}": drawn(3)})
    with pytest.raises(errors.WeightsError, match=f"does not have: resnet_v2/{place}"):
        refnet.load_weights(path)


# What training leaves.


def trained(slot: Callable[[np.ndarray], np.ndarray], name: str) -> dict[str, np.ndarray]:
    return {f"{key}/{name}": slot(value) for key, value in lively_weights().items()}


def test_the_state_of_the_training_is_a_note(tmp_path: Path) -> None:
    tensors = lively_weights() | trained(np.zeros_like, "Momentum") | trained(np.ones_like, "Adam_1")
    tensors |= {"beta1_power": np.float32(1), "resnet_v2/postnorm/moving_mean/biased": drawn(20)}
    weights = refnet.load_weights(saved(tmp_path, tensors))
    assert set(weights.conversion.kinds.values()) == {"state of the training"}
    assert any(note.startswith("not part of the network (state of the training)") for note in weights.notes)


def test_moving_averages_are_taken_if_asked_for_or_alone(tmp_path: Path) -> None:
    raw = lively_weights()
    averages = trained(lambda value: np.asarray(value * 1.25, np.float32), "ExponentialMovingAverage")
    ends = ("weights", "biases", "gamma", "beta")
    averages = {name: value for name, value in averages.items() if name.split("/")[-2] in ends}
    averaged = raw | {name.rpartition("/")[0]: value for name, value in averages.items()}
    path = saved(tmp_path, raw | averages)
    with pytest.warns(refnet.RefnetWarning, match=r"moving averages of \d+ variables.*averages=True"):
        weights = refnet.load_weights(path)
    assert refnet.forward(weights, IMAGE).tobytes() == refnet.forward(raw, IMAGE).tobytes()
    with pytest.warns(refnet.RefnetWarning, match="the moving averages of .* were taken"):
        weights = refnet.load_weights(path, averages=True)
    assert refnet.forward(weights, IMAGE).tobytes() == refnet.forward(averaged, IMAGE).tobytes()
    alone = {name: value for name, value in raw.items() if f"{name}/ExponentialMovingAverage" not in averages}
    with pytest.warns(refnet.RefnetWarning, match="the moving averages of .* were taken"):
        weights = refnet.load_weights(saved(tmp_path, alone | averages))
    assert refnet.forward(weights, IMAGE).tobytes() == refnet.forward(averaged, IMAGE).tobytes()
    with pytest.raises(errors.ConfigError, match="no moving averages"):
        refnet.load_weights(saved(tmp_path, raw), averages=True)


def test_extras_of_other_parts_are_named(tmp_path: Path) -> None:
    path = saved(tmp_path, state_dict() | {"neck.lateral.weight": drawn(3, 5, 1, 1)})
    with pytest.warns(refnet.RefnetWarning, match="1 tensors are not part of the network: neck.lateral.weight"):
        weights: Any = refnet.load_weights(path)
    assert weights.conversion.extra == ["neck.lateral.weight"]
    assert len(small_blocks()) == 3


# On the command line.


def test_the_command_line_chooses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = state_dict("a.", 1) | {f"b.{name}": value for name, value in state_dict("", 2, 5).items()}
    path = str(saved(tmp_path, states))
    assert main(["summary", path]) == 2
    assert "scope= can be 'a', 'b'" in capsys.readouterr().err
    assert main(["convert", path, str(tmp_path / "b.safetensors"), "--scope", "b"]) == 0
    assert refnet.load_weights(tmp_path / "b.safetensors").architecture.num_classes == 5
    assert main(["convert", path, str(tmp_path / "f.npz"), "--scope", "a", "--head", "none"]) == 0
    assert refnet.load_weights(tmp_path / "f.npz").architecture.num_classes is None
    options = ["--option", "stride_place=last_unit", "--option", "pool_mode=keras"]
    assert main(["convert", path, str(tmp_path / "o.npz"), "--scope", "a", *options]) == 0
    assert refnet.load_weights(tmp_path / "o.npz").options == {"pool_mode": "keras", "stride_place": "last_unit"}
    assert main(["summary", path, "--scope", "a", "--option", "depth=3"]) == 2
    assert "--option depth=3 is not understood" in capsys.readouterr().err


def test_goldens_of_one_network_of_a_file(tmp_path: Path) -> None:
    path = saved(tmp_path, state_dict("a.", 1) | state_dict("b.", 2))
    for scope in ("a", "b"):
        refnet.golden.record(tmp_path / "g.safetensors", str(path), IMAGE, scope=scope)
        assert not refnet.golden.check(tmp_path / "g.safetensors", str(path), IMAGE).differing
        other = refnet.Weights(state_dict(seed={"a": 2, "b": 1}[scope]))
        with pytest.raises(errors.RefnetError):
            refnet.golden.check(tmp_path / "g.safetensors", other, IMAGE)


@pytest.mark.parametrize("head", ["none", "fc", "aux"])
def test_what_was_not_run_is_not_written_either(head: str, tmp_path: Path) -> None:
    """A dense layer that stayed in the file would be taken for the classifier when it is read again."""
    other = {"aux.weight": drawn(4, FEATURES), "aux.bias": drawn(4)}
    path = saved(tmp_path, state_dict() | other)
    classes = {"none": None, "fc": 7, "aux": 4}[head]
    assert main(["convert", str(path), str(tmp_path / "b.safetensors"), "--head", head]) == 0
    weights = refnet.load_weights(tmp_path / "b.safetensors", strict=True)
    assert weights.architecture.num_classes == classes
    expected = refnet.forward(refnet.load_weights(path, head=None if head == "none" else head), IMAGE)
    assert refnet.forward(weights, IMAGE).tobytes() == expected.tobytes()


def test_a_layer_that_reads_other_features_can_stand_before_the_classifier(tmp_path: Path) -> None:
    """As after a pool of means beside maxima: twice as many features, and then as many."""
    state = without(state_dict("0."), "0.fc.")
    head = {"1.2.weight": drawn(FEATURES, 2 * FEATURES), "1.4.weight": drawn(5, FEATURES)}
    with pytest.raises(errors.WeightsError, match=r"Between the 16 features and the classifier 1.4 there can be 1.2"):
        refnet.load_weights(saved(tmp_path, state | head))
    with pytest.warns(refnet.RefnetWarning, match="1 tensors are not part of the network: 1.2.weight"):
        weights = refnet.load_weights(saved(tmp_path, state | head), head=None)
    assert weights.architecture.num_classes is None
