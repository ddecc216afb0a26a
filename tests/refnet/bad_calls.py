"""Calls of the public functions with an argument of the wrong kind, and the error that each gives.

`functions` has a sound call of every public function, and the kind of each of its parameters; `KINDS` has the values
that a parameter of a kind refuses. `bad_calls` puts the two together. ``tools/bad_inputs.py`` prints them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

import refnet
from refnet import golden, plots, seeded, testing
from refnet.errors import ConfigError, DeviceError, InputError, RefnetError, WeightsError
from refnet.network.options import Options
from refnet.summary import summarize
from tests.support.nets import lively_weights, small_blocks


class Kind(NamedTuple):
    """What a kind of parameter refuses: the error, words of its message, and values."""

    error: type[RefnetError]
    message: str
    values: Sequence[Any]


class Function(NamedTuple):
    """A function, a sound call of it, and the kinds of its parameters."""

    call: Callable[..., Any]
    arguments: Mapping[str, Any]
    kinds: Mapping[str, str]


class BadCall(NamedTuple):
    """What calls the function, what is wrong, the error and words of its message."""

    function: str
    wrong: str
    call: Callable[[], Any]
    error: type[RefnetError]
    message: str


class Strange:
    """It says nothing about itself: each attribute, and its ``repr``, is an error."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __repr__(self) -> str:
        raise RuntimeError("repr")


def unit(**changes: Any) -> list[refnet.Block]:
    """A block of one unit with these arguments in place of sound ones."""
    return [refnet.Block("block1", refnet.bottleneck, [{"depth": 4, "depth_bottleneck": 1, "stride": 1, **changes}])]


def _other_unit(*_: Any, **__: Any) -> int:
    return 5


NAN, INFINITE = float("nan"), float("inf")
#: More digits than Python writes down at once.
DIGITS = 10**5000
BAD_BLOCKS = (
    5, "block1", [5], [()], {"block1": 1}, np.zeros(2), Strange(),
    [refnet.Block(5, refnet.bottleneck, [{}])],  # type: ignore[arg-type]
    [refnet.Block("block1", refnet.bottleneck, 5)],  # type: ignore[arg-type]
    [refnet.Block("block1", refnet.bottleneck, [])],
    [refnet.Block("block1", refnet.bottleneck, [5])],  # type: ignore[list-item]
)  # fmt: skip
#: Blocks with which only the network shows what is wrong.
BAD_UNITS = (
    [refnet.Block("block1", refnet.bottleneck, [{"depth": 4}])],
    [refnet.Block("block1", None, [{"depth": 4}])],  # type: ignore[arg-type]
    [refnet.Block("block1", _other_unit, [{"depth": 4}])],
    unit(depth=0), unit(depth="4"), unit(stride=2**62), unit(stride=None), unit(depth_bottleneck=1.5),
    unit(unit_rate=2**63), unit(colour=1),
)  # fmt: skip
_NO_ARRAYS = (None, 5, "cat.png", [], ["a.png"], [[1.0], [1.0, 2.0]], Strange(), {}, np.zeros(3), np.zeros((4, 4)),
              np.zeros((1, 1, 4, 4, 3)), np.zeros((4, 4, 3), complex), np.array("x"))  # fmt: skip

