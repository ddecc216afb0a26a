"""Seeded images, and weights in which every variable does something: the same bits on every machine.

Random bits come from Philox, a generator of integer operations. After that come only exact products with powers of two,
and single sums and products, for which IEEE-754 knows one result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from refnet.checks import seed_of, shape_of
from refnet.network.networks import BY_UNIT
from refnet.network.seeded_bits import random_bits
from refnet.resources import check_room, for_images, for_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.float_mode import contract_mode


@for_images
@contract_mode()
def random_images(shape: Sequence[int], seed: int = 0) -> Float32Array:
    """Normalised pixels, uniform in [-1, 1).

    Parameters
    ----------
    shape : sequence of int
        [H, W, C] or [N, H, W, C].
    seed : int

    Returns
    -------
    float32 array

    Raises
    ------
    InputError, ConfigError
        The shape or the seed cannot be one.

    Examples
    --------
    >>> import refnet
    >>> refnet.seeded.random_images((1, 1, 2, 3), seed=1)
    array([[[[-0.01492393, -0.5264026 , -0.19725478],
             [ 0.95025027, -0.3229344 ,  0.91220653]]]], dtype=float32)
    """
    shape, seed = shape_of(shape), seed_of(seed)
    # The random bits, two arrays of binary64, and the result.
    each = 28 * math.prod(shape[1:])
    check_room(each, f"Drawing images of shape {shape}", shape[0] if shape else 1)
    return _uniform(shape, "images", seed).astype(np.float32)


#: The ends of the names of units' last convolutions.
_LAST = ("conv3", *(f"/{name}/{family.last}" for name, family in BY_UNIT.items()))


@for_weights
@contract_mode()
def lively_weights(weights: Mapping[str, Float32Array], seed: int = 0) -> Weights:
    """The weights with batch norms and biases that change the values, and residuals that stay small.

    In untrained weights beta, means and biases are 0, gamma and variances are 1, and the values grow by a factor in
    each unit. Here gamma and variances are uniform in [0.5, 1.5), the others in [-0.25, 0.25), and the last kernel of
    each unit is multiplied by a quarter, which keeps the logits of 200 layers below 100. Each convolution also has
    biases, for networks without batch norm; beside a batch norm they are not added, unless the caller's options say so.

    Parameters
    ----------
    weights : mapping of str to float32 array
        As `refnet.random_weights` draws them.
    seed : int

    Raises
    ------
    WeightsError, ConfigError
        The weights cannot be used, or the seed cannot be one.

    Examples
    --------
    >>> import refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10)
    >>> weights["resnet_v2/postnorm/gamma"][:2]
    array([1., 1.], dtype=float32)
    >>> refnet.seeded.lively_weights(weights)["resnet_v2/postnorm/gamma"][:2]
    array([1.3237625, 1.056462 ], dtype=float32)
    """
    seed = seed_of(seed)
    tensors: dict[str, Float32Array] = {}
    for name, value in (weights if isinstance(weights, Weights) else Weights(weights)).items():
        scope, _, leaf = name.rpartition("/")
        if leaf == "weights":
            biases = f"{name.removesuffix('weights')}biases"
            tensors[name] = value * np.float32(0.25) if scope.endswith(_LAST) else value
            tensors[biases] = _small(biases, value.shape[-1:], seed)
        elif leaf in ("gamma", "moving_variance"):
            tensors[name] = (1 + _uniform(value.shape, name, seed) / 2).astype(np.float32)
        else:
            tensors[name] = _small(name, value.shape, seed)
    options = {"bias_before_batch_norm": False}
    return Weights(tensors, options=options, source=f"lively_weights(seed={seed})", copy=False)


def _small(name: str, shape: Sequence[int], seed: int) -> Float32Array:
    return (_uniform(shape, name, seed) / 4).astype(np.float32)


def _uniform(shape: Sequence[int], name: str, seed: int) -> np.ndarray:
    """Multiples of 2**-23 in [-1, 1), which binary32 holds exactly."""
    bits = random_bits(name, int(np.prod(shape)), seed)
    numbers: np.ndarray = ((bits >> np.uint64(40)).astype(np.float64) * 2.0**-23 - 1).reshape(tuple(shape))
    return numbers
