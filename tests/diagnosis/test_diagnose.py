"""Ports in TensorFlow with a mistake planted: the mistake is named; right ports are right; what is unknown stays so."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import refnet
import refnet.errors
from refnet.diagnosis.diagnosis import Diagnosis
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.pairs import AT_ONCE
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.search import hypotheses_of
from refnet.weights.files import weights_of
from refnet_kernels.system.float_mode import contract_mode
from tests.ports.mistakes import Mistake
from tests.ports.networks import Variables, draw_variables, inception_scaled, run_numpy, small_net, smooth_images
from tests.ports.tensorflow_port import run
from tests.slim.oracle import Net
from tests.support.nets import lively_weights

SIZE = 48
IMAGE = inception_scaled(smooth_images(1, SIZE, SIZE, 3, seed=5))
NETS = {version: small_net(version, (1, 2)) for version in (1, 2)}
VARIABLES = {version: draw_variables(net, SIZE, seed=0) for version, net in NETS.items()}

SLOW = pytest.mark.slow
UNIT = "block2/unit_2/bottleneck_v2"
SINGLES = [
    (2, Mistake("conv1-same")),
    (2, Mistake("epsilon", None, 1e-3)),
    (2, Mistake("relu-missing", f"{UNIT}/preact")),
    pytest.param(2, Mistake("shortcut-from-input", "block2/unit_1/bottleneck_v2"), marks=SLOW),
    pytest.param(2, Mistake("kernel-reshaped", f"{UNIT}/conv2"), marks=SLOW),
    (2, Mistake("postnorm-missing")),
    pytest.param(2, Mistake("root-activated"), marks=SLOW),
    pytest.param(1, Mistake("conv2-same"), marks=SLOW),
    (1, Mistake("gamma-beta-swapped", "block2/unit_1/bottleneck_v1/conv2")),
    pytest.param(1, Mistake("unit-doubled", "block2/unit_2/bottleneck_v1"), marks=SLOW),
    pytest.param(1, Mistake("batch-statistics", None, "biased"), marks=SLOW),
    (1, Mistake("head-order")),
]


def observed(version: int, *mistakes: Mistake, image: np.ndarray = IMAGE) -> dict[str, np.ndarray]:
    return run(VARIABLES[version], image, NETS[version], mistakes)


def logits(version: int, *mistakes: Mistake) -> np.ndarray:
    return observed(version, *mistakes)[f"resnet_v{version}/logits"]


def diagnosed(version: int, what: Any, **options: Any) -> Diagnosis:
    return refnet.diagnose(VARIABLES[version], IMAGE, what, pairs=False, threads=1, **options)


@pytest.mark.parametrize(("version", "mistake"), SINGLES, ids=str)
def test_a_planted_mistake_is_named_from_the_logits_of_one_image(version: int, mistake: Mistake) -> None:
    found = diagnosed(version, logits(version, mistake))
    assert found.explained
    assert not found.correct
    named = [(entry.id, entry.value) for entry in (*found.mistakes, *found.ties)]
    assert (mistake.id, mistake.value) in named
    (entry,) = found.mistakes
    assert entry.error_after < 1e-5 < entry.error_before
    if mistake.site is not None and entry.id == mistake.id:
        assert entry.site == mistake.site


@pytest.mark.parametrize("version", [1, 2])
def test_right_ports_are_right(version: int) -> None:
    outputs = observed(version)
    for what in (
        outputs[f"resnet_v{version}/logits"],
        outputs[f"resnet_v{version}/logits"].ravel(),
        {"predictions": outputs["predictions"]},
        outputs,
        run_numpy(VARIABLES[version], IMAGE, NETS[version], "float64"),
    ):
        found = diagnosed(version, what)
        assert found.correct
        assert not found.explained
        assert not found.mistakes


def _scaled(net: Net, variables: Variables) -> Variables:
    name = f"{net.scope}/block2/unit_1/{net.unit_name}/conv2/weights"
    return variables | {name: variables[name] * np.float32(1.01)}


def _without_a_tap(net: Net, variables: Variables) -> Variables:
    name = f"{net.scope}/block1/unit_1/{net.unit_name}/conv2/weights"
    kernel = variables[name].copy()
    kernel[0, 0] = 0
    return variables | {name: kernel}


@pytest.mark.parametrize("bug", [_scaled, pytest.param(_without_a_tap, marks=SLOW)])
def test_of_an_unknown_bug_nothing_is_claimed(bug: Any) -> None:
    outputs = run(bug(NETS[2], VARIABLES[2]), IMAGE, NETS[2])
    for what in (outputs["resnet_v2/logits"], outputs):
        found = diagnosed(2, what)
        assert not found.correct
        assert not found.explained
        assert not found.mistakes


@pytest.mark.parametrize(
    "values",
    [np.zeros(12), np.full(12, np.nan), np.full(12, 3.5), np.eye(12)[2], np.r_[np.inf, np.zeros(11)]],
    ids=["zeros", "NaN", "equal", "saturated", "infinite"],
)
def test_outputs_that_tell_nothing_lead_to_no_claim(values: np.ndarray) -> None:
    found = diagnosed(2, values.astype(np.float32))
    assert not found.correct
    assert not found.explained
    assert not found.mistakes


def test_layers_find_several_mistakes_each_in_its_own_stretch() -> None:
    mistakes = [Mistake("gamma-ignored", "block1/unit_1/bottleneck_v2/conv1"), Mistake("relu-before-add", UNIT)]
    found = diagnosed(2, observed(2, *mistakes))
    assert found.explained
    assert [(entry.id, entry.site) for entry in found.mistakes] == [(m.id, m.site) for m in mistakes]


def test_two_mistakes_in_one_layer_are_found_from_layers() -> None:
    mistakes = [Mistake("kernel-flipped", f"{UNIT}/conv2"), Mistake("gamma-ignored", f"{UNIT}/conv2")]
    found = refnet.diagnose(VARIABLES[2], IMAGE, observed(2, *mistakes), threads=1)
    assert {(entry.id, entry.site) for entry in found.mistakes} == {(m.id, m.site) for m in mistakes}


def test_a_variant_without_values_elsewhere_is_no_base_for_pairs() -> None:
    """Means in place of variances: some are negative, and have no root."""
    with contract_mode():
        weights = weights_of(VARIABLES[1], None)
        lab = Lab(weights, Pipeline(IMAGE, weights.recipe), {"threads": 1})
        swapped = [h for h in hypotheses_of(lab) if h.mistake.id == "mean-variance-swapped" and h.site == "everywhere"]
        assert lab.value(lab.trace(swapped), lab.reference.net) is None
        with lab.based_on(swapped):
            assert lab.value(lab.reference, lab.reference.net) is not None


def test_a_mistake_that_gives_values_other_names_is_found_from_layers() -> None:
    """A unit that runs twice shows the values of the second time."""
    (entry,) = diagnosed(2, observed(2, Mistake("unit-doubled", UNIT))).mistakes
    assert (entry.id, entry.site) == ("unit-doubled", UNIT)


def test_saturated_probabilities_beside_logits_do_not_count() -> None:
    outputs = observed(2, Mistake("pool5-sum"))
    large = {"logits": 30 * outputs["resnet_v2/logits"].ravel()}  # so that they saturate
    exponentials = np.exp(large["logits"] - large["logits"].max())
    weights = VARIABLES[2] | {
        f"resnet_v2/logits/{leaf}": 30 * VARIABLES[2][f"resnet_v2/logits/{leaf}"] for leaf in ("weights", "biases")
    }
    both = {**large, "predictions": exponentials / exponentials.sum()}
    (entry,) = refnet.diagnose(weights, IMAGE, both, pairs=False, threads=1).mistakes
    assert entry.id == "pool5-sum"
    twice = {"logits": logits(2).ravel(), "predictions": observed(2, Mistake("softmax-twice"))["predictions"]}
    (entry,) = diagnosed(2, twice).mistakes
    assert entry.id == "softmax-twice"


@pytest.mark.parametrize("version", [1, 2])
def test_arithmetic_in_fewer_bits_is_named_alone(version: int) -> None:
    found = refnet.diagnose(
        VARIABLES[version], IMAGE, logits(version, Mistake("arithmetic", None, "float16")), threads=1
    )
    assert [entry.id for entry in found.mistakes] == ["arithmetic"]
    assert "float16" in [entry.value for entry in (*found.mistakes, *found.ties)]


def test_a_limit_ends_the_search_of_pairs() -> None:
    outputs = run(_scaled(NETS[1], VARIABLES[1]), IMAGE, NETS[1])["resnet_v1/logits"]
    alone, briefly = (
        refnet.diagnose(VARIABLES[1], IMAGE, outputs, threads=1, **options)
        for options in ({"pairs": False}, {"limit": 0})
    )
    assert alone.tried < briefly.tried <= alone.tried + AT_ONCE


def test_probabilities() -> None:
    for name in ("softmax-twice", "softmax-missing"):
        outputs = {"predictions": observed(2, Mistake(name))["predictions"]}
        assert [entry.id for entry in diagnosed(2, outputs).mistakes] == [name]
    plain = observed(2)["resnet_v2/logits"].ravel()
    (entry,) = diagnosed(2, plain[1:]).mistakes
    assert (entry.id, entry.value) == ("class-offset", -1)


def test_outputs_in_other_precisions() -> None:
    assert diagnosed(2, logits(2).astype(np.float64)).correct
    assert diagnosed(2, logits(2).astype(np.float16)).correct
    (entry,) = diagnosed(2, logits(2, Mistake("pool5-max")).astype(np.float16)).mistakes
    assert entry.id == "pool5-max"


def test_features() -> None:
    outputs = observed(2)
    assert diagnosed(2, outputs["resnet_v2/pool5"].ravel()).correct
    assert diagnosed(2, outputs["resnet_v2/postnorm"].transpose(0, 3, 1, 2)).correct
    wrong = observed(2, Mistake("postnorm-missing"))["resnet_v2/pool5"]
    (entry,) = diagnosed(2, wrong.reshape(1, -1)).mistakes
    assert entry.id == "postnorm-missing"


def test_the_answer_can_be_written_down() -> None:
    assert json.loads(diagnosed(2, np.full(12, np.nan, np.float32)).to_json())["rounding"] == "nan"
    found = diagnosed(2, logits(2, Mistake("pool5-max")))
    document = json.loads(found.to_json())
    assert document["explained"] is True
    assert document["mistakes"][0]["id"] == "pool5-max"
    assert set(document["mistakes"][0]["mend"]) == {"pytorch", "keras", "tensorflow", "onnx"}
    assert "pool5-max" in repr(found)
    assert "pool5-max" in found._repr_html_()


def test_outputs_of_another_network_are_refused() -> None:
    with pytest.raises(refnet.errors.InputError, match="no values of the network"):
        diagnosed(2, np.zeros((1, 512), np.float32))


def test_two_mistakes_from_the_logits_alone() -> None:
    mistakes = [Mistake("epsilon", "postnorm", 1e-3), Mistake("relu-before-add", UNIT)]
    found = refnet.diagnose(VARIABLES[2], IMAGE, logits(2, *mistakes), threads=1)
    assert found.explained
    assert {(entry.id, entry.site) for entry in found.mistakes} == {(m.id, m.site) for m in mistakes}


def test_labels_of_many_images() -> None:
    net = small_net(1, (1, 1), classes=30)
    variables = draw_variables(net, 40, seed=1)
    images = inception_scaled(smooth_images(56, 40, 40, 3, seed=3))

    def labels(*mistakes: Mistake) -> np.ndarray:
        return run(variables, images, net, mistakes)["resnet_v1/logits"].reshape(len(images), -1).argmax(1)

    def found(observed: np.ndarray) -> Diagnosis:
        return refnet.diagnose(variables, images, observed, threads=1)

    assert [(entry.id, entry.value) for entry in found(labels(Mistake("epsilon", None, 1e-3))).mistakes] == [
        ("epsilon", 1e-3)
    ]
    assert found(labels()).correct
    unknown = found(np.random.default_rng(0).integers(0, 30, len(images)))
    assert not unknown.explained
    assert not unknown.mistakes
    with pytest.raises(refnet.errors.InputError, match="one label per image"):
        found(np.arange(5))


def test_networks_with_group_norm() -> None:
    blocks = [refnet.resnet_v2_block("block1", 32, 1, 1)]
    weights = {
        name.replace("/BatchNorm/", "/GroupNorm/"): value
        for name, value in lively_weights(blocks=blocks, num_classes=20).items()
        if "/moving_" not in name
    }
    images = IMAGE[:, :33, :33]
    assert refnet.diagnose(weights, images, refnet.forward(weights, images), threads=1).correct
    theirs = refnet.forward(weights, images, batch_norm_epsilon=1e-3)
    (entry,) = refnet.diagnose(weights, images, theirs, pairs=False, threads=1).mistakes
    assert (entry.id, entry.value) == ("epsilon", 1e-3)
