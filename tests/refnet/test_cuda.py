"""Whole networks on CUDA: on a device, or in Numba's simulator, in which `test_cuda_simulator.py` runs this file."""

from __future__ import annotations

from typing import Any

import pytest
from nets import digest, lively_weights, random_images, small_blocks

import refnet
from refnet import errors
from refnet_kernels.gpu.device import Device, missing, simulated

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
    with pytest.raises(errors.DeviceError, match=r"GiB of the CUDA device.*enough for a batch of [1-9]"):
        refnet.forward(WEIGHTS, random_images(64, 64, 64, 3), blocks=BLOCKS, device="cuda")


def test_memory_that_is_gone_meanwhile_is_named_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def allocate(device: Device, size: int) -> Any:
        raise MemoryError("CUDA_ERROR_OUT_OF_MEMORY")

    monkeypatch.setattr(Device, "allocate", allocate)
    with pytest.raises(errors.DeviceError, match=r"GiB of the CUDA device.*OUT_OF_MEMORY"):
        refnet.forward(WEIGHTS, random_images(9, 8, 3), blocks=BLOCKS, device="cuda")
