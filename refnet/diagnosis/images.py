"""Mistakes in the preparation of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from refnet.diagnosis.mistake import Context, Hypothesis, Mend, Mistake
from refnet.diagnosis.pixels import SCALINGS, Float64, Pipeline, Scaling, scaling_of
from refnet.diagnosis.resizing import OF_RECIPES, RESIZES
from refnet.images import pillow
from refnet.images.preprocess import Recipe

Change = Callable[[Pipeline], Pipeline]


def _tried(changes: Callable[[Context], dict[str | None, list[Change]]]) -> Callable[..., Iterator[Hypothesis]]:
    """Hypotheses of the changes of a pipeline, by the mistake's values."""

    def propose(mistake: Mistake, context: Context) -> Iterator[Hypothesis]:
        for value, found in changes(context).items():
            for change in found:
                noise = RESIZES[change.way].noise if isinstance(change, _ResizedBy) else 0.0
                yield Hypothesis(mistake, "pixels", value, pixels=change, noise=noise)

    return propose


def _is_coloured(context: Context) -> bool:
    return bool(context.pipeline.image.shape[-1] == 3)


def _reversed(context: Context) -> dict[str | None, list[Change]]:
    """On the pixels or, where each channel has a mean of its own, perhaps on the scaled values."""
    changes: list[Change] = [
        lambda pipeline: pipeline.then(lambda values: values[..., ::-1], raw=True),
        lambda pipeline: pipeline.then(lambda values: values[..., ::-1]),
    ]
    one_mean = len(set(scaling_of(context.pipeline.recipe).mean)) == 1
    return {None: changes[: 1 if one_mean else 2]} if _is_coloured(context) else {}


def _scaled_by(scaling: Callable[[Float64], Float64]) -> Change:
    return lambda pipeline: replace(pipeline, scaling=scaling)


def _changed_means(change: Callable[[Scaling], list[Scaling]]) -> Callable[[Context], dict[str | None, list[Change]]]:
    """Other scalings, where the recipe has a mean per channel."""

    def changes(context: Context) -> dict[str | None, list[Change]]:
        scaling = scaling_of(context.pipeline.recipe)
        if len(set(scaling.mean)) == 1 or not _is_coloured(context):
            return {}
        return {None: [_scaled_by(other) for other in change(scaling)]}

    return changes


def _means_reversed(scaling: Scaling) -> list[Scaling]:
    means = replace(scaling, mean=scaling.mean[::-1])
    return [means] if len(scaling.std) == 1 else [replace(means, std=scaling.std[::-1]), means]


def _means_scaled(scaling: Scaling) -> list[Scaling]:
    by = 1 / 255 if scaling.factor == 1 else 255.0
    return [replace(scaling, mean=tuple(value * by for value in scaling.mean))]


def _means_rounded(scaling: Scaling) -> list[Scaling]:
    return [replace(scaling, mean=tuple(float(int(value)) for value in scaling.mean))]


def _modes(context: Context) -> dict[str | None, list[Change]]:
    meant = scaling_of(context.pipeline.recipe)
    names = [name for name, scaling in SCALINGS.items() if scaling != meant]
    if not _is_coloured(context):
        names = [name for name in names if len(SCALINGS[name].mean) == 1]
    return {name: [_scaled_by(SCALINGS[name])] for name in names}


def _twice(context: Context) -> dict[str | None, list[Change]]:
    scaling = scaling_of(context.pipeline.recipe)
    return {None: [lambda pipeline: pipeline.then(scaling)]}


def _half_for_one(context: Context) -> dict[str | None, list[Change]]:
    if scaling_of(context.pipeline.recipe) != SCALINGS["inception"]:
        return {}
    return {None: [_scaled_by(Scaling(1 / 127.5, (2.0,)))]}


def _resizes(context: Context) -> dict[str | None, list[Change]]:
    recipe = context.pipeline.recipe
    found: dict[str | None, list[Change]] = {}
    if not context.pipeline.is_raw:
        return found
    meant = OF_RECIPES.get(recipe.interpolation)
    # Of an image whose shorter side is resized, frameworks round the longer one in two ways, and the margins too.
    sized = [recipe.interpolation]
    if recipe.resize_side is not None:
        sized += ["tensorflow1"] if recipe.interpolation in pillow.FILTERS else ["bilinear"]
    for name, way in RESIZES.items():
        for rounding in sized:
            if name != meant:
                found.setdefault(way.value, []).append(_ResizedBy(name, rounding))
            elif rounding != recipe.interpolation:
                found["the same, with sides rounded otherwise"] = [_ResizedBy(name, rounding)]
    return found


@dataclass(frozen=True)
class _ResizedBy:
    """The change to one of `RESIZES`, with the sizes of another interpolation."""

    way: str
    sized: str

    def __call__(self, pipeline: Pipeline) -> Pipeline:
        return replace(pipeline, resize=self.way, recipe=pipeline.recipe._replace(interpolation=self.sized))


def _crops(context: Context) -> dict[str | None, list[Change]]:
    recipe = context.pipeline.recipe
    if not context.pipeline.is_raw or not recipe.height or not recipe.width:
        return {}
    largest = max(recipe.height, recipe.width)
    whole = recipe._replace(central_fraction=1.0, resize_side=None)
    # torchvision's sides are rounded, timm's are cut to whole numbers; most are 256 for 224.
    sides = sorted({round(largest / 0.875), int(largest / 0.875)})
    crops: dict[str | None, list[Recipe]] = {
        "none": [whole],
        "0.875": [whole._replace(central_fraction=0.875)],
        "shorter side": [whole._replace(resize_side=side) for side in sides],
        "shorter side without a margin": [whole._replace(resize_side=largest)],
    }
    return {value: [_cropped_by(crop) for crop in found if crop != recipe] for value, found in crops.items()}


