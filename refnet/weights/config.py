"""What the files of configuration beside weights say: Hugging Face's, and timm's on Hugging Face's hub.

``config.json`` has the names of the classes, what the tensors do not tell about the network, and for timm the
preprocessing, which Hugging Face has in ``preprocessor_config.json``. What would change the result and is not
understood is an error, which names the file; what may change it is a doubt.

Sources: timm's ``models/_hub.py`` and ``data/config.py``; transformers' ``models/resnet/configuration_resnet.py`` and
``models/bit/configuration_bit.py``, and the image processors of ConvNext, BiT and ViT.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from refnet.checks import labels_of, listed, shown
from refnet.errors import ConfigError, FormatError
from refnet.files import json_object, read_small
from refnet.graph.graph import Graph
from refnet.images import pillow
from refnet.images.preprocess import MAX_SIDE, Recipe, check_recipe
from refnet.network.architecture import Architecture
from refnet.weights.formats.loaded import naming
from refnet.weights.homes import bit, hugging_face

CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"

#: The names of 21,843 classes, twice, take 1.5 MB.
_MAX_BYTES = 4 << 20

Json = Mapping[str, Any]


class Network(NamedTuple):
    """What the tensors show, to which a configuration must fit.

    Attributes
    ----------
    architecture : Architecture
    home : str
        The title of the tensors' home, or "" where a graph takes its place.
    grouped : bool
        Whether it has group norm.
    """

    architecture: Architecture
    home: str
    grouped: bool


class Config(NamedTuple):
    """What the files say.

    Attributes
    ----------
    recipe : Recipe or None
    recipe_from : str
        The name of the file that the recipe is from.
    labels : tuple of str or None
    options : dict of str to Any
        As in `refnet.Weights`.
    tells : bool
        Whether the network's own configuration was there.
    doubts : list of str
        What was not understood, and may change the result, in sentences.
    """

    recipe: Recipe | None = None
    recipe_from: str = ""
    labels: tuple[str, ...] | None = None
    options: Json = MappingProxyType({})
    tells: bool = False
    doubts: tuple[str, ...] = ()


def beside(
    directory: str,
    graph: Graph,
    architecture: Architecture,
    home: str,
    *,
    with_recipe: bool = True,
    with_labels: bool = True,
) -> Config:
    """What the files of configuration in a directory say about the weights there.

    Parameters
    ----------
    directory : str
    graph : Graph
        Of the tensors.
    architecture : Architecture
    home : str
        The title of the tensors' home, or "" where a graph takes its place.
    with_recipe, with_labels : bool
        False: the caller knows better, so nothing about them is an error.

    Returns
    -------
    Config

    Raises
    ------
    FormatError, LimitError
        A file is not what it should be, contradicts the tensors, or describes what refnet does not have.
    PermissionError
        As the system raises it.
    """
    architecture = architecture if with_labels else architecture._replace(num_classes=None)
    network = Network(architecture, home, graph.grouped)
    found = Config()
    path = os.path.join(directory, CONFIG)
    if os.path.exists(path):
        with naming(path):
            content = _read(path)
            kind = next((kind for kind in _KINDS if kind.fits(content)), None)
            if kind is None:
                found = Config(doubts=(f"{CONFIG} is of no kind that refnet knows, and was not used",))
            else:
                found = kind.read(content, network)
                if with_recipe and kind.recipe is not None:
                    found = found._replace(recipe=kind.recipe(content, network), recipe_from=CONFIG)
                if with_labels and architecture.num_classes is not None:
                    found = found._replace(labels=_checked_labels(kind.labels(content), architecture.num_classes))
    path = os.path.join(directory, PREPROCESSOR)
    if with_recipe and found.recipe is None and os.path.exists(path):
        with naming(path):
            recipe, doubts = _processor(_read(path), architecture.channels)
            found = found._replace(recipe=recipe, recipe_from=PREPROCESSOR, doubts=found.doubts + doubts)
    return found


def _read(path: str) -> Json:
    return json_object(read_small(path, _MAX_BYTES), "content")


class _Kind(NamedTuple):
    """A kind of ``config.json``: how it is recognised, and what is read from it."""

    fits: Callable[[Json], bool]
    read: Callable[[Json, Network], Config]
    labels: Callable[[Json], Any]
    recipe: Callable[[Json, Network], Recipe] | None


# Values, each with an error that names its key.


def _wrong(key: str, value: object, wanted: str) -> FormatError:
    return FormatError(f"{key} is {shown(value)}; it is {wanted}.", found=value)


def _unknown(what: str, found: object) -> FormatError:
    return FormatError(f"{what}; pass a recipe of your own (recipe=, --recipe).", found=found)


def _number(content: Json, key: str, default: float) -> float:
    value = content.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1e-6 <= value <= 1e6:
        raise _wrong(key, value, "a number from 0.000001 to 1,000,000")
    return float(value)


def _flag(content: Json, key: str, default: bool) -> bool:
    value = content.get(key)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return value


def _size(value: object, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIDE:
        raise _wrong(key, value, f"a number of pixels from 1 to {MAX_SIDE:,}")
    return value


def _dict(content: Json, key: str) -> Json:
    value = content.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(key, value, "a JSON object")
    return value


def _values(content: Json, key: str, default: float | tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One value per channel; one for all of them stands for so many."""
    value = content.get(key)
    given = default if value is None else value
    values = list(given) if isinstance(given, list | tuple) else [given]
    if any(isinstance(entry, bool) or not isinstance(entry, int | float) for entry in values):
        raise _wrong(key, value, "a list of numbers")
    values = values * channels if len(values) == 1 else values
    if len(values) != channels:
        raise _unknown(f"{key} has {len(values)} values, but the network takes {channels} channels", value)
    return tuple(values)


