"""Goldens: what is recorded is checked bit by bit, and a bad file is told from other bits."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

import refnet
from refnet.cli import main
from refnet.errors import ConfigError, GoldenError, InputError, RefnetError, WeightsError
from refnet.evidence import golden
from refnet.golden import check, compare_end_points, read_golden, record
from refnet.seeded import random_images as seeded_images
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

WEIGHTS = refnet.Weights(lively_weights())
IMAGES = random_images(2, 33, 40, 3)
CONV3 = "resnet_v2/block2/unit_1/bottleneck_v2/conv3"
#: A network of one small unit.
TINY = [refnet.resnet_v2_block("block1", base_depth=1, num_units=1, stride=1)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_stride": 8, "global_pool": False},
        {"is_training": True, "batch_norm_epsilon": 1e-3},
        {"num_classes": None, "blocks": small_blocks()},
        {"multi_grid": [3]},
        {
            "blocks": [
                block._replace(args=[{**unit, "stride": 1, "unit_rate": 2} for unit in block.args])
                for block in small_blocks()
            ]
        },
        {"dtype": "float64"},
    ],
    ids=lambda options: ", ".join(options) or "nominal",
)
def test_what_one_device_records_another_finds(options: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    written = record(path, WEIGHTS, IMAGES, device="reference", **options)
    net, end_points = refnet.forward(WEIGHTS, IMAGES, end_points=True, **options)
    assert set(written.end_points) == {*end_points, "net"}
    read = read_golden(path)
    assert read._replace(values={}, made_with={}) == written._replace(
        values={}, made_with={}, options=json.loads(json.dumps(written.options))
    )
    stored = load_file(path)
    for name, value in {**end_points, "net": net}.items():
        assert stored[f"end_points/{name}"].tobytes() == value.tobytes()
        assert read.end_points[name].sha256 == digest(value)
    report = check(path, WEIGHTS, IMAGES, threads=2)
    assert [row.name for row in report.rows] == list(written.end_points)
    assert report.differing == []


def test_one_image_and_some_end_points(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    names = ["predictions", CONV3, "resnet_v2/conv1"]
    record(path, dict(WEIGHTS), IMAGES[0], end_points=names)
    report = check(path, WEIGHTS, IMAGES[0])
    assert [row.name for row in report.rows] == ["resnet_v2/conv1", CONV3, "net", "predictions"]
    assert report.rows[2].shape == (7,)
    record(path, WEIGHTS, IMAGES[0], end_points=False)
    assert [row.name for row in check(path, WEIGHTS, IMAGES[0]).rows] == ["net"]


def test_hashes_only_are_a_few_kilobytes(tmp_path: Path) -> None:
    whole, hashes = tmp_path / "whole.safetensors", tmp_path / "hashes.safetensors"
    one = record(whole, WEIGHTS, IMAGES)
    two = record(hashes, WEIGHTS, IMAGES, hashes_only=True)
    assert one.end_points == two.end_points
    assert hashes.stat().st_size < 10_000 < whole.stat().st_size
    assert check(hashes, WEIGHTS, IMAGES).differing == []


def test_raw_pixels_go_through_the_recorded_recipe(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    recipe = refnet.Recipe(40, 44, 0.9)
    record(path, WEIGHTS, pixels, recipe=recipe)
    assert read_golden(path).shape == (40, 44, 3)
    assert check(path, WEIGHTS, pixels).differing == []
    assert check(path, WEIGHTS, refnet.preprocess(pixels, recipe)).differing == []
    with pytest.raises(InputError, match="raw pixels"):
        record(path, dict(WEIGHTS), pixels)


def test_stored_and_seeded_images_need_not_be_passed(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES, store_images=True)
    assert check(path, WEIGHTS).differing == []
    record(path, WEIGHTS, (33, 34, 3), seed=5)
    assert check(path, WEIGHTS).differing == []
    assert check(path, WEIGHTS, seeded_images((33, 34, 3), 5)).differing == []
    record(path, WEIGHTS, IMAGES)
    with pytest.raises(ConfigError, match="pass the images"):
        check(path, WEIGHTS)
    with pytest.raises(ConfigError, match="pass the weights"):
        check(path, images=IMAGES)


def test_a_seeded_network_needs_no_files(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, "resnet_v2_50", (33, 33, 3), seed=3, hashes_only=True)
    assert check(path).differing == []
    net = refnet.forward(refnet.random_weights("resnet_v2_50", seed=3), seeded_images((33, 33, 3), 3))
    assert read_golden(path).end_points["net"].sha256 == digest(net)


class WrongEngine(refnet.Engine):
    """One bias is one ULP too large."""

    def __init__(self, weights: Mapping[str, Any], **options: Any) -> None:
        biases = np.nextafter(weights[f"{CONV3}/biases"], np.float32(np.inf))
        super().__init__({**weights, f"{CONV3}/biases": biases}, **options)


@pytest.fixture
def wrong_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that compute other bits than those of the weights that they are given."""
    right = golden.digest_all
    monkeypatch.setattr(golden, "digest_all", lambda arrays, names: right(WEIGHTS, names))
    monkeypatch.setattr(golden, "Engine", WrongEngine)