KINDS = {
    "whole": Kind(
        ConfigError, "whole number",
        (0, -1, 1.5, 3.0, NAN, True, "3", "x", b"3", [3], {}, np.zeros(2), np.array(3), 2**31, 2**63, 10**400, DIGITS,
         Strange(), int),
    ),
    "seed": Kind(
        ConfigError, "seed is .*; it is a whole number of at most 64 bits",
        (1.5, "x", None, [1], True, NAN, 2**64, -(2**64), DIGITS, Strange()),
    ),
    "bool": Kind(ConfigError, "it can be True or False", ("no", 0, 1, 1.5, [], None, np.zeros(2), Strange())),
    "bool or none": Kind(ConfigError, "it can be True or False", ("no", 0, 1, 1.5, [], np.zeros(2), Strange())),
    "number": Kind(
        ConfigError, "it is a number of 0 or more",
        (-1, NAN, INFINITE, "x", [1.0], True, 10**400, 1j, np.complex64(1), np.zeros(1), Strange()),
    ),
    "fraction": Kind(
        ConfigError, "it is a number above 0, up to 1",
        (0, -0.5, 1.5, NAN, INFINITE, 10**400, "x", True, None, [0.5], 1j, np.zeros(1), Strange()),
    ),
    "stride": Kind(
        ConfigError, "output_stride is", ("8", NAN, INFINITE, True, [8], 2**63, 10**400, DIGITS, np.zeros(1)),
    ),
    "classes": Kind(ConfigError, "num_classes is", (0, -1, 1.5, NAN, True, "3", b"3", [3], {}, 2**31, 10**400, DIGITS)),
    "path": Kind(ConfigError, "The path is", (5, None, 1.5, [], {}, "", "a\0b", "\ud800", b"", object(), Strange())),
    "image file": Kind(
        ConfigError, "The path is .*; it is the path of an image file, or the file's bytes, or the file opened in",
        (5, None, 1.5, [], {}, "", "a\0b", "\ud800", object(), Strange()),
    ),
    "bytes of an image": Kind(
        InputError, "The image in ", (b"", b"a.png", bytearray(3), memoryview(b"x"), io.BytesIO(), io.StringIO("x")),
    ),
    "images": Kind(InputError, "(?i)images", _NO_ARRAYS),
    "raw images": Kind(InputError, "raw images", (*_NO_ARRAYS, np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8))),
    "weights": Kind(
        WeightsError, "weights|array",
        (5, None, [], [5], Strange(), {5: np.zeros(1)}, {"a": "b"}, {"a": [[1], [2, 3]]}, {}),
    ),
    "variables": Kind(
        RefnetError, "variables|weights|array",
        (5, [1], "x", np.zeros(2), {}, {"Conv/weights": [[1], [2, 3]]}, {"Conv/weights": "x"}, {5: 5}, Strange()),
    ),
    "names": Kind(
        ConfigError, "end_points is|no end point",
        (None, 5, 1.5, [3], b"net", {"a": 1}, ["nowhere"], "nowhere", ["x" * 5000], Strange(), int),
    ),
    "end points": Kind(
        RefnetError, "end_points is|no end points|needs end points|cannot be read|not arrays of real",
        (5, "x", [], {}, {5: 5}, {"nowhere": np.zeros(1)}, {"net": [[1], [2, 3]]}, {"net": "x"}, Strange()),
    ),
    "activations": Kind(
        RefnetError, "",
        (5, None, [], {}, {5: 5}, {"nowhere": np.zeros(1)}, {"net": [[1], [2, 3]]}, {"net": "x"}, np.zeros(0),
         np.array(["x"]), np.array([1j]), np.array([None]), np.zeros((2, 3, 4, 5, 6)), object(), Strange()),
    ),
    "reference": Kind(RefnetError, "", (5, None, [], {}, {5: 5}, {"a": "b"}, object(), Strange())),
    "image": Kind(InputError, "(?i)image", [value for value in _NO_ARRAYS if not isinstance(value, str)]),
    "picture": Kind(
        InputError, "The (image|features)|cannot be read|Sequences",
        (None, 5, "x", [], [[1.0], [1.0, 2.0]], {}, np.zeros(3), np.zeros((4, 4)), np.zeros((2, 4, 4, 3)),
         np.zeros((0, 4, 3)), np.zeros((4, 4, 3), complex), np.full((4, 4, 3), NAN), Strange()),
    ),
    "mapping": Kind(RefnetError, "mapping|map", (5, "x", [1], {5: 5}, {"a": 1}, {"nowhere": "net"}, Strange())),
    "labels": Kind(
        ConfigError, "label", (5, 1.5, "abcdefg", b"x", [5], [None], {"a": 1}, range(10**18), Strange()),
    ),
    "recipe": Kind(ConfigError, "recipe is", (5, "vgg", {}, (3, 3), [], Strange(), refnet.Recipe)),
    "options": Kind(ConfigError, "options", (5, "x", [1], {"colour": 1}, {5: 5})),
    "conversion": Kind(ConfigError, "conversion is", (5, "x", {}, Strange())),
    "blocks": Kind(ConfigError, "blocks is|units of|scope is", BAD_BLOCKS),
    "units": Kind(ConfigError, "blocks is|[Uu]nits? |scope is|unit_fn|whole number", BAD_BLOCKS + BAD_UNITS),
    "network": Kind(
        ConfigError, "blocks is|[Uu]nits? |scope is|unit_fn|whole number|no network",
        (*BAD_BLOCKS, *BAD_UNITS, "resnet_v2_51", "", "x" * 5000),
    ),
    "any network": Kind(
        RefnetError, "network|weights|array",
        (5, None, [], "resnet_v2_51", "", {}, {5: 5}, {"a": "b"}, Strange()),
    ),
    "grid": Kind(
        ConfigError, "multi_grid|whole number",
        (5, "12", (0, 1), (2**62, 1), ("a",), [None], {}, np.ones(2), Strange()),
    ),
    "depths": Kind(ConfigError, "root_depths", (5, "12", (0, 1), (2**62,), ("a",), [None], {}, Strange())),
    "shape": Kind(
        InputError, "shape is|shape",
        ("abc", 5, None, (), (3,), (4, 4), (-1, 4, 3), (4.0, 4, 3), ("4", 4, 3), (2**63, 4, 3), (0, 4, 3), (4, 4, 5),
         (2**31 - 1, 2**31 - 1, 3), {}, Strange()),
    ),
    "any shape": Kind(
        InputError, "shape is",
        ("abc", 5, None, (-1, 4, 3), (4.0, 4, 3), ("4",), (2**63, 4), (2**31 - 1, 2**31 - 1, 3), {}, Strange()),
    ),
    "text": Kind(ConfigError, "it is a string", (5, 1.5, b"x", [], {}, "\ud800", Strange())),
    "layer": Kind(
        ConfigError, "it is a string|no convolution|convolutions end in",
        (5, None, b"conv1", [], {}, "", "conv", "conv2", "nowhere", "x" * 5000, Strange()),
    ),
    "input channel": Kind(
        ConfigError, "channel is .*; the input channels of these kernels are the whole numbers from 0 to 2",
        (-1, 3, 1.5, 0.0, NAN, True, "0", [0], {}, np.zeros(2), np.array(0), 2**63, 10**400, Strange(), int),
    ),
    "choice": Kind(ConfigError, "it can be", (5, "x", "", [], {}, np.zeros(2), True, Strange())),
    "numbers": Kind(
        ConfigError, "mean|std",
        (5, "x", (), ("a",), [None], {}, (NAN,) * 3, (INFINITE,) * 3, (1e308,) * 3, (1e-40,) * 3, (10**400,) * 3,
         (0.5,), (True,) * 3, np.ones(2), range(10**18), Strange()),
    ),
    "device": Kind(DeviceError, "device", (5, None, "tpu", "", "cuda:99", "cpu:1", "cuda:-1", [], b"cpu", Strange())),
    "threads": Kind(
        ConfigError, "threads is .*; it is a whole number from 1 to 1024",
        (0, -1, 1025, 1.5, "x", True, [], 2**63, DIGITS, np.zeros(2), Strange()),
    ),
    "dtype": Kind(ConfigError, "dtype is", (None, 5, "float16", ">f4", int, [], {}, "x", b"x", Strange())),
    "stream": Kind(ConfigError, "stream", (5, "x", 0, object(), Strange())),
    "logits": Kind(
        InputError, "The logits|cannot be read|Sequences of numbers",
        (None, "x", 1.5, [], ["x"], [[1], [1, 2]], np.zeros(3, np.int64), np.zeros((2, 0), np.float32),
         np.array([1j]), np.array([None]), Strange()),
    ),
    "verbosity": Kind(ConfigError, "verbose is", (None, "x", "", 3, -1, 1.5, [], Strange())),
    "predictions": Kind(
        InputError, "predictions",
        (None, 5, "x", [], [[1.0], [1.0, 2.0]], np.zeros((2, 0)), np.zeros((1, 2, 3)), np.array([NAN]), Strange()),
    ),
}  # fmt: skip

