"""What `Engine` and `forward` accept and refuse."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet.run import backends
from refnet.run.devices import check_dtype
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

WEIGHTS = lively_weights()
IMAGE = random_images(32, 40, 3)


def test_shapes_follow_the_input() -> None:
    assert refnet.forward(WEIGHTS, IMAGE).shape == (7,)
    assert refnet.forward(WEIGHTS, IMAGE[None]).shape == (1, 7)
    assert refnet.forward(WEIGHTS, IMAGE, spatial_squeeze=False).shape == (1, 1, 7)
    assert refnet.forward(WEIGHTS, IMAGE, global_pool=False).shape == (2, 3, 7)
    assert refnet.forward(WEIGHTS, IMAGE, global_pool=False, num_classes=None).shape == (2, 3, 20)
    assert refnet.forward(WEIGHTS, IMAGE, num_classes=None).shape == (1, 1, 20)


def test_the_executor_takes_images_as_they_lie() -> None:
    engine = refnet.Engine(WEIGHTS)
    expected = digest(engine(IMAGE[None]))
    (compiled,) = engine._compiled.values()
    for images in (np.asfortranarray(IMAGE[None]), IMAGE[None, :, ::-1].copy()[:, :, ::-1], IMAGE[None].astype(">f4")):
        assert digest(*compiled.executor.run(images)[0]) == expected


@pytest.mark.parametrize("is_training", [False, True])
def test_an_empty_batch_gives_empty_logits(is_training: bool) -> None:
    net, end_points = refnet.forward(
        WEIGHTS, np.zeros((0, 32, 32, 3), np.float32), end_points=True, is_training=is_training
    )
    assert net.shape == (0, 7)
    assert all(value.shape[0] == 0 for value in end_points.values())


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (7, 3)])
def test_tiny_images_run(size: tuple[int, int]) -> None:
    image = random_images(*size, 3)
    assert digest(refnet.forward(WEIGHTS, image)) == digest(refnet.forward(WEIGHTS, image, device="reference"))


def test_some_end_points_by_name_in_the_order_asked_for() -> None:
    names = ["resnet_v2/block2", "predictions", "resnet_v2/pool1"]
    net, some = refnet.forward(WEIGHTS, IMAGE, end_points=names)
    every = refnet.forward(WEIGHTS, IMAGE, end_points=True)[1]
    assert list(some) == names
    assert digest(*some.values()) == digest(*(every[name] for name in names))
    assert net.shape == (7,)
    assert list(refnet.forward(WEIGHTS, IMAGE, end_points="predictions")[1]) == ["predictions"]


def test_uint8_goes_through_the_recipe_of_the_weights() -> None:
    weights = refnet.Weights(WEIGHTS, recipe=refnet.Recipe(40, 48, 0.875))
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    expected = refnet.forward(WEIGHTS, refnet.preprocess(pixels, refnet.Recipe(40, 48, 0.875)))
    assert digest(refnet.forward(weights, pixels)) == digest(expected)
    with pytest.raises(errors.InputError, match="recipe"):
        refnet.forward(WEIGHTS, pixels)


@pytest.mark.parametrize("dtype", ["float64", np.float64, np.dtype("float64"), float])
def test_float64_takes_and_gives_float64(dtype: Any) -> None:
    images = np.random.default_rng(0).uniform(-1, 1, (2, 30, 31, 3))
    engine = refnet.Engine(WEIGHTS, dtype=dtype)
    net, end_points = engine(images, end_points=True)
    assert {value.dtype for value in (net, *end_points.values())} == {np.dtype("float64")}
    single = images.astype(np.float32)
    assert digest(net) != digest(engine(single))
    assert digest(engine(single)) == digest(engine(single.astype(np.float64)))
    # The roundings of float32 and no more lie between the two; the bounds are in tests/slim.
    assert 0 < np.abs(engine(single) - refnet.forward(WEIGHTS, single)).max() < 1e-4


def test_raw_pixels_are_preprocessed_in_float32_and_widened() -> None:
    recipe = refnet.Recipe(40, 48, 0.875)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    engine = refnet.Engine(refnet.Weights(WEIGHTS, recipe=recipe), dtype="float64")
    assert digest(engine(pixels)) == digest(engine(refnet.preprocess(pixels, recipe).astype(np.float64)))


def test_an_engine_keeps_a_bounded_number_of_plans() -> None:
    engine = refnet.Engine(WEIGHTS)
    for width in range(8, 30):
        engine(random_images(8, width, 3))
    assert len(engine._compiled) == refnet.engine.KEPT_PLANS


def test_unnormalised_floats_are_said() -> None:
    with pytest.warns(UserWarning, match="taken as normalised"):
        refnet.forward(WEIGHTS, IMAGE * 127 + 127)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refnet.forward(WEIGHTS, IMAGE)


@pytest.mark.parametrize("shape", [(), (4, 3), (4, 4, 3), (1, 4, 4, 3, 1)])
def test_functions_on_arrays_take_batches_of_images_alone(shape: tuple[int, ...]) -> None:
    for function, rest in ((refnet.subsample, [2]), (refnet.conv2d_same, [8, 3, 2]), (refnet.resnet_v2_50, [])):
        with pytest.raises(errors.InputError, match=r"takes images of shape \[N, H, W, C\], not \("):
            function(np.zeros(shape, np.float32), *rest)


def test_a_batch_beyond_the_machines_memory_names_the_bytes() -> None:
    images = np.broadcast_to(np.float32(0), (1, 60_000, 60_000, 3))
    with pytest.raises(errors.InputError, match="GiB"):
        refnet.forward(WEIGHTS, images)


BAD_OPTIONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "stride no multiple of 4": ({"output_stride": 6}, errors.ConfigError, "needs to be a multiple of 4"),
    "stride too large": ({"output_stride": 64}, errors.ConfigError, "cannot be reached"),
    "stride between": ({"output_stride": 12}, errors.ConfigError, "cannot be reached"),
    "stride 0": ({"output_stride": 0}, errors.ConfigError, "cannot be reached"),
    "stride negative": ({"output_stride": -4}, errors.ConfigError, "cannot be reached"),
    "stride text": ({"output_stride": "8"}, errors.ConfigError, "'8'"),
    "squeeze dense logits": ({"global_pool": False, "spatial_squeeze": True}, errors.ConfigError, "spatial_squeeze=F"),
    "classes": ({"num_classes": 8}, errors.ConfigError, "weights have 7"),
    "end point": ({"end_points": ["resnet_v2/conv9"]}, errors.ConfigError, "resnet_v2/conv1"),
    "activation": ({"activation_fn": "gelu"}, errors.ConfigError, "'gelu'"),
    "epsilon": ({"batch_norm_epsilon": -1}, errors.ConfigError, "epsilon"),
    "epsilon NaN": ({"batch_norm_epsilon": float("nan")}, errors.ConfigError, "epsilon"),
    "threads 0": ({"threads": 0}, errors.ConfigError, "threads"),
    "threads -1": ({"threads": -1}, errors.ConfigError, "threads"),
    "threads text": ({"threads": "a"}, errors.ConfigError, "threads"),
    "threads million": ({"threads": 10**6}, errors.ConfigError, "threads"),
    "cuda:99": ({"device": "cuda:99"}, errors.DeviceError, "CUDA device 'cuda:99' cannot be used"),
    "cuda:x": ({"device": "cuda:x"}, errors.DeviceError, "'cuda:x'"),
    "unknown device": ({"device": "tpu"}, errors.DeviceError, "'tpu'"),
    "float16": ({"dtype": "float16"}, errors.ConfigError, "'float16'; it can be 'float32' or 'float64'"),
    "big-endian": ({"dtype": ">f8"}, errors.ConfigError, "'>f8'"),
    "no dtype": ({"dtype": None}, errors.ConfigError, "dtype is None"),
    "unknown dtype": ({"dtype": "double precision"}, errors.ConfigError, "'double precision'"),
    "scope": ({"scope": "other"}, errors.ConfigError, "no network below scope 'other'"),
    "wider blocks": ({"blocks": small_blocks(base_depth=4)}, errors.ShapeMismatchError, "should have shape"),
    "more units": ({"blocks": small_blocks(units=3)}, errors.MissingTensorError, "unit_3"),
    "biases for batch norm": ({"use_batch_norm": False}, errors.MissingTensorError, "conv1/biases"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name: str) -> None:
    options, error, message = BAD_OPTIONS[name]
    with pytest.raises(error, match=message):
        refnet.forward(WEIGHTS, IMAGE, **options)


def test_a_stride_in_words_without_the_root_block() -> None:
    weights = lively_weights(include_root_block=False, channels=3)
    with pytest.raises(errors.ConfigError, match="'8'"):
        refnet.forward(weights, IMAGE, include_root_block=False, output_stride="8")


def test_a_thousand_classes_against_a_thousand_and_one() -> None:
    weights = lively_weights(num_classes=1001)
    with pytest.raises(errors.ConfigError, match="background"):
        refnet.forward(weights, IMAGE, num_classes=1000)


def test_all_problems_with_the_weights_at_once() -> None:
    weights = lively_weights()
    del weights["resnet_v2/conv1/biases"], weights["resnet_v2/postnorm/beta"]
    weights["resnet_v2/logits/biases"] = np.zeros(8, np.float32)
    with pytest.raises(errors.MissingTensorError) as caught:
        refnet.forward(weights, IMAGE)
    for part in ("2 of the network's tensors", "conv1/biases", "postnorm/beta", "logits/biases", "(7,)", "(8,)"):
        assert part in str(caught.value)
    assert caught.value.tensor == "resnet_v2/conv1/biases"


@pytest.mark.parametrize("leaf", ["block2/unit_1/bottleneck_v2/conv2", "block1/unit_1/bottleneck_v2/conv1"])
def test_an_oihw_kernel_is_recognised(leaf: str) -> None:
    weights = lively_weights()
    name = f"resnet_v2/{leaf}/weights"
    weights[name] = weights[name].transpose(3, 2, 0, 1)
    with pytest.raises(errors.ShapeMismatchError, match="OIHW"):
        refnet.forward(weights, IMAGE)


@pytest.mark.parametrize(("variance", "epsilon"), [(-1.0, 1e-5), (0.0, 0.0)])
def test_a_variance_without_a_root(variance: float, epsilon: float) -> None:
    weights = lively_weights()
    weights["resnet_v2/postnorm/moving_variance"][3] = variance
    with pytest.raises(errors.WeightsError, match=r"postnorm/moving_variance.*1 of 20"):
        refnet.forward(weights, IMAGE, batch_norm_epsilon=epsilon)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2], "not list"),
        ({}, "not the weights of a ResNet"),
        ({3: np.zeros(1)}, "names of weights are strings"),
        ({**WEIGHTS, "resnet_v2/conv1/biases": "abc"}, "must be an array of numbers"),
        ({**WEIGHTS, "resnet_v2/conv1/biases": np.zeros(64, np.int8)}, "int8"),
        ({**WEIGHTS, "resnet_v2/conv1/biases": np.zeros(64, complex)}, "complex"),
    ],
    ids=str,
)
def test_mappings_that_are_no_weights(weights: Any, message: str) -> None:
    with pytest.raises(errors.WeightsError, match=message):
        refnet.forward(weights, IMAGE)


def test_weights_without_a_root_block_say_so() -> None:
    weights = lively_weights(include_root_block=False, channels=5)
    with pytest.raises(errors.WeightsError, match="include_root_block=False"):
        refnet.forward(weights, IMAGE)
    assert refnet.forward(weights, random_images(9, 9, 5), include_root_block=False).shape == (7,)


def test_functions_on_arrays_compose_to_the_network() -> None:
    """Unit by unit by hand, the way TF-Slim's source reads."""
    scope = "resnet_v2"
    _, end_points = refnet.forward(WEIGHTS, IMAGE[None], end_points=True, num_classes=None, global_pool=False)
    root = refnet.conv2d_same(IMAGE[None], 64, 7, 2, scope=f"{scope}/conv1", activation_fn=None, variables=WEIGHTS)
    assert digest(root) == digest(end_points[f"{scope}/conv1"])
    unit = refnet.bottleneck(
        end_points[f"{scope}/pool1"], depth=12, depth_bottleneck=3, stride=1,
        scope=f"{scope}/block1/unit_1/bottleneck_v2", variables=WEIGHTS,
    )  # fmt: skip
    assert digest(unit) == digest(end_points[f"{scope}/block1/unit_1/bottleneck_v2"])
    below = {name.removeprefix(f"{scope}/"): value for name, value in WEIGHTS.items()}
    stacked = refnet.stack_blocks_dense(net=end_points[f"{scope}/pool1"], blocks=small_blocks(), variables=below)
    assert digest(stacked) == digest(end_points[f"{scope}/block3"])
    assert digest(refnet.subsample(stacked, 2)) == digest(stacked[:, ::2, ::2])
    whole, points = refnet.resnet_v2(IMAGE[None], small_blocks(), 7, variables=WEIGHTS, device="reference")
    assert digest(whole) == digest(refnet.forward(WEIGHTS, IMAGE[None]))
    assert "predictions" in points
    double = refnet.subsample(stacked.astype(np.float64) / 3, 2, dtype="float64")
    assert digest(double) == digest((stacked.astype(np.float64) / 3)[:, ::2, ::2])


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "mapping"])
@pytest.mark.parametrize("base_depth", [5, 64])
def test_an_engine_of_its_own_weights_serves_any_shape(tmp_path: Path, suffix: str, base_depth: int) -> None:
    """Such an engine gives its kernels up once they are packed, some where they lie, and never the caller's."""
    weights = lively_weights(blocks=[refnet.resnet_v2_block("block1", base_depth, 1, 1)])
    own = {name: value.copy() for name, value in weights.items()}
    path = tmp_path / f"w.{suffix}"
    if suffix != "mapping":
        refnet.save_weights(path, weights)
    engine = refnet.Engine(own if suffix == "mapping" else path)
    for width in (20, 30, 20):
        image = random_images(9, width, 3)
        assert digest(engine(image)) == digest(refnet.forward(weights, image, device="reference"))
    assert all(np.array_equal(own[name], weights[name]) for name in own)


