"""The seeded numbers are the same on every machine: each is held against plain integer or scalar arithmetic."""

from __future__ import annotations

import hashlib
import math
import sys

import numpy as np

import refnet
from refnet.network.seeded_bits import random_bits
from refnet.seeded import lively_weights, random_images
from refnet.weights.initial import _quantiles
from tests.support.nets import small_blocks


def philox_4x64(key: int, count: int) -> list[int]:
    """Philox4x64-10 in Python's integers (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011)."""
    mask = (1 << 64) - 1
    numbers: list[int] = []
    for block in range(1, count // 4 + 2):
        counter, (k0, k1) = [block, 0, 0, 0], (key & mask, key >> 64)
        for _ in range(10):
            first, second = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
            counter = [second >> 64 ^ counter[1] ^ k0, second & mask, first >> 64 ^ counter[3] ^ k1, first & mask]
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
        numbers += counter
    return numbers[:count]


def test_random_bits_are_philox() -> None:
    key = int.from_bytes(hashlib.sha256(b"7/some/name").digest()[:16], "little")
    assert random_bits("some/name", 11, 7).tolist() == philox_4x64(key, 11)


def test_images_are_exact_fractions_of_the_bits() -> None:
    images = random_images((3, 5, 3), seed=2)
    bits = random_bits("images", 45, 2).tolist()
    assert images.ravel().tolist() == [(number >> 40) / 2**23 - 1 for number in bits]
    assert images.shape == (3, 5, 3)


def integral(x: float, smallest: float) -> float:
    """The power series of `refnet.weights`, in Python's binary64; numbers below ``smallest`` are flushed to zero."""
    total, power = 0.0, x
    for n in range(40):
        total = total + power / (2 * n + 1)
        power = power * (x * x) / (-2.0 * (n + 1))
        power = power if abs(power) >= smallest else 0.0
    return total


def quantile(i: int, smallest: float) -> float:
    total = integral(2.0, smallest)
    low, high = -2.0, 2.0
    for _ in range(60):
        middle = (low + high) / 2
        below = integral(middle, smallest) < (i / 4096 * 2 - 1) * total
        low, high = (middle, high) if below else (low, middle)
    return low


def test_quantiles_need_neither_numpy_nor_subnormal_numbers() -> None:
    quantiles = _quantiles()
    for i in range(64, 4096, 64):
        assert quantiles[i] == quantile(i, 0.0) == quantile(i, sys.float_info.min), i


def test_kernels_are_quantiles_rounded_once() -> None:
    name = "resnet_v2/block1/unit_1/bottleneck_v2/conv2/weights"
    kernel = refnet.random_weights(small_blocks(units=1), seed=3)[name]
    deviation = math.sqrt(1.3 * 2.0 / math.prod(kernel.shape[:3]))
    quantiles = _quantiles().tolist()
    for number, bits in zip(kernel.ravel().tolist(), random_bits(name, kernel.size, 3).tolist(), strict=True):
        step, fraction = bits >> 52, ((bits & (2**52 - 1)) + 0.5) * 2.0**-52
        exact = (quantiles[step] + fraction * (quantiles[step + 1] - quantiles[step])) * deviation
        assert number == float(np.float32(exact))


def test_lively_weights_change_every_variable_but_the_kernels() -> None:
    drawn = refnet.random_weights(small_blocks(), num_classes=5)
    lively = lively_weights(drawn)
    for name, value in drawn.items():
        if name.endswith("conv3/weights"):
            assert np.array_equal(lively[name] * 4, value)
        elif name.endswith("/weights"):
            assert np.array_equal(lively[name], value)
        else:
            low, high = (0.5, 1.5) if name.endswith(("gamma", "moving_variance")) else (-0.25, 0.25)
            assert low <= lively[name].min() < lively[name].max() <= high, name
    assert all(f"{name.removesuffix('/weights')}/biases" in lively for name in drawn if name.endswith("/weights"))