def _check_contradictions(content: Json, shown_by_tensors: Json) -> None:
    """Refuse the configuration of another network; None is not shown by the tensors, or not said."""
    for key, found in shown_by_tensors.items():
        if found is not None and content.get(key) not in (None, found):
            raise FormatError(
                f"it is not the configuration of these weights: {key} is {shown(content[key])}, but the tensors have "
                f"{found}.",
                expected=found,
                found=content[key],
            )


def _recipe(**fields: Any) -> Recipe:
    try:
        return check_recipe(Recipe(central_fraction=1.0, mode="torch", **fields))
    except ConfigError as error:
        raise _unknown(f"refnet does not have the preprocessing ({error.message})", error.found) from error


def _checked_labels(labels: Any, num_classes: int) -> tuple[str, ...] | None:
    """The names of the classes, in order; None if there are none."""
    if isinstance(labels, dict):
        numbers = {str(number) for number in range(len(labels))}
        if labels.keys() != numbers:
            odd = sorted(labels.keys() - numbers)
            raise FormatError(f"its labels are not numbered from 0 to {len(labels) - 1}: {listed(odd)}; pass labels=.")
        labels = [labels[str(number)] for number in range(len(labels))]
    if not labels:
        return None
    try:
        checked = labels_of(labels)
    except ConfigError as error:
        raise FormatError(f"its labels are not understood: {error.message}") from error
    if len(checked) != num_classes:
        raise FormatError(
            f"it names {len(checked)} labels, but the weights have {num_classes} classes; pass labels=.",
            expected=num_classes,
            found=len(checked),
        )
    # What transformers writes where nobody gave names.
    return None if all(label == f"LABEL_{number}" for number, label in enumerate(checked)) else checked


# timm.

#: Names of timm's networks that have the tensors of refnet's, and their function.
_TIMM_KNOWN = re.compile(
    r"(tv_|gluon_|ssl_|swsl_|wide_)?resnet(v2_)?[0-9]+[cdst]?(_2|_v1[bcds]|_gap|_mlp)?(\.[\w.-]+)?\Z"
)
#: Names of its networks with group norm: BiT in all spellings, and the variant d.
_TIMM_BIT = re.compile(r"resnetv2_[0-9]+x[0-9]+_bit(m|m_in21k|_distilled|_teacher|_teacher_384)?(\.[\w.-]+)?\Z")
_TIMM_GROUPED = re.compile(r"resnetv2_[0-9]+d_gn(\.[\w.-]+)?\Z")
#: Names of networks with pools that smooth, of which their tensors show nothing.
_TIMM_SMOOTHED = re.compile(r"(resnet|ecaresnet|seresnet)(aa|blur)")
#: Arguments of a model that change nothing in evaluation, or only what the tensors show.
_TIMM_FREE = frozenset([
    "num_classes", "in_chans", "global_pool", "img_size", "drop_rate", "drop_path_rate", "drop_block_rate",
    "proj_drop_rate", "zero_init_last", "scriptable", "exportable", "no_jit", "pretrained", "checkpoint_path",
    "channels", "layers", "width_factor", "stem_chs", "stem_width", "stem_type", "base_width",
    "block_reduce_first", "down_kernel_size", "avg_down",
])  # fmt: skip
#: Arguments that change the function, and the only values that refnet has.
_TIMM_FIXED: dict[str, tuple[object, ...]] = {
    "output_stride": (32, None),
    "act_layer": ("relu", "ReLU", None),
    "norm_layer": ("batchnorm", "BatchNorm2d", "batchnorm2d", None),
    "aa_layer": (None, ""),
    "cardinality": (1, None),
    "attn_layer": (None, ""),
    "replace_stem_pool": (False, None),
}