def test_cuda_does_not_compute_in_float64() -> None:
    with pytest.raises(errors.DeviceError, match="float32"):
        check_dtype("float64", "cuda:1")
    assert check_dtype("float32", "cuda:1") == np.float32


class Tensor:
    """A tensor of another library on the CPU, as PyTorch's presents itself."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def test_a_tensor_of_another_library_on_the_cpu_is_an_array() -> None:
    assert digest(refnet.forward(WEIGHTS, Tensor(IMAGE))) == digest(refnet.forward(WEIGHTS, IMAGE))


def test_streams_are_for_cuda() -> None:
    with pytest.raises(errors.ConfigError, match="the device 'reference' has none; streams are for 'cuda'"):
        refnet.forward(WEIGHTS, IMAGE, device="reference", stream=1)


def test_end_points_by_the_last_parts_of_their_names() -> None:
    weights = refnet.Weights(lively_weights())
    image = np.random.default_rng(0).uniform(-1, 1, (17, 17, 3)).astype(np.float32)
    _, every = refnet.forward(weights, image, end_points=True)
    _, found = refnet.forward(weights, image, end_points=["block1", "block1/unit_1/bottleneck_v2/conv1", "predictions"])
    assert list(found) == ["block1", "block1/unit_1/bottleneck_v2/conv1", "predictions"]
    assert np.array_equal(found["block1"], every["resnet_v2/block1"])
    assert np.array_equal(
        found["block1/unit_1/bottleneck_v2/conv1"], every["resnet_v2/block1/unit_1/bottleneck_v2/conv1"]
    )
    with pytest.raises(errors.ConfigError, match=r"5 end points end in .conv2.: .*Give more of the name"):
        refnet.forward(weights, image, end_points=["conv2"])
    with pytest.raises(errors.ConfigError, match=r"no end point resnet_v2/blok1. Did you mean resnet_v2/block1"):
        refnet.forward(weights, image, end_points=["resnet_v2/blok1"])
    with pytest.raises(errors.ConfigError, match=r"There are \d+: resnet_v2/conv1, .* and \d+ more\.$"):
        refnet.forward(weights, image, end_points=["x" * 10_000])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_softmax_has_the_bits_of_predictions(dtype: type) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 9, (3, 5, 7)).astype(dtype)
    found = refnet.softmax(logits)
    assert found.shape == logits.shape
    assert found.dtype == (np.float64 if dtype is np.float64 else np.float32)
    wide = logits.astype(np.longdouble)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    expected = powers / powers.sum(-1, keepdims=True)
    # The differences of the logits are rounded, then the powers, their sum and the quotient; at last the result.
    units = np.ptp(wide, -1, keepdims=True) + 4 + logits.shape[-1] / 2 + 1
    assert (np.abs(found - expected) <= expected * units * 2.0**-52 + np.spacing(expected.astype(found.dtype))).all()
    assert np.array_equal(refnet.softmax(logits[1, 2]), found[1, 2])
    assert np.array_equal(refnet.softmax(logits, device="reference"), found)
    assert refnet.softmax(logits[:0]).shape == (0, 5, 7)
    weights, image = refnet.Weights(lively_weights()), rng.uniform(-1, 1, (17, 17, 3)).astype(np.float32)
    net, end_points = refnet.forward(weights, image, end_points=["predictions"])
    assert np.array_equal(refnet.softmax(net), end_points["predictions"])


def test_a_system_without_the_compiled_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows."""
    weights, image = refnet.Weights(lively_weights()), np.zeros((9, 9, 3), np.float32)
    expected = refnet.forward(weights, image)
    monkeypatch.setattr(backends, "_IS_POSIX", False)
    with pytest.raises(errors.DeviceError, match=r"need Linux; on Windows refnet runs in WSL\. device='reference'"):
        refnet.forward(weights, image, dtype="float64")
    assert np.array_equal(refnet.forward(weights, image, device="reference"), expected)
