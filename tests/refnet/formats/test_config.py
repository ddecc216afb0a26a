"""Files of configuration beside weights: what they say is taken, and what is not understood is said by name.

`tests/torchvision/test_configs.py` has those that timm and transformers write.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import refnet
from refnet.cli import main
from refnet.errors import FormatError
from refnet.images.preprocess import check_recipe
from tests.bit import networks as bit_networks
from tests.hugging_face.networks import renamed
from tests.onnx.models import Style, model
from tests.refnet.formats.bad_configs import (
    BAD as BAD_CONFIGS,
)
from tests.refnet.formats.bad_configs import (
    HUGGING_FACE,
    PROCESSOR,
    SMALL,
    TIMM,
    WEIGHTS,
    changed,
    configured,
)
from tests.refnet.formats.bad_files import check_refused, flip
from tests.timm import networks as timm_networks
from tests.torchvision.networks import Description, draw_state

BASIC = Description(((64, 1), (6, 1)), 3, basic=True)
BIT = timm_networks.Description(((32, 1), (32, 1)), 3, grouped=True, epsilon=1e-8)
GROUPED = BIT._replace(deep=True, epsilon=None)

HUGGING_FACES_BIT: dict[str, Any] = {
    "model_type": "bit", "architectures": ["BitForImageClassification"], "hidden_act": "relu", "num_channels": 3,
    "embedding_size": 64, "hidden_sizes": [128, 128], "depths": [1, 1], "layer_type": "preactivation",
    "global_padding": None, "num_groups": 32, "drop_path_rate": 0.0, "embedding_dynamic_padding": False,
    "output_stride": 32, "width_factor": 1, "id2label": {"0": "cat", "2": "cow", "1": "dog"},
}  # fmt: skip
FROM_TIMM = refnet.Recipe(160, 160, 1.0, "torch", 177, "bilinear", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
FROM_PROCESSOR = refnet.Recipe(224, 224, 1.0, "torch", 256, "bicubic", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "down")
LABELS = ("cat", "dog", "cow")

Make = Callable[..., Path]


@pytest.fixture
def hugging_face(tmp_path: Path) -> Make:
    """Writes a directory as Hugging Face has it."""

    def make(config: Any = HUGGING_FACE, processor: Any = PROCESSOR, description: Description = SMALL) -> Path:
        save_file(renamed(draw_state(description, 1)), tmp_path / "model.safetensors")
        return configured(tmp_path, config, processor)

    return make


@pytest.fixture
def timm(tmp_path: Path) -> Make:
    """Writes a directory as timm has it."""

    def make(config: Any = TIMM) -> Path:
        save_file(WEIGHTS["timm"](), tmp_path / "model.safetensors")
        return configured(tmp_path, config, None)

    return make


@pytest.fixture
def bit(tmp_path: Path) -> Make:
    """Writes a directory of BiT, or of another network with group norm, as Hugging Face or timm has it."""

    def make(config: Any, home: str = "hugging face", description: timm_networks.Description = BIT) -> Path:
        state = timm_networks.draw_state(description, 1)
        state = bit_networks.by_hugging_face(state) if home == "hugging face" else state
        save_file({name: np.ascontiguousarray(value) for name, value in state.items()}, tmp_path / "model.safetensors")
        return configured(tmp_path, config, None)

    return make


def test_hugging_face(hugging_face: Make) -> None:
    directory = hugging_face()
    for path in (directory, directory / "model.safetensors"):
        weights = refnet.load_weights(path, strict=True)
        assert (weights.recipe, weights.labels, weights.image_size) == (FROM_PROCESSOR, LABELS, (224, 224))
        assert weights.conversion.recipe_from == "preprocessor_config.json"
        assert weights.options == {"pool_mode": "torch", "stride_place": "first_unit"}
        assert not any("config.json" in note for note in weights.notes)


def test_timm(timm: Make) -> None:
    directory = timm()
    for path in (directory, directory / "model.safetensors"):
        weights = refnet.load_weights(path, strict=True)
        assert (weights.recipe, weights.labels) == (FROM_TIMM, LABELS)
        assert weights.conversion.recipe_from == "config.json"


@pytest.mark.parametrize("merged", [False, True])
def test_onnx(merged: bool, tmp_path: Path) -> None:
    """As Optimum exports a network, with Hugging Face's files, or timm's beside it."""
    made = model(Style(1, stages=((4, 1), (6, 1)), classes=3, merged=merged)).proto
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    (tmp_path / "other.onnx").write_bytes(made.SerializeToString())
    alone = refnet.load_weights(tmp_path / "model.onnx", strict=True)
    assert (alone.labels, alone.image_size) == (None, None)
    for config, processor, recipe in (
        (changed(HUGGING_FACE, depths=[1, 1]), PROCESSOR, FROM_PROCESSOR),
        (TIMM, None, FROM_TIMM),
        # A graph shows what strides.
        (changed(HUGGING_FACE, downsample_in_bottleneck=True), PROCESSOR, FROM_PROCESSOR),
    ):
        configured(tmp_path, config, processor)
        for path in (tmp_path, tmp_path / "model.onnx"):
            weights = refnet.load_weights(path, strict=True)
            assert (weights.recipe, weights.labels) == (recipe, LABELS)
            assert weights.options == alone.options
            assert weights.conversion.recipe_from == (
                "config.json" if processor is None else "preprocessor_config.json"
            )
        other = refnet.load_weights(tmp_path / "other.onnx")
        assert (other.recipe, other.labels) == (alone.recipe, None)
    configured(tmp_path, changed(HUGGING_FACE, depths=[3, 4]), None)
    with pytest.raises(FormatError, match=r"/config\.json: it is not the configuration of these weights: depths"):
        refnet.load_weights(tmp_path)
    configured(tmp_path, changed(HUGGING_FACE, model_type="vit"), None)
    with pytest.warns(refnet.RefnetWarning, match="model_type 'vit', where the graph is that of a ResNet"):
        assert refnet.load_weights(tmp_path).labels == LABELS


def test_other_names_have_no_configuration(timm: Make) -> None:
    """Which of several files of weights a configuration describes would be a guess."""
    directory = timm("not even JSON")
    (directory / "model.safetensors").rename(directory / "other.safetensors")
    weights = refnet.load_weights(directory / "other.safetensors")
    assert (weights.recipe.resize_side, weights.labels) == (256, None)
    assert weights.conversion.recipe_from == "the default of timm's ResNetV2"


def test_the_caller_knows_better(timm: Make, hugging_face: Make) -> None:
    recipe = refnet.Recipe(32, 32, 1.0, "tf")
    weights = refnet.load_weights(timm(), recipe=recipe, labels=list("abc"))
    assert (weights.recipe, weights.labels, weights.conversion.recipe_from) == (recipe, tuple("abc"), "recipe=")
    directory = timm(changed(TIMM, label_names=[1], pretrained_cfg={"crop_mode": "border"}))
    assert refnet.load_weights(directory, recipe=recipe, labels=list("abc")).recipe == recipe
    directory = hugging_face(processor="no JSON")
    assert refnet.load_weights(directory, recipe=recipe).labels == LABELS


def test_what_refnet_saved_brings_everything_with_it(timm: Make, tmp_path: Path) -> None:
    weights = refnet.load_weights(timm())
    again = tmp_path / "again"
    again.mkdir()
    refnet.save_weights(again / "model.safetensors", weights)
    configured(again, changed(TIMM, label_names=list("xyz")), None)
    loaded = refnet.load_weights(again)
    assert (loaded.recipe, loaded.labels, loaded.options) == (weights.recipe, weights.labels, weights.options)
    assert loaded.conversion.recipe_from == "the file"


def test_without_configuration_its_lack_is_noted(hugging_face: Make) -> None:
    weights = refnet.load_weights(hugging_face(None, None))
    assert any("config.json, which is not beside the file" in note for note in weights.notes)
    assert weights.conversion.recipe_from == "the default of Hugging Face's ResNet"


def test_downsample_in_bottleneck(hugging_face: Make) -> None:
    config = changed(HUGGING_FACE, downsample_in_bottleneck=True)
    weights = refnet.load_weights(hugging_face(config))
    assert weights.options["stride_place"] == "first_conv"
    assert weights.architecture.blocks[-1].args[0]["stride"] == 2
    # A basic unit has no such convolution, and transformers does not look.
    assert refnet.load_weights(hugging_face(config, description=BASIC)).options["stride_place"] == "first_unit"


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({}, FROM_TIMM),
        ({"crop_pct": None, "interpolation": None}, FROM_TIMM._replace(resize_side=182, interpolation="bicubic")),
        ({"mean": None, "std": None}, FROM_TIMM._replace(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
        ({"mean": [0.5], "std": [0.25]}, FROM_TIMM._replace(mean=(0.5,) * 3, std=(0.25,) * 3)),
        ({"crop_mode": "squash", "crop_pct": 1.0}, FROM_TIMM._replace(resize_side=None)),
        ({"crop_mode": "squash", "crop_pct": 1, "input_size": [3, 8, 9]},
         FROM_TIMM._replace(height=8, width=9, resize_side=None)),
        ({"test_input_size": [3, 288, 288], "test_crop_pct": 1.0, "tag": "a1"}, FROM_TIMM),
    ],
)  # fmt: skip
def test_timms_recipes(timm: Make, changes: Any, recipe: refnet.Recipe) -> None:
    assert refnet.load_weights(timm(changed(TIMM, pretrained_cfg=TIMM["pretrained_cfg"] | changes))).recipe == recipe


def test_timms_older_configuration_has_no_parts(timm: Make) -> None:
    config = TIMM["pretrained_cfg"] | {"architecture": "resnetv2_50", "labels": list(LABELS), "num_classes": 3}
    weights = refnet.load_weights(timm(config))
    assert (weights.recipe, weights.labels) == (FROM_TIMM, LABELS)


@pytest.mark.parametrize(
    ("processor", "recipe"),
    [
        (changed(PROCESSOR, size=384), FROM_PROCESSOR._replace(height=384, width=384, resize_side=None)),
        (changed(PROCESSOR, size={"shortest_edge": 200}, crop_pct=0.9, resample=2, rescale_factor=1 / 255),
         FROM_PROCESSOR._replace(height=200, width=200, resize_side=222, interpolation="bilinear")),
        (changed(PROCESSOR, do_resize=False), FROM_PROCESSOR._replace(height=None, width=None, resize_side=None)),
        (changed(PROCESSOR, do_normalize=False), FROM_PROCESSOR._replace(mean=(0.0,) * 3, std=(1.0,) * 3)),
        (changed(PROCESSOR, image_mean=0.5, image_std=None), FROM_PROCESSOR._replace(mean=(0.5,) * 3, std=(0.5,) * 3)),
        ({"image_processor_type": "ConvNextImageProcessor", "size": None},
         refnet.Recipe(384, 384, 1.0, "torch", None, "bicubic", (0.5,) * 3, (0.5,) * 3, "down")),
        ({"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 448}, "do_center_crop": True,
          "crop_size": {"height": 448, "width": 440}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2},
         refnet.Recipe(448, 440, 1.0, "torch", 448, "bilinear", (0.5,) * 3, (0.5,) * 3, "down")),
        ({"image_processor_type": "ViTImageProcessorFast", "size": {"height": 20, "width": 30}, "resample": 0},
         refnet.Recipe(20, 30, 1.0, "torch", None, "nearest", (0.5,) * 3, (0.5,) * 3, "down")),
    ],
)  # fmt: skip
def test_image_processors(hugging_face: Make, processor: Any, recipe: refnet.Recipe) -> None:
    assert refnet.load_weights(hugging_face(processor=processor)).recipe == recipe


#: Values of every type that JSON has.
ANY = (
    None, True, False, 0, 1, -1, 7.5, 10**400, 1e308, 5e-324, "", "x", [], [1], [[]], ["x"] * 3, [0.5] * 3, [1e308] * 3,
    {}, {"0": 5}, {"0": "a"}, [3, 224, 224], [3, 10**9, 10**9],
)  # fmt: skip


def survives(directory: Path) -> None:
    """The weights load, or a RefnetError names the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        try:
            weights = refnet.load_weights(directory)
        except refnet.RefnetError as error:
            found = str(error)
        else:
            assert check_recipe(weights.recipe) == weights.recipe
            assert weights.labels is None or len(weights.labels) == 3
            return
    assert "config.json: " in found