#: The kinds of the options of an engine.
OPTIONS = {
    "blocks": "blocks", "num_classes": "classes", "is_training": "bool", "global_pool": "bool",
    "output_stride": "stride", "include_root_block": "bool", "spatial_squeeze": "bool or none",
    "store_non_strided_activations": "bool",
    "multi_grid": "grid", "batch_norm_epsilon": "number", "pool_mode": "choice", "avg_down": "bool or none",
    "stride_place": "choice", "bias_before_batch_norm": "bool or none", "batch_norm_scale": "bool",
    "activation_fn": "choice", "use_batch_norm": "bool", "scope": "text", "device": "device", "threads": "threads",
    "zeros": "bool",
    "dtype": "dtype",
}  # fmt: skip

#: The arguments that all of TF-Slim's networks take.
_NETWORK = {
    "num_classes": "whole", "global_pool": "bool", "output_stride": "stride", "include_root_block": "bool",
    "spatial_squeeze": "bool or none", "store_non_strided_activations": "bool", "multi_grid": "grid",
    "root_depths": "depths", "scope": "text",
}  # fmt: skip
_ON_ARRAYS = {
    "variables": "variables", "device": "device", "threads": "threads", "dtype": "dtype", "is_training": "bool",
    "batch_norm_epsilon": "number", "batch_norm_scale": "bool", "use_batch_norm": "bool", "pool_mode": "choice",
    "avg_down": "bool", "bias_before_batch_norm": "bool",
}  # fmt: skip