@pytest.mark.usefixtures("wrong_kernels")
@pytest.mark.parametrize("hashes_only", [False, True])
def test_the_first_end_point_that_differs_is_named(
    hashes_only: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "g.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(golden, "Engine", refnet.Engine)
        record(path, WEIGHTS, IMAGES, hashes_only=hashes_only)
    _, right = refnet.forward(WEIGHTS, IMAGES, end_points=[CONV3])
    wrong = dict(WEIGHTS)
    wrong[f"{CONV3}/biases"] = np.nextafter(wrong[f"{CONV3}/biases"], np.float32(np.inf))
    _, found = refnet.forward(wrong, IMAGES, end_points=[CONV3])
    report = check(path, WEIGHTS, IMAGES)
    first = report.differing[0]
    assert first.name == CONV3
    if hashes_only:
        assert (first.elements, first.ulps) == (None, None)
        assert "holds no values" in str(report)
        return
    assert first.elements == int(np.sum(right[CONV3] != found[CONV3])) > 0
    # The bias is below 1: its ULP is at most that of the largest value, and rounding may add another half.
    assert 0 < first.ulps <= 1.5
    assert (first.expected, first.found) == (right[CONV3][first.where], found[CONV3][first.where])
    assert str(report).splitlines()[1] == f"  {first}"


def test_other_weights_and_other_images_are_not_called_other_bits(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES)
    with pytest.raises(WeightsError, match="recorded with other weights than these"):
        check(path, {**WEIGHTS, f"{CONV3}/biases": WEIGHTS[f"{CONV3}/biases"] + 1}, IMAGES)
    with pytest.raises(InputError, match="recorded with other images than these"):
        check(path, WEIGHTS, IMAGES + np.float32(2**-20))
    with pytest.raises(InputError, match=r"\(33, 40, 3\), the golden\'s is \(2, 33, 40, 3\)"):
        check(path, WEIGHTS, IMAGES[0])


def test_the_tensors_that_changed_are_named(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES, hashes_only=True)
    names = [f"{CONV3}/biases", f"{CONV3}/weights"]
    others = {**WEIGHTS, **{name: WEIGHTS[name] + np.float32(1) for name in names}}
    count = len(WEIGHTS)
    with pytest.raises(WeightsError, match=rf": 2 of {count} tensors differ, {names[0]}, {names[1]}\.") as caught:
        check(path, others, IMAGES)
    assert caught.value.tensor == names[0]
    with pytest.raises(WeightsError, match=rf": 1 of {count} tensors differs, {names[1]}\."):
        check(path, {**others, names[0]: WEIGHTS[names[0]]}, IMAGES)


def test_a_golden_without_the_tensors_hashes_is_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    new = record(path, WEIGHTS, IMAGES)
    path.write_bytes(changed(path.read_bytes(), lambda document, _: document["weights"].pop("tensors")))
    assert read_golden(path)._replace(values={}) == new._replace(values={}, tensors=())
    assert check(path, WEIGHTS, IMAGES).differing == []
    with pytest.raises(WeightsError, match=r"recorded with other weights than these\. If that is meant, record it"):
        check(path, {**WEIGHTS, f"{CONV3}/biases": WEIGHTS[f"{CONV3}/biases"] + 1}, IMAGES)


def test_tensors_that_the_network_does_not_read_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES)
    assert check(path, {**WEIGHTS, "resnet_v2/conv1/weights/Momentum": np.ones(3, np.float32)}, IMAGES).differing == []


