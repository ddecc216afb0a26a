"""Small networks with weights that keep the values near 1, as a trained network's are."""

from __future__ import annotations

from typing import Any

import numpy as np

import refnet
from refnet.graph.graph import Graph, Tensor
from refnet.network.eager import works_on_arrays


def small_blocks(units: int = 2, base_depth: int = 3) -> list[refnet.Block]:
    return [
        refnet.resnet_v2_block("block1", base_depth=base_depth, num_units=units, stride=2),
        refnet.resnet_v2_block("block2", base_depth=2 * base_depth, num_units=units, stride=2),
        refnet.resnet_v2_block("block3", base_depth=5, num_units=1, stride=1),
    ]


def lively_weights(seed: int = 0, blocks: list[refnet.Block] | None = None, **options: Any) -> dict[str, np.ndarray]:
    """`random_weights` with batch norms and biases that do something, the same bits on every machine.

    `refnet.seeded.lively_weights` draws others, by a generator that is itself under test; those for the oracles
    (`tests.slim.oracle.draw_weights`) come from the variables' shapes alone.
    """
    generator = np.random.default_rng(seed)
    options.setdefault("num_classes", 7)
    weights = dict(refnet.random_weights(blocks or small_blocks(), seed=seed, **options))
    for name, value in weights.items():
        leaf = name.rsplit("/", 1)[-1]
        noise = generator.uniform(-1, 1, value.shape) / 2
        if leaf in ("gamma", "moving_variance"):
            weights[name] = (value * (1 + noise)).astype(np.float32)
        elif leaf != "weights":
            weights[name] = (value + noise).astype(np.float32)
    return weights


@works_on_arrays
def post_activation_unit(inputs: Tensor) -> Tensor:
    """A unit as ResNet v1 has it: the ReLU follows the sum."""
    norm = {"normalizer_fn": "batch_norm"}
    shortcut = refnet.conv2d_same(inputs, 8, 1, 1, scope="shortcut", activation_fn=None, **norm)
    residual = refnet.conv2d_same(inputs, 4, 3, 1, scope="conv1", **norm)
    residual = refnet.conv2d_same(residual, 8, 1, 1, scope="conv2", activation_fn=None, **norm)
    return inputs.graph.relu(inputs.graph.add(shortcut, residual))


def post_activation_weights() -> dict[str, np.ndarray]:
    """Weights of `post_activation_unit` for three channels; about half of its sums are negative."""
    graph = Graph({})
    post_activation_unit(graph.placeholder((1, 5, 6, 3)))
    generator = np.random.default_rng(0)
    weights = {}
    for name, shape in graph.missing:
        size = generator.uniform(0.5, 1.5, shape)
        signed = name.endswith(("weights", "beta"))
        weights[name] = np.float32(size * generator.choice([-1, 1], shape) if signed else size)
    return weights