WEIGHTS = refnet.Weights(lively_weights(), recipe=refnet.Recipe(9, 9, 1.0), labels=list("abcdefg"))
IMAGE = np.linspace(-1, 1, 9 * 9 * 3, dtype=np.float32).reshape(9, 9, 3)
RAW = np.zeros((9, 9, 3), np.uint8)
_KERNEL = {"Conv/weights": np.ones((3, 3, 3, 4), np.float32), "Conv/biases": np.ones(4, np.float32)}


def make_files(folder: Path) -> None:
    """Sound files for the functions that read some."""
    Image.fromarray(RAW).save(folder / "a.png")
    refnet.save_weights(folder / "w.npz", WEIGHTS)
    golden.record(folder / "g.safetensors", WEIGHTS, IMAGE)


def functions(folder: Path) -> dict[str, Function]:
    """Every public function by its name, in the sound files of `make_files`."""
    engine, keras = refnet.Engine(WEIGHTS), refnet.KerasModel(WEIGHTS)
    net, end_points = engine(IMAGE, end_points=True)
    predictor = refnet.Predictor(WEIGHTS, top=2)
    blocks, features = small_blocks(), np.ones((1, 4, 4, 64), np.float32)
    old = [refnet.resnet_v1_block("block1", base_depth=2, num_units=1, stride=1)]
    old_weights, weights = dict(refnet.random_weights(old, 7)), dict(WEIGHTS)
    basic = refnet.random_weights([refnet.resnet_v2_basic_block("block1", base_depth=3, num_units=1, stride=1)])
    below = {name.removeprefix("resnet_v2/"): value for name, value in weights.items()}
    options = {name: getattr(Options(), name) for name in OPTIONS}
    on_arrays = {**refnet.resnet_arg_scope()._asdict(), "device": "cpu", "threads": 1, "dtype": "float32"}
    network = {
        "inputs": IMAGE[None], "num_classes": 7, "global_pool": True, "output_stride": None,
        "include_root_block": True, "spatial_squeeze": None, "store_non_strided_activations": False,
        "multi_grid": None, "root_depths": None,
    }  # fmt: skip
    where = {"device": "cpu", "threads": None}
    g = folder / "g.safetensors"
    found = {
        "forward": Function(
            refnet.forward,
            {"weights": WEIGHTS, "images": IMAGE, "end_points": False, "stream": None, **options},
            {"weights": "weights", "images": "images", "end_points": "names", "stream": "stream", **OPTIONS},
        ),
        "Engine": Function(refnet.Engine, {"weights": WEIGHTS, **options}, {"weights": "weights", **OPTIONS}),
        "Engine.__call__": Function(
            engine.__call__, {"images": IMAGE, "end_points": False, "stream": None},
            {"images": "images", "end_points": "names", "stream": "stream"},
        ),
        "Engine.prepared": Function(
            engine.prepared, {"shape": (9, 9, 3), "end_points": True}, {"shape": "shape", "end_points": "names"},
        ),
        "Engine.trace": Function(engine.trace, {"shape": (9, 9, 3)}, {"shape": "any shape"}),
        "KerasModel": Function(
            refnet.KerasModel,
            {"weights": WEIGHTS, "include_top": True, "pooling": None, "classes": 7,
             "classifier_activation": "softmax", "dtype": "float32"},
            {"weights": "weights", "include_top": "bool", "pooling": "choice", "classes": "whole",
             "classifier_activation": "choice", "dtype": "dtype"},
        ),
        "KerasModel.predict": Function(
            keras.predict, {"images": IMAGE, "batch_size": 1, "verbose": 0},
            {"images": "images", "batch_size": "whole", "verbose": "verbosity"},
        ),
        "KerasModel.summary": Function(keras.summary, {"size": 9}, {"size": "whole"}),
        "Engine.summary": Function(engine.summary, {"size": 9}, {"size": "whole"}),
        "Weights": Function(
            refnet.Weights,
            {"tensors": weights, "recipe": None, "labels": None, "options": None, "source": "x", "conversion": None,
             "copy": True},
            {"tensors": "tensors", "recipe": "recipe", "labels": "labels", "options": "options", "source": "text",
             "conversion": "conversion", "copy": "bool"},
        ),
        "Weights.replace": Function(
            WEIGHTS.replace, {"recipe": None, "labels": None, "options": None, "conversion": None},
            {"recipe": "recipe", "labels": "labels", "options": "options", "conversion": "conversion"},
        ),
        "Weights(options=...)": Function(
            lambda **given: refnet.Weights(weights, options=given),
            {"batch_norm_epsilon": 1e-5, "pool_mode": "keras", "avg_down": False, "stride_place": "last_unit",
             "bias_before_batch_norm": False},
            {"batch_norm_epsilon": "number", "pool_mode": "choice", "avg_down": "bool", "stride_place": "choice",
             "bias_before_batch_norm": "bool"},
        ),
        "load_weights": Function(
            refnet.load_weights,
            {"path": folder / "w.npz", "scope": None, "head": "from_weights", "averages": False, "recipe": None,
             "labels": None, "strict": False},
            {"path": "path", "scope": "text", "head": "text", "averages": "bool", "recipe": "recipe",
             "labels": "labels", "strict": "bool"},
        ),
        "save_weights": Function(
            refnet.save_weights, {"path": folder / "o.npz", "weights": WEIGHTS},
            {"path": "path", "weights": "tensors"},
        ),
        "load_image": Function(
            refnet.load_image, {"path": folder / "a.png", "channels": 3}, {"path": "image file", "channels": "whole"},
        ),
        "load_image of bytes": Function(
            lambda **given: refnet.load_image(**given), {"path": (folder / "a.png").read_bytes()},
            {"path": "bytes of an image"},
        ),
        "preprocess": Function(
            refnet.preprocess, {"images": RAW, "recipe": None}, {"images": "raw images", "recipe": "recipe"},
        ),
        "Recipe": Function(
            lambda **given: refnet.preprocess(RAW, refnet.Recipe(**given)),
            {"height": 3, "width": 3, "central_fraction": 1.0, "mode": "torch", "resize_side": None,
             "interpolation": "bicubic", "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_offset": None},
            {"height": "whole", "width": "whole", "central_fraction": "fraction", "mode": "choice",
             "resize_side": "whole", "interpolation": "choice", "mean": "numbers", "std": "numbers",
             "crop_offset": "choice"},
        ),
        "decode_predictions": Function(
            refnet.decode_predictions,
            {"predictions": end_points["predictions"][None], "top": 3, "labels": list("abcdefg"), "from_logits": False},
            {"predictions": "predictions", "top": "whole", "labels": "class names", "from_logits": "bool"},
        ),
        "softmax": Function(
            refnet.softmax, {"logits": net, "device": "cpu", "threads": 1},
            {"logits": "logits", "device": "device", "threads": "threads"},
        ),
        "random_weights": Function(
            refnet.random_weights,
            {"network": blocks, "num_classes": 7, "seed": 0, "include_root_block": True, "channels": 3,
             "root_depths": None, "scope": None},
            {"network": "network", "num_classes": "whole", "seed": "seed", "include_root_block": "bool",
             "channels": "whole", "root_depths": "depths", "scope": "text"},
        ),
        "Block": Function(
            lambda **given: refnet.random_weights([refnet.Block(**given)]),
            {"scope": "block1", "unit_fn": refnet.bottleneck, "args": unit()[0].args},
            {"scope": "text", "unit_fn": "unit function", "args": "unit arguments"},
        ),
        "subsample": Function(
            refnet.subsample, {"inputs": features, "factor": 2}, {"inputs": "images", "factor": "whole"}
        ),
        "conv2d_same": Function(
            refnet.conv2d_same,
            {"inputs": IMAGE[None], "num_outputs": 4, "kernel_size": 3, "stride": 1, "rate": 1, "scope": "Conv",
             "normalizer_fn": None, "variables": _KERNEL, **on_arrays},
            {"inputs": "images", "num_outputs": "whole", "kernel_size": "whole", "stride": "whole", "rate": "whole",
             "scope": "text", "activation_fn": "choice", "normalizer_fn": "choice", **_ON_ARRAYS},
        ),
        "bottleneck": Function(
            refnet.bottleneck,
            {"inputs": features, "depth": 12, "depth_bottleneck": 3, "stride": 1, "rate": 1,
             "scope": "resnet_v2/block1/unit_1/bottleneck_v2", "unit_rate": 1, "stride_in_1x1": False,
             "left_out": 1, "variables": weights},
            {"inputs": "images", "depth": "whole", "depth_bottleneck": "whole", "stride": "whole", "rate": "whole",
             "scope": "text", "unit_rate": "whole", "stride_in_1x1": "bool", "left_out": "whole",
             "variables": "variables"},
        ),
        "basic": Function(
            refnet.basic,
            {"inputs": features, "depth": 3, "depth_bottleneck": 3, "stride": 1, "rate": 1,
             "scope": "resnet_v2/block1/unit_1/basic_v2", "unit_rate": 1, "left_out": 1, "variables": basic},
            {"inputs": "images", "depth": "whole", "depth_bottleneck": "whole", "stride": "whole", "rate": "whole",
             "scope": "text", "unit_rate": "whole", "left_out": "whole", "variables": "variables"},
        ),
        "stack_blocks_dense": Function(
            refnet.stack_blocks_dense,
            {"net": features, "blocks": blocks, "output_stride": None, "store_non_strided_activations": False,
             "variables": below},
            {"net": "images", "blocks": "units", "output_stride": "stride",
             "store_non_strided_activations": "bool", "variables": "variables"},
        ),
        "resnet_v2": Function(
            refnet.resnet_v2, {**network, "blocks": blocks, "scope": "resnet_v2", "variables": weights},
            {"inputs": "images", "blocks": "units", "variables": "variables", **_NETWORK},
        ),
        "resnet_v1": Function(
            refnet.resnet_v1, {**network, "blocks": old, "scope": "resnet_v1", "variables": old_weights},
            {"inputs": "images", "blocks": "units", "variables": "variables", **_NETWORK},
        ),
        "resnet_arg_scope": Function(
            lambda **given: refnet.conv2d_same(IMAGE[None], 4, 3, 1, variables=_KERNEL, **given),
            refnet.resnet_arg_scope()._asdict(),
            {name: kind for name, kind in {**_ON_ARRAYS, "activation_fn": "choice"}.items()
             if name in refnet.resnet_arg_scope._fields},
        ),
        "golden.record": Function(
            golden.record,
            {"path": folder / "o.safetensors", "weights": WEIGHTS, "images": IMAGE, "end_points": True,
             "hashes_only": False, "store_images": False, "recipe": None, "seed": 0, **where},
            {"path": "path", "weights": "weights", "images": "golden images", "end_points": "names",
             "hashes_only": "bool", "store_images": "bool", "recipe": "recipe", "seed": "seed", "device": "device",
             "threads": "threads"},
        ),
        "golden.check": Function(
            golden.check, {"path": g, "weights": WEIGHTS, "images": IMAGE, **where},
            {"path": "path", "weights": "any weights", "images": "any images", "device": "device",
             "threads": "threads"},
        ),
        "golden.compare_end_points": Function(
            golden.compare_end_points, {"path": g, "end_points": end_points, "max_ulps": 0},
            {"path": "path", "end_points": "end points", "max_ulps": "number"},
        ),
        "golden.read_golden": Function(golden.read_golden, {"path": g}, {"path": "path"}),
        "testing.assert_golden": Function(
            testing.assert_golden,
            {"path": g, "weights": WEIGHTS, "images": IMAGE, "end_points": None, "max_ulps": 0, "hashes_only": False},
            {"path": "path", "weights": "any weights", "images": "any images", "end_points": "end points",
             "max_ulps": "number", "hashes_only": "bool"},
        ),
        "compare": Function(
            refnet.compare, {"reference": WEIGHTS, "observed": end_points, "images": IMAGE, "mapping": None},
            {"reference": "reference", "observed": "activations", "images": "any images", "mapping": "mapping"},
        ),
        "diagnose": Function(
            refnet.diagnose,
            {"weights": WEIGHTS, "image": IMAGE, "observed": net, "mapping": None, "pairs": False, "limit": 120.0,
             "progress": None},
            {"weights": "weights", "image": "image", "observed": "activations", "mapping": "mapping", "pairs": "bool",
             "limit": "number"},
        ),
        "Predictor": Function(
            refnet.Predictor,
            {"weights": WEIGHTS, "top": 3, "features": None, "end_points": ["block1"], "recipe": refnet.Recipe(9, 9),
             "labels": None, "batch": 2, **options},
            {"weights": "weights", "top": "whole", "features": "choice", "end_points": "names of end points",
             "recipe": "recipe", "labels": "labels", "batch": "whole", **OPTIONS},
        ),
        "Predictor.__call__": Function(
            predictor.__call__, {"images": [folder / "a.png"], "ids": ["a"]},
            {"images": "encoded images", "ids": "ids"},
        ),
        "Predictor.rows": Function(
            predictor.rows, {"images": [folder / "a.png"], "ids": ["a"]}, {"images": "encoded images", "ids": "ids"},
        ),
        "batch": Function(
            refnet.batch,
            {"source": [folder / "a.png"], "weights": WEIGHTS, "out": folder / "rows", "top": 2, "features": None,
             "end_points": (), "recipe": refnet.Recipe(9, 9), "labels": None, "column": None, "id_column": None,
             "format": "jsonl", "batch_size": 2, "shard_rows": 3, "max_errors": None, "row_seconds": None,
             "retry_errors": False, "runner": "local", "workers": None, "progress": None},
            {"source": "source", "weights": "weights", "out": "path", "top": "whole", "features": "choice",
             "end_points": "names of end points", "recipe": "recipe", "labels": "labels", "column": "column",
             "id_column": "column", "format": "choice", "batch_size": "whole", "shard_rows": "whole",
             "max_errors": "number", "row_seconds": "number", "retry_errors": "bool", "runner": "choice",
             "workers": "whole", "progress": "callable"},
        ),
        "seeded.random_images": Function(
            seeded.random_images, {"shape": (9, 9, 3), "seed": 0}, {"shape": "any shape", "seed": "seed"}
        ),
        "seeded.lively_weights": Function(
            seeded.lively_weights, {"weights": WEIGHTS, "seed": 0}, {"weights": "tensors", "seed": "seed"}
        ),
        "plots.network": Function(
            plots.network, {"network": WEIGHTS, "path": folder / "p.svg", "size": 9},
            {"network": "any network", "path": "path", "size": "whole"},
        ),
        "plots.feature_maps": Function(
            plots.feature_maps, {"features": IMAGE, "path": folder / "p.svg", "channels": 2},
            {"features": "picture", "path": "path", "channels": "whole"},
        ),
        "plots.dense_features": Function(
            plots.dense_features, {"image": IMAGE, "features": IMAGE, "path": folder / "p.svg"},
            {"image": "picture", "features": "picture", "path": "path"},
        ),
        "plots.kernels": Function(
            plots.kernels,
            {"weights": WEIGHTS, "layer": "conv1", "path": folder / "p.svg", "channel": 0, "count": 2},
            {"weights": "weights", "layer": "layer", "path": "path", "channel": "input channel", "count": "whole"},
        ),
        "summary.summarize": Function(
            summarize, {"network": WEIGHTS, "size": 32}, {"network": "any network", "size": "whole"}
        ),
    }  # fmt: skip
    for name in ("resnet_v2_block", "resnet_v1_block", "resnet_v2_basic_block", "resnet_v1_basic_block"):
        found[name] = Function(
            getattr(refnet, name), {"scope": "block1", "base_depth": 3, "num_units": 2, "stride": 2},
            {"scope": "text", "base_depth": "whole", "num_units": "whole", "stride": "whole"},
        )  # fmt: skip
    for name in ("resnet_v2_50", "resnet_v1_50", "resnet_v2_18", "resnet_v1_18"):
        found[name] = Function(
            getattr(refnet, name),
            {"inputs": IMAGE[None], "num_classes": 7, "scope": name, "variables": refnet.random_weights(name, 7)},
            {"inputs": "images", "num_classes": "whole", "scope": "text"},
        )  # fmt: skip
    return found