def test_options_that_no_golden_can_hold(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    with pytest.raises(ConfigError, match="cannot hold these options: outputstride"):
        record(path, WEIGHTS, IMAGES, outputstride=8)
    blocks = [block._replace(unit_fn=refnet.subsample) for block in small_blocks()]
    with pytest.raises(ConfigError, match="bottleneck"):
        record(path, WEIGHTS, IMAGES, blocks=blocks)
    assert not path.exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_golden_is_written_whole_or_not_at_all(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES)
    before = path.read_bytes()
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match="No space"):
        record(path, WEIGHTS, IMAGES[0])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_is_no_golden(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        record(tmp_path, WEIGHTS, IMAGES)
    with pytest.raises(GoldenError, match="a directory"):
        read_golden(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_golden(tmp_path / "none")


# Bad files.


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("golden") / "g.safetensors"
    weights = refnet.random_weights(TINY, num_classes=2)
    record(path, weights, (9, 9, 3), end_points=["resnet_v2/pool5"], store_images=True)
    return path.read_bytes()


Change = Callable[[dict[str, Any], dict[str, np.ndarray]], None]


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(header: str, values: bytes) -> bytes:
    return struct.pack("<Q", len(header.encode())) + header.encode() + values


def signed(document: str) -> dict[str, str]:
    return {"refnet": document, "refnet_sha256": hashlib.sha256(document.encode()).hexdigest()}


def changed(content: bytes, change: Change) -> bytes:
    """A file whose own hash is right, but with something else in it."""
    header, values = header_of(content)
    document = json.loads(header.pop("__metadata__")["refnet"])
    tensors = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        tensors[name] = np.frombuffer(values[start:stop], np.float32).reshape(entry["shape"]).copy()
    change(document, tensors)
    return save(tensors, signed(json.dumps(document)))


def put(*keys: str, value: Any) -> Change:
    def change(document: dict[str, Any], _: dict[str, np.ndarray]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


def drop(name: str) -> Change:
    return lambda _, tensors: tensors.pop(name)


NET = "end_points/net"
CHANGES = {
    "another format": (put("format", value="diary"), "not a golden: its format is 'diary'"),
    "another format version": (put("version", value=2), "version 2 of the format, but this version of refnet reads 1"),
    "another contract": (put("contract", value=99), "version 99 of the arithmetic contract.*record it again"),
    "no options": (lambda document, _: document.pop("options"), "its 'options' is None, not a dict"),
    "a number for a hash": (put("weights", "sha256", value=5), "its 'sha256' is 5, not a str"),
    "a boolean for a seed": (put("seed", value=True), "its 'seed' is True, not a int"),
    "a shape of words": (put("images", "shape", value=["a", 1, 3]), "not a list of sizes"),
    "a negative size": (put("images", "shape", value=[-1, 9, 3]), "not a list of sizes"),
    "images of a terabyte": (put("images", "shape", value=[10**6, 10**6, 3]), "not images, or too many"),
    "another rank": (put("images", "shape", value=[9, 9]), "not images, or too many"),
    "a number among the tensors' hashes": (put("weights", "tensors", value=[5]), "hashes of the variables are not"),
    "tensors' hashes that are no list": (put("weights", "tensors", value={}), "hashes of the variables are not"),
    "an unknown network": (put("weights", "network", value="resnet_v2_51"), "its network is 'resnet_v2_51'"),
    "a network that is a list": (put("weights", "network", value=[]), "its network is"),
    "an unknown recipe": (put("images", "recipe", value={"hight": 9}), "recipe is not understood"),
    "a recipe of another size": (
        put("images", "recipe", value={"height": 10**4, "width": 9, "central_fraction": 1.0}), "does not lead to",
    ),
    "an end point that is a list": (put("end_points", "net", value=[]), "end point net is"),
    "another shape": (put("end_points", "net", "shape", value=[3]), r"net is float32 \[2\], not floats \[3\]"),
    "another hash": (put("end_points", "net", "sha256", value="0" * 64), "values of end_points/net do not have its"),
    "other values": (lambda _, t: t[NET].__iadd__(1), "values of end_points/net do not have its"),
    "other images": (lambda _, t: t["images"].__iadd__(1), "values of images do not have its hash"),
    "integers": (lambda _, t: t.update({NET: t[NET].view(np.int32)}), "end_points/net is int32"),
    "a missing end point": (drop(NET), "end_points/net is missing"),
    "missing images": (drop("images"), "images is missing"),
    "one tensor too many": (lambda _, t: t.update(x=np.ones(1, np.float32)), "x is not in its document"),
    "values that are not announced": (put("values_stored", value=False), "end_points/net is not in its document"),
    "no net": (lambda document, _: document["end_points"].pop("net"), "lack the net"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_contradicts_itself(name: str, good: bytes, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(changed(good, change))
    with pytest.raises(GoldenError, match=message) as caught:
        read_golden(path)
    assert str(caught.value).startswith(str(path))


def broken(good: bytes) -> dict[str, tuple[bytes, str]]:
    header, values = header_of(good)
    document = header["__metadata__"]["refnet"]
    text = json.dumps(header)
    twice = text[:-1] + f', "{NET}": {json.dumps(header[NET])}}}'
    plain = {name: entry for name, entry in header.items() if name != "__metadata__"}
    deep = "[" * 10_000
    half = {**header, NET: {**header[NET], "dtype": "BF16", "shape": [4]}}

    def around(document: str) -> bytes:
        return with_header(json.dumps({**header, "__metadata__": signed(document)}), values)

    return {
        "empty": (b"", "not a safetensors file"),
        "short": (good[:6], "not a safetensors file"),
        "cut in the header": (good[:100], "not a safetensors file"),
        "cut in the values": (good[:-1], "not a safetensors file"),
        "bytes at the end": (good + b"\0", "not a safetensors file"),
        "a zip": (b"PK\x03\x04" * 99, "not a safetensors file"),
        "a header that is no JSON": (with_header("{", b""), "not a safetensors file"),
        "a header that is a list": (with_header("[]", b""), "not a safetensors file"),
        "a header of 2^63 bytes": (struct.pack("<Q", 2**63) + b"{}", "not a safetensors file"),
        "a deep header": (with_header(deep, b""), "not a safetensors file"),
        "another dtype": (with_header(json.dumps(half), values), r"net is float32 \[4\], not floats \[2\]"),
        "a tensor twice": (with_header(twice, values), "header is not valid JSON: a key is there twice"),
        "weights, no golden": (with_header(json.dumps(plain), values), "not a golden: its metadata have no 'refnet'"),
        "another document": (good.replace(rb"\"seed\": 0", rb"\"seed\": 1"), "document does not have its hash"),
        "a document that is no JSON": (around("{"), "document is not valid JSON"),
        "a document that is a list": (around("[]"), "not a JSON object but a list"),
        "a deep document": (around(deep), "document is not valid JSON"),
        "a key twice": (around(document[:-1] + ', "seed": 1}'), "document is not valid JSON: a key is there twice"),
    }


BROKEN = [
    "empty", "short", "cut in the header", "cut in the values", "bytes at the end", "a zip",
    "a header that is no JSON", "a header that is a list", "a header of 2^63 bytes", "a deep header",
    "another dtype", "a tensor twice", "weights, no golden", "another document",
    "a document that is no JSON", "a document that is a list", "a deep document", "a key twice",
]  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file(name: str, good: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = broken(good)
    assert list(files) == BROKEN
    content, message = files[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(GoldenError, match=message):
        read_golden(path)
    assert main(["golden", "check", str(path)]) == 5
    assert str(path) in capsys.readouterr().err


def options_of(value: Any) -> Change:
    return put("options", value=value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"colour": "red"}, "options that this version of refnet lacks: colour"),
        ({"num_classes": {}}, "options are damaged: num_classes"),
        ({"blocks": [{"scope": "block1", "units": []}]}, "blocks are damaged"),
        ({"blocks": [{"scope": "block1", "units": [{"depth": 4, "colour": 1}]}]}, "blocks are damaged"),
        ({"blocks": [5]}, "blocks are damaged"),
        ({"output_stride": "8"}, "output_stride is '8'"),
        ({"dtype": "float16"}, "dtype is 'float16'"),
        ({"blocks": "x"}, "options are damaged: blocks"),
        ({"blocks": [{"scope": "block1", "units": [{"depth": "4", "depth_bottleneck": 1, "stride": 1}]}]}, "depth is"),
        ({"include_root_block": False}, "should have shape"),
    ],
)  # fmt: skip
def test_options_that_cannot_be(options: Any, message: str, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(changed(good, options_of(options)))
    with pytest.raises(RefnetError, match=message):
        check(path, refnet.random_weights(TINY, num_classes=2))


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_the_same_golden_or_none(data: st.DataObject, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    path.write_bytes(good)
    right = read_golden(path)
    content = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 1]))])
    try:
        found = read_golden(path)
    except GoldenError:
        return
    assert found._replace(values={}, stored_images=None) == right._replace(values={}, stored_images=None)
    assert {name: value.tobytes() for name, value in found.values.items()} == {
        name: value.tobytes() for name, value in right.values.items()
    }


def test_float64_images_are_kept_as_they_are(tmp_path: Path) -> None:
    path, images = tmp_path / "g.safetensors", IMAGES / np.float64(3)
    assert record(path, WEIGHTS, images, store_images=True, dtype=np.float64).options == {"dtype": "float64"}
    assert check(path, WEIGHTS).differing == check(path, WEIGHTS, images).differing == []
    with pytest.raises(InputError, match="other images"):
        check(path, WEIGHTS, images.astype(np.float32))
    record(path, WEIGHTS, (33, 34, 3), dtype="float64")
    assert check(path, WEIGHTS).differing == []
    # What float32 computes is compared by its distance.
    net = refnet.forward(WEIGHTS, seeded_images((33, 34, 3), 0))
    (row,) = compare_end_points(path, {"net": net}).differing
    assert row.ulps is not None
    assert 2**20 < row.ulps < 2**40


# End points of other engines.


def test_end_points_of_a_port(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    record(path, WEIGHTS, IMAGES)
    net, end_points = refnet.forward(WEIGHTS, IMAGES, end_points=True)
    port = {"net": net.astype(np.float64), CONV3: end_points[CONV3].copy()}
    assert compare_end_points(path, port).differing == []
    ulp = float(np.spacing(np.abs(end_points[CONV3]).max()))
    port[CONV3][1, 0, 1, 2] += np.float32(8 * ulp)
    report = compare_end_points(path, port)
    assert [row.name for row in report.rows] == [CONV3, "net"]
    (row,) = report.differing
    assert (row.name, row.elements, row.where) == (CONV3, 1, (1, 0, 1, 2))
    assert row.ulps == pytest.approx(8, abs=0.5)
    assert compare_end_points(path, port, max_ulps=9).differing == []
    assert compare_end_points(path, port, max_ulps=7).differing == [row]
    with pytest.raises(ConfigError, match="has no end points resnet_v2/block9; it has"):
        compare_end_points(path, {"resnet_v2/block9": net})
    with pytest.raises(ConfigError, match="needs end points to compare with"):
        compare_end_points(path, {})
    with pytest.raises(InputError, match=r"net \(complex64\)"):
        compare_end_points(path, {"net": net.astype(np.complex64)})
    for distance in (-1, np.nan, np.inf):
        with pytest.raises(ConfigError, match="max_ulps"):
            compare_end_points(path, {"net": net}, max_ulps=distance)
    transposed = end_points[CONV3].transpose(0, 3, 1, 2)
    assert compare_end_points(path, {CONV3: transposed}, max_ulps=1e9).differing[0].found_shape == transposed.shape


# The command line.


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    refnet.save_weights(tmp_path / "w.npz", refnet.random_weights(TINY, num_classes=3))
    refnet.save_weights(tmp_path / "other.npz", refnet.random_weights(TINY, num_classes=3, seed=1))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "i.png")
    Image.fromarray(255 - pixels).save(tmp_path / "other.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], line: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(line.split())
    return code, *capsys.readouterr()


@pytest.mark.usefixtures("files")
def test_record_and_check(capsys: pytest.CaptureFixture[str]) -> None:
    line = "golden record g.safetensors --weights w.npz --image i.png --size 17 --option output_stride=4"
    code, out, _ = run(capsys, line)
    assert (code, out.splitlines()[0]) == (0, "g.safetensors: 16 end points, images of shape [17, 17, 3]")
    assert out.splitlines()[-1].split() == [
        "file's",
        "size",
        f"{Path('g.safetensors').stat().st_size / 1000:.0f}",
        "kB",
    ]
    assert read_golden("g.safetensors").options == {"output_stride": 4}
    code, out, _ = run(capsys, "golden check g.safetensors --weights w.npz --image i.png --device reference")
    assert (code, out) == (0, "None of 16 end points differs from g.safetensors.\n")
    code, out, _ = run(capsys, "golden check g.safetensors --weights w.npz --image i.png --json")
    assert (code, json.loads(out)["same"], len(json.loads(out)["end_points"])) == (0, True, 16)
    line = "golden record h.safetensors --weights w.npz --random 3 --size 9 --hashes-only --end-points resnet_v2/pool1"
    code, out, _ = run(capsys, f"{line} --json")
    assert (code, list(json.loads(out)["end_points"])) == (0, ["resnet_v2/pool1", "net"])
    assert run(capsys, "golden check h.safetensors --weights w.npz")[0] == 0
    run(capsys, "golden record i.safetensors --weights w.npz --image i.png --size 9 --store-image")
    assert run(capsys, "golden check i.safetensors --weights w.npz")[0] == 0
    assert run(capsys, "golden record i.safetensors --weights w.npz --random 4 --size 9 --force")[0] == 0
    assert run(capsys, "golden check i.safetensors --weights w.npz")[0] == 0


class InfiniteEngine(refnet.Engine):
    """One logit is infinite."""

    def __call__(self, images: Any, end_points: Any = False) -> Any:
        net, found = super().__call__(images, end_points)
        net[1] = np.inf
        return net, found


@pytest.mark.usefixtures("files")
def test_other_bits_are_exit_code_1(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    run(capsys, "golden record g.safetensors --weights w.npz --random 3 --size 9")
    monkeypatch.setattr(golden, "Engine", InfiniteEngine)
    code, out, _ = run(capsys, "golden check g.safetensors --weights w.npz")
    assert code == 1
    assert out.splitlines()[1].split()[:4] == ["net", "3", "1", "inf"]
    assert out.splitlines()[-4] == "1 of 16 end points differ from g.safetensors; in network order:"
    assert out.splitlines()[-3].startswith("  net [3]: 1 of 3 elements differ, most at [1]: expected ")
    versions = f"with refnet {refnet.__version__}, contract 1, numba "
    assert [line.split(versions)[0] for line in out.splitlines()[-2:]] == ["recorded ", "checked "]
    code, out, _ = run(capsys, "golden check g.safetensors --weights w.npz --json")
    assert code == 1
    (row,) = (row for row in json.loads(out)["end_points"] if not row["same"])
    assert (row["name"], row["elements"], row["where"], row["ulps"]) == ("net", 1, [1], "inf")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        ("check g.safetensors --weights other.npz --image i.png", 4, "other weights than"),
        ("check g.safetensors --weights w.npz --image other.png", 5, "other images than"),
        ("check g.safetensors --weights w.npz", 2, "pass the images"),
        ("check g.safetensors --image i.png", 2, "pass the weights"),
        ("check g.safetensors --weights none.npz --image i.png", 4, "none.npz"),
        ("check g.safetensors --weights w.npz --image none.png", 5, "none.png"),
        ("check g.safetensors --weights w.npz --image i.png --threads 0", 2, "threads is 0"),
        ("check none.safetensors --weights none.npz", 5, "none.safetensors: No such file"),
        ("check i.png --weights w.npz", 5, "not a safetensors file"),
        ("record new.safetensors --weights w.npz", 2, "Pass --image"),
        ("record new.safetensors --weights w.npz --image i.png --random 1", 2, "Pass --image"),
        ("record new.safetensors --image i.png", 2, "Pass --weights"),
        ("record new.safetensors --weights w.npz --random 1 --size 9 --end-points a", 2, "no end point a"),
        ("record new.safetensors --weights w.npz --random 1 --size 9 --option colour=1", 2, "colour=1 is not underst"),
        ("record new.safetensors --weights w.npz --random 1 --size 9 --option output_stride=3", 2, "multiple of 4"),
        ("record new.safetensors --weights w.npz --random 1 --size 9 --option num_classes={}", 2, "num_classes is"),
        ("record g.safetensors --weights w.npz --random 1 --size 9", 2, "pass --force"),
        ("", 2, "required: record|check"),
        ("record none/new.safetensors --weights w.npz --random 1 --size 9", 5, "No such file"),
        ("record new.safetensors --weights w.npz --random 1 --size 9 --device cuda", 3, "CUDA"),
    ],
)  # fmt: skip
def test_failures(line: str, code: int, words: str, capsys: pytest.CaptureFixture[str], files: Path) -> None:
    run(capsys, "golden record g.safetensors --weights w.npz --image i.png --size 9")
    found, out, err = run(capsys, f"golden {line}")
    assert (found, out) == (code, "")
    assert words in err
    assert not (files / "new.safetensors").exists()


def test_a_golden_keeps_names_in_full(tmp_path: Path) -> None:
    weights = refnet.Weights(lively_weights())
    found = golden.record(tmp_path / "g.safetensors", weights, (17, 17, 3), end_points=["block1", "predictions"])
    assert list(found.end_points) == ["resnet_v2/block1", "net", "predictions"]
    assert not golden.check(tmp_path / "g.safetensors", weights).differing
