"""Whole networks, launch after launch on the checked device, give the published bits."""

from __future__ import annotations

from pathlib import Path

import pytest

import refnet
from refnet.evidence.digest import digest
from refnet.evidence.selfcheck import Case, cases_of, check, published
from refnet.network.resnet_v2 import NETWORKS
from refnet.seeded import lively_weights, random_images
from refnet_kernels.avg_pool.cuda_kernel import AVG_POOL
from refnet_kernels.group_norm.cuda_kernel import GROUP_NORM
from tests.cuda.checked_device import CheckedDevice, use
from tests.refnet.test_group_norm import IMAGES as GROUP_NORM_IMAGES
from tests.refnet.test_group_norm import run as group_norm_unit
from tests.slim.test_units import lively, small
from tests.support.arrays import assert_same_bits
from tests.support.nets import post_activation_unit, post_activation_weights

SMALL = [case for case in cases_of("cuda") if case.network not in NETWORKS]
PUBLISHED = [case for case in cases_of("cuda") if case.network in NETWORKS]


@pytest.fixture
def device(built: Path, monkeypatch: pytest.MonkeyPatch) -> CheckedDevice:
    device = CheckedDevice(built)
    use(device, monkeypatch)
    return device


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_small_networks(case: Case, device: CheckedDevice) -> None:
    assert check(case, published()["cases"][case.name], device="cuda").differing == []
    assert device.launched


def test_a_deep_stem_and_pooled_shortcuts(device: CheckedDevice) -> None:
    unit = {"depth": 12, "depth_bottleneck": 3, "stride": 1}
    blocks = [
        refnet.Block("block1", refnet.bottleneck, [unit]),
        refnet.Block("block2", refnet.bottleneck, [{**unit, "depth": 20, "stride": 2}]),
    ]
    weights = lively_weights(refnet.random_weights(blocks, 7, root_depths=(3, 4, 8)), 0)
    options = {"blocks": blocks, "avg_down": True, "pool_mode": "torch"}
    images = random_images((2, 33, 38, 3), 1)
    expected, found = (refnet.forward(weights, images, device=name, **options) for name in ("cpu", "cuda"))
    assert digest(found) == digest(expected)
    assert AVG_POOL in device.launched


@pytest.mark.parametrize(("unit", "version"), [("basic", 1), ("basic", 2), ("bottleneck", 2)])
def test_what_the_variables_decide(unit: str, version: int, device: CheckedDevice) -> None:
    """A sum and the next preact after a 3x3 kernel, an activated root, batch norm on images, a pool without pads."""
    variables = lively(small(unit, version), biases=True, folded=True, shortcuts=True, root=True)
    options = {"stride_place": "first_conv", "pool_mode": "valid"}
    images = random_images((2, 33, 38, 3), 1)
    expected, found = (refnet.forward(variables, images, device=name, **options) for name in ("cpu", "cuda"))
    assert digest(found) == digest(expected)


def test_the_relu_of_a_sum(device: CheckedDevice) -> None:
    options = {"variables": post_activation_weights()}
    images = random_images((2, 5, 6, 3), 1)
    for is_training in (False, True):
        expected, found = (
            post_activation_unit(images, device=name, is_training=is_training, **options) for name in ("cpu", "cuda")
        )
        assert digest(found) == digest(expected)


def test_group_norms(device: CheckedDevice) -> None:
    expected, found = (group_norm_unit(GROUP_NORM_IMAGES, name) for name in ("cpu", "cuda"))
    assert_same_bits(found, expected)
    assert GROUP_NORM in device.launched


@pytest.mark.slow
@pytest.mark.parametrize("case", PUBLISHED, ids=lambda case: case.name)
def test_published_networks(case: Case, device: CheckedDevice) -> None:
    device.orders = 2
    assert check(case, published()["cases"][case.name], device="cuda").differing == []


@pytest.mark.parametrize("size", [64, pytest.param(224, marks=pytest.mark.slow)])
def test_resnet_v2_50(size: int, device: CheckedDevice) -> None:
    # 0.3 and 4 thousand million products. One order of threads and blocks: each kernel has its own tests of others.
    device.orders = 1
    weights = lively_weights(refnet.random_weights("resnet_v2_50", seed=0), 0)
    images = random_images((1, size, size, 3), 1)
    expected, found = (refnet.forward(weights, images, device=name) for name in ("cpu", "cuda"))
    assert digest(found) == digest(expected)


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [8, 16])
def test_dense_features_of_resnet_v2_50(output_stride: int, device: CheckedDevice) -> None:
    """The deeper networks repeat these convolutions: with the nominal ones, these are all that there are."""
    device.orders = 1
    weights = lively_weights(refnet.random_weights("resnet_v2_50", seed=0), 0)
    images = random_images((1, 65, 65, 3), 1)
    options = {"output_stride": output_stride, "global_pool": False, "num_classes": None}
    expected, found = (refnet.forward(weights, images, device=name, **options) for name in ("cpu", "cuda"))
    assert digest(found) == digest(expected)