KINDS |= {
    # Any mapping of names to arrays can be kept, also one that no network has.
    "tensors": KINDS["weights"]._replace(values=KINDS["weights"].values[:-1]),
    # None stands for what the golden holds.
    "any weights": Kind(RefnetError, "weights|array", KINDS["weights"].values),
    "any images": Kind(RefnetError, "(?i)images", KINDS["images"].values),
    "golden images": Kind(
        InputError, "(?i)images|shape",
        (*_NO_ARRAYS, (-1, 4, 3), (4.0, 4, 3), (2**63, 4, 3), (0, 4, 3), (4, 4)),
    ),
    # The path of a class index, too.
    "names of end points": Kind(
        ConfigError, "end_points is|no end point",
        (None, 5, 1.5, True, [3], b"net", {"a": 1}, ["nowhere"], "nowhere", ["x" * 5000], Strange(), int),
    ),
    "encoded images": Kind(InputError, "images are|ids for|ids are", (None, 5, b"x", "a.png", [], Strange(), int)),
    "ids": Kind(InputError, "ids|id ", (5, b"x", [], ["a", "b"], ["\ud800"], ["a\0b"], Strange(), int)),
    "source": Kind(
        RefnetError, "source is|path is|are no inputs|No such file|No file|several kinds|is damaged|compressed",
        (5, None, 1.5, b"", "", "a\0b", "nowhere", "*.nothing", [], [5], [None], ["a.png", "a.tar"], "a.tar.gz", {},
         Strange(), int),
    ),
    "column": Kind(ConfigError, "Columns are for Parquet", (5, "image", "", b"x", Strange())),
    "callable": Kind(ConfigError, "cannot be called", (5, "x", [], Strange())),
    "class names": Kind(
        ConfigError, "label|path|class",
        (5, 1.5, b"x", [5], [None], {"a": 1}, ["a"], "", "a\0b", "\ud800", "nowhere", Strange()),
    ),
    "unit function": Kind(ConfigError, "unit", (None, 5, "bottleneck", _other_unit, lambda: None, int, Strange())),
    "unit arguments": Kind(
        ConfigError, "unit|whole number",
        (5, None, [], [5], "x", {}, [{}], [{"depth": 4}], [{5: 5}], unit(stride=0)[0].args),
    ),
}  # fmt: skip


