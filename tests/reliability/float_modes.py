"""Floating-point modes of the caller, each with each number of threads: one hash, and the caller's mode restored."""

from __future__ import annotations

import itertools

import numpy as np

import refnet
from refnet_kernels.system.float_mode import contract_mode, describe_mode
from tests.reliability.figures import Row
from tests.support.arrays import digest, random_images
from tests.support.float_modes import DOWN, KNOWN, TOWARD_ZERO, UP, bits_of, float_mode, register
from tests.support.nets import lively_weights, small_blocks

ROUNDINGS = {"to nearest": 0, "down": DOWN, "up": UP, "toward zero": TOWARD_ZERO}


def results(threads: int) -> str:
    """The digest of what is touched by a mode: subnormal products, a network, its training, pixels and new weights."""
    with contract_mode():
        tiny = random_images(1, 24, 24, 64, seed=1) * np.float32(1e-20)
        weights = random_images(3, 3, 64, 32, seed=2) * np.float32(1e-20)
        images = random_images(2, 37, 50, 3)
        pixels = np.arange(20 * 20 * 3, dtype=np.uint8).reshape(20, 20, 3)
        network = refnet.Weights(lively_weights())
    variables = {"Conv/weights": weights, "Conv/biases": np.zeros(32, np.float32)}
    return digest(
        refnet.conv2d_same(tiny, 32, 3, 1, activation_fn=None, variables=variables, threads=threads),
        refnet.forward(network, images, threads=threads),
        refnet.forward(network, images, threads=threads, is_training=True),
        refnet.forward(network, images, threads=threads, dtype="float64"),
        refnet.preprocess(pixels, refnet.Recipe(17, 23)),
        *refnet.random_weights(small_blocks(), num_classes=7, seed=3).values(),
    )


def run(roundings: list[str], threads: tuple[int, ...]) -> list[Row]:
    if not KNOWN:
        return [Row("modes", 1, "how to set one is not known on this machine")]
    rows = []
    for count in threads:
        with contract_mode():
            expected = results(count)
        for rounding, flush, zero in itertools.product(roundings, (False, True), (False, True)):
            with contract_mode(), float_mode(bits_of(ROUNDINGS[rounding], flush, zero)):
                own, name = register(), describe_mode()
                found = results(count)
                assert register() == own, f"{name}: the caller's mode is another one after the call"
            assert found == expected, f"{name}, {count} threads: other bits"
        modes = 4 * len(roundings)
        rows.append(
            Row(f"{count} threads: rounding {', '.join(roundings)}, with and without FTZ and DAZ", modes, "one hash")
        )
    return rows


def short() -> list[Row]:
    # ``tests/refnet/test_float_modes.py`` has more of what is computed.
    return run(["to nearest", "up"], (1, 2))


def long(minutes: float) -> list[Row]:
    return run(list(ROUNDINGS), (1, 2, 4, 8))
