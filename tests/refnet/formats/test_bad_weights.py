"""Sound files whose content no network can have: refused when they are loaded, with an error that names the file."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refnet
from refnet.errors import (
    ConfigError,
    CorruptError,
    DtypeError,
    FormatError,
    MissingTensorError,
    RefnetError,
    ShapeMismatchError,
    WeightsError,
)
from refnet.network.options import SLIM_OPTIONS
from refnet.summary import summarize
from refnet.weights.formats import write
from tests.bit import networks as bit_networks
from tests.hugging_face.networks import renamed as by_hugging_face
from tests.keras.test_bad_networks import network
from tests.refnet.formats.bad_files import BadFile, check_refused
from tests.support.nets import lively_weights, small_blocks
from tests.timm.networks import Description
from tests.timm.networks import draw_state as draw_timm
from tests.torchvision import networks as torchvision

Tensors = dict[str, np.ndarray]

SLIM = lively_weights(blocks=small_blocks(units=1))
TIMM = draw_timm(Description(((3, 1), (5, 2)), 7), 0)
TORCHVISION = torchvision.draw_state(torchvision.Description(((3, 1), (5, 2)), 7), 0)
HUGGING_FACE = by_hugging_face(TORCHVISION)
KERAS = network(2)
BIT = draw_timm(Description(((32, 1), (32, 2)), 7, grouped=True, epsilon=1e-8), 0)
GOOGLES_BIT, HUGGING_FACES_BIT = bit_networks.by_google(BIT), bit_networks.by_hugging_face(BIT)
SOUND = {
    "slim": SLIM, "timm": TIMM, "torchvision": TORCHVISION, "hugging face": HUGGING_FACE, "keras": KERAS,
    "timm's BiT": BIT, "Google's BiT": GOOGLES_BIT, "Hugging Face's BiT": HUGGING_FACES_BIT,
}  # fmt: skip
UNIT = "resnet_v2/block1/unit_1/bottleneck_v2"
LONG = "9" * 5000

# Of the fuzzed tests.
fuzzed = settings(
    max_examples=70, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def load(path: Path) -> refnet.Weights:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        return refnet.load_weights(path)


def use(path: Path) -> None:
    """All that can be done with the weights."""
    weights = load(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        refnet.forward(weights, np.zeros((9, 11, 3), np.uint8), threads=1)
    summarize(weights, 32)
    refnet.save_weights(path.with_name("again.npz"), weights)


def saved(tensors: Mapping[str, Any], metadata: Mapping[str, Any] | None = None) -> Callable[[Path], Path]:
    def save(folder: Path) -> Path:
        write(folder / "a.safetensors", dict(tensors), metadata or {})
        return folder / "a.safetensors"

    return save


def bad(
    change: Mapping[str, Any], error: type[RefnetError], message: str, of: Mapping[str, Any] = SLIM, **metadata: Any
) -> BadFile:
    """Weights with some tensors changed, added, or by None left out."""
    tensors = {name: value for name, value in {**of, **change}.items() if value is not None}
    return BadFile(saved(tensors, metadata), error, message, load)


def renamed(old: str, new: str, of: Mapping[str, Any]) -> dict[str, Any]:
    """Every tensor whose name starts so gets another name."""
    return {
        **{name: None for name in of if name.startswith(old)},
        **{new + name.removeprefix(old): value for name, value in of.items() if name.startswith(old)},
    }


def only_unit(name: str) -> dict[str, np.ndarray]:
    return {
        f"x/block1/{name}/bottleneck_v2/{layer}/weights": np.ones((1, 1, 3, 3), "f4") for layer in ("conv1", "conv3")
    }


ONE = np.ones(1, np.float32)
NAMES: dict[str, BadFile] = {
    f"a unit numbered {what}": BadFile(saved(only_unit(f"unit_{number}")), MissingTensorError, "not the weights of a")
    ._replace(read=load)
    for what, number in {
        "with 5,000 digits": LONG, "in Arabic": "١", "by an exponent": "²", "with a zero before": "01",
        "a billion": "1000000000", "negatively": "-1", "with a line's end": "1\n",
    }.items()
} | {
    "a unit numbered 9999": BadFile(
        saved(only_unit("unit_9999")), MissingTensorError, "unit_1/.*conv1/weights is missing", load,
    ),
    "timm's unit with 5,000 digits": bad(
        renamed("stages.1.blocks.0.", f"stages.1.blocks.{LONG}.", TIMM), MissingTensorError, "unit_1/", TIMM,
    ),
    "torchvision's unit in Arabic": bad(
        renamed("layer2.0.", "layer2.٠.", TORCHVISION), MissingTensorError, "unit_1/.* is missing", TORCHVISION,
    ),
    "BiT's unit with 5,000 digits": bad(
        renamed("resnet/block2/unit01/", f"resnet/block2/unit{LONG}/", GOOGLES_BIT), MissingTensorError, "unit_1/",
        GOOGLES_BIT,
    ),
    "BiT's unit with one digit": bad(
        renamed("resnet/block2/unit01/", "resnet/block2/unit1/", GOOGLES_BIT), MissingTensorError, "unit_1/",
        GOOGLES_BIT,
    ),
    "Keras' block with 5,000 digits": bad(
        renamed("conv2_block1_", f"conv2_block{LONG}_", KERAS), MissingTensorError, "unit_1/.* is missing", KERAS,
    ),
}  # fmt: skip

TAKEN: dict[str, BadFile] = {
    "a hidden tensor, of torchvision": bad(
        {"resnet_v1/conv1/weights": ONE}, FormatError, "'resnet_v1/conv1/weights' is a name of TF-Slim's", TORCHVISION,
    ),
    "a hidden tensor beside the modules of torchvision": bad(
        {**renamed("", "module.", TORCHVISION), "resnet_v1/conv1/weights": ONE}, FormatError,
        "'resnet_v1/conv1/weights' is a name of TF-Slim's", TORCHVISION,
    ),
    "a hidden bias, of timm": bad(
        {f"{UNIT}/conv3/biases": ONE}, FormatError, f"'{UNIT}/conv3/biases' is a name of TF-Slim's", TIMM,
    ),
    "a hidden tensor, of Keras": bad(
        {"resnet_v2/postnorm/beta": ONE}, FormatError, "'resnet_v2/postnorm/beta' is a name of TF-Slim's", KERAS,
    ),
    "a hidden tensor, of Google's BiT": bad(
        {"resnet_v2/postnorm/beta": ONE}, FormatError, "'resnet_v2/postnorm/beta' is a name of TF-Slim's", GOOGLES_BIT,
    ),
    "a hidden norm, of Hugging Face's BiT": bad(
        {f"{UNIT}/conv1/BatchNorm/beta": ONE}, FormatError, f"'{UNIT}/conv1/BatchNorm/beta' is a name of TF-Slim's",
        HUGGING_FACES_BIT,
    ),
    "a kernel and its other name, of Keras": bad(
        {"conv1_conv/weights": ONE}, FormatError, "'conv1_conv/kernel' and .* are both TF-Slim's", KERAS,
    ),
    "a name with a line's end, of torchvision": bad(
        renamed("layer1.0.conv1.weight", "layer1.0.conv1.weight\n", TORCHVISION), MissingTensorError, "conv1/weights",
        TORCHVISION,
    ),
}  # fmt: skip

VECTOR, KERNEL = "resnet_v2/logits/biases", f"{UNIT}/conv2/weights"
SHAPES: dict[str, BadFile] = {
    f"{name} of shape {shape}": bad({name: np.zeros(shape, np.float32)}, ShapeMismatchError, message)
    for name, shape, message in (
        (VECTOR, (), r"logits/biases has shape \(\); it has one value per channel"),
        (VECTOR, (1, 7), r"logits/biases has shape \(1, 7\); it has one value"),
        (VECTOR, (0,), r"logits/biases has shape \(0,\); none of its sizes can be 0"),
        (KERNEL, (), r"conv2/weights has shape \(\); a kernel has four dimensions"),
        (KERNEL, (3, 3, 9), r"conv2/weights has shape \(3, 3, 9\); a kernel has four"),
        (KERNEL, (3, 3, 0, 3), r"conv2/weights has shape \(3, 3, 0, 3\); none of its sizes can be 0"),
        ("resnet_v2/conv1/weights", (7, 7, 3, 0), "conv1/weights has shape .* none of its sizes can be 0"),
        ("resnet_v2/logits/weights", (1, 1, 20, 0), "logits/weights has shape .* none of its sizes can be 0"),
        ("resnet_v2/postnorm/gamma", (), "postnorm/gamma has shape .* one value per channel"),
        (f"{UNIT}/preact/moving_mean", (64, 1), "preact/moving_mean has shape .* one value per channel"),
        (f"{UNIT}/conv1/BatchNorm/beta", (), "conv1/BatchNorm/beta has shape .* one value per channel"),
    )
} | {
    "every vector without a dimension": bad(
        {name: np.float32(1) for name, value in SLIM.items() if value.ndim == 1}, ShapeMismatchError, "and [0-9]+ more",
    ),
    "a dense layer of torchvision's without a dimension": bad(
        {"fc.bias": np.float32(1)}, ShapeMismatchError, r"logits/biases has shape \(\)", TORCHVISION,
    ),
    **{
        f"BiT's {name} of shape {shape}": bad({name: np.ones(shape, "f4")}, ShapeMismatchError, message, GOOGLES_BIT)
        for name, shape, message in (
            ("resnet/group_norm/gamma", (33,), r"postnorm/gamma has shape \(33,\); a group norm has 32 groups of the"),
            ("resnet/block1/unit01/b/group_norm/beta", (1,), r"conv1/GroupNorm/beta has shape \(1,\); a group norm"),
            ("resnet/block1/unit01/b/group_norm/beta", (), r"conv1/GroupNorm/beta has shape \(\); it has one value"),
            ("resnet/block1/unit01/a/group_norm/beta", (0,), r"preact/beta has shape \(0,\); none of its sizes"),
            ("resnet/root_block/standardized_conv2d/kernel", (7, 7, 3), "conv1/weights has shape .* four dimensions"),
            ("resnet/root_block/standardized_conv2d/kernel", (7, 7, 3, 0), "conv1/weights .* can be 0"),
        )
    },
    "timm's BiT of other channels": bad(
        {"stages.0.blocks.0.norm2.weight": np.ones(8, "f4")}, MissingTensorError, "channels that are no multiple of 32",
        BIT,
    ),
    "a classifier of timm's BiT without a dimension": bad(
        {"head.fc.weight": np.float32(1)}, ShapeMismatchError, r"logits/weights has shape \(\)", BIT,
    ),
    "an OIHW kernel": bad({f"{UNIT}/conv3/weights": np.ones((12, 3, 1, 1), "f4")}, ShapeMismatchError, "has shape"),
}  # fmt: skip

_RECIPE, _LABELS, _OPTIONS = (f"The file's {what} not understood" for what in (
    "preprocessing recipe is", "labels are", "options of the network are",
))  # fmt: skip
METADATA: dict[str, BadFile] = {
    **{
        f"a recipe {what}": bad({}, WeightsError, _RECIPE, recipe=recipe)
        for what, recipe in {
            "that is a list": [], "of another field": {"size": 3}, "of an unknown mode": {"mode": "x"},
            "whose mode is a list": {"mode": [1]}, "whose mode is null": {"mode": None},
            "with a size in words": {"resize_side": "x"}, "with a size of 0": {"height": 0},
            "with a size that is true": {"width": True}, "with a size that is a float": {"width": 3.0},
            "with a size of 60 bits": {"height": 2**60}, "with a size of 400 digits": {"resize_side": 10**400},
            "with a fraction of 0": {"central_fraction": 0}, "with a fraction in words": {"central_fraction": "1"},
            "with a fraction of 400 digits": {"central_fraction": 10**400},
            "whose sizes do not fit": {"height": 9, "width": 9, "resize_side": 5, "central_fraction": 1},
        }.items()
    },
    **{
        f"labels that are {what}": bad({}, WeightsError, _LABELS, labels=labels)
        for what, labels in {
            "a number": 5, "a string": "abcdefg", "an object": {"a": 1}, "numbers": [1] * 7, "lists": [[]] * 7,
            "null": [None] * 7, "half a surrogate": ["\udc00"] * 7,
        }.items()
    },
    "eight labels for seven classes": bad({}, ConfigError, "8 labels, but the weights have 7", labels=list("abcdefgh")),
    "no labels for seven classes": bad({}, ConfigError, "0 labels, but the weights have 7", labels=[]),
    **{
        f"options {what}": bad({}, WeightsError, _OPTIONS, options=options)
        for what, options in {
            "that are a list": [], "that are null": None, "of another name": {"threads": 1},
            "with an epsilon that is a whole number": {"batch_norm_epsilon": 1},
            "with an epsilon of 400 digits": {"batch_norm_epsilon": 10**400},
            "with a negative epsilon": {"batch_norm_epsilon": -1.0},
            "with an unknown pool_mode": {"pool_mode": "x"}, "whose pool_mode is a list": {"pool_mode": ["slim"]},
            "with an unknown stride_place": {"stride_place": "x"},
            "whose avg_down is 1": {"avg_down": 1}, "whose avg_down is null": {"avg_down": None},
        }.items()
    },
    "an epsilon of 1e999": BadFile(
        lambda folder: _in_archive(folder, b'{"options": {"batch_norm_epsilon": 1e999}}'), FormatError,
        "1e999 is too large for a float", load,
    ),
}  # fmt: skip


def _in_archive(folder: Path, metadata: bytes) -> Path:
    """An .npz with metadata that JSON's writer refuses."""
    write(folder / "a.npz", SLIM, {})
    with zipfile.ZipFile(folder / "a.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "a.npz", "w") as archive:
        for name, content in (members | {"__refnet__": metadata}).items():
            archive.writestr(name, content)
    return folder / "a.npz"


BAD = {
    **NAMES,
    **TAKEN,
    **SHAPES,
    **METADATA,
    "no network": bad(dict.fromkeys(SLIM) | {"a": ONE}, MissingTensorError, "not the weights of a ResNet"),
    "two networks": bad(renamed("", "other/", SLIM) | SLIM, ConfigError, "several networks"),
    "units of both versions": bad(
        {f"{UNIT.replace('v2/b', 'v1/b')[:-2]}v1/conv1/weights".replace("resnet_v1", "resnet_v2"): ONE},
        WeightsError, "units of both versions",
    ),
    "NaN": bad({VECTOR: np.full(7, np.nan, "f4")}, CorruptError, r"logits/biases \(7\)"),
    "a float64 that float32 cannot hold": bad({VECTOR: np.full(7, 1e300)}, CorruptError, r"logits/biases \(7\)"),
    "NaN in a kernel that is standardised": bad(
        {"stages.0.blocks.0.conv2.weight": np.full((32, 32, 3, 3), np.nan, "f4")}, CorruptError,
        r"conv2/weights \(9216\)", BIT,
    ),
    "integers": bad({VECTOR: np.ones(7, np.int32)}, DtypeError, "logits/biases has dtype int32"),
    "BiT": bad({"bit.encoder.stages.0.layers.0.norm1.weight": ONE}, FormatError, "a name of TF-Slim's among another"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


@pytest.mark.parametrize("tensors", SOUND.values(), ids=list(SOUND))
def test_they_are_sound_before_they_are_changed(tensors: Tensors, tmp_path: Path) -> None:
    recipe = {"height": 9, "width": 9, "central_fraction": 1, "mode": "tf", "resize_side": 12}
    use(saved(tensors, {"recipe": recipe})(tmp_path))


def number() -> st.SearchStrategy[str]:
    """What can stand for the number of a block or a unit."""
    return st.one_of(
        st.integers(0, 3).map(str), st.text("0123456789²٣１x\n", min_size=1, max_size=4), st.just("LONG"),
        st.integers(0, 10**20).map(str),
    )  # fmt: skip


@fuzzed
@given(data=st.data())
def test_any_names(data: st.DataObject, tmp_path: Path) -> None:
    """Numbers anywhere in the names are others: weights that can be used, or one of refnet's errors."""
    tensors = SOUND[data.draw(st.sampled_from(sorted(SOUND)))]
    changed = dict(tensors)
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=3, unique=True)):
        parts = re.split("([0-9]+)", name)
        where = data.draw(st.integers(0, len(parts) // 2))
        parts[2 * where - 1 if where else 0] = data.draw(number())
        if data.draw(st.booleans()):
            changed.pop(name, None)
        changed["".join(parts).replace("LONG", LONG)] = tensors[name]
    path = saved(changed)(tmp_path)
    with contextlib.suppress(RefnetError):
        use(path)


@fuzzed
@given(data=st.data())
def test_any_shapes(data: st.DataObject, tmp_path: Path) -> None:
    tensors = SOUND[data.draw(st.sampled_from(sorted(SOUND)))]
    names = data.draw(st.lists(st.sampled_from(sorted(tensors)), min_size=1, max_size=3))
    shapes = {name: data.draw(st.lists(st.sampled_from([0, 1, 2, 3, 7, 64]), max_size=5)) for name in names}
    path = saved({**tensors, **{name: np.ones(shape, np.float32) for name, shape in shapes.items()}})(tmp_path)
    with contextlib.suppress(RefnetError):
        use(path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3) | st.sampled_from(["slim", "keras", "tf", "vgg", "first_unit", 1, 9, 1.0, 10**400]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
FIELDS = {
    "recipe": st.fixed_dictionaries({}, optional=dict.fromkeys(refnet.Recipe._fields, VALUES)),
    "options": st.fixed_dictionaries({}, optional=dict.fromkeys(SLIM_OPTIONS, VALUES)),
    "labels": st.lists(st.text(max_size=3), min_size=6, max_size=8),
}


@fuzzed
@given(metadata=st.fixed_dictionaries({}, optional={name: VALUES | kind for name, kind in FIELDS.items()}))
def test_any_metadata(metadata: dict[str, Any], tmp_path: Path) -> None:
    path = saved(SLIM, metadata)(tmp_path)
    with contextlib.suppress(RefnetError):
        use(path)
