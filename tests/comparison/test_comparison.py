"""What `refnet.compare` says: statuses, the first divergence, what only looks like one, and what cannot be compared."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.comparison.statistics import FACTOR
from refnet.errors import ConfigError, InputError, WeightsError
from tests.support.nets import lively_weights

BLOCKS = [refnet.resnet_v2_block("block1", 3, 2, 2), refnet.resnet_v2_block("block2", 5, 1, 1)]
IMAGES = np.random.default_rng(0).uniform(-1, 1, (2, 33, 29, 3)).astype(np.float32)
WEIGHTS = lively_weights(0, BLOCKS)
UNIT = "resnet_v2/block1/unit_2/bottleneck_v2"
Arrays = dict[str, np.ndarray]


def end_points(changes: dict[str, np.ndarray] | None = None, **options: Any) -> Arrays:
    """What a port gives, whose weights a test may change."""
    _, found = refnet.forward({**WEIGHTS, **(changes or {})}, IMAGES, end_points=True, **options)
    return dict(found)


@pytest.fixture
def port() -> Arrays:
    return end_points()


def test_equal_bits(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, port, IMAGES)
    assert {row.status for row in comparison.rows} == {"equal bits"}
    assert comparison.agrees
    assert comparison.first_divergence is None
    assert comparison.top_1 == (2, 2)
    assert repr(comparison) == f"<Comparison of {len(port)} values, agrees>"


def test_a_difference_is_judged_by_the_rounding_scale(port: Arrays) -> None:
    name = f"{UNIT}/conv1"
    scale = next(row.scale for row in refnet.compare(WEIGHTS, port, IMAGES).rows if row.name == name)
    assert scale is not None
    size = np.abs(port[name]).max()
    for factor, status in ((0.5, "agrees"), (2, "differs")):
        moved = port[name].copy()
        moved[0, 1, 2, 0] += factor * FACTOR * scale * size
        row = next(r for r in refnet.compare(WEIGHTS, port | {name: moved}, IMAGES).rows if r.name == name)
        assert row.status == status
        assert row.where == (0, 1, 2, 0)
        assert row.largest == pytest.approx(factor * FACTOR * scale, rel=0.1)
        assert row.share == (0 if status == "agrees" else 1 / port[name].size)


def test_the_first_divergence_is_born_and_the_rest_inherited() -> None:
    conv = f"{UNIT}/conv2"
    comparison = refnet.compare(WEIGHTS, end_points({f"{conv}/weights": WEIGHTS[f"{conv}/weights"][::-1]}), IMAGES)
    first = comparison.first_divergence
    assert first is not None
    assert (first.name, first.origin, first.since) == (conv, "born", (f"{UNIT}/conv1",))
    assert {row.origin for row in comparison.differing[1:]} == {"inherited"}
    assert "born there" in str(comparison)
    assert first.patch is not None


def test_what_lies_between_observed_values_is_named() -> None:
    """Of the unit only its end was seen, and the one before it."""
    conv = f"{UNIT}/conv2"
    found = end_points({f"{conv}/weights": WEIGHTS[f"{conv}/weights"][::-1]})
    names = ["resnet_v2/block1/unit_1/bottleneck_v2", UNIT]
    first = refnet.compare(WEIGHTS, {name: found[name] for name in names}, IMAGES).first_divergence
    assert first is not None
    assert (first.name, first.origin, first.since) == (UNIT, "born", (names[0],))


def test_without_weights_the_last_value_that_agrees_is_named(port: Arrays) -> None:
    conv = f"{UNIT}/conv2"
    found = end_points({f"{conv}/weights": WEIGHTS[f"{conv}/weights"][::-1]})
    first = refnet.compare(port, found).first_divergence
    assert first is not None
    assert (first.name, first.origin, first.since) == (conv, "born", (f"{UNIT}/conv1",))


def test_an_array_alone(port: Arrays) -> None:
    logits = port["resnet_v2/spatial_squeeze"]
    assert refnet.compare(logits, logits.copy()).agrees
    assert not refnet.compare(logits, logits + np.float32(0.1)).agrees
    assert refnet.compare(WEIGHTS, {"logits": logits}, IMAGES).agrees


@pytest.mark.parametrize("shape", [(7,), (3, 4), (5, 4, 3), (1, 5, 4, 3), (2, 3, 1, 4, 2)])
def test_arrays_of_any_rank(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    assert refnet.compare(array, array.copy()).agrees
    if len(shape) <= 4:
        assert refnet.compare(array, array[np.newaxis]).agrees
    assert not refnet.compare({"a": array, "b": array}, {"a": array + 1, "b": array}).agrees
    with pytest.raises(InputError, match="not an array"):
        refnet.compare(array, np.float32(3))


@pytest.mark.parametrize("layer", ["conv1", "conv2"])
def test_a_missing_relu_is_a_divergence_where_the_name_says_relu(layer: str) -> None:
    """The port leaves one out: what it calls the ReLU's value is the norm's."""
    found = end_points()
    before = refnet.compare(WEIGHTS, {"x": found[f"{UNIT}/{layer}"]}, IMAGES)
    assert before.agrees
    unit = {"Keras": f"conv2_block2_{layer[-1]}_relu", "TensorFlow": f"{UNIT}/{layer}/Relu:0"}
    norm = _norm_value(layer)
    for name in unit.values():
        comparison = refnet.compare(WEIGHTS, {name: norm}, IMAGES)
        first = comparison.first_divergence
        assert first is not None
        assert "the ReLU is missing" in first.note


def _norm_value(layer: str) -> np.ndarray:
    from refnet.comparison.reference import ComputedReference

    reference = ComputedReference(WEIGHTS, IMAGES)
    value = reference.names[f"{UNIT}/{layer}/FusedBatchNorm"]
    return reference.arrays([value])[value.index]


def test_a_pre_activation_under_a_layers_name_is_a_note(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, port | {f"{UNIT}/conv1": _norm_value("conv1")}, IMAGES)
    assert comparison.agrees
    assert any("before the ReLU" in note and f"{UNIT}/conv1" in note for note in comparison.notes)


def test_a_pre_activation_is_blamed_where_what_follows_differs(port: Arrays) -> None:
    """A layer's name may mean the value before the ReLU, but then the ReLU comes after it."""
    wrong = port | {f"{UNIT}/conv1": _norm_value("conv1"), f"{UNIT}/conv2": port[f"{UNIT}/conv2"] + 1}
    first = refnet.compare(WEIGHTS, wrong, IMAGES).first_divergence
    assert first is not None
    assert (first.name, first.origin) == (f"{UNIT}/conv1", "born")
    assert "is the ReLU missing?" in first.note


