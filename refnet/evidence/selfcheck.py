"""Does this machine compute the published bits? Seeded networks, and the SHA-256 of every end point of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from refnet.engine import Engine
from refnet.evidence.digest import digest, digest_all
from refnet.evidence.end_points import in_network_order
from refnet.evidence.seeded import lively_weights, random_images
from refnet.network.resnet_v1 import resnet_v1_block
from refnet.network.resnet_v2 import NETWORKS, resnet_v2_block
from refnet.run.devices import device_named
from refnet.weights.initial import random_weights
from refnet.weights.weights import Weights
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.float_mode import contract_mode

#: The layout of the file of published hashes.
FORMAT = "refnet selfcheck"
FORMAT_VERSION = 1
PUBLISHED = Path(__file__).parents[1] / "data" / "selfcheck.json"

_SEED = 0
#: Numbers below 2**-126 are subnormal.
_SUBNORMAL = 2.0**-130


class Case(NamedTuple):
    """A seeded network and its images.

    Attributes
    ----------
    name : str
    network : str
        A published network; "blocks" or "blocks_v1" for a small one of that version, which takes a few milliseconds.
    shape : tuple of int
        Shape of the images.
    options : dict
        Options of `Engine`.
    subnormal : bool
        Whether the images, and with them every value up to the logits, are so small that their last bits are lost
        where a machine flushes subnormal numbers to zero.
    root_depths : tuple of int, optional
        See `refnet.network.resnet_v2.resnet_v2`.
    """

    name: str
    network: str
    shape: tuple[int, ...]
    options: Mapping[str, Any] = {}
    subnormal: bool = False
    root_depths: tuple[int, ...] | None = None

    def weights(self) -> Weights:
        """The network's variables."""
        if self.network in _BLOCKS:
            root = self.options.get("include_root_block", True)
            weights = random_weights(
                _BLOCKS[self.network], 10, _SEED,
                include_root_block=root, channels=self.shape[-1], root_depths=self.root_depths,
            )  # fmt: skip
        else:
            weights = random_weights(self.network, seed=_SEED)
        return weights if self.subnormal else lively_weights(weights, _SEED)

    @contract_mode()
    def images(self) -> Float32Array:
        """The input."""
        images = random_images(self.shape, _SEED)
        return images * images.dtype.type(_SUBNORMAL) if self.subnormal else images

    def options_text(self) -> str:
        """Image and options, as the table shows them."""
        depths = {"root_depths": self.root_depths} if self.root_depths else {}
        options = [f"{name}={value}" for name, value in {**depths, **self.options}.items()]
        return ", ".join(["x".join(map(str, self.shape)), *(["subnormal"] if self.subnormal else []), *options])


_BLOCKS = {
    network: [
        block("block1", base_depth=4, num_units=2, stride=2),
        block("block2", base_depth=7, num_units=2, stride=2),
        block("block3", base_depth=10, num_units=2, stride=1),
    ]
    for network, block in {"blocks": resnet_v2_block, "blocks_v1": resnet_v1_block}.items()
}
#: ResNet-D as in timm.
_RESNET_D = {"avg_down": True, "pool_mode": "torch", "stride_place": "first_unit"}

#: Small networks with each option that changes the arithmetic or the order of the work, then the published ones. The
#: padding of pool1 depends on `pool_mode` where its input, half the image, has an even size.
CASES = (
    Case("nominal", "blocks", (2, 37, 50, 3)),
    Case("dense", "blocks", (2, 37, 50, 3), {"output_stride": 8, "global_pool": False}),
    Case("training", "blocks", (3, 37, 50, 3), {"is_training": True, "batch_norm_epsilon": 1e-3}),
    Case("no_gamma", "blocks", (2, 37, 50, 3), {"batch_norm_scale": False, "num_classes": None}),
    Case(
        "models", "blocks", (2, 37, 50, 3),
        {
            "store_non_strided_activations": True, "spatial_squeeze": False,
            "use_batch_norm": False, "activation_fn": None,
        },
    ),
    Case("no_root", "blocks", (2, 19, 22, 5), {"include_root_block": False, "output_stride": 2}),
    Case("subnormal", "blocks", (2, 37, 50, 3), subnormal=True),
    Case("binary64", "blocks", (2, 37, 50, 3), {"dtype": "float64"}),
    Case("v1", "blocks_v1", (2, 37, 50, 3)),
    Case("v1_training", "blocks_v1", (3, 37, 50, 3), {"is_training": True}),
    Case("v1_keras", "blocks_v1", (2, 39, 52, 3), {"bias_before_batch_norm": True, "pool_mode": "keras"}),
    Case("v1_deeplab", "blocks_v1", (2, 37, 50, 3), {"output_stride": 8, "multi_grid": (1, 2)}, root_depths=(6, 6, 9)),
    Case("v1_binary64", "blocks_v1", (2, 37, 50, 3), {"dtype": "float64"}),
    Case("resnet_d", "blocks", (2, 39, 52, 3), _RESNET_D, root_depths=(5, 6, 8)),
    Case("resnet_d_binary64", "blocks", (2, 39, 52, 3), {**_RESNET_D, "dtype": "float64"}, root_depths=(5, 6, 8)),
    *(Case(name, name, (33, 33, 3)) for name in NETWORKS),
)  # fmt: skip


def cases_of(device: str) -> list[Case]:
    """The cases that a device can run: CUDA computes only in float32."""
    dtypes = device_named(device).backend.dtypes
    return [case for case in CASES if np.dtype(case.options.get("dtype", "float32")) in dtypes]


class Outcome(NamedTuple):
    """How a case compares with the published hashes.

    Attributes
    ----------
    case : Case
    total : int
        End points, the net included.
    differing : list of str
        Those with other bits, in network order; only "weights" or "images" if these differ already.
    """

    case: Case
    total: int
    differing: list[str]


@cache
def published() -> dict[str, Any]:
    """The hashes that come with refnet; ``tools/record_selfcheck.py`` makes them."""
    content: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return content


def hashes(case: Case, weights: Weights, images: Float32Array, **where: Any) -> dict[str, str]:
    """SHA-256 of every end point and of the net, in network order.

    Parameters
    ----------
    case : Case
    weights : Weights
    images : float32 array
    **where
        ``device`` and ``threads``, as for `Engine`.
    """
    net, end_points = Engine(weights, **case.options, **where)(images, end_points=True)
    return in_network_order({name: digest(value) for name, value in end_points.items()}, digest(net))


def check(case: Case, expected: Mapping[str, Any], device: str = "cpu", threads: int | None = None) -> Outcome:
    """Run a case and compare the weights, the images, then every end point with the published hashes.

    Parameters
    ----------
    case : Case
    expected : mapping
        The case's entry in `published`.
    device, threads
        As for `Engine`.
    """
    total = len(expected["end_points"])
    weights, images = case.weights(), case.images()
    if digest_all(weights, weights) != expected["weights"]:
        return Outcome(case, total, ["weights"])
    if digest(images) != expected["images"]:
        return Outcome(case, total, ["images"])
    found = hashes(case, weights, images, device=device, threads=threads)
    names = {**expected["end_points"], **found}
    return Outcome(case, total, [name for name in names if found.get(name) != expected["end_points"].get(name)])