def _is_timm(content: Json) -> bool:
    return "pretrained_cfg" in content or ("architecture" in content and "model_type" not in content)


def _timm_cfg(content: Json) -> Json:
    """The part on the weights; older files have no part."""
    return _dict(content, "pretrained_cfg") if "pretrained_cfg" in content else content


def _timm_read(content: Json, network: Network) -> Config:
    name, arguments = content.get("architecture"), _dict(content, "model_args")
    for known in (name, _timm_cfg(content).get("architecture")):
        if isinstance(known, str) and _TIMM_SMOOTHED.match(known):
            what = f"the architecture {known!r} has pools that smooth, which refnet does not have."
            raise FormatError(what, found=known)
    shown_by_tensors = {"num_classes": network.architecture.num_classes, "in_chans": network.architecture.channels}
    for place in (content, arguments):
        _check_contradictions(place, shown_by_tensors)
    doubts = []
    if isinstance(name, str) and (kind := next((kind for kind in _TIMM_NORMS if kind.names.match(name)), None)):
        _check_norm(name, kind, network)
    else:
        doubts.append(
            f"{CONFIG} names the architecture {shown(name)}, which refnet does not know: is it another function?"
        )
    for place in (content, arguments):
        if place.get("global_pool") not in (None, "avg"):
            raise _wrong("global_pool", place["global_pool"], '"avg" in the networks that refnet has')
    for key, value in arguments.items():
        if key in _TIMM_FIXED and not any(value is known or value == known for known in _TIMM_FIXED[key]):
            known = _TIMM_FIXED[key][0]
            raise FormatError(f"the network has {key}={shown(value)}; refnet has {known!r} only.", found=value)
    stem = arguments.get("stem_type")
    if isinstance(stem, str) and ("fixed" in stem or "same" in stem):
        raise FormatError(f"the network has stem_type={shown(stem)}; refnet has such a stem in BiT only.", found=stem)
    odd = sorted(arguments.keys() - _TIMM_FREE - _TIMM_FIXED.keys())
    if odd:
        doubts.append(f"{CONFIG} gives arguments of the network that refnet does not know: {listed(odd)}")
    return Config(tells=True, doubts=tuple(doubts))


class _Norm(NamedTuple):
    """What the names of timm's networks say about the norm: in words, whether it is group norm, and of which root."""

    names: re.Pattern[str]
    words: str
    grouped: bool
    deep: bool | None = None


_TIMM_NORMS = (
    _Norm(_TIMM_KNOWN, "batch norm", grouped=False),
    _Norm(_TIMM_BIT, "group norm and standardised kernels", grouped=True, deep=False),
    _Norm(_TIMM_GROUPED, "group norm and a deep stem", grouped=True, deep=True),
)


def _check_norm(name: str, kind: _Norm, network: Network) -> None:
    """Refuse the configuration of a network with another norm, or with another root."""
    deep = network.architecture.root_depths is not None
    if kind.grouped == network.grouped and kind.deep in (None, deep):
        return
    norm = "moving statistics, as with batch norm" if not network.grouped else "no moving statistics"
    raise FormatError(
        f"the architecture {name!r} has {kind.words}, but the tensors are those of a network with {norm}, and with "
        f"{'three convolutions' if deep else 'one convolution'} at the root: are some missing?",
        expected=kind.words,
        found=norm,
    )


def _timm_labels(content: Json) -> Any:
    for place in (content, _timm_cfg(content)):
        found = place.get("label_names") or place.get("labels")
        if found:
            return found
    return None


def _timm_recipe(content: Json, network: Network) -> Recipe:
    """By the rules of ``resolve_data_config`` and ``create_transform``; a value that is missing is timm's default."""
    cfg, channels = _timm_cfg(content), network.architecture.channels
    size = cfg.get("input_size") or [channels, 224, 224]
    if not isinstance(size, list) or len(size) != 3:
        raise _wrong("input_size", size, "a list of channels, height and width")
    height, width = _size(size[1], "input_size"), _size(size[2], "input_size")
    fraction, mode = _number(cfg, "crop_pct", 0.875), cfg.get("crop_mode") or "center"
    interpolation = cfg.get("interpolation") or "bicubic"
    if not isinstance(interpolation, str) or interpolation not in pillow.FILTERS:
        raise _wrong("interpolation", interpolation, f"one of {', '.join(pillow.FILTERS)}")
    resize_side: int | None
    if mode == "center" and height == width:
        resize_side = math.floor(height / fraction)
    elif mode == "squash" and fraction == 1:
        resize_side = None
    else:
        what = f"crop_mode {shown(mode)} with crop_pct {fraction} and {height} x {width} pixels"
        raise _unknown(f"refnet does not have timm's {what}", mode)
    return _recipe(
        height=height,
        width=width,
        resize_side=resize_side,
        interpolation=interpolation,
        mean=_values(cfg, "mean", (0.485, 0.456, 0.406), channels),
        std=_values(cfg, "std", (0.229, 0.224, 0.225), channels),
    )