def _cropped_by(crop: Recipe) -> Change:
    return lambda pipeline: replace(pipeline, recipe=crop)


def _transposed(context: Context) -> dict[str | None, list[Change]]:
    return {None: [lambda pipeline: pipeline.then(lambda values: values.transpose(0, 2, 1, 3))]}


def _nhwc_as_nchw(values: Float64) -> Float64:
    batch, height, width, channels = values.shape
    return np.ascontiguousarray(values).reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def _nchw_as_nhwc(values: Float64) -> Float64:
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)).reshape(values.shape)


def _layouts(context: Context) -> dict[str | None, list[Change]]:
    if context.pipeline.image.shape[-1] == 1:
        return {}
    return {
        None: [lambda pipeline: pipeline.then(_nhwc_as_nchw)],
        "NCHW as NHWC": [lambda pipeline: pipeline.then(_nchw_as_nhwc)],
    }


_COLOURS = Mend(
    pytorch='Image.open(path).convert("RGB"); with OpenCV image[:, :, ::-1].copy().',
    keras='preprocess_input of the same model; load_img gives RGB, "caffe" mode turns it to BGR by itself.',
    tensorflow="tf.io.decode_image gives RGB; with OpenCV cv2.cvtColor(image, cv2.COLOR_BGR2RGB).",
    onnx="Feed channels in the order in which the network was trained: RGB, unless the recipe is Caffe's.",
)

_SCALE = Mend(
    pytorch="transforms.Normalize(mean, std) of these weights, after ToTensor, once.",
    keras="preprocess_input of the application that the weights come from, once, on pixels from 0 to 255.",
    tensorflow="TF-Slim's preprocessing of these weights, once: `refnet predict` prints the recipe.",
    onnx="Normalise outside the model or inside, with the mean and std of these weights.",
)

_RESIZE = Mend(
    pytorch="transforms.functional.resize(image, size, interpolation, antialias=...), as the recipe says.",
    keras='keras.utils.load_img(path, target_size, interpolation="bilinear") resizes by Pillow.',
    tensorflow="tf.compat.v1.image.resize_bilinear for TF-Slim's weights; tf.image.resize has other centres.",
    onnx="Resize: coordinate_transformation_mode asymmetric for TensorFlow 1, half_pixel for 2, align_corners never.",
)

_LAYOUT = Mend(
    pytorch="image.permute(2, 0, 1), not reshape or view.",
    keras="Keep channels_last, [N, H, W, C]; numpy.transpose where axes move.",
    tensorflow="tf.transpose(image, [0, 2, 3, 1]), not tf.reshape.",
    onnx="image.transpose(2, 0, 1)[None], not reshape.",
)

MISTAKES = (
    Mistake(
        "channels-reversed",
        "feeds the channels in the reverse order",
        "feed them in the order of the recipe",
        _COLOURS,
        ("classification_models#4", "deep-residual-networks#5", "tensorpack#176"),
        _tried(_reversed),
    ),
    Mistake(
        "mean-reversed",
        "subtracts the means in the reverse order of the channels",
        "subtract each channel's own mean",
        _COLOURS,
        ("keras-frcnn#148", "quiver#62"),
        _tried(_changed_means(_means_reversed)),
    ),
    Mistake(
        "mean-scaled",
        "scales the means otherwise than the pixels, by 255",
        "have both from 0 to 255, or both from 0 to 1",
        _SCALE,
        ("Deeplab-v2--ResNet-101--Tensorflow#30",),
        _tried(_changed_means(_means_scaled)),
    ),
    Mistake(
        "mean-rounded",
        "cuts the means to whole numbers",
        "keep the means as floats",
        _SCALE,
        ("keras-applications#128",),
        _tried(_changed_means(_means_rounded)),
    ),
    Mistake(
        "mode",
        "scales the pixels in the way of {value}",
        "scale them in the way of " + "{mode}",
        _SCALE,
        ("imgclsmob#63", "models#1497", "models#2217"),
        _tried(_modes),
    ),
    Mistake("mode-twice", "scales the pixels twice", "scale them once", _SCALE, (), _tried(_twice)),
    Mistake(
        "half-for-one",
        "subtracts 1.0 before it multiplies by 2",
        "subtract 0.5 from pixels in 0..1, then multiply by 2",
        _SCALE,
        ("keras-inceptionV4#4",),
        _tried(_half_for_one),
    ),
    Mistake(
        "resize",
        "resizes in the way of {value}",
        "resize in the way of {interpolation}",
        _RESIZE,
        ("vision#2950", "vision#6506", "tensorflow-onnx#932", "tensorflow#33691", "mlcommons/inference#201"),
        _tried(_resizes),
    ),
    Mistake(
        "crop",
        "cuts another part out of the image: {value}",
        "cut as the recipe says: {crop}",
        _RESIZE,
        ("mlcommons/inference#201",),
        _tried(_crops),
    ),
    Mistake(
        "axes-swapped",
        "exchanges height and width of the image",
        "keep rows and columns",
        _LAYOUT,
        ("FCN.tensorflow#47",),
        _tried(_transposed),
    ),
    Mistake(
        "layout-reshaped",
        "reshapes the image from one order of axes to the other ({value})",
        "transpose it",
        _LAYOUT,
        ("lpips-tensorflow#2",),
        _tried(_layouts),
    ),
)
