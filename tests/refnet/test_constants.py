"""Whose the variables are, and what becomes of those whose kernels are packed."""

from __future__ import annotations

import numpy as np
import pytest

import refnet
from refnet.errors import WeightsError
from refnet.graph.plan import NormNames
from refnet.run.constants import Constants
from refnet_kernels.catalog import select
from refnet_kernels.contract import BINARY32, BINARY64, Packed, Target
from refnet_kernels.cpu.team import aligned_zeros
from refnet_kernels.target import WIDTH
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights


def variables() -> dict[str, np.ndarray]:
    weights = aligned_zeros(3 * 3 * 5 * 2 * WIDTH, np.float32).reshape(3, 3, 5, 2 * WIDTH)
    weights[...] = np.random.default_rng(0).standard_normal(weights.shape)
    return {"conv/weights": weights, "conv/biases": np.arange(2 * WIDTH, dtype=np.float32)}


def test_what_is_owned_is_let_go_and_its_shape_is_remembered() -> None:
    arrays = variables()
    constants = Constants(arrays, owned=True)
    constants.release("conv/weights")
    assert constants.shape("conv/weights") == constants.shapes["conv/weights"].shape == (3, 3, 5, 2 * WIDTH)
    assert constants.shapes["conv/weights"].strides == (0, 0, 0, 0)
    assert constants.variable("conv/biases") is arrays["conv/biases"]
    with pytest.raises(KeyError, match="conv/weights was released"):
        constants.variable("conv/weights")
    assert set(arrays) == {"conv/weights", "conv/biases"}


def test_what_is_borrowed_stays() -> None:
    arrays = variables()
    constants = Constants(arrays, owned=False)
    constants.release("conv/weights")
    assert constants.variable("conv/weights") is arrays["conv/weights"]


@pytest.mark.parametrize("dtype", [BINARY32, BINARY64], ids=str)
@pytest.mark.parametrize("owned", [False, True])
def test_kernels_are_packed_where_they_lie_if_they_are_owned_and_fit(owned: bool, dtype: np.dtype) -> None:
    arrays, packed = variables() | {"short": np.ones((1, 1, 3, 7), np.float32)}, dict[str, Packed]()
    before = arrays["conv/weights"].copy()
    arrays["short"][0, 0, 1, 2] = np.inf
    weights = {name: arrays[name] for name in ("conv/weights", "short")}
    select("conv", "cpu").prepare(weights, packed, owned, Target(dtype, 2))
    stays = owned and dtype == BINARY32
    assert np.shares_memory(packed["conv/weights"].values, arrays["conv/weights"]) == stays
    assert np.array_equal(arrays["conv/weights"], before) == (not stays)
    width = WIDTH * 4 // dtype.itemsize
    panels = before.reshape(45, -1, width).swapaxes(0, 1)
    assert np.array_equal(packed["conv/weights"].values, panels)
    assert {name: kernel.finite for name, kernel in packed.items()} == {"conv/weights": True, "short": False}
    assert not np.shares_memory(packed["short"].values, arrays["short"])


def test_weights_of_the_callers_are_never_touched() -> None:
    weights = lively_weights()
    before = digest(*weights.values())
    borrowed = refnet.Weights(weights, copy=False)
    image = random_images(32, 32, 3)
    for given in (weights, borrowed):
        engine = refnet.Engine(given)
        first = digest(engine(image))
        # Another shape is traced and planned after the kernels of the first one were packed.
        engine(random_images(33, 40, 3))
        assert digest(engine(image)) == first
        assert digest(*weights.values()) == before


def test_a_variance_that_has_no_square_root_is_named() -> None:
    constants = Constants({"mean": np.zeros(3), "variance": np.array([1, -1, 0]), "beta": np.zeros(3)}, owned=False)
    with pytest.raises(WeightsError, match=r"variance plus epsilon .* in 1 of 3"):
        constants.norm(NormNames("mean", "variance", None, "beta", 1e-5), BINARY32)
