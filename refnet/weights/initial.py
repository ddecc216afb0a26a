"""Untrained weights from TF-Slim's initialisers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from refnet.checks import as_int, check_bool, check_positive, check_text, seed_of
from refnet.network.architecture import Architecture
from refnet.network.networks import family_of, network_blocks
from refnet.network.resnet_utils import Block, check_blocks, check_depths
from refnet.network.seeded_bits import random_bits
from refnet.resources import for_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.float_mode import contract_mode


@for_weights
@contract_mode()
def random_weights(
    network: str | Sequence[Block],
    num_classes: int | None = 1001,
    seed: int = 0,
    *,
    include_root_block: bool = True,
    channels: int = 3,
    root_depths: Sequence[int] | None = None,
    scope: str | None = None,
) -> Weights:
    """Untrained weights from TF-Slim's initialisers, with the same bits on every machine.

    Kernels are drawn from a normal distribution with the standard deviation ``sqrt(1.3 * 2 / fan_in)``, truncated at
    two deviations (``slim.variance_scaling_initializer()``; He et al., 2015). Biases, beta and moving means are 0,
    gamma and moving variances are 1.

    Parameters
    ----------
    network : str or sequence of Block
        "resnet_v2_50", "resnet_v2_101", "resnet_v2_152", "resnet_v2_200", the same for "resnet_v1", or blocks.
    num_classes : int, optional
        None: no logits.
    seed : int
        Each tensor's numbers depend only on the seed and on its name.
    include_root_block : bool
    channels : int
        Channels of the input.
    root_depths : sequence of int, optional
        See `refnet.network.resnet_v2.resnet_v2`.
    scope : str, optional
        The prefix of every name; by default the network's name, and for blocks "resnet_v2" or "resnet_v1".

    Returns
    -------
    Weights

    Raises
    ------
    ConfigError
        There is no network of that name, or an argument has a value that it cannot have.

    Examples
    --------
    >>> import refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=10, seed=7)
    >>> list(weights)[:2], weights["resnet_v2/logits/weights"].shape
    (['resnet_v2/conv1/weights', 'resnet_v2/conv1/biases'], (1, 1, 16, 10))
    """
    seed, channels, num_classes = seed_of(seed), as_int(channels), as_int(num_classes)
    check_positive(channels=channels, **({} if num_classes is None else {"num_classes": num_classes}))
    check_bool(include_root_block=include_root_block)
    if scope is not None:
        check_text(scope=scope)
    if isinstance(network, str):
        blocks, scope = network_blocks(network), scope or network
    else:
        check_blocks(network)
        blocks, scope = list(network), scope or family_of(network).name
    depths = None if root_depths is None else check_depths(root_depths)
    architecture = Architecture(scope, blocks, num_classes, include_root_block, channels, depths)
    tensors = {name: _initial(name, shape, seed) for name, shape in architecture.variables()}
    return Weights(tensors, source=f"random_weights(seed={seed})", copy=False)


def _initial(name: str, shape: tuple[int, ...], seed: int) -> Float32Array:
    leaf = name.rsplit("/", 1)[-1]
    if leaf != "weights":
        return np.full(shape, leaf in ("gamma", "moving_variance"), np.float32)
    bits = random_bits(name, int(np.prod(shape)), seed)
    fan_in = shape[0] * shape[1] * shape[2]
    deviation = np.sqrt(1.3 * 2.0 / fan_in)
    kernel: Float32Array = (_truncated_normal(bits) * deviation).astype(np.float32).reshape(shape)
    return kernel


_STEPS = 4096


def _truncated_normal(bits: np.ndarray) -> np.ndarray:
    """Numbers of the standard normal distribution within two deviations, from 64 random bits each.

    The quantile function at 4096 equal steps, linear between them. It takes only sums, products and comparisons, so
    every machine draws the same bits.
    """
    quantiles = _quantiles()
    step = (bits >> np.uint64(52)).astype(np.int64)
    fraction = ((bits & np.uint64((1 << 52) - 1)).astype(np.float64) + 0.5) * 2.0**-52
    low = quantiles[step]
    number: np.ndarray = low + fraction * (quantiles[step + 1] - low)
    return number


@cache
def _quantiles() -> np.ndarray:
    """Where the truncated normal's distribution function reaches i / 4096, by bisection."""
    total = _normal_integral(np.array([2.0]))[0]
    targets = (np.arange(_STEPS + 1) / _STEPS * 2 - 1) * total
    low, high = np.full(targets.shape, -2.0), np.full(targets.shape, 2.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = _normal_integral(middle) < targets
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    low[0], low[-1] = -2.0, 2.0
    return low


def _normal_integral(x: np.ndarray) -> np.ndarray:
    """The integral of exp(-t^2 / 2) from 0 to x, by its power series, for |x| <= 2."""
    total, power = np.zeros_like(x), x.copy()
    for n in range(40):
        total = total + power / (2 * n + 1)
        power = power * (x * x) / (-2.0 * (n + 1))
    return total
