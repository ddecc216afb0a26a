"""The port without mistakes is TF-Slim's network, and no mistake that is planted into it goes without effect."""

import numpy as np
import pytest

from tests.ports.agreement import disagreements, outputs, problem
from tests.ports.cases import cases, place_of
from tests.ports.mistakes import Mistake
from tests.ports.networks import (
    draw_variables,
    for_mistake,
    inception_scaled,
    run_numpy,
    shapes,
    small_net,
    smooth_images,
)
from tests.ports.tensorflow_port import restrided, run
from tests.slim import error_bound
from tests.slim.oracle import Net, Slim

VERSIONS = pytest.mark.parametrize("version", [1, 2])

BOTH = [
    "conv1-same", "conv2-same", "pool1", "stride-place", "shortcut-pool", "epsilon", "batch-statistics",
    "gamma-ignored", "beta-ignored", "mean-ignored", "variance-ignored", "gamma-beta-swapped",
    "mean-variance-swapped", "variance-as-deviation", "fold-without-mean", "fold-without-beta",
    "statistics-unscaled", "relu-before-add", "relu-missing", "bias-ignored", "unit-missing", "unit-doubled",
    "kernel-axes-swapped", "kernel-flipped", "kernel-channels-swapped", "kernel-reshaped", "layers-swapped",
    "head-order", "weights-rounded", "class-offset", "softmax-twice", "softmax-missing", "pool5-max", "pool5-sum",
    "arithmetic",
]  # fmt: skip
SECOND = [
    "shortcut-from-input", "identity-from-preact", "relu-after-add", "root-activated", "postnorm-missing",
    "pool5-before-postnorm",
]  # fmt: skip
#: The catalogue's mistakes inside the network, by its version.
IDS = {1: BOTH, 2: BOTH + SECOND}


def first_strides(net: Net) -> Net:
    return net.replace(blocks=restrided(net.blocks, "first_unit"))


def images(height: int, width: int) -> np.ndarray:
    return inception_scaled(smooth_images(1, height, width, 3, seed=5))


NETS = {
    "plain": lambda version: small_net(version, (2, 2, 1)),
    "dense": lambda version: small_net(version, (2, 3, 2), classes=None, output_stride=4, global_pool=False),
    "output stride 8": lambda version: small_net(version, (2, 2, 2, 1), depth=2, output_stride=8),
    "Keras' pool": lambda version: small_net(version, pool_mode="keras"),
    "torchvision's": lambda version: first_strides(small_net(version, (1, 2, 2), pool_mode="torch")),
    "variant d": lambda version: first_strides(small_net(version, (1, 2, 2), pool_mode="torch", avg_down=True)),
}


@VERSIONS
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [64, 41])
def test_the_port_without_mistakes_computes_the_network(name: str, version: int, size: int) -> None:
    net, x = NETS[name](version), images(size, size + 3)
    variables = draw_variables(net, size, seed=1)
    got = run(variables, x, net, dtype="float64")
    bounds = error_bound.end_points(net, variables, x, precision=error_bound.BINARY64)
    # TensorFlow's order of the sums is its own: for the factor see tests.slim.networks.assert_is_the_truth.
    for path, expected in bounds.items():
        assert np.abs(got[path] - expected.value).max() <= 2.0**9 * expected.bound.max(), path


@VERSIONS
def test_it_is_tf_slims_network(version: int) -> None:
    net, x = small_net(version, (2, 2, 1)), images(64, 67)
    slim32, slim64 = Slim(net, x.shape), Slim(net, x.shape, "float64")
    assert slim32.shapes == shapes(net)
    variables = draw_variables(net, 64, seed=2)
    _, single = slim32.run(variables, x)
    _, truth = slim64.run(variables, x)
    wide = run(variables, x, net, dtype="float64")
    bounds = error_bound.end_points(net, variables, x, precision=error_bound.BINARY64)
    runs = {
        style: run(variables, x, net, norm=style) for style in ("plain", "fused", "library", "folded")
    } | {"NumPy": run_numpy(variables, x, net)}  # fmt: skip
    assert set(truth) <= set(wide)
    for path, expected in truth.items():
        assert np.abs(wide[path] - expected).max() <= 2.0**9 * bounds[path].bound.max(), path
    largest = {path: np.abs(expected).max() for path, expected in truth.items()}
    slim_error = max(np.abs(single[path] - truth[path]).max() / largest[path] for path in truth)
    for style, found in runs.items():
        error = max(np.abs(found[path] - truth[path]).max() / largest[path] for path in truth if path in found)
        assert error <= 4 * slim_error, f"{style}: {error:.1e}, TF-Slim's is {slim_error:.1e}"