@pytest.mark.parametrize("name", ["logits", "classifier"])
def test_a_missing_bias_is_a_divergence(name: str, port: Arrays) -> None:
    """An earlier value of a layer is not one that its name can mean."""
    logits = port["resnet_v2/spatial_squeeze"] - WEIGHTS["resnet_v2/logits/biases"]
    assert not refnet.compare(WEIGHTS, {name: logits, "resnet_v2/pool5": port["resnet_v2/pool5"]}, IMAGES).agrees


def test_a_missing_norm_is_a_divergence(port: Arrays) -> None:
    from refnet.comparison.reference import ComputedReference

    reference = ComputedReference(WEIGHTS, IMAGES)
    value = reference.names[f"{UNIT}/conv1/Conv2D"]
    theirs = {f"{UNIT}/conv1/BatchNorm/FusedBatchNormV3:0": reference.arrays([value])[value.index]}
    first = refnet.compare(WEIGHTS, theirs, IMAGES).first_divergence
    assert first is not None
    assert first.reference == f"{UNIT}/conv1/FusedBatchNorm"


def test_an_in_place_relu_is_a_note(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, {f"{UNIT}/conv1/BatchNorm/FusedBatchNormV3:0": port[f"{UNIT}/conv1"]}, IMAGES)
    assert comparison.agrees
    assert any("in-place ReLU" in note for note in comparison.notes)


def test_nan_on_both_sides_is_a_note(port: Arrays) -> None:
    broken = {"resnet_v2/logits/biases": np.full(7, np.nan, np.float32)}
    ours = end_points(broken)
    comparison = refnet.compare(ours, {name: value.copy() for name, value in ours.items()})
    assert comparison.agrees
    assert any("NaN" in note for note in comparison.notes)


