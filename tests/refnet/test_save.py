"""What `save_weights` accepts `load_weights` reads back equal, and a file that is replaced stays whose it was."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import refnet
from refnet import golden
from refnet.errors import ConfigError, MissingTensorError, RefnetError, WeightsError
from refnet.images.preprocess import VGG
from tests.support.nets import lively_weights, small_blocks

TENSORS = lively_weights(blocks=small_blocks(units=1))
FEATURES = {name: value for name, value in TENSORS.items() if "/logits/" not in name}
LABELS = list("abcdefg")
FORMATS = pytest.mark.parametrize("name", ["w.npz", "w.safetensors", "w.ckpt"])


def files_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}*"))


NAMES = st.one_of(
    st.text(max_size=6),
    st.text(st.characters(codec=None), max_size=3),  # surrogates too
    st.sampled_from(
        [
            "__refnet__", "__metadata__", "_CHECKPOINTABLE_OBJECT_GRAPH", "x/.ATTRIBUTES/VARIABLE_VALUE", "../x", "/x",
            "C:x", "a\\..\\b", "x.npy", "a/data.pkl", "config.json", "x\n", "x/", "é" * 90,
            "layer1.0.conv1.weight", "stages.0.blocks.0.conv1.weight", "conv2_block1_1_conv/kernel", "bit.x",
            "other/block1/unit_1/bottleneck_v2/conv1/weights", "resnet_v2/block1/unit_9/bottleneck_v2/conv1/weights",
            "resnet_v2/conv1/weights/Momentum", "resnet_v2/postnorm/beta",
        ]
    ),
)  # fmt: skip
SHAPES = st.lists(st.integers(0, 3), max_size=4).map(tuple) | st.just((1,) * 40)
VALUES = st.sampled_from([0.5, -0.0, 1e-42, 3e38, 1, np.nan, np.inf])


RECIPES = (
    None, refnet.Recipe(), refnet.Recipe(8, None), refnet.Recipe(8, 8, 1, "tf", 9), VGG, refnet.Recipe(mode="x"),
)  # fmt: skip
LABELLINGS = (None, LABELS, ["", "\n", "é", "a", "b", "c", "d"], tuple("ABCDEFG"), LABELS[:-1], ["\udc00"] * 7)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "batch_norm_epsilon": st.sampled_from([0, 1, 1e-3, np.float32(0.5), 1e-5, True, np.nan, 10**400]),
        "pool_mode": st.sampled_from(["keras", "torch", "slim", "x"]),
        "avg_down": st.sampled_from([False, True, np.True_, 1]),
    },
)


@FORMATS
@settings(max_examples=80, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    added=st.dictionaries(NAMES, st.tuples(SHAPES, VALUES), max_size=2),
    recipe=st.sampled_from(RECIPES),
    labels=st.sampled_from(LABELLINGS),
    options=OPTIONS,
)
def test_what_is_saved_is_loaded(name: str, added: Any, recipe: Any, labels: Any, options: Any, tmp_path: Path) -> None:
    tensors = TENSORS | {key: np.full(shape, value, np.float32) for key, (shape, value) in added.items()}
    path = tmp_path / name
    for file in files_of(path):
        file.unlink()
    try:
        weights = refnet.Weights(tensors, recipe=recipe, labels=labels, options=options)
        refnet.save_weights(path, weights)
    except (ConfigError, WeightsError):
        assert files_of(path) == []
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        loaded = refnet.load_weights(path)
    assert loaded.keys() == weights.keys()
    assert all(loaded[key].tobytes() == weights[key].tobytes() for key in weights)
    assert all(loaded[key].shape == weights[key].shape for key in weights)
    assert (loaded.recipe, loaded.labels) == (weights.recipe, weights.labels)
    assert dict(loaded.options) == dict(weights.options)
    assert {key: type(value) for key, value in loaded.options.items()} == {
        key: type(value) for key, value in weights.options.items()
    }


REFUSED: dict[str, tuple[dict[str, Any], type[RefnetError], str]] = {
    "no network": ({"tensors": {"a": np.ones(2)}}, MissingTensorError, "not the weights of a ResNet"),
    "two networks": (
        {"tensors": {**TENSORS, **{f"x/{name}": value for name, value in TENSORS.items()}}}, ConfigError, "several",
    ),
    "NaN": ({"tensors": {**TENSORS, "x": np.float32(np.nan)}}, WeightsError, r"NaN or infinite values: x \(1\)"),
    "a label too few": ({"labels": LABELS[:-1]}, ConfigError, "6 labels, but the weights have 7 classes"),
    "large labels": ({"labels": ["x" * 200_000] * 7}, ConfigError, "a file can hold 1048576"),
    "a long name": ({"tensors": {**TENSORS, "x" * 70_000: np.ones(2)}}, ConfigError, "has 70000 bytes"),
    "half a surrogate": ({"tensors": {**TENSORS, "\udc00": np.ones(2)}}, ConfigError, "is not Unicode"),
    "40 dimensions": ({"tensors": {**TENSORS, "x": np.ones((1,) * 40)}}, ConfigError, "40 dimensions"),
    "another framework's name": (
        {"tensors": {**TENSORS, "layer1.0.conv1.weight": np.ones(2)}}, ConfigError, "several networks",
    ),
    "features, and a layer that would be their classifier": (
        {"tensors": {**FEATURES, "x/weights": np.ones((20, 7))}}, ConfigError, "read back as others, .* x/weights",
    ),
}  # fmt: skip


@FORMATS
@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_saved(what: str, name: str, tmp_path: Path) -> None:
    arguments, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        refnet.save_weights(tmp_path / name, refnet.Weights(**{"tensors": TENSORS, **arguments}))
    assert list(tmp_path.iterdir()) == []


def test_a_header_that_is_too_large(tmp_path: Path) -> None:
    many = {f"{number:05d}/{'x' * 30_000}": np.ones(1, np.float32) for number in range(150)}
    with pytest.raises(ConfigError, match="header of names, shapes and metadata would take"):
        refnet.save_weights(tmp_path / "w.safetensors", TENSORS | many)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
@FORMATS
def test_permissions(name: str, tmp_path: Path) -> None:
    """A new file's are the umask's, and one that is replaced keeps its own, also while it is written."""
    path, weights = tmp_path / name, refnet.Weights(TENSORS)
    refnet.save_weights(path, weights)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files_of(path)} == {0o640}
    for mode in (0o600, 0o666, 0o444):
        for file in files_of(path):
            file.chmod(mode)
        refnet.save_weights(path, weights)
        assert {stat.S_IMODE(file.stat().st_mode) for file in files_of(path)} == {mode}


def test_others_cannot_read_a_private_file_while_it_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refnet.save_weights(tmp_path / "w.npz", TENSORS)
    (tmp_path / "w.npz").chmod(0o600)
    modes = []
    fsync = os.fsync

    def look(descriptor: int) -> None:
        modes.extend(stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    refnet.save_weights(tmp_path / "w.npz", TENSORS)
    assert set(modes) == {0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_owner_stays(tmp_path: Path) -> None:
    refnet.save_weights(tmp_path / "w.npz", TENSORS)
    os.chown(tmp_path / "w.npz", 12345, 54321)
    refnet.save_weights(tmp_path / "w.npz", TENSORS)
    status = (tmp_path / "w.npz").stat()
    assert (status.st_uid, status.st_gid) == (12345, 54321)


@FORMATS
@pytest.mark.parametrize("there", [True, False])
def test_a_link_still_leads_to_the_file(name: str, there: bool, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "links").mkdir()
    refnet.save_weights(tmp_path / "real" / name, TENSORS)
    for file in files_of(tmp_path / "real" / name):
        (tmp_path / "links" / file.name).symlink_to(f"../real/{file.name}")
        if not there:
            file.unlink()
    changed = {key: value + 1 for key, value in TENSORS.items()}
    refnet.save_weights(tmp_path / "links" / name, changed)
    assert all(file.is_symlink() for file in files_of(tmp_path / "links" / name))
    assert not any(file.is_symlink() for file in files_of(tmp_path / "real" / name))
    loaded = refnet.load_weights(tmp_path / "real" / name)
    assert all(loaded[key].tobytes() == changed[key].tobytes() for key in changed)
    assert len(files_of(tmp_path / "real" / name)) == len(list((tmp_path / "real").iterdir()))


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.npz")
    (tmp_path / "b.npz").symlink_to("/dev/null")
    for name, kind in (("a.npz", "a FIFO"), ("b.npz", "a device")):
        with pytest.raises(ConfigError, match=f"is {kind}; give the path of a file to write"):
            refnet.save_weights(tmp_path / name, TENSORS)
        with pytest.raises(ConfigError, match=f"is {kind}; give the path of a file to write"):
            golden.record(tmp_path / name, TENSORS, (9, 11, 3), threads=1)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert len(list(tmp_path.iterdir())) == 2