# Hugging Face.


def _is_hugging_face(content: Json) -> bool:
    return "model_type" in content


def _hugging_face_read(content: Json, network: Network) -> Config:
    found = content["model_type"]
    title, read = _MODEL_TYPES.get(found, ("", _resnet_read)) if isinstance(found, str) else ("", _resnet_read)
    if network.home not in ("", title) or not title:
        whose = f"the tensors are those of {network.home}" if network.home else "the graph is that of a ResNet"
        what = f"describes a network of the model_type {shown(found)}, where {whose}"
        return Config(doubts=(f"{CONFIG} {what}: nothing of it but the labels was used",))
    return read(content, network.architecture)


def _resnet_read(content: Json, architecture: Architecture) -> Config:
    bottleneck = len(architecture.family.kernel_sizes) > 2
    _check_contradictions(content, _shown(architecture, "bottleneck" if bottleneck else "basic"))
    _check_activation(content)
    if _flag(content, "downsample_in_first_stage", False):
        raise FormatError("downsample_in_first_stage is true; refnet does not have a first stage that strides.")
    first = _flag(content, "downsample_in_bottleneck", False) and bottleneck
    return Config(tells=True, options={"stride_place": "first_conv"} if first else {})


def _bit_read(content: Json, architecture: Architecture) -> Config:
    _check_contradictions(content, _shown(architecture, "preactivation"))
    _check_activation(content)
    for key, known in {"num_groups": 32, "width_factor": 1, "global_padding": None}.items():
        value = content.get(key)
        if value is not None and (isinstance(value, bool) or value != known):
            raise FormatError(f"{key} is {shown(value)}; refnet has {known} only.", expected=known, found=value)
    if _flag(content, "embedding_dynamic_padding", False):
        raise FormatError("embedding_dynamic_padding is true; refnet has pool1 in a border of zeros only.", found=True)
    # A stage of transformers that leaves out its stride does not dilate, as refnet's and timm's do.
    nominal = 2 ** (len(architecture.blocks) + 1)
    if _number(content, "output_stride", nominal) < nominal:
        stride = content["output_stride"]
        raise FormatError(
            f"output_stride is {shown(stride)}; refnet does not have stages that leave out their stride and do not "
            f"dilate: it has {nominal} only.",
            expected=nominal,
            found=stride,
        )
    return Config(tells=True)


_MODEL_TYPES: dict[str, tuple[str, Callable[[Json, Architecture], Config]]] = {
    "resnet": (hugging_face.HOME.title, _resnet_read),
    "bit": (bit.HUGGING_FACE.title, _bit_read),
}


def _shown(architecture: Architecture, layer_type: str) -> Json:
    """The keys that the tensors show."""
    return {
        "depths": [len(block.args) for block in architecture.blocks],
        "hidden_sizes": [block.args[-1]["depth"] for block in architecture.blocks],
        "layer_type": layer_type,
        "num_channels": architecture.channels,
    }


def _check_activation(content: Json) -> None:
    activation = content.get("hidden_act")
    if activation not in (None, "relu"):
        raise FormatError(f"hidden_act is {shown(activation)}; refnet has relu only.", found=activation)


_KINDS = (
    _Kind(_is_timm, _timm_read, _timm_labels, _timm_recipe),
    _Kind(_is_hugging_face, _hugging_face_read, lambda content: content.get("id2label"), None),
)


class _Processor(NamedTuple):
    """An image processor: its defaults, and what it makes of an image before it scales the values."""

    size: object
    interpolation: str
    mean: float | tuple[float, ...]
    std: float | tuple[float, ...]
    crops: bool
    geometry: Callable[[Json, Any], Json]


def _edge(size: object) -> int:
    """The shorter side, as number or in an object."""
    sides = _only(size, "size", "shortest_edge") if isinstance(size, dict) else {"shortest_edge": size}
    return _size(sides.get("shortest_edge"), "size")