def test_nan_on_one_side_is_a_divergence(port: Arrays) -> None:
    broken = port[f"{UNIT}/conv1"].copy()
    broken[0, 0, 0, 0] = np.nan
    comparison = refnet.compare(WEIGHTS, port | {f"{UNIT}/conv1": broken}, IMAGES)
    first = comparison.first_divergence
    assert first is not None
    assert (first.name, first.nan_one, first.largest) == (f"{UNIT}/conv1", 1, np.inf)
    assert json.loads(comparison.to_json())["rows"]


def test_a_channel_that_is_zero_on_one_side_and_that_nothing_reads_is_a_note() -> None:
    """gamma 0 leaves a constant; the port leaves out the channel, and the next kernel does not read it."""
    norm, conv = f"{UNIT}/conv1/BatchNorm", f"{UNIT}/conv2/weights"
    gamma, beta, kernel = (WEIGHTS[name].copy() for name in (f"{norm}/gamma", f"{norm}/beta", conv))
    gamma[1], beta[1], kernel[:, :, 1] = 0, 0.7, 0
    ours = end_points({f"{norm}/gamma": gamma, f"{norm}/beta": beta, conv: kernel})
    pruned = ours[f"{UNIT}/conv1"].copy()
    pruned[..., 1] = 0
    theirs = ours | {f"{UNIT}/conv1": pruned}
    comparison = refnet.compare(ours, theirs)
    assert comparison.agrees
    assert any("hannels 1 are zero on one side" in note for note in comparison.notes)
    # Where it is read, what follows differs, and it is a divergence.
    theirs[f"{UNIT}/conv2"] = theirs[f"{UNIT}/conv2"] + 1
    assert refnet.compare(ours, theirs).first_divergence is not None
    # As it is where another channel differs too.
    worse = pruned.copy()
    worse[..., 0] += 1
    assert not refnet.compare(ours, ours | {f"{UNIT}/conv1": worse}).agrees


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_precisions_have_their_own_scale(port: Arrays, dtype: str) -> None:
    if dtype == "float64":
        theirs = end_points(dtype="float64")
    elif dtype == "float16":
        theirs = {name: value.astype(np.float16) for name, value in port.items()}
    else:
        theirs = {name: _as_bfloat16(value) for name, value in port.items()}
    comparison = refnet.compare(WEIGHTS, theirs, IMAGES)
    assert comparison.agrees, str(comparison)
    assert {row.precision for row in comparison.rows} == {dtype}
    # Equal values of half the precision would hide this one.
    off = {name: value.copy() for name, value in theirs.items()}
    step = {"float16": 0.3, "bfloat16": 1.5, "float64": 1e-9}[dtype]
    name = f"{UNIT}/conv2"
    off[name][0, 0, 0, 0] += step * np.abs(off[name]).max().astype(np.float64)
    first = refnet.compare(WEIGHTS, off, IMAGES).first_divergence
    assert first is not None
    assert first.name == name


