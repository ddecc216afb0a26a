"""What the variables decide: units, roots, folded batch norms, biases and shortcuts, by an exact definition."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from refnet import errors
from refnet.cli import main
from refnet.evidence.golden import decode_options, encode_options
from refnet.graph.fuse import make_plan
from refnet.graph.graph import Graph
from refnet.network.networks import BY_UNIT
from refnet.summary import summarize
from tests.slim import error_bound
from tests.slim.networks import assert_all_within, cases, examples, refnet_blocks, run_refnet
from tests.slim.oracle import BlockSpec, Net, draw_weights
from tests.support.arrays import digest, random_images

Variables = dict[str, np.ndarray]
SIZES = ("moving_mean", "moving_variance", "beta", "gamma")


def shapes_of(net: Net, channels: int) -> dict[str, tuple[int, ...]]:
    """The variables of TF-Slim's kind of network, of these blocks."""
    graph = Graph({})
    BY_UNIT[net.unit_name].network(
        graph.placeholder((1, 64, 64, channels)), refnet_blocks(net.blocks, net.unit_name), net.num_classes,
        include_root_block=net.include_root_block, root_depths=net.root_depths, scope=net.scope,
    )  # fmt: skip
    return dict(graph.missing)


def with_signs(net: Net, channels: int, seed: int, signs: Mapping[str, bool]) -> dict[str, tuple[int, ...]]:
    """The variables with half of the places changed at which each sign can stand."""
    random, shapes = np.random.default_rng(seed), shapes_of(net, channels)

    def chosen() -> bool:
        return bool(random.integers(2))

    layers = sorted({name.removesuffix("/BatchNorm/beta") for name in shapes if name.endswith("/BatchNorm/beta")})
    for layer in layers:
        width = shapes[f"{layer}/weights"][-1:]
        if signs["biases"] and chosen():
            shapes[f"{layer}/biases"] = width
        elif signs["folded"] and chosen():
            for size in SIZES:
                del shapes[f"{layer}/BatchNorm/{size}"]
            shapes[f"{layer}/biases"] = width
    for unit, depth in identities(net, shapes) if signs["shortcuts"] else ():
        if chosen():
            shapes[f"{unit}/shortcut/weights"] = (1, 1, depth, depth)
            shapes |= (
                {f"{unit}/shortcut/biases": (depth,)}
                if net.version == 2
                else {f"{unit}/shortcut/BatchNorm/{size}": (depth,) for size in SIZES}
            )
    if signs["root"] and net.include_root_block:
        root = f"{net.scope}/conv1" if net.root_depths is None else f"{net.scope}/conv1_{len(net.root_depths)}"
        shapes |= {f"{net.scope}/input/BatchNorm/{size}": (channels,) for size in SIZES}
        shapes |= {f"{root}/BatchNorm/{size}": shapes[f"{root}/weights"][-1:] for size in SIZES}
    return shapes


def identities(net: Net, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, int]]:
    """The units without a convolution in their shortcut, and their depths."""
    for scope, units in net.blocks:
        for i, unit in enumerate(units, 1):
            name = f"{net.scope}/{scope}/unit_{i}/{net.unit_name}"
            if f"{name}/shortcut/weights" not in shapes:
                yield name, unit["depth"]


def hold_to_bounds(net: Net, variables: Variables, images: np.ndarray) -> None:
    for dtype, precision in (("float32", error_bound.BINARY32), ("float64", error_bound.BINARY64)):
        _, found = run_refnet(net, variables, images, dtype=dtype)
        running = error_bound.end_points(net, variables, images, precision=precision)
        layer = error_bound.end_points(net, variables, images, found, precision)
        assert_all_within(found, running)
        assert_all_within(found, layer)


def in_1x1(blocks: list[BlockSpec]) -> list[BlockSpec]:
    return [(scope, [unit | {"stride_in_1x1": True} for unit in units]) for scope, units in blocks]