#: Values of every type, for any parameter at all.
ANYTHING = (
    None, 5, -1, 0, 1.5, 2**31, 2**62, 2**63, 10**400, DIGITS, NAN, INFINITE, 1e308, True, 1j,
    "x", "", b"x", "a\0b", "\ud800", "x" * 5000, Path("nowhere"),
    [], [5], ["x"], [None], [[1], [2, 3]], (), (3,), (2**63, 1), (-1, 2), {}, {5: 5}, {"a": 1}, range(10**18),
    np.zeros(0), np.array(3), np.array("x"), np.zeros((2, 2)), np.int64(3), np.float32(2), np.bool_(True),
    np.complex64(1), object(), int, _other_unit, Strange(), WEIGHTS, small_blocks(), *BAD_UNITS,
    refnet.Recipe(), refnet.Recipe(mode="x"), refnet.Recipe(5, 2**63), refnet.Recipe("x"),  # type: ignore[arg-type]
    refnet.Recipe(mode=[1]),  # type: ignore[arg-type]
)  # fmt: skip


def text_of(value: Any) -> str:
    """The value in a few characters."""
    try:
        text = re.sub(r" at 0x\w+", "", " ".join(repr(value).split()))
    except Exception:
        text = f"a {type(value).__name__} without repr"
    return text if len(text) <= 60 else f"{text[:40]} ... {text[-15:]}"


def bad_calls(folder: Path) -> Iterator[BadCall]:
    """Every function with a value of each kind that the parameter refuses."""
    for name, function in functions(folder).items():
        for parameter, kind in function.kinds.items():
            error, message, values = KINDS[kind]
            for value in values:
                arguments = {**function.arguments, parameter: value}
                if value is None and function.arguments.get(parameter, value) is None:
                    continue  # None is its default
                yield BadCall(
                    name, f"{parameter}={text_of(value)}",
                    lambda call=function.call, arguments=arguments: call(**arguments), error, message,
                )  # fmt: skip