def _as_bfloat16(value: np.ndarray) -> np.ndarray:
    rounded: np.ndarray = ((value.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
    return rounded


def test_float32_values_in_float64_arrays_are_float32(port: Arrays) -> None:
    theirs = {name: value.astype(np.float64) for name, value in port.items()}
    comparison = refnet.compare(WEIGHTS, theirs, IMAGES)
    assert {row.status for row in comparison.rows} == {"equal bits"}


def test_layouts_are_said(port: Arrays) -> None:
    theirs = {name: np.moveaxis(v, -1, 1).copy() if v.ndim == 4 else v for name, v in port.items()}
    theirs["resnet_v2/pool5"] = port["resnet_v2/pool5"][:, 0, 0]
    comparison = refnet.compare(WEIGHTS, theirs, IMAGES)
    assert comparison.agrees
    assert any(note.startswith("NCHW: ") for note in comparison.notes)
    assert any(note.startswith("Without its axes of 1: resnet_v2/pool5") for note in comparison.notes)


def test_a_block_that_strides_later_is_read_at_every_second_row(port: Arrays) -> None:
    """He et al. stride in the first convolution of the next block, which gives the same values with more work."""
    _, dense = refnet.forward(WEIGHTS, IMAGES, end_points=True, store_non_strided_activations=True)
    comparison = refnet.compare(WEIGHTS, port | {UNIT: dense[UNIT]}, IMAGES)
    assert comparison.agrees
    assert any("every second row and column" in note for note in comparison.notes)


def test_a_stride_that_comes_too_early_is_found_where_it_is() -> None:
    """In the first convolution of a unit, not in the second: it has the right values, at half of the places."""
    blocks = [
        block._replace(args=[unit | ({"stride_in_1x1": True} if unit["stride"] > 1 else {}) for unit in block.args])
        for block in BLOCKS
    ]
    first = refnet.compare(WEIGHTS, end_points(blocks=blocks), IMAGES).first_divergence
    assert first is not None
    assert first.name == f"{UNIT}/conv1"
    assert "stride too early" in first.note


def test_a_wrong_shape_is_a_divergence(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, port | {f"{UNIT}/conv1": port[f"{UNIT}/conv1"][:, :-1]}, IMAGES)
    first = comparison.first_divergence
    assert first is not None
    assert first.name == f"{UNIT}/conv1"
    assert "its shape is" in first.note


def test_what_follows_a_wrong_stride_is_not_born_again() -> None:
    blocks = [refnet.resnet_v2_block(f"block{i}", 2 * i, 2, 2 if i < 3 else 1) for i in (1, 2, 3)]
    weights = lively_weights(blocks=blocks, num_classes=7)
    images = np.random.default_rng(3).uniform(-1, 1, (1, 66, 64, 3)).astype(np.float32)
    # A port without the last unit of block2, which is the one that strides.
    short = refnet.resnet_v2_block("block2", 4, 1, 1)
    theirs = refnet.forward(weights, images, blocks=[blocks[0], short, blocks[2]], end_points=True)[1]
    comparison = refnet.compare(weights, theirs, images, blocks=blocks)
    assert [row.name for row in comparison.rows if row.origin == "born"] == ["resnet_v2/block2"]
    assert {row.origin for row in comparison.differing} == {"born", "unknown", "inherited"}


def test_arrays_that_match_nothing_are_listed(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, port | {"resnet_v2/block1x": np.ones((3, 7), np.float32)}, IMAGES)
    left = comparison.rows[-1]
    assert (left.name, left.status) == ("resnet_v2/block1x", "not compared")
    assert "nearest name is" in left.note
    assert comparison.agrees
    assert any("not compared: resnet_v2/block1x" in sentence for sentence in comparison.sentences())


def test_integers_beside_floats_are_left_out(port: Arrays) -> None:
    comparison = refnet.compare(WEIGHTS, port | {"labels": np.arange(2)}, IMAGES)
    assert comparison.rows[-1].name == "labels"
    assert "int64" in comparison.rows[-1].note


def test_images_of_another_size_are_suspected(port: Arrays) -> None:
    _, smaller = refnet.forward(WEIGHTS, IMAGES[:, :-7], end_points=True)
    for reference, observed in ((WEIGHTS, smaller), (port, smaller)):
        images = IMAGES if reference is WEIGHTS else None
        assert any("images of another size" in note for note in refnet.compare(reference, observed, images).notes)
    assert not any("another size" in note for note in refnet.compare(WEIGHTS, port, IMAGES).notes)


REFUSED: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "nothing": (lambda port: {}, "no arrays of floats"),
    "integers": (lambda port: {"resnet_v2/conv1": port["resnet_v2/conv1"].astype(int)}, "int64"),
    "complex": (lambda port: {"resnet_v2/conv1": port["resnet_v2/conv1"].astype(complex)}, "complex128"),
    "text": (lambda port: {"resnet_v2/conv1": np.array(["a"])}, "<U1"),
    "objects": (lambda port: {"resnet_v2/conv1": np.array([None])}, "object"),
    "no elements": (lambda port: {"resnet_v2/conv1": np.zeros((0, 3), np.float32)}, "no elements"),
    "names": (lambda port: {3: port["resnet_v2/conv1"]}, "strings"),
    "None": (lambda port: None, "no arrays of floats"),
    "another network": (lambda port: {"resnet_v2/conv1": np.ones((2, 5, 5, 64), np.float32)}, "another network"),
    "another batch": (lambda port: {n: v[:1] for n, v in port.items() if v.ndim == 4}, "batch has 1 images"),
    "no names": (lambda port: {"a": np.ones((3, 5), np.float32)}, "There are a; the reference has resnet_v2/conv1"),
    "a path of nothing": (lambda port: "", "path"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused(case: str, port: Arrays) -> None:
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        refnet.compare(WEIGHTS, make(port), IMAGES)


def test_options_need_weights(port: Arrays) -> None:
    with pytest.raises(ConfigError, match="output_stride"):
        refnet.compare(port, port, output_stride=8)
    with pytest.raises(ConfigError, match="pass the images"):
        refnet.compare(refnet.Weights(WEIGHTS), port)
    with pytest.raises(ConfigError, match="dtype"):
        refnet.compare(WEIGHTS, port, IMAGES, dtype="float64")
    with pytest.raises(WeightsError):
        refnet.compare({"a": np.ones(3)}, port, IMAGES)


def test_options_of_the_engine() -> None:
    theirs = end_points(output_stride=4, global_pool=False)
    assert refnet.compare(WEIGHTS, theirs, IMAGES, output_stride=4, global_pool=False).agrees


def test_files_of_every_kind(tmp_path: Path, port: Arrays) -> None:
    from safetensors.numpy import save_file

    np.savez(tmp_path / "a.npz", **port)
    save_file(port, tmp_path / "a.safetensors")
    (tmp_path / "folder").mkdir()
    flat = {name.rpartition("/")[2]: port[name] for name in ("resnet_v2/pool5", "resnet_v2/postnorm")}
    for name, value in flat.items():
        np.save(tmp_path / "folder" / f"{name}.npy", value)
    refnet.golden.record(tmp_path / "g.safetensors", refnet.Weights(WEIGHTS), IMAGES)
    np.save(tmp_path / "logits.npy", port["resnet_v2/logits"])
    for name in ("a.npz", "a.safetensors", "folder", "g.safetensors", "logits.npy"):
        comparison = refnet.compare(WEIGHTS, tmp_path / name, IMAGES)
        assert comparison.agrees
        assert {row.status for row in comparison.rows} <= {"equal bits", "not compared"}
        assert str(tmp_path / name) == comparison.observed
    assert refnet.compare(tmp_path / "g.safetensors", tmp_path / "a.npz").agrees


def _objects(path: Path) -> None:
    np.save(path, np.array([{}, None], dtype=object), allow_pickle=True)


def _bomb(path: Path) -> None:
    np.savez_compressed(path, a=np.zeros(1 << 25, np.float32))


def _array_of(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        np.save(path, np.ones(100))
        path.write_bytes(change(path.read_bytes()))

    return make


def _content(content: bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(content)


def _hashes(path: Path) -> None:
    refnet.golden.record(path, refnet.Weights(WEIGHTS), IMAGES, hashes_only=True)


BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty.npz": (_content(b""), "empty"),
    "text.npz": (_content(b"no activations, but some text"), "not activations"),
    "objects.npy": (_objects, "pickled"),
    "cut.npy": (_content(b"\x93NUMPY\x01\x00\x76"), "header"),
    "short.npy": (_array_of(lambda content: content[:-8]), "bytes"),
    "long.npy": (_array_of(lambda content: content + b"12"), "bytes"),
    "bomb.npz": (_bomb, "expand"),
    "folder": (Path.mkdir, "no .npy"),
    "cut.safetensors": (_content(b"\xff\0\0\0\0\0\0\0{}"), "header|cut"),
    "hashes.safetensors": (_hashes, "hashes alone"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_by_name(name: str, tmp_path: Path) -> None:
    make, message = BAD_FILES[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(InputError, match=message) as caught:
        refnet.compare(WEIGHTS, path, IMAGES)
    assert str(path) in str(caught.value)


def test_json_has_its_schema() -> None:
    conv = f"{UNIT}/conv2"
    comparison = refnet.compare(WEIGHTS, end_points({f"{conv}/weights": WEIGHTS[f"{conv}/weights"][::-1]}), IMAGES)
    document = json.loads(comparison.to_json())
    assert document["schema"] == 1
    assert document["agrees"] is False
    assert document["first_divergence"] == conv
    assert (document["factor"], document["scale"]) == (FACTOR, "measured")
    row = next(row for row in document["rows"] if row["name"] == conv)
    assert row["status"] == "differs"
    assert row["origin"] == "born"
    assert len(row["ulps"]) == len(document["quantiles"])
