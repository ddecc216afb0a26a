"""Every case of the catalogue that a network can have: each mistake at each site, with each value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.ports.mistakes import Mistake
from tests.ports.networks import shapes, units
from tests.slim.oracle import Net

EPSILONS = (0.0, 1e-6, 2e-5, 1e-4, 1e-3, 1.001e-5)
POOLS = ("slim", "keras", "torch", "valid", "ceil")
POOLED_SHORTCUTS = ("average 2x2", "max 2x2", "max 3x3")
NORM_MISTAKES = (
    "gamma-ignored", "beta-ignored", "mean-ignored", "variance-ignored", "gamma-beta-swapped", "mean-variance-swapped",
    "variance-as-deviation", "fold-without-mean", "fold-without-beta",
)  # fmt: skip
BY_SIZE = {"kernel-axes-swapped": 2, "kernel-flipped": 2, "kernel-channels-swapped": 1, "kernel-reshaped": 1}


class Layers(NamedTuple):
    """The paths of a network's layers, by what they have."""

    convs: list[str]
    norms: list[str]
    biased: list[str]


def layers(net: Net) -> Layers:
    """In network order."""
    names = [name.removeprefix(f"{net.scope}/") for name in shapes(net)]

    def having(*endings: str) -> list[str]:
        return [name.removesuffix(end) for name in names for end in endings if name.endswith(end)]

    norms = [name.removesuffix("/BatchNorm") for name in having("/gamma")]
    return Layers(having("/weights"), norms, having("/biases"))


def place_of(net: Net) -> str:
    """Where the network strides."""
    if any(unit.get("stride_in_1x1") for _, args in net.blocks for unit in args):
        return "first_conv"
    return "last_unit" if net.blocks[0][1][-1]["stride"] > 1 else "first_unit"


def swapped_layers(net: Net) -> Iterator[str]:
    """Layers of equal shape in a unit, or in neighbouring ones."""
    found = shapes(net)
    paths = [path for path, _, _ in units(net)]
    kernels = [[path for path in layers(net).convs if path.startswith(f"{unit}/")] for unit in paths]
    for here, following in zip(kernels, [*kernels[1:], []], strict=True):
        for i, first in enumerate(here):
            for second in here[i + 1 :] + following:
                if found[f"{net.scope}/{first}/weights"] == found[f"{net.scope}/{second}/weights"]:
                    yield f"{first} <-> {second}"


def cases(net: Net) -> list[Mistake]:
    """In the catalogue's order, everywhere before block by block before site by site; pixels apart."""
    return list(_cases(net))


def _cases(net: Net) -> Iterator[Mistake]:
    first, found, every = net.version == 1, layers(net), units(net)
    blocks = [scope for scope, _ in net.blocks]
    strided = [path for path, unit, _ in every if unit["stride"] > 1]
    projected = [path for path, _, projects in every if projects]
    plain = [path for path, _, projects in every if not projects]

    def at(name: str, sites: list[str], *values: object, everywhere: bool = True) -> Iterator[Mistake]:
        for value in values or (None,):
            if everywhere:
                yield Mistake(name, None, value)
            yield from (Mistake(name, site, value) for site in sites)

    yield Mistake("conv1-same")
    yield from at("conv2-same", [f"{path}/conv2" for path in strided])
    yield from (Mistake("pool1", None, mode) for mode in POOLS if mode != net.pool_mode)
    yield from (
        Mistake("stride-place", None, place)
        for place in ("last_unit", "first_unit", "first_conv") if place != place_of(net)
    )  # fmt: skip
    yield from at("shortcut-pool", strided, *POOLED_SHORTCUTS)
    if net.output_stride is not None:
        yield from map(Mistake, ("dilation-early", "dilation-first-only", "dilation-missing"))
    if net.avg_down:
        yield from at("pool-counts-padding", [path for path in strided if path in projected])
    yield from at("epsilon", blocks + found.norms, *EPSILONS)
    yield from at("batch-statistics", found.norms, "biased", "unbiased")
    for name in NORM_MISTAKES:
        yield from at(name, blocks + found.norms)
    yield from at("statistics-unscaled", blocks + found.norms, 999.98, 0.001)
    if not first:
        yield from at("shortcut-from-input", projected)
        yield from at("identity-from-preact", plain)
        yield from at("relu-after-add", [path for path, _, _ in every])
    yield from at("relu-before-add", [path for path, _, _ in every])
    active = [path for path in found.norms if path.rsplit("/", 1)[-1] not in ("conv3", "shortcut")]
    kinds = ["*/conv1", "*/conv2"] if first else ["*/preact", "*/conv1", "*/conv2"]
    yield from at("relu-missing", kinds + active, everywhere=False)
    if not first:
        yield Mistake("root-activated")
        yield Mistake("postnorm-missing")
    yield from at("bias-ignored", found.biased)
    same = [path for path, unit, projects in every if not projects and unit["stride"] == 1]
    yield from at("unit-missing", same, everywhere=False)
    yield from at("unit-doubled", same, everywhere=False)
    kernels = shapes(net)
    for name, least in BY_SIZE.items():
        sites = [path for path in found.convs if kernels[f"{net.scope}/{path}/weights"][0] >= least]
        if name == "kernel-channels-swapped":
            sites = [path for path in sites if len(set(kernels[f"{net.scope}/{path}/weights"][2:])) == 1]
        yield from at(name, sites)
    yield from (Mistake("layers-swapped", pair) for pair in swapped_layers(net))
    yield Mistake("head-order")
    yield from at(
        "weights-rounded",
        blocks + [path for path, _, _ in every] + found.convs,
        "float16",
        "bfloat16",
        "int8",
        "int8 by channel",
    )
    yield from (Mistake("class-offset", None, value) for value in (1, -1, 2))
    yield from (Mistake("softmax-twice"), Mistake("softmax-missing"), Mistake("pool5-max"), Mistake("pool5-sum"))
    if not first:
        yield Mistake("pool5-before-postnorm")
    yield from (Mistake("arithmetic", None, value) for value in ("tf32", "float16", "bfloat16"))