@examples(10)
@given(data=st.data())
def test_random_networks(data: Any) -> None:
    case = data.draw(cases(version=st.sampled_from([1, 2]), unit=st.sampled_from(["basic", "bottleneck"])))
    net = case.net.replace(
        pool_mode=data.draw(st.sampled_from(["slim", "valid"])),
        store_non_strided_activations=data.draw(st.booleans()) and case.net.output_stride is None,
        root_depths=data.draw(st.none() | st.just((3, 5, 4))) if case.net.include_root_block else None,
    )
    if net.unit == "bottleneck" and data.draw(st.booleans()):
        net = net.replace(blocks=in_1x1(list(net.blocks)))
    signs = {name: data.draw(st.booleans()) for name in ("biases", "folded", "shortcuts", "root")}
    variables = draw_weights(with_signs(net, case.shape[-1], case.seed, signs), case.seed)
    hold_to_bounds(net, variables, random_images(*case.shape, seed=case.seed))


def small(unit: str, version: int, **options: Any) -> Net:
    """Two blocks whose first units stride; every kind of shortcut."""
    first, second = ({"depth": depth, "depth_bottleneck": 5, "stride": 1} for depth in (64, 12))
    blocks = [("block1", [first, first]), ("block2", [second | {"stride": 2}, second])]
    return Net(blocks, 7, unit=unit, version=version, scope=f"resnet_v{version}", **options)


KINDS = pytest.mark.parametrize(
    ("unit", "version"), list(itertools.product(["basic", "bottleneck"], [1, 2])), ids=lambda value: str(value)
)
PLACES = ("last_unit", "first_unit", "first_conv")


def lively(net: Net, seed: int = 3, **signs: bool) -> Variables:
    given_signs = dict.fromkeys(("biases", "folded", "shortcuts", "root"), False) | signs
    return draw_weights(with_signs(net, 3, seed, given_signs), seed)


IMAGES = random_images(2, 37, 50, 3)


@KINDS
@pytest.mark.parametrize("stride_place", PLACES)
def test_the_architecture_is_read_off_the_variables(unit: str, version: int, stride_place: str) -> None:
    """The bits are those of the blocks that the names and shapes stand for, on every device that is here."""
    net = small(unit, version)
    if stride_place == "last_unit":
        net = net.replace(blocks=[("block1", [net.blocks[0][1][0], net.blocks[0][1][1] | {"stride": 2}]),
                                  ("block2", [net.blocks[1][1][1]] * 2)])  # fmt: skip
    elif stride_place == "first_conv" and unit == "bottleneck":
        strided = net.blocks[1][1][0] | {"stride_in_1x1": True}
        net = net.replace(blocks=[net.blocks[0], ("block2", [strided, net.blocks[1][1][1]])])
    variables = lively(net, biases=True, folded=True, shortcuts=True, root=True)
    weights = refnet.Weights(variables, options={"stride_place": stride_place})
    assert weights.architecture.blocks == refnet_blocks(net.blocks, net.unit_name)
    assert weights.architecture.graph(weights, weights.arg_scope).used == variables.keys()
    expected, ends = run_refnet(net, variables, IMAGES)
    for device in ("cpu", "reference"):
        found, found_ends = refnet.forward(
            weights, IMAGES, end_points=True, spatial_squeeze=False, device=device, threads=2
        )
        assert digest(found, *found_ends.values()) == digest(expected, *ends.values())
        assert list(found_ends) == list(ends)
    hold_to_bounds(net, variables, IMAGES)


@KINDS
def test_every_format_keeps_what_the_variables_say(unit: str, version: int, tmp_path: Any) -> None:
    variables = lively(small(unit, version), biases=True, folded=True, shortcuts=True, root=True)
    options = {"stride_place": "first_conv", "pool_mode": "valid"}
    weights = refnet.Weights(variables, options=options)
    expected = digest(refnet.forward(weights, IMAGES))
    for name in ("a.npz", "a.safetensors", "a.ckpt"):
        refnet.save_weights(tmp_path / name, weights)
        loaded = refnet.load_weights(tmp_path / name, strict=True)
        assert loaded.options == options
        assert digest(refnet.forward(loaded, IMAGES)) == expected
    refnet.golden.record(tmp_path / "g.safetensors", weights, IMAGES)
    assert not refnet.golden.check(tmp_path / "g.safetensors", tmp_path / "a.npz", IMAGES).differing


