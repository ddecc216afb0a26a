"""Whole networks on CUDA: on a device, or in Numba's simulator, in which `test_simulator.py` runs this file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refnet
from refnet import errors
from refnet_kernels.gpu.arrays import DeviceArray
from refnet_kernels.gpu.device import Device, missing, simulated
from tests.cuda.on_device import Foreign, on_device
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(missing() is not None, reason=f"no CUDA device: {missing()}"),
    # The simulator computes with NumPy's numbers, which warn of what the contract allows.
    pytest.mark.filterwarnings("ignore::RuntimeWarning" if simulated() else "error"),
]

WEIGHTS = lively_weights(blocks=small_blocks(units=1))
BLOCKS = small_blocks(units=1)


@pytest.mark.parametrize(
    "options",
    [{}, {"is_training": True}, {"output_stride": 4, "global_pool": False, "num_classes": None}],
    ids=["inference", "training", "dense"],
)
def test_every_end_point_has_the_bits_of_the_cpu(options: dict[str, Any]) -> None:
    images = random_images(2, 5, 4, 3)
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda", **options)
    net, end_points = engine(images, end_points=True)
    expected, others = refnet.forward(WEIGHTS, images, end_points=True, blocks=BLOCKS, **options)
    assert list(end_points) == list(others)
    for name, value in end_points.items():
        assert digest(value) == digest(others[name]), name
    assert digest(net) == digest(expected)
    # Where only the net is asked for, other values share memory and more is fused.
    assert digest(engine(images)) == digest(expected)


def test_an_engine_of_its_own_weights_serves_any_shape() -> None:
    """Kernels leave the host's memory once they are on the device."""
    own = {name: value.copy() for name, value in WEIGHTS.items()}
    engine = refnet.Engine(own, blocks=BLOCKS, device="cuda")
    for width in (3, 5, 3):
        image = random_images(4, width, 3)
        assert digest(engine(image)) == digest(refnet.forward(WEIGHTS, image, blocks=BLOCKS))


def test_an_empty_batch_gives_empty_logits() -> None:
    images = random_images(0, 5, 4, 3)
    assert refnet.forward(WEIGHTS, images, blocks=BLOCKS, device="cuda").shape == (0, 7)


def test_a_device_that_is_not_there_is_counted() -> None:
    with pytest.raises(errors.DeviceError, match=r"'cuda:99' cannot be used: there are [1-9], counted from 0"):
        refnet.forward(WEIGHTS, random_images(9, 8, 3), blocks=BLOCKS, device="cuda:99")


def test_a_batch_beyond_the_devices_memory_names_the_bytes_and_what_would_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2.0**20)
    with pytest.raises(errors.DeviceError, match=r"need [\d,]+ bytes.*1,048,576 are free, enough for a batch of [1-9]"):
        refnet.forward(WEIGHTS, random_images(64, 64, 64, 3), blocks=BLOCKS, device="cuda")
    monkeypatch.setattr(Device, "free_bytes", lambda _: 2.0**14)
    with pytest.raises(errors.DeviceError, match=r"16,384 are free, too few for one image"):
        refnet.forward(WEIGHTS, random_images(1, 64, 64, 3), blocks=BLOCKS, device="cuda")


def test_the_batch_that_is_said_to_fit_does_and_no_larger_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def needed(batch: int) -> int:
        with pytest.raises(errors.DeviceError) as error:
            refnet.forward(WEIGHTS, random_images(batch, 9, 8, 3), blocks=BLOCKS, device="cuda")
        return int(error.value.expected)

    monkeypatch.setattr(Device, "free_bytes", lambda _: 1.0)
    free = float(needed(3))
    monkeypatch.setattr(Device, "free_bytes", lambda _: free)
    with pytest.raises(errors.DeviceError, match=r"enough for a batch of 3\."):
        refnet.forward(WEIGHTS, random_images(4, 9, 8, 3), blocks=BLOCKS, device="cuda")
    # Only what a plan needs is counted, not what it does.
    monkeypatch.setattr("refnet.run.cuda.CudaExecutor._make_program", no_program)
    with pytest.raises(FitsError):
        refnet.forward(WEIGHTS, random_images(3, 9, 8, 3), blocks=BLOCKS, device="cuda")