def effect(net: Net, variables: dict[str, np.ndarray], x: np.ndarray, mistake: Mistake) -> float:
    """How far the outputs move, in units of the port's own rounding errors."""
    variables = for_mistake(variables, mistake)
    right, wrong = run(variables, x, net), run(variables, x, net, [mistake])
    truth = run(variables, x, net, dtype="float64")
    name = "predictions" if mistake.id.startswith("softmax") else f"{net.scope}/logits"
    assert not np.isnan(wrong[name]).any(), mistake
    if wrong[name].shape != right[name].shape:
        return np.inf
    # Of as few numbers the maximum is a matter of luck: a rounding of the largest one is the least that counts.
    noise = max(np.abs(right[name] - truth[name]).max(), 2.0**-24 * np.abs(truth[name]).max())
    return float(np.abs(wrong[name] - right[name]).max() / noise)


@pytest.fixture(scope="module", params=[1, 2])
def version_and_logits(request: pytest.FixtureRequest) -> tuple[int, dict[str, np.ndarray]]:
    """The logits of each mistake, by its words."""
    return request.param, outputs(run, request.param)


def test_every_mistake_has_an_effect(version_and_logits: tuple[int, dict[str, np.ndarray]]) -> None:
    version, found = version_and_logits
    assert set(IDS[version]) <= {name.split()[0] for name in found if name}
    net, variables, x = problem(version)
    wide = run(variables, x, net, dtype="float64")
    idle = set()
    for name, value in found.items():
        key = "predictions" if name.startswith("softmax") else f"{net.scope}/logits"
        right = (run(for_mistake(variables, Mistake(name.split()[0])), x, net)[key] if name else wide[key]).ravel()
        if np.abs(value - right).max() < 10 * np.abs(found[""] - wide[f"{net.scope}/logits"].ravel()).max():
            idle.add(name)
    # The first kernel of a block is 1x1: it may stride as well as the last one of the block before.
    # A variance far above epsilon hides it.
    assert {"", "stride-place first_conv"} <= idle
    assert all(name == "" or name == "stride-place first_conv" or name.endswith(" 1.001e-05") for name in idle)


def test_the_logits_of_each_mistake_are_those_of_the_file(
    version_and_logits: tuple[int, dict[str, np.ndarray]],
) -> None:
    version, found = version_and_logits
    assert disagreements(found, version) == []


@VERSIONS
@pytest.mark.parametrize(
    "net",
    [
        small_net(2, (2, 2, 2), output_stride=4),
        first_strides(small_net(2, (1, 2, 2), pool_mode="torch")),
        first_strides(small_net(2, (1, 2, 2), pool_mode="torch", avg_down=True)),
    ],
    ids=["dense", "torchvision's", "variant d"],
)
def test_mistakes_of_other_networks_have_an_effect(net: Net, version: int) -> None:
    net = net.replace(version=version)
    assert place_of(net) == ("last_unit" if net.output_stride else "first_unit")
    variables, x = draw_variables(net, 65, seed=4), images(65, 65)
    names = (
        "dilation-early",
        "dilation-first-only",
        "dilation-missing",
        "pool-counts-padding",
        "stride-place",
        "pool1",
    )
    found = [mistake for mistake in cases(net) if mistake.id in names]
    if net.avg_down:
        assert "pool-counts-padding" in {mistake.id for mistake in found}
    # On a side that is odd after the root's convolution every padding of the pool is one all round.
    equal = {Mistake("pool1", None, mode) for mode in ("slim", "torch", "ceil") if mode != net.pool_mode}
    if version == 1:
        equal |= {Mistake("pool1", None, "keras")}
    idle = {mistake for mistake in found if effect(net, variables, x, mistake) < 10}
    assert idle - {Mistake("stride-place", None, "first_conv")} == equal


def test_strides_move_between_blocks_and_back() -> None:
    net = small_net(2, (2, 3, 1))
    assert restrided(restrided(net.blocks, "first_unit"), "last_unit") == list(net.blocks)
    strides = [[unit["stride"] for unit in args] for _, args in restrided(net.blocks, "first_conv")]
    assert strides == [[1, 1], [2, 1, 1], [2]]