@pytest.mark.parametrize("value", ANY, ids=range(len(ANY)))
def test_any_value_anywhere(hugging_face: Make, timm: Make, value: Any) -> None:
    for key in HUGGING_FACE:
        survives(hugging_face(changed(HUGGING_FACE, **{key: value})))
    for key in [*PROCESSOR, "do_rescale", "rescale_factor", "do_pad", "crop_size", "image_processor_type"]:
        survives(hugging_face(processor=changed(PROCESSOR, **{key: value})))
    for key in TIMM:
        survives(timm(changed(TIMM, **{key: value})))
    for part in ("pretrained_cfg", "model_args"):
        for key in [*TIMM[part], "output_stride", "act_layer"]:
            survives(timm(changed(TIMM, **{part: TIMM[part] | {key: value}})))


@pytest.mark.parametrize(("of", "name"), [(of, name) for of, cases in BAD_CONFIGS.items() for name in cases])
def test_bad_configurations(of: str, name: str, tmp_path: Path, watch: Any) -> None:
    error = check_refused(BAD_CONFIGS[of][name], tmp_path, watch)
    assert f"/{of}: " in error.message


#: JSON values, and any that a configuration has.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 500)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["relu", "resnet", "bilinear", "squash", "BitImageProcessor", "resnetv2_50"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["0", "1", "2", "shortest_edge", "height", "width", "mean"]), inner, max_size=4
        )
    ),
    max_leaves=6,
)
KEYS = sorted(
    {*HUGGING_FACE, *PROCESSOR, *TIMM, *TIMM["pretrained_cfg"], "image_processor_type", "crop_size", "do_pad"}
)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One with weights of each home."""
    found = {home: tmp_path_factory.mktemp(home) for home in WEIGHTS}
    for home, directory in found.items():
        save_file(WEIGHTS[home](), directory / "model.safetensors")
    return found


@settings(max_examples=100, deadline=None, database=None)
@given(data=st.data(), home=st.sampled_from(sorted(WEIGHTS)))
def test_any_configuration(data: st.DataObject, home: str, directories: dict[str, Path]) -> None:
    """Configurations with other values, and damaged ones: the weights load, or an error names the file."""
    config, processor = (HUGGING_FACE, PROCESSOR) if home == "hugging_face" else (TIMM, None)
    texts = []
    for sound in (config, processor):
        content = dict(sound or {})
        if "pretrained_cfg" in content and data.draw(st.booleans()):
            content["pretrained_cfg"] = content["pretrained_cfg"] | data.draw(
                st.dictionaries(st.sampled_from(KEYS), JSON, max_size=2)
            )
        content |= data.draw(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
        flips = data.draw(
            st.just([]) | st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 127)), max_size=2)
        )
        texts.append(flip(json.dumps(content).encode(), flips).decode("latin-1"))
    survives(configured(directories[home], *texts))


def test_bit(bit: Make) -> None:
    weights = refnet.load_weights(bit(HUGGING_FACES_BIT), strict=True)
    assert weights.options == {"pool_mode": "keras", "stride_place": "first_unit"}
    assert weights.labels == LABELS
    assert not any("config.json" in note for note in weights.notes)
    assert any("only config.json" in note for note in refnet.load_weights(bit(None)).notes)


def test_any_value_anywhere_of_bit(bit: Make) -> None:
    for value in ANY:
        for key in HUGGING_FACES_BIT:
            survives(bit(changed(HUGGING_FACES_BIT, **{key: value})))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; refnet has relu only"),
        ({"num_groups": 16}, "num_groups is 16; refnet has 32 only"),
        ({"num_groups": True}, "num_groups is True; refnet has 32 only"),
        ({"global_padding": "SAME"}, "global_padding is 'SAME'; refnet has None only"),
        ({"global_padding": "valid"}, "global_padding is 'valid'; refnet has None only"),
        ({"width_factor": 3}, "width_factor is 3; refnet has 1 only"),
        ({"layer_type": "bottleneck"}, "layer_type is 'bottleneck', but the tensors have preactivation"),
        ({"embedding_dynamic_padding": True}, "embedding_dynamic_padding is true"),
        ({"output_stride": 4}, "output_stride is 4; refnet does not have stages .* it has 8 only"),
        ({"output_stride": "8"}, "output_stride is '8'; it is a number"),
        ({"depths": [3, 4, 6, 3]}, r"depths is \[3, 4, 6, 3\]"),
        ({"hidden_sizes": [128, 256]}, r"hidden_sizes is \[128, 256\]"),
    ],
)
def test_what_refnet_does_not_have_of_bit(bit: Make, changes: Any, words: str) -> None:
    with pytest.raises(FormatError, match=rf"/config\.json: .*{words}"):
        refnet.load_weights(bit(changed(HUGGING_FACES_BIT, **changes)))


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("resnetv2_50x1_bit", BIT),
        ("resnetv2_50x1_bit.goog_in21k_ft_in1k", BIT),
        ("resnetv2_152x4_bitm", BIT),
        ("resnetv2_101x3_bitm_in21k", BIT),
        ("resnetv2_50x1_bit_distilled", BIT),
        ("resnetv2_50d_gn", GROUPED),
        ("resnetv2_50d_gn.ah_in1k", GROUPED),
        ("resnetv2_50", BIT._replace(grouped=False, epsilon=None)),
        ("resnetv2_50d", GROUPED._replace(grouped=False)),
    ],
)
def test_the_architecture_settles_the_norm(bit: Make, name: str, description: timm_networks.Description) -> None:
    """Without a warning, where the name and the tensors agree; an error where they do not."""
    names = {"resnetv2_50x1_bit": BIT, "resnetv2_50d_gn": GROUPED, "resnetv2_34": None}
    weights = refnet.load_weights(bit(changed(TIMM, architecture=name), "timm", description), strict=True)
    assert (weights.recipe, weights.labels) == (FROM_TIMM, LABELS)
    assert not any("moving statistics" in note for note in weights.notes)
    for other, fitting in names.items():
        fits = fitting == description if fitting else not description.grouped
        directory = bit(changed(TIMM, architecture=other), "timm", description)
        if fits:
            refnet.load_weights(directory)
        else:
            with pytest.raises(FormatError, match=rf"/config\.json: the architecture '{other}' has .* norm.* are some"):
                refnet.load_weights(directory)


def test_configurations_that_settle_nothing(bit: Make) -> None:
    for config, words in (
        (None, "was taken for timm's BiT"),
        ({"keras_version": "3"}, "was taken for timm's BiT"),
        (HUGGING_FACES_BIT, "was taken for timm's BiT"),
        (changed(TIMM, architecture="my_net"), "names the architecture 'my_net'"),
    ):
        with pytest.warns(refnet.RefnetWarning) as caught:
            refnet.load_weights(bit(config, "timm"))
        assert any(words in str(warning.message) for warning in caught)


@pytest.mark.parametrize("stem", ["fixed", "same", "deep_fixed"])
def test_stems_whose_pool_no_tensor_shows(timm: Make, stem: str) -> None:
    arguments = TIMM["model_args"] | {"stem_type": stem}
    with pytest.raises(FormatError, match=f"stem_type='{stem}'; refnet has such a stem in BiT only"):
        refnet.load_weights(timm(changed(TIMM, model_args=arguments)))
    refnet.load_weights(timm(changed(TIMM, model_args=TIMM["model_args"] | {"stem_type": "deep"})))


def test_what_may_change_the_result_is_said(timm: Make, hugging_face: Make) -> None:
    for directory, words in (
        (lambda: timm(changed(TIMM, architecture="resnest50")), "names the architecture 'resnest50'"),
        (lambda: timm(changed(TIMM, model_args={"norm_eps": 1})), "arguments of the network that .* norm_eps"),
        (lambda: hugging_face(changed(HUGGING_FACE, model_type="convnext")), "of the model_type 'convnext'"),
        (lambda: hugging_face(processor=changed(PROCESSOR, do_thumbnail=True)), "does not know: do_thumbnail"),
        (lambda: timm({"keras_version": "3"}), "is of no kind that refnet knows"),
    ):
        with pytest.warns(refnet.RefnetWarning, match=words):
            weights = refnet.load_weights(directory())
        assert any(words.rpartition(" ")[2] in note for note in weights.notes)


def test_names_that_nobody_gave_are_none(hugging_face: Make) -> None:
    numbered = {str(i): f"LABEL_{i}" for i in range(3)}
    assert refnet.load_weights(hugging_face(changed(HUGGING_FACE, id2label=numbered))).labels is None


def test_another_head_has_no_names(hugging_face: Make) -> None:
    weights = refnet.load_weights(hugging_face(), head=None)
    assert (weights.labels, weights.architecture.num_classes) == (None, None)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_summary_says_where_the_recipe_is_from(timm: Make, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(timm())
    assert printed(capsys, "summary", directory)["recipe_from"] == "config.json"
    assert main(["summary", directory]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "recipe from: config.json" in lines
    assert any(
        "177 by Pillow's bilinear filter, the central 160 x 160, x / 255, less (0.1, 0.2" in line for line in lines
    )
    os.remove(Path(directory) / "config.json")
    assert printed(capsys, "summary", directory)["recipe_from"] == "the default of timm's ResNetV2"


def test_the_command_line_chooses_a_recipe(timm: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(timm(changed(TIMM, pretrained_cfg={"crop_mode": "border"})))
    assert main(["summary", directory, "--recipe", "resize_side=232"]) == 4
    assert "(recipe=, --recipe)" in capsys.readouterr().err
    found = printed(capsys, "summary", directory, "--recipe", "torchvision")
    torchvision = refnet.Recipe(224, 224, 1.0, "torch", 256, "bilinear")
    assert (found["recipe"]["interpolation"], found["recipe_from"]) == ("bilinear", "recipe=")
    target = str(tmp_path / "w.npz")
    changes = ["resize_side=232", "mean=0.5,0.25,0.1", "std=1,2,3", "interpolation=box", "crop_offset=down"]
    arguments = [argument for change in changes for argument in ("--recipe", change)]
    printed(capsys, "convert", directory, target, "--recipe", "torchvision", *arguments)
    expected = torchvision._replace(
        resize_side=232, mean=(0.5, 0.25, 0.1), std=(1.0, 2.0, 3.0), interpolation="box", crop_offset="down"
    )
    assert refnet.load_weights(target).recipe == expected
    printed(capsys, "convert", target, str(tmp_path / "v.npz"), "--recipe", "mean=null", "--recipe", "std=null")
    assert refnet.load_weights(tmp_path / "v.npz").recipe == expected._replace(mean=None, std=None)


@pytest.mark.parametrize("text", ["torch", "filter=box", "", "=", "resize_side", "resize_side=x", "mean=1", "mean=x,y"])
def test_choices_that_are_none(timm: Make, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(timm()), "--recipe", text]) == 2
    error = capsys.readouterr().err
    assert "--recipe" in error or text.partition("=")[0] in error


def test_two_names_are_one_too_many(timm: Make, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", str(timm()), "--recipe", "timm", "--recipe", "vgg"]) == 2
    assert "--recipe vgg is not understood" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_grey_network_has_values_of_one_channel(hugging_face: Make, name: str) -> None:
    state = renamed(draw_state(SMALL, 1))
    kernel = "resnet.embedder.embedder.convolution.weight"
    state[kernel] = np.ascontiguousarray(state[kernel][:, :1])
    directory = hugging_face(
        changed(HUGGING_FACE, num_channels=1), changed(PROCESSOR, image_mean=[0.5], image_std=0.25)
    )
    save_file(state, directory / "model.safetensors")
    recipe = refnet.load_weights(directory).recipe
    assert (recipe.mean, recipe.std) == ((0.5,), (0.25,))