class FitsError(Exception):
    pass


def no_program(_: Any) -> None:
    raise FitsError


def test_memory_that_is_gone_meanwhile_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(device: Device, size: int) -> Any:
        raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(Device, "allocate", allocate)
    with pytest.raises(errors.DeviceError, match=r"bytes of the CUDA device.*OUT_OF_MEMORY"):
        refnet.forward(WEIGHTS, random_images(9, 8, 3), blocks=BLOCKS, device="cuda")


def test_images_on_the_device_give_outputs_there_with_the_same_bits() -> None:
    engine = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")
    first, second = random_images(1, 3, 2, 3), random_images(3, 2, 3) / 2
    given = on_device(first)
    found = [engine(images, end_points=["resnet_v2/block1"]) for images in (given, Foreign(on_device(second)))]
    # Each output has its own memory: the second run left those of the first alone, and both the images.
    for images, (net, end_points) in zip((first, second), found, strict=True):
        expected, others = refnet.forward(WEIGHTS, images, end_points=["resnet_v2/block1"], blocks=BLOCKS)
        for here, there in ((expected, net), (others["resnet_v2/block1"], end_points["resnet_v2/block1"])):
            assert isinstance(there, DeviceArray)
            assert there.shape == here.shape
            assert digest(there.copy_to_host()) == digest(here)
    assert digest(given.copy_to_host()) == digest(first)


BAD = {
    "uint8": ({"typestr": "|u1"}, "uint8 images are raw pixels, and these are prepared on the host"),
    "float16": ({"typestr": "<f2"}, "float32, not float16: convert them there"),
    "big-endian": ({"typestr": ">f4"}, "float32, not >f4"),
    "transposed": ({"strides": (240, 12, 60, 4)}, r"strides of \(60, 3, 15, 1\) elements: call .contiguous"),
    "CHW": ({"shape": (2, 3, 5, 4)}, "looks like CHW"),
    "no image": ({"shape": (5, 4)}, r"have shape .*it can be \[H, W, 3\]"),
}


@pytest.mark.parametrize(("facts", "message"), BAD.values(), ids=BAD)
def test_images_on_the_device_that_cannot_be_used(facts: dict[str, Any], message: str) -> None:
    images = Foreign(on_device(random_images(2, 5, 4, 3)), **facts)
    with pytest.raises(errors.InputError, match=message):
        refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda")(images)


def test_numpy_takes_nothing_off_the_device_unasked() -> None:
    with pytest.raises(TypeError, match=r"use .copy_to_host\(\)"):
        np.argmax(on_device(np.zeros(3, np.float32)))


def test_a_batch_without_images_lies_nowhere() -> None:
    images = Foreign(on_device(random_images(0, 5, 4, 3)), data=(0, False))
    assert refnet.forward(WEIGHTS, images, blocks=BLOCKS, device="cuda").shape == (0, 7)


def test_outputs_that_find_no_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, images = refnet.Engine(WEIGHTS, blocks=BLOCKS, device="cuda"), on_device(random_images(2, 5, 4, 3))
    engine._compile(images.shape, False)

    def allocate(device: Device, size: int) -> Any:
        raise MemoryError

    monkeypatch.setattr(Device, "allocate", allocate)
    with pytest.raises(errors.DeviceError, match=r"output of shape \(2, 7\) needs 56 bytes of the CUDA device"):
        engine(images)


@pytest.mark.parametrize("stream", ["mine", True, 1.0])
def test_what_is_no_stream_is_refused(stream: Any) -> None:
    with pytest.raises(errors.ConfigError, match="an object with __cuda_stream__, or the handle"):
        refnet.forward(WEIGHTS, random_images(5, 4, 3), blocks=BLOCKS, device="cuda", stream=stream)