def _sides(size: object, key: str) -> Json:
    """Height and width, in an object, or one number for both."""
    whole = _only(size, key, "height", "width") if isinstance(size, dict) else {"height": size, "width": size}
    return {side: _size(whole.get(side), key) for side in ("height", "width")}


def _only(size: Json, key: str, *known: str) -> Json:
    """A size, of which nothing else can change the pixels."""
    if any(value is not None and side not in known for side, value in size.items()):
        raise _wrong(key, size, f"an object of {' and '.join(known)} alone")
    return size


def _conv_next(content: Json, size: Any) -> Json:
    """From 384 pixels on the whole image is resized, else the middle is cut out."""
    side = _edge(size)
    resize_side = None if side >= 384 else int(side / _number(content, "crop_pct", 224 / 256))
    return {"height": side, "width": side, "resize_side": resize_side}


def _shortest_edge(content: Json, size: Any) -> Json:
    crops = _flag(content, "do_center_crop", True)
    crop = content.get("crop_size")
    sides = _sides(224 if crop is None else crop, "crop_size") if crops else {"height": None, "width": None}
    return {**sides, "resize_side": _edge(size)}


def _whole(_: Json, size: Any) -> Json:
    return _sides(size, "size")


_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
#: By the beginning of the class' name.
_PROCESSORS = {
    "ConvNext": _Processor({"shortest_edge": 384}, "bicubic", 0.5, 0.5, False, _conv_next),
    "Bit": _Processor({"shortest_edge": 224}, "bicubic", *_CLIP, True, _shortest_edge),
    "ViT": _Processor({"height": 224, "width": 224}, "bilinear", 0.5, 0.5, False, _whole),
}
_PROCESSOR_NAME = re.compile(r"(\w+?)(FeatureExtractor|ImageProcessor)(Fast|Pil)?\Z")
#: Pillow's numbers of its filters.
_RESAMPLE = dict(enumerate(("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")))
#: What a processor's file may hold besides, without a meaning for the pixels.
_PROCESSOR_FREE = frozenset([
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "_processor_class",
    "_valid_processor_keys", "do_convert_rgb", "return_tensors", "data_format", "input_data_format", "device",
    "disable_grouping", "default_to_square", "do_resize", "do_rescale", "do_normalize", "do_center_crop",
    "do_pad", "do_flip_channel_order", "size", "crop_size", "crop_pct", "resample", "rescale_factor",
    "image_mean", "image_std",
])  # fmt: skip


def _processor(content: Json, channels: int) -> tuple[Recipe, tuple[str, ...]]:
    """The recipe of an image processor, and what was not understood."""
    name = content.get("image_processor_type") or content.get("feature_extractor_type")
    match = _PROCESSOR_NAME.match(name) if isinstance(name, str) else None
    processor = _PROCESSORS.get(match[1]) if match else None
    if processor is None:
        known = ", ".join(f"{kind}ImageProcessor" for kind in _PROCESSORS)
        raise _unknown(f"the image processor is {shown(name)}, where refnet has {known}", name)
    for key in ("do_pad", "do_flip_channel_order") + (() if processor.crops else ("do_center_crop",)):
        if _flag(content, key, False):
            raise _unknown(f"{key} is true, which refnet does not have for {name}", True)
    factor = _number(content, "rescale_factor", 1 / 255)
    if not _flag(content, "do_rescale", True) or factor != 1 / 255:
        raise _unknown("pixels are not divided by 255 (do_rescale, rescale_factor)", factor)
    resample = content.get("resample")
    if resample is not None and (type(resample) is not int or resample not in _RESAMPLE):
        raise _wrong("resample", resample, f"the number of one of Pillow's filters, 0 to {max(_RESAMPLE)}")
    size = content.get("size")
    resized = _flag(content, "do_resize", True)
    geometry = processor.geometry(content, processor.size if size is None else size) if resized else _unresized(content)
    normalized = _flag(content, "do_normalize", True)
    recipe = _recipe(
        **{"height": None, "width": None, **geometry},
        interpolation=processor.interpolation if resample is None else _RESAMPLE[resample],
        mean=_values(content if normalized else {}, "image_mean", processor.mean if normalized else 0.0, channels),
        std=_values(content if normalized else {}, "image_std", processor.std if normalized else 1.0, channels),
        crop_offset="down",
    )
    odd = sorted(key for key, value in content.items() if value is not None and key not in _PROCESSOR_FREE)
    return recipe, (f"{PREPROCESSOR} has keys that refnet does not know: {listed(odd)}",) if odd else ()


def _unresized(content: Json) -> Json:
    if _flag(content, "do_center_crop", False):
        raise _unknown("the middle is cut out of an image that is not resized", False)
    return {}
