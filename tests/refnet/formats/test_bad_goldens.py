"""Goldens whose document no run can have: refused by an error that names the file."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import refnet
from refnet import golden
from refnet.errors import ConfigError, GoldenError, RefnetError, ShapeMismatchError
from refnet.evidence.golden import OPTIONS
from refnet.weights.formats.safetensors import pack, unpack
from tests.refnet.formats.bad_files import BadFile, check_refused
from tests.refnet.formats.test_bad_weights import SLIM, VALUES, fuzzed
from tests.support.nets import small_blocks

BLOCKS = small_blocks(units=1)


def check(path: Path) -> golden.Report:
    return golden.check(path, _weights(), threads=1)


@cache
def _weights() -> refnet.Weights:
    return refnet.Weights(SLIM)


@cache
def _sound() -> tuple[str, dict[str, Any]]:
    """The document of a golden, and its tensors."""
    with TemporaryDirectory() as folder:
        path = f"{folder}/a.safetensors"
        golden.record(path, _weights(), (9, 11, 3), blocks=BLOCKS, multi_grid=(1,), threads=1)
        tensors, metadata, _ = unpack(path)
    return metadata["refnet"], tensors


def changed(folder: Path, *place: str | int, to: Any) -> Path:
    """A golden with another value at this place of its document, and the hash of that document."""
    text, tensors = _sound()
    document = json.loads(text)
    inner = document
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = to
    text = json.dumps(document)
    path = folder / "a.safetensors"
    pack(str(path), tensors, {"refnet": text, "refnet_sha256": hashlib.sha256(text.encode()).hexdigest()})
    return path


def bad(*place: str | int, to: Any, error: type[RefnetError], message: str) -> BadFile:
    return BadFile(lambda folder: changed(folder, *place, to=to), error, message, check)


UNIT = ("options", "blocks", 1, "units", 0)
BAD: dict[str, BadFile] = {
    **{
        f"a multi_grid of {name}": bad("options", "multi_grid", to=[rate], error=ConfigError, message="is .* 2,147")
        for name, rate in {"2**31": 2**31, "2**62": 2**62, "2**63": 2**63, "400 digits": 10**400}.items()
    },
    "multi_grid and rate whose product is too large": bad(
        "options", to={"multi_grid": [2**30], "output_stride": 4}, error=ConfigError, message=r"rate.* up to 2,147",
    ),
    "a stride of 2**63": bad(*UNIT, "stride", to=2**63, error=ConfigError, message="stride is .* up to 2,147"),
    "a stride in words": bad(*UNIT, "stride", to="2", error=ConfigError, message="stride is '2'"),
    "a rate of 2**63": bad(*UNIT, "unit_rate", to=2**63, error=ConfigError, message="unit_rate is .* up to 2,147"),
    "a depth of 2**40": bad(*UNIT, "depth", to=2**40, error=ConfigError, message="depth is .* up to 2,147"),
    "another depth": bad(*UNIT, "depth", to=9, error=ShapeMismatchError, message="should have shape .*9"),
    "an output_stride of 400 digits": bad(
        "options", "output_stride", to=4 * 10**400, error=ConfigError, message="output_stride",
    ),
    "an epsilon of 400 digits": bad(
        "options", "batch_norm_epsilon", to=10**400, error=ConfigError, message="batch_norm_epsilon is",
    ),
    "an unknown pool_mode": bad("options", "pool_mode", to="x", error=ConfigError, message="pool_mode is 'x'"),
    "an option that is a list": bad("options", "scope", to=[], error=GoldenError, message="options are damaged: scope"),
    "an option of another version": bad("options", "x", to=1, error=GoldenError, message="options that .* lacks: x"),
    "a recipe of an unknown mode": bad(
        "images", "recipe", to={"mode": "x"}, error=GoldenError, message="its recipe is not understood",
    ),
    "a recipe of 14,000 x 14,000": bad(
        "images", "recipe", to={"height": 14000, "width": 14000}, error=GoldenError, message="recipe is not understood",
    ),
    "a shape of 300 gigabytes": bad(
        "images", "shape", to=[10**6, 10**5, 3], error=GoldenError, message="these are not images, or too many",
    ),
    "a shape of 400 digits": bad("images", "shape", to=[10**400, 1, 3], error=GoldenError, message="not images"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_files(name: str, tmp_path: Path, watch: Any) -> None:
    check_refused(BAD[name], tmp_path, watch)


def test_it_is_sound_before_it_is_changed(tmp_path: Path) -> None:
    assert not check(changed(tmp_path, "seed", to=0)).differing


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in the document, of one end point too."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        inner = [(key, value[key]) for key in value if place != ("end_points",) or key == "net"]
    elif isinstance(value, list):
        inner = list(enumerate(value))
    for key, found in inner:
        yield (*place, key)
        yield from _places(found, (*place, key))


@fuzzed
@given(data=st.data(), value=VALUES | st.sampled_from([2**31, 2**62, 2**63, [2**63], "2", [1]]))
def test_any_value_anywhere(data: st.DataObject, value: Any, tmp_path: Path) -> None:
    options = [("options", name) for name in sorted(OPTIONS)]
    place = data.draw(st.sampled_from([*_places(json.loads(_sound()[0])), *options]))
    with contextlib.suppress(RefnetError):
        check(changed(tmp_path, *place, to=value))
