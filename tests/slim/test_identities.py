"""What TF-Slim's tests hold to 1e-4 holds here bit for bit."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from tests.slim import error_bound
from tests.slim.networks import VERSIONS, Case, assert_within, cases, examples, output_strides, run_refnet
from tests.slim.oracle import draw_weights, slim_variables
from tests.support.arrays import random_images


def assert_equal_bits(got: np.ndarray, expected: np.ndarray, name: str = "") -> None:
    """Equal shapes, equal bits: 0 and -0 differ."""
    got, expected = (np.ascontiguousarray(a).view(np.uint32) for a in (got, expected))
    np.testing.assert_array_equal(got, expected, err_msg=name, strict=True)


def _inputs(case: Case) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return draw_weights(slim_variables(case.net, case.shape), case.seed), random_images(*case.shape, seed=case.seed + 1)


@examples(12)
@given(cases(version=VERSIONS))
def test_dense_features_subsampled_are_the_nominal_features(case: Case) -> None:
    variables, images = _inputs(case)
    net = case.net.replace(num_classes=None, global_pool=False)
    reachable = output_strides(net)
    nominal, _ = run_refnet(net.replace(output_stride=None), variables, images)
    for output_stride in reachable:
        dense, _ = run_refnet(net.replace(output_stride=output_stride), variables, images)
        assert_equal_bits(refnet.subsample(dense, reachable[-1] // output_stride), nominal, f"{output_stride=}")


@examples(12)
@given(cases(store_non_strided_activations=st.just(True)))
def test_storing_non_strided_activations_changes_no_result(case: Case) -> None:
    variables, images = _inputs(case)
    stored, stored_ends = run_refnet(case.net, variables, images)
    usual, usual_ends = run_refnet(case.net.replace(store_non_strided_activations=False), variables, images)
    assert_equal_bits(stored, usual)
    assert_equal_bits(stored_ends["resnet/postnorm"], usual_ends["resnet/postnorm"])


@examples(8)
@given(cases(version=VERSIONS))
def test_a_batch_is_its_images_one_by_one(case: Case) -> None:
    variables, images = _inputs(case)
    _, together = run_refnet(case.net, variables, images)
    for i, image in enumerate(images):
        _, alone = run_refnet(case.net, variables, image[None])
        _, unbatched = run_refnet(case.net, variables, image)
        for name, value in together.items():
            assert_equal_bits(value[i : i + 1], alone[name], name)
            assert_equal_bits(value[i], unbatched[name], name)


@examples(8)
@given(cases(version=VERSIONS), st.integers(2, 5))
def test_threads_change_no_bit(case: Case, threads: int) -> None:
    variables, images = _inputs(case)
    _, one = run_refnet(case.net, variables, images, threads=1)
    _, many = run_refnet(case.net, variables, images, threads=threads)
    for name, value in one.items():
        assert_equal_bits(many[name], value, name)


@examples(8)
@given(cases(version=VERSIONS))
def test_end_points_by_name_are_those_of_the_full_list(case: Case) -> None:
    """Also: asking for an end point does not change what is fused so far that a bit would move."""
    variables, images = _inputs(case)
    net, every = run_refnet(case.net, variables, images)
    assert_equal_bits(run_refnet(case.net, variables, images, end_points=False), net)
    for name in list(every)[::3]:
        again, chosen = run_refnet(case.net, variables, images, end_points=[name])
        assert list(chosen) == [name]
        assert_equal_bits(chosen[name], every[name], name)
        assert_equal_bits(again, net)


@st.composite
def convolutions(draw: st.DrawFn) -> dict[str, Any]:
    size, channels, outputs = draw(st.integers(1, 7)), draw(st.integers(1, 70)), draw(st.integers(1, 20))
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 15)), draw(st.integers(1, 15)), channels)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return {
        "inputs": rng.standard_normal(shape).astype(np.float32),
        "num_outputs": outputs,
        "kernel_size": size,
        "variables": {
            "Conv/weights": rng.standard_normal((size, size, channels, outputs)).astype(np.float32),
            "Conv/biases": rng.standard_normal(outputs).astype(np.float32),
        },
    }


@examples(60)
@given(convolutions(), st.integers(1, 4), st.sampled_from(["relu", None]))
def test_conv2d_same_is_the_convolution_of_stride_1_subsampled(
    problem: dict[str, Any], stride: int, activation_fn: str | None
) -> None:
    strided = refnet.conv2d_same(**problem, stride=stride, activation_fn=activation_fn)
    dense = refnet.conv2d_same(**problem, stride=1, activation_fn=activation_fn)
    assert_equal_bits(strided, refnet.subsample(dense, stride))


@examples(60)
@given(convolutions(), st.integers(1, 5))
def test_an_atrous_kernel_is_the_kernel_with_holes(problem: dict[str, Any], rate: int) -> None:
    """The zeros in the holes fill runs of 64, so that only a sum of one run keeps its bits; the others their bound."""
    weights, biases = problem["variables"].values()
    size, _, channels, outputs = weights.shape
    extent = (size - 1) * rate + 1
    holes = np.zeros((extent, extent, channels, outputs), np.float32)
    holes[::rate, ::rate] = weights
    atrous = refnet.conv2d_same(**problem, stride=1, rate=rate)
    problem = problem | {"kernel_size": extent, "variables": {"Conv/weights": holes, "Conv/biases": biases}}
    with_holes = refnet.conv2d_same(**problem, stride=1)
    if extent**2 * channels <= 64:
        assert_equal_bits(atrous, with_holes)
    inputs = error_bound.exact(problem["inputs"])
    for name, got, kernel, at_rate in (("atrous", atrous, weights, rate), ("with holes", with_holes, holes, 1)):
        convolved = error_bound.conv2d_same(inputs, kernel, rate=at_rate)
        assert_within(name, got, error_bound.relu(error_bound.add(convolved, biases)))


@pytest.mark.parametrize("factor", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 6, 7, 3), (1, 5, 4, 2)])
def test_subsample_copies_every_so_many_pixels(shape: tuple[int, ...], factor: int) -> None:
    x = random_images(*shape, seed=0)
    assert_equal_bits(refnet.subsample(x, factor), x[:, ::factor, ::factor])
