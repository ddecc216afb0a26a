"""Options are typed: what is true or false is a boolean, or one of the usual words where options are text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.checks import bool_of
from refnet.cli import main
from refnet.errors import ConfigError, GoldenError
from refnet.evidence.golden import decode_options
from refnet.network.options import BOOLEANS, Options
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights

IMAGE = random_images(9, 11, 3)
#: Both values of each option but the last give other end points, or other shapes of them, than the other one.
ALL_BOOLEANS = {
    "is_training", "global_pool", "include_root_block", "spatial_squeeze", "store_non_strided_activations",
    "avg_down", "bias_before_batch_norm", "batch_norm_scale", "use_batch_norm",
} | {"zeros"}  # fmt: skip
MAY_BE_NONE = {"spatial_squeeze", "avg_down", "bias_before_batch_norm"}


def test_the_list_of_booleans() -> None:
    assert set(BOOLEANS) == ALL_BOOLEANS


@pytest.mark.parametrize("name", sorted(ALL_BOOLEANS))
@pytest.mark.parametrize("value", ["no", "False", "", 0, 1, 2.0, [], np.array([True])], ids=repr)
def test_an_engine_takes_nothing_else(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"^{name} is .*; it can be True or False\.$"):
        refnet.Engine(lively_weights(), **{name: value})
    with pytest.raises(ConfigError, match=rf"^{name} is "):
        refnet.forward(refnet.Weights(lively_weights()), IMAGE, **{name: value})


@pytest.mark.parametrize("name", sorted(ALL_BOOLEANS - MAY_BE_NONE))
def test_none_is_not_false(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is None"):
        refnet.Engine(lively_weights(), **{name: None})


@pytest.mark.parametrize("name", sorted(MAY_BE_NONE))
def test_none_is_the_default(name: str) -> None:
    assert getattr(Options(), name) is None
    weights = lively_weights()
    assert digest(refnet.Engine(weights, **{name: None})(IMAGE)) == digest(refnet.Engine(weights)(IMAGE))


def test_numpys_booleans_are_booleans() -> None:
    weights = lively_weights()
    for value in (True, False):
        found = refnet.forward(weights, IMAGE[None], is_training=np.bool_(value))
        assert digest(found) == digest(refnet.forward(weights, IMAGE[None], is_training=value))


@pytest.mark.parametrize("name", ["is_training", "batch_norm_scale", "use_batch_norm", "avg_down"])
def test_functions_take_nothing_else_either(name: str) -> None:
    weights = lively_weights()
    with pytest.raises(ConfigError, match=f"^{name} is 'no'; it can be True or False"):
        refnet.conv2d_same(IMAGE[None], 64, 7, 2, scope="resnet_v2/conv1", variables=weights, **{name: "no"})


@pytest.mark.parametrize(
    "name", ["global_pool", "include_root_block", "spatial_squeeze", "store_non_strided_activations"]
)
def test_networks_take_nothing_else_either(name: str) -> None:
    weights = refnet.Weights(lively_weights())
    options = {name: "no"}
    with pytest.raises(ConfigError, match=f"^{name} is 'no'; it can be True or False"):
        refnet.resnet_v2(IMAGE[None], weights.architecture.blocks, 7, variables=weights, **options)


@pytest.mark.parametrize("epsilon", [True, "1e-5", -1e-9, np.inf, np.nan, [1e-5]], ids=repr)
def test_an_epsilon_is_a_number(epsilon: object) -> None:
    with pytest.raises(ConfigError, match=r"batch_norm_epsilon is .*; it is a number of 0 or more"):
        refnet.Engine(lively_weights(), batch_norm_epsilon=epsilon)


@pytest.mark.parametrize(
    ("value", "words"), [(True, ("true", "True", "YES", "on", "1")), (False, ("false", "False", "no", "Off", "0"))]
)
def test_the_usual_words(value: bool, words: tuple[str, ...]) -> None:
    assert [bool_of("x", text) for text in words] == [value] * len(words)


@pytest.mark.parametrize("text", ["", "t", "nope", "2", "none", "truefalse", "\u0660"])
def test_other_words(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x is .*; it can be true, yes, on, 1, false, no, off or 0\."):
        bool_of("x", text)


@pytest.mark.parametrize("word", ["False", "no", "off", "0", "false"])
def test_words_on_the_command_line(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refnet.save_weights("w.npz", lively_weights())
    line = ["golden", "record", "g.safetensors", "--weights", "w.npz", "--random", "3", "--size", "9", "--force"]
    hashes = []
    for option in ([], ["--option", f"is_training={word}"]):
        assert main([*line, *option, "--json"]) == 0
        hashes.append(json.loads(capsys.readouterr().out)["end_points"])
    assert hashes[0] == hashes[1]
    assert refnet.golden.read_golden("g.safetensors").options == {"is_training": False}
    assert main([*line, "--option", "is_training=nope"]) == 2
    assert "is_training is 'nope'; it can be true, yes" in capsys.readouterr().err
    assert main([*line, "--option", "spatial_squeeze=null", "--json"]) == 0


@pytest.mark.parametrize("value", ["False", 0, 1, [True]])
def test_goldens_hold_nothing_else(value: Any) -> None:
    with pytest.raises(GoldenError, match="options are damaged: is_training"):
        decode_options({"is_training": value})
    assert decode_options({"is_training": True, "spatial_squeeze": None}) == {
        "is_training": True, "spatial_squeeze": None,
    }  # fmt: skip