@pytest.mark.parametrize("sign", ["biases", "folded", "shortcuts", "root"])
def test_checkpoints_for_tf_slim_hold_nothing_that_it_would_not_read(
    sign: str, tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = lively(small("bottleneck", 2), **{sign: True})
    refnet.save_weights(tmp_path / "a.npz", variables)
    line = ["convert", str(tmp_path / "a.npz"), str(tmp_path / "a.ckpt")]
    assert main(line) == 2
    assert re.search(r"has \d+ tensors that TF-Slim does not read \(resnet_v2/", capsys.readouterr().err)
    assert main([*line, "--anyway"]) == 0
    notes = capsys.readouterr().out
    assert ("convolutions have biases and no batch norm" in notes) == (sign == "folded")
    assert digest(refnet.forward(tmp_path / "a.ckpt", IMAGES)) == digest(refnet.forward(variables, IMAGES))


@KINDS
def test_all_but_the_pools_is_fused_into_convolutions(unit: str, version: int) -> None:
    variables = lively(small(unit, version), biases=True, folded=True, shortcuts=True)
    net, _ = refnet.Engine(variables).trace((1, 64, 64, 3))
    steps = make_plan(net.graph, [net]).steps
    assert {step.op for step in steps} - {"subsample"} == {"conv", "max_pool", "mean"}
    units = [step for step in steps if step.shortcut is not None]
    assert len(units) == 4
    assert all(step.sum_relu == (version == 1) and (step.next_norm is None) == (version == 1) for step in units)


@KINDS
def test_the_summary_counts_every_variable(unit: str, version: int) -> None:
    variables = lively(small(unit, version), biases=True, folded=True, shortcuts=True, root=True)
    found = summarize(refnet.Weights(variables), 64)
    assert found.total == sum(value.size for value in variables.values())
    layers = {layer.name: layer for layer in found.layers}
    scope = f"resnet_v{version}"
    assert layers[f"{scope}/input/BatchNorm"].connected_to == ["input"]
    kernels = [
        layer.operation for name, layer in layers.items() if "/unit_1/" in name and "conv" in name.split("/")[-1]
    ]
    expected = ["conv 3x3", "conv 3x3"] if unit == "basic" else ["conv 1x1", "conv 3x3", "conv 1x1"]
    assert [operation.split("/")[0] for operation in kernels if operation.startswith("conv")] == expected * 2


@KINDS
def test_goldens_hold_blocks_of_each_kind(unit: str, version: int) -> None:
    net = small(unit, version)
    for blocks in [net.blocks, in_1x1(list(net.blocks))][: 1 if unit == "basic" else 2]:
        mine = refnet_blocks(blocks, net.unit_name)
        assert decode_options(encode_options({"blocks": mine}))["blocks"] == mine


def test_the_first_1x1_convolution_strides_as_the_last_unit_before_it_would() -> None:
    """Both leave out the same rows and columns of the same values: the sums are the same, and so are the bits."""
    for version in (1, 2):
        unit = {"depth": 20, "depth_bottleneck": 5, "stride": 1}
        wide = unit | {"depth": 24}
        blocks = [("block1", [unit, unit | {"stride": 2}]), ("block2", [wide, wide])]
        before = Net(blocks, 7, version=version, scope="resnet")
        strided = wide | {"stride": 2, "stride_in_1x1": True}
        after = before.replace(blocks=[("block1", [unit, unit]), ("block2", [strided, wide])])
        variables = lively(before)
        for options in ({}, {"output_stride": 4, "global_pool": False}):
            nets = [run_refnet(net.replace(**options), variables, IMAGES) for net in (before, after)]
            assert digest(nets[0][0]) == digest(nets[1][0])


@pytest.mark.parametrize(("unit", "version"), [("basic", 1), ("basic", 2), ("bottleneck", 1), ("bottleneck", 2)])
@pytest.mark.parametrize("in_first", [False, True])
def test_dense_features_subsampled_are_the_nominal_features(unit: str, version: int, in_first: bool) -> None:
    """Every convolution after the one that would have strided reads the same pixels as before."""
    net = small(unit, version, global_pool=False).replace(num_classes=None)
    if in_first and unit == "bottleneck":
        net = net.replace(blocks=in_1x1(list(net.blocks)))
    variables = lively(net)
    nominal, _ = run_refnet(net, variables, IMAGES)
    dense, _ = run_refnet(net.replace(output_stride=4), variables, IMAGES)
    assert digest(dense[:, ::2, ::2]) == digest(nominal)


@KINDS
def test_folded_batch_norms(unit: str, version: int) -> None:
    """Folded in float64, and run in float64 on float32's kernels: the network's function to within their rounding."""
    net = small(unit, version)
    variables = lively(net)
    folded = dict(variables)
    layers = [name.removesuffix("/BatchNorm/beta") for name in variables if name.endswith("/BatchNorm/beta")]
    assert layers
    for layer in layers:
        beta, gamma, mean, variance = (
            folded.pop(f"{layer}/BatchNorm/{size}").astype(np.float64)
            for size in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + 1e-5)
        folded[f"{layer}/weights"] = (variables[f"{layer}/weights"] * scale).astype(np.float32)
        folded[f"{layer}/biases"] = (beta - mean * scale).astype(np.float32)
    expected, found = (refnet.forward(v, IMAGES, dtype="float64") for v in (variables, folded))
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert digest(refnet.forward(folded, IMAGES)) == digest(refnet.forward(folded, IMAGES, use_batch_norm=False))
    assert refnet.Weights(folded).architecture.graph(folded).used == folded.keys()


@KINDS
def test_biases_before_single_batch_norms(unit: str, version: int) -> None:
    """A bias before a batch norm is a smaller mean; of powers of two, the difference is exact."""
    variables = lively(small(unit, version), biases=True)
    biased = [name for name in variables if name.replace("biases", "BatchNorm/beta") in variables.keys() - {name}]
    biased = [name for name in biased if name.endswith("/biases")]
    layers = sum(name.endswith("/BatchNorm/beta") for name in variables)
    assert 0 < len(biased) < layers
    without = dict(variables)
    for name in biased:
        mean = name.replace("biases", "BatchNorm/moving_mean")
        variables[name] = np.round(variables[name] * 64).astype(np.float32) / 64
        variables[mean] = np.round(variables[mean] * 64).astype(np.float32) / 64
        without[mean] = variables[mean] - variables[name]
        del without[name]
    expected, found = (refnet.forward(v, IMAGES, dtype="float64") for v in (without, variables))
    assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
    # What the caller says about all of them counts.
    ignored = {name: value for name, value in variables.items() if name not in biased}
    assert digest(refnet.forward(variables, IMAGES, bias_before_batch_norm=False)) == digest(
        refnet.forward(ignored, IMAGES)
    )
    with pytest.raises(errors.MissingTensorError, match="biases"):
        refnet.forward(variables, IMAGES, bias_before_batch_norm=True)


def test_biases_that_the_options_leave_out_are_kept_in_files(tmp_path: Any) -> None:
    """As the seeded weights have them: biases of every convolution, for networks without batch norm."""
    weights = refnet.seeded.lively_weights(refnet.random_weights([refnet.resnet_v1_block("block1", 4, 2, 1)], 7))
    assert weights.options == {"bias_before_batch_norm": False}
    refnet.save_weights(tmp_path / "a.npz", weights)
    with pytest.warns(refnet.RefnetWarning, match="tensors are not part of the network"):
        loaded = refnet.load_weights(tmp_path / "a.npz")
    assert loaded.options == weights.options
    for options in ({}, {"bias_before_batch_norm": True}, {"use_batch_norm": False}):
        assert digest(refnet.forward(loaded, IMAGES, **options)) == digest(refnet.forward(weights, IMAGES, **options))
    more = dict(weights) | {"resnet_v1/block1/unit_1/bottleneck_v1/conv9/biases": np.zeros(3, np.float32)}
    np.savez(tmp_path / "b.npz", **more)
    with pytest.raises(errors.WeightsError, match="layers within the network that refnet does not have"):
        refnet.load_weights(tmp_path / "b.npz")


@KINDS
def test_a_shortcut_of_the_identity_is_the_identity(unit: str, version: int) -> None:
    net = small(unit, version)
    variables, plain = lively(net, shortcuts=True), lively(net)
    added = {name: value for name, value in variables.items() if name not in plain}
    kernels = [name for name in added if name.endswith("shortcut/weights")]
    assert kernels
    for name, value in added.items():
        # Of the batch norm: (x - 0) * 1 + 0, with an epsilon of 0.
        neutral = float(name.endswith(("gamma", "moving_variance")))
        added[name] = np.eye(len(value[0][0]), dtype=np.float32)[None, None] if name in kernels else value * 0 + neutral
    _, ends = refnet.forward(plain, IMAGES, end_points=True, batch_norm_epsilon=0)
    _, found = refnet.forward(plain | added, IMAGES, end_points=True, batch_norm_epsilon=0)
    for name in kernels:
        # In the second version the convolution reads the preact.
        where = name.removesuffix("/weights")
        source = found[where.replace("shortcut", "preact")] if version == 2 else None
        if source is not None:
            assert found[where].tobytes() == source[:, :: source.shape[1] // found[where].shape[1]].tobytes()
    if version == 1:
        assert all(found[name].tobytes() == value.tobytes() for name, value in ends.items())


@pytest.mark.filterwarnings("ignore:Float images are taken as normalised")
def test_a_root_with_batch_norm_on_the_images() -> None:
    """The images normalised beforehand, in float64, give the same network."""
    for version in (1, 2):
        variables = lively(small("bottleneck", version), root=True)
        rest = {name: value for name, value in variables.items() if "/input/" not in name}
        beta, gamma, mean, variance = (
            variables[f"resnet_v{version}/input/BatchNorm/{size}"].astype(np.float64)
            for size in ("beta", "gamma", "moving_mean", "moving_variance")
        )
        images = (IMAGES - mean) * (gamma / np.sqrt(variance + 1e-5)) + beta
        expected = refnet.forward(rest, images, dtype="float64")
        found, ends = refnet.forward(variables, IMAGES, dtype="float64", end_points=True)
        assert np.abs(found - expected).max() < 1e-12 * np.abs(expected).max()
        assert np.abs(ends[f"resnet_v{version}/input"] - images).max() < 1e-14
        assert (ends[f"resnet_v{version}/conv1"] >= 0).all()


def test_a_pool_without_padding_needs_three_pixels() -> None:
    variables = lively(small("basic", 1))
    with pytest.raises(errors.InputError, match=r"no place in 2 x 25 pixels: pass larger images"):
        refnet.forward(variables, IMAGES[:, :4], pool_mode="valid")
    assert refnet.forward(variables, IMAGES[:, :5], pool_mode="valid").shape == (2, 7)


@pytest.mark.parametrize("kinds", [("basic_v1", "bottleneck_v1"), ("basic_v2", "bottleneck_v2")])
def test_units_of_two_kinds(kinds: tuple[str, str]) -> None:
    version = int(kinds[0][-1])
    both = lively(small("basic", version)) | lively(small("bottleneck", version))
    with pytest.raises(errors.WeightsError, match=f"units of two kinds below 'resnet_v{version}': {', '.join(kinds)}"):
        refnet.forward(both, IMAGES)


@pytest.mark.parametrize("name", ["resnet_v1_18", "resnet_v1_34", "resnet_v2_18", "resnet_v2_34"])
def test_published_networks_of_basic_units(name: str) -> None:
    weights = refnet.random_weights(name, num_classes=None)
    architecture = weights.architecture
    units = {"18": [2, 2, 2, 2], "34": [3, 4, 6, 3]}[name[-2:]]
    assert [len(block.args) for block in architecture.blocks] == units
    assert [block.args[0]["depth"] for block in architecture.blocks] == [64, 128, 256, 512]
    convolutions = sum(name.endswith("/weights") for name in weights)
    assert convolutions == 1 + 2 * sum(units) + 3
    function = getattr(refnet, name)
    net, ends = function(IMAGES[:1], variables=weights)
    assert digest(net) == digest(refnet.forward(weights, IMAGES[:1]))
    assert f"{name}/block4/unit_1/basic_v{name[8]}/conv2" in ends


@pytest.mark.parametrize(("name", "parameters"), [("resnet_v1_18", 11_689_512), ("resnet_v1_34", 21_797_672)])
def test_they_have_as_many_parameters_as_torchvision_documents(name: str, parameters: int) -> None:
    assert summarize(refnet.random_weights(name, num_classes=1000), 64).trainable == parameters
