"""Files of configuration that must be refused, beside sound weights, and the error of each.

``tools/bad_inputs.py`` prints them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import refnet
from refnet.errors import FormatError, LimitError, WeightsError
from tests.hugging_face.networks import renamed
from tests.refnet.formats.bad_files import BadFile
from tests.timm import networks as timm_networks
from tests.torchvision.networks import Description, draw_state

#: Three classes; the second stage strides.
SMALL = Description(((4, 1), (6, 1)), 3)

HUGGING_FACE: dict[str, Any] = {
    "model_type": "resnet", "architectures": ["ResNetForImageClassification"], "hidden_act": "relu",
    "downsample_in_first_stage": False, "downsample_in_bottleneck": False, "num_channels": 3,
    "id2label": {"0": "cat", "2": "cow", "1": "dog"}, "label2id": {"cat": 0, "dog": 1, "cow": 2},
}  # fmt: skip
PROCESSOR: dict[str, Any] = {
    "crop_pct": 0.875, "do_normalize": True, "do_resize": True, "feature_extractor_type": "ConvNextFeatureExtractor",
    "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3, "size": 224,
}  # fmt: skip
TIMM: dict[str, Any] = {
    "architecture": "resnetv2_50", "num_classes": 3, "global_pool": "avg",
    "pretrained_cfg": {
        "input_size": [3, 160, 160], "interpolation": "bilinear", "crop_pct": 0.9, "crop_mode": "center",
        "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "fixed_input_size": False,
    },
    "label_names": ["cat", "dog", "cow"], "model_args": {"num_classes": 3, "in_chans": 3},
}  # fmt: skip
CONFIG, PROCESSOR_NAME = "config.json", "preprocessor_config.json"

#: Weights of each home.
WEIGHTS: dict[str, Callable[[], dict[str, np.ndarray]]] = {
    "hugging_face": lambda: renamed(draw_state(SMALL, 1)),
    "timm": lambda: timm_networks.draw_state(timm_networks.Description(((3, 1), (5, 1)), 3), 1),
}


def changed(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    return {**config, **changes}


def configured(directory: Path, config: Any, processor: Any) -> Path:
    """Write the files: text as it is, None not at all, and all else as JSON."""
    for name, content in ((CONFIG, config), (PROCESSOR_NAME, processor)):
        (directory / name).unlink(missing_ok=True)
        if content is not None:
            (directory / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def load(path: Path) -> refnet.Weights:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        return refnet.load_weights(path)


def bad(
    message: str,
    config: Any = HUGGING_FACE,
    processor: Any = PROCESSOR,
    *,
    home: str = "hugging_face",
    error: type[WeightsError] = FormatError,
    then: Callable[[Path], object] = lambda directory: None,
) -> BadFile:
    """A directory with weights and their files of configuration, and what is done to it then."""

    def write(folder: Path) -> Path:
        save_file(WEIGHTS[home](), folder / "model.safetensors")
        then(configured(folder, config, processor))
        return folder

    return BadFile(write, error, message, load)


def hugging_face(message: str, **changes: Any) -> BadFile:
    return bad(message, changed(HUGGING_FACE, **changes))


def processor(message: str, *, error: type[WeightsError] = FormatError, **changes: Any) -> BadFile:
    return bad(message, processor=changed(PROCESSOR, **changes), error=error)


def timm(message: str, part: str = "", **changes: Any) -> BadFile:
    inner = {part: TIMM[part] | changes} if part else changes
    return bad(message, changed(TIMM, **inner), None, home="timm")


DEEP = "[" * 100_000 + "]" * 100_000
#: Contents that are no configuration of any kind.
NO_CONFIGURATIONS = {
    "empty": "", "cut off": "{", "a list": "[]", "a number": "5", "null": "null", "a string": '"x"',
    "half a surrogate": "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "NaN": '{"a": NaN}',
    "infinity": '{"a": -Infinity}', "1e999": '{"a": 1e999}', "a key twice": '{"a": 1, "a": 2}',
    "a list of 100,000 levels": DEEP, "a value of 100,000 levels": f'{{"a": {DEEP}}}',
    "objects of 100,000 levels": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a number of 5,000 digits": '{"a": ' + "9" * 5000 + "}", "a comment": '{"a": 1} // one', "a BOM": "\ufeff{}",
}  # fmt: skip


def _directory(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).mkdir()

    return make


def _fifo(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return make


def _holes(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with (folder / name).open("wb") as file:
            file.truncate(1 << 30)

    return make


def of_any_kind(name: str) -> dict[str, BadFile]:
    """What no file of configuration can be."""

    def written(content: str) -> dict[str, Any]:
        return {"config": content} if name == CONFIG else {"processor": content}

    contents = {what: bad("its content is not", **written(text)) for what, text in NO_CONFIGURATIONS.items()}
    return contents | {
        "a directory": bad("is a directory", then=_directory(name)),
        "a FIFO": bad("is a FIFO", then=_fifo(name)),
        "of holes": bad("holes", error=LimitError, then=_holes(name)),
        "of 5 MiB": bad("is larger than", **written(json.dumps({"a": "x" * (5 << 20)})), error=LimitError),
    }


BAD: dict[str, dict[str, BadFile]] = {
    CONFIG: of_any_kind(CONFIG)
    | {
        "Hugging Face: another activation": hugging_face(
            "hidden_act is 'gelu'; refnet has relu only", hidden_act="gelu"
        ),
        "Hugging Face: an activation that is a list": hugging_face("hidden_act is", hidden_act=["relu"]),
        "Hugging Face: a first stage that strides": hugging_face(
            "downsample_in_first_stage is true; refnet does not have", downsample_in_first_stage=True
        ),
        "Hugging Face: a flag in words": hugging_face(
            "downsample_in_bottleneck is 'no'; it is true or false", downsample_in_bottleneck="no"
        ),
        "Hugging Face: a flag that is 1": hugging_face(
            "downsample_in_first_stage is 1; it is true or false", downsample_in_first_stage=1
        ),
        "Hugging Face: other depths": hugging_face(
            r"not the configuration of these weights: depths is \[3, 4, 6, 3\], .* \[1, 1\]", depths=[3, 4, 6, 3]
        ),
        "Hugging Face: depths that are a number": hugging_face("depths is 2, but", depths=2),
        "Hugging Face: other sizes": hugging_face("hidden_sizes is", hidden_sizes=[16, 32]),
        "Hugging Face: another unit": hugging_face(
            "layer_type is 'basic', but the tensors have bottleneck", layer_type="basic"
        ),
        "Hugging Face: grey images": hugging_face("num_channels is 1, but the tensors have 3", num_channels=1),
        "Hugging Face: two labels of three": hugging_face(
            "it names 2 labels, but the weights have 3 classes; pass labels=", id2label={"0": "a", "1": "b"}
        ),
        "Hugging Face: a number left out": hugging_face(
            "labels are not numbered from 0 to 2: 3; pass labels=", id2label={"0": "a", "1": "b", "3": "c"}
        ),
        "Hugging Face: a label that is a number": hugging_face("its labels are not underst", id2label=["a", "b", 5]),
        "Hugging Face: labels that are a string": hugging_face("its labels are not understood", id2label="abc"),
        "Hugging Face: a label that is half a surrogate": hugging_face(
            "its labels are not understood", id2label=["a", "b", "\udc00"]
        ),
        "timm: a crop with a border": timm(
            "does not have timm's crop_mode 'border'", "pretrained_cfg", crop_mode="border"
        ),
        "timm: a crop mode that is a list": timm("timm's crop_mode", "pretrained_cfg", crop_mode=["center"]),
        "timm: a squash of a part": timm("crop_mode 'squash' with crop_pct 0.9", "pretrained_cfg", crop_mode="squash"),
        "timm: an oblong crop": timm(
            "crop_mode 'center' .* and 160 x 192 pixels", "pretrained_cfg", input_size=[3, 160, 192]
        ),
        "timm: a size of two numbers": timm("input_size is", "pretrained_cfg", input_size=[224, 224]),
        "timm: a size in words": timm("input_size is '160'", "pretrained_cfg", input_size=[3, "160", "160"]),
        "timm: a size of 400 digits": timm("input_size is", "pretrained_cfg", input_size=[3, 10**400, 10**400]),
        "timm: a fraction of almost nothing": timm("crop_pct is 1e-300", "pretrained_cfg", crop_pct=1e-300),
        "timm: a fraction that is true": timm("crop_pct is True", "pretrained_cfg", crop_pct=True),
        "timm: a resized side of 160 million": timm("refnet does not have", "pretrained_cfg", crop_pct=1e-6),
        "timm: a random filter": timm(
            "interpolation is 'random'; it is one of nearest", "pretrained_cfg", interpolation="random"
        ),
        "timm: four means": timm("mean has 4 values", "pretrained_cfg", mean=[0.5] * 4),
        "timm: means in words": timm("mean is .* a list of numbers", "pretrained_cfg", mean=["0.5"] * 3),
        "timm: a deviation of 0": timm("refnet does not have the preprocessing", "pretrained_cfg", std=[0, 1, 1]),
        "timm: a deviation of 400 digits": timm("preprocessing", "pretrained_cfg", std=[10**400, 1, 1]),
        "timm: a part that is a list": timm(r"pretrained_cfg is \[\]; it is a JSON object", pretrained_cfg=[]),
        "timm: arguments that are a string": timm("model_args is 'x'; it is a JSON object", model_args="x"),
        "timm: an output stride of 8": timm("output_stride=8; refnet has 32 only", "model_args", output_stride=8),
        "timm: another activation": timm("act_layer='gelu'; refnet has 'relu' only", "model_args", act_layer="gelu"),
        "timm: another norm": timm("norm_layer='groupnorm'; refnet has", "model_args", norm_layer="groupnorm"),
        "timm: pools that blur": timm("aa_layer='blurpool'; refnet has None only", "model_args", aa_layer="blurpool"),
        "timm: a maximum for the mean": timm("global_pool is 'max'", "model_args", global_pool="max"),
        "timm: a maximum, in another place": timm("global_pool is 'max'", global_pool="max"),
        "timm: four classes of three": timm("num_classes is 4, but the tensors have 3", num_classes=4),
        "timm: four classes of three, as an argument": timm(
            "num_classes is 4, but the tensors have 3", "model_args", num_classes=4
        ),
        "timm: grey images": timm("in_chans is 1, but the tensors have 3", "model_args", in_chans=1),
        "timm: two labels of three": timm("it names 2 labels, but", label_names=["a", "b"]),
        **{
            f"timm: {name}, whose tensors show nothing": timm(
                f"the architecture '{name}' has pools that smooth", architecture=name
            )
            for name in ("resnetaa50", "resnetblur50d", "resnetaa50d.d_in12k", "resnetaa101d")
        },
        "timm: resnetblur50, in the part alone": timm(
            "'resnetblur50' has pools that smooth", "pretrained_cfg", architecture="resnetblur50"
        ),
    },
    PROCESSOR_NAME: of_any_kind(PROCESSOR_NAME)
    | {
        "an unknown one": processor(
            "the image processor is 'LevitFeatureExtractor', where", feature_extractor_type="LevitFeatureExtractor"
        ),
        "none": processor("the image processor is None", feature_extractor_type=None),
        "one that is a list": processor("the image processor is", feature_extractor_type=["ViTImageProcessor"]),
        "two of two kinds": processor(
            "the image processor is 'LevitImageProcessor', where", image_processor_type="LevitImageProcessor"
        ),
        "a crop": processor("do_center_crop is true, which refnet does not have for ConvNext", do_center_crop=True),
        "a border": processor("do_pad is true", do_pad=True),
        "BGR": processor("do_flip_channel_order is true", do_flip_channel_order=True),
        "another factor": processor("pixels are not divided by 255", rescale_factor=1 / 127.5),
        "a factor in words": processor("rescale_factor is '1/255'", rescale_factor="1/255"),
        "a factor of 400 digits": processor("rescale_factor is", rescale_factor=10**400),
        "no factor": processor("pixels are not divided by 255", do_rescale=False),
        "an unknown filter": processor("resample is 9; it is the number of one of Pillow's filters", resample=9),
        "a filter that is true": processor("resample is True", resample=True),
        "a filter in words": processor("resample is 'bilinear'", resample="bilinear"),
        "a size of one side": processor("size is .*; it is an object of shortest_edge alone", size={"height": 5}),
        "a size of nothing": processor("size is 0; it is a number of pixels", size=0),
        "a negative size": processor("size is -1; it is a number of pixels", size=-1),
        "a size of half a pixel": processor("size is 0.5; it is a number of pixels", size=0.5),
        "no size": processor("size is None; it is a number of pixels", size={}),
        "a longest side beside the shortest": processor(
            "size is .*longest_edge.*; it is", size={"shortest_edge": 224, "longest_edge": 300}
        ),
        "two sizes": processor("size is .*; it is", size={"shortest_edge": 224, "height": 9, "width": 9}),
        "a size and a side": bad(
            "size is .*shortest_edge.*; it is",
            processor={
                "image_processor_type": "ViTImageProcessor",
                "size": {"height": 9, "width": 9, "shortest_edge": 5},
            },
        ),
        "a part larger than the whole": processor("resize_side at least as large", crop_pct=1.5),
        "a part of 0": processor("crop_pct is 0", crop_pct=0),
        "two means": processor("image_mean has 2 values, but the network takes 3 channels", image_mean=[0.5, 0.5]),
        "means in words": processor("image_mean is '0.5'", image_mean="0.5"),
        "deviations of 0": processor("refnet does not have the preprocessing .std is", image_std=[0, 0, 0]),
        "100 million pixels": processor("of your own", size=10_000, crop_pct=1, error=LimitError),
        "a flag in words": processor("do_resize is 'yes'; it is true or false", do_resize="yes"),
        "a crop of what is not resized": bad(
            "cut out of an image that is not resized",
            processor={"image_processor_type": "BitImageProcessor", "do_resize": False, "do_center_crop": True},
        ),
    },
}
