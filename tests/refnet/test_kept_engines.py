"""Weights do not change, `forward` keeps engines for them, and both can be pickled."""

from __future__ import annotations

import copy
import gc
import inspect
import os
import pickle
import subprocess
import sys
import weakref
from collections import UserList
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.engine import KEPT_ENGINES, Engine
from refnet.errors import ConfigError, ImmutableError
from refnet_kernels.system.cores import count_cores
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights, small_blocks

RECIPE, OTHER = refnet.Recipe(40, 48, 0.875), refnet.Recipe(40, 48, 1.0, "tf")
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
IMAGE = random_images(40, 48, 3)


@pytest.fixture
def weights() -> refnet.Weights:
    return refnet.Weights(
        lively_weights(), recipe=RECIPE, labels=list("abcdefg"), options={"batch_norm_epsilon": 2e-5}, source="here"
    )


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Engine]]:
    """The engines that `forward` makes from here on."""
    engines: list[weakref.ref[Engine]] = []

    class Counted(Engine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            engines.append(weakref.ref(self))

    monkeypatch.setattr("refnet.engine.Engine", Counted)
    return engines


def test_another_recipe_gives_other_logits(weights: refnet.Weights) -> None:
    by_hand = [refnet.forward(weights, refnet.preprocess(PIXELS, recipe)) for recipe in (RECIPE, OTHER)]
    found = [refnet.forward(weights.replace(recipe=recipe), PIXELS) for recipe in (RECIPE, OTHER, RECIPE)]
    assert digest(refnet.forward(weights, PIXELS)) == digest(by_hand[0])
    assert [digest(logits) for logits in found] == [digest(by_hand[0]), digest(by_hand[1]), digest(by_hand[0])]


def test_other_options_give_another_function(weights: refnet.Weights) -> None:
    other = weights.replace(options={"pool_mode": "keras"})
    assert other.options == {"pool_mode": "keras"}
    assert digest(refnet.forward(other, IMAGE)) == digest(refnet.forward(dict(weights), IMAGE, pool_mode="keras"))
    assert digest(refnet.forward(other, IMAGE)) != digest(refnet.forward(weights, IMAGE))


def test_replace_changes_what_it_is_told_and_shares_the_arrays(weights: refnet.Weights) -> None:
    other = weights.replace(recipe=OTHER, labels=list("hijklmn"))
    assert (other.recipe, other.labels, other.options) == (OTHER, tuple("hijklmn"), weights.options)
    assert (weights.recipe, weights.labels) == (RECIPE, tuple("abcdefg"))
    # Other pixels on the way in do not change what the weights were trained on.
    assert other.image_size == weights.image_size == (40, 48)
    assert all(other[name] is weights[name] for name in weights)
    assert other != weights
    with pytest.raises(TypeError, match="colour"):
        weights.replace(colour="red")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["recipe", "labels", "options", "image_size", "source", "conversion", "engines"])
def test_attributes_cannot_be_set(name: str, weights: refnet.Weights) -> None:
    before = dict(vars(weights))
    with pytest.raises(ImmutableError, match=rf"weights\.replace\({name}=\.\.\.\)"):
        setattr(weights, name, None)
    with pytest.raises(AttributeError):
        delattr(weights, name)
    assert vars(weights) == before


def test_what_weights_hold_cannot_be_changed_either(weights: refnet.Weights) -> None:
    name = next(iter(weights))
    with pytest.raises(TypeError):
        weights.options["pool_mode"] = "keras"  # type: ignore[index]
    with pytest.raises(TypeError):
        weights[name] = weights[name]  # type: ignore[index]
    with pytest.raises(ValueError, match="read-only"):
        weights[name][...] = 0
    given = {"pool_mode": "keras"}
    other = weights.replace(options=given)
    given["pool_mode"] = "torch"
    assert other.options == {"pool_mode": "keras"}


def test_options_that_do_not_belong_to_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"output_stride; they can have batch_norm_epsilon, .*stride_place"):
        refnet.Weights(lively_weights(), options={"output_stride": 8})


def test_an_engine_serves_all_spellings_of_the_same_options(
    weights: refnet.Weights, made: list[weakref.ref[Engine]]
) -> None:
    spellings: list[dict[str, Any]] = [
        {},
        {"dtype": "float32"},
        {"dtype": np.float32},
        {"dtype": np.dtype("float32"), "device": "cpu"},
        {"batch_norm_epsilon": 2e-5},
        {"pool_mode": "slim", "stride_place": "last_unit", "is_training": False},
        {"threads": count_cores()},
    ]
    for _ in range(2):
        assert len({digest(refnet.forward(weights, IMAGE, **options)) for options in spellings}) == 1
    assert len(made) == 1
    refnet.forward(weights, IMAGE, blocks=small_blocks())
    refnet.forward(weights, IMAGE, dtype="float64")
    assert len(made) == 3


def test_the_engines_that_are_kept_are_few(weights: refnet.Weights, made: list[weakref.ref[Engine]]) -> None:
    first = digest(refnet.forward(weights, IMAGE, threads=1))
    for threads in range(2, 3 * KEPT_ENGINES):
        assert digest(refnet.forward(weights, IMAGE, threads=threads)) == first
        # The one that is used again stays.
        refnet.forward(weights, IMAGE, threads=1)
    gc.collect()
    alive = [engine for engine in made if engine() is not None]
    assert len(alive) == KEPT_ENGINES
    assert made[0]() is not None
    assert len(made) == 3 * KEPT_ENGINES - 1


def test_engines_go_with_their_weights(made: list[weakref.ref[Engine]]) -> None:
    one, two = (refnet.Weights(lively_weights(seed)) for seed in (1, 2))
    refnet.forward(one, IMAGE)
    expected = digest(refnet.forward(two, IMAGE))
    del one
    gc.collect()
    assert [engine() is None for engine in made] == [True, False]
    assert digest(refnet.forward(two, IMAGE)) == expected
    assert len(made) == 2


def test_weights_that_go_while_an_engine_is_made_leave_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The garbage collector comes at any time: the place of dead weights may be that of new ones."""
    owners = [refnet.Weights(lively_weights(1))]
    engines: list[weakref.ref[Engine]] = []

    class Collecting(Engine):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            engines.append(weakref.ref(self))
            if len(engines) == 2:
                owners.clear()
                gc.collect()

    monkeypatch.setattr("refnet.engine.Engine", Collecting)
    refnet.forward(owners[0], IMAGE)
    for seed in range(2, 30):
        fresh = lively_weights(seed)
        expected = digest(Engine(fresh)(IMAGE))
        weights = refnet.Weights(fresh)
        assert digest(refnet.forward(weights, IMAGE)) == expected
        del weights
    gc.collect()
    assert not any(engine() for engine in engines)


COPIES: dict[str, Callable[[Any], Any]] = {
    **{f"protocol {p}": lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(pickle.HIGHEST_PROTOCOL + 1)},
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("used", [False, True], ids=["fresh", "used"])
def test_weights_are_pickled_and_copied(way: str, used: bool, weights: refnet.Weights) -> None:
    if used:
        refnet.forward(weights, PIXELS)
        refnet.forward(weights, IMAGE, dtype="float64")
    other = COPIES[way](weights)
    assert list(other) == list(weights)
    assert all(other[name].tobytes() == weights[name].tobytes() for name in weights)
    assert not any(other[name].flags.writeable for name in other)
    for name in ("recipe", "labels", "options", "image_size", "source", "conversion"):
        assert getattr(other, name) == getattr(weights, name)
    with pytest.raises(ImmutableError):
        other.recipe = OTHER
    assert digest(refnet.forward(other, PIXELS)) == digest(refnet.forward(weights, PIXELS))


@pytest.mark.parametrize("way", COPIES)
@pytest.mark.parametrize("given", ["weights", "mapping", "path"])
def test_engines_are_pickled_and_copied(
    way: str, given: str, weights: refnet.Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refnet.save_weights(tmp_path / "w.npz", weights)
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"output_stride": 4, "global_pool": False, "blocks": small_blocks(), "threads": 2}
    source = {"weights": weights, "mapping": dict(weights), "path": "w.npz"}[given]
    engine = Engine(source, **options)
    engine(IMAGE)
    # Where it arrives, the folder is another one.
    monkeypatch.chdir("/")
    other = COPIES[way](engine)
    (net, end_points), (expected, all_expected) = other(IMAGE, end_points=True), engine(IMAGE, end_points=True)
    assert digest(net) == digest(expected)
    assert {n: digest(v) for n, v in end_points.items()} == {n: digest(v) for n, v in all_expected.items()}
    if given == "mapping":
        with pytest.raises(refnet.RefnetError, match="have no recipe"):
            other(PIXELS)
    else:
        assert digest(other(PIXELS)) == digest(engine(PIXELS))


def test_an_engine_has_the_threads_of_the_process_in_which_it_arrives(weights: refnet.Weights, tmp_path: Path) -> None:
    (tmp_path / "engines").write_bytes(pickle.dumps([Engine(weights), Engine(weights, threads=3)]))
    np.save(tmp_path / "image.npy", IMAGE)
    code = """
import os, pickle, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
engines = pickle.load(open("engines", "rb"))
print([engine._threads for engine in engines], *{engine(np.load("image.npy")).tobytes().hex() for engine in engines})
"""
    root = Path(refnet.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "kernels")])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert done.stdout.split("]") == ["[1, 3", f" {Engine(weights)(IMAGE).tobytes().hex()}\n"]


def test_prepared_plans_before_the_first_image(weights: refnet.Weights) -> None:
    engine = Engine(weights)
    prepared = engine.prepared((40, 48, 3))
    assert engine.prepared((1, 40, 48, 3)) is prepared
    assert engine.prepared((1, 40, 48, 3), end_points=True) is not prepared
    engine(IMAGE)
    assert len(engine._compiled) == 2


def test_help_shows_every_option() -> None:
    shown = inspect.signature(Engine).parameters
    assert next(iter(shown)) == "weights"
    assert shown["num_classes"].default == "from_weights"
    assert {"output_stride", "pool_mode", "device", "threads", "dtype"} <= set(shown)
    with pytest.raises(TypeError, match="output_strid"):
        Engine(lively_weights(), output_strid=8)


def test_blocks_that_print_alike_are_told_apart():
    """A block's line shows neither rates nor the convolution that strides."""
    weights = refnet.Weights(lively_weights())
    plain = small_blocks()
    *others, last = plain
    changed = [*others, last._replace(args=[{**unit, "unit_rate": 2} for unit in last.args])]
    assert repr(changed) == repr(plain)
    expected = [refnet.Engine(weights, blocks=blocks)(IMAGE) for blocks in (plain, changed)]
    assert not np.array_equal(*expected)
    for blocks in (plain, changed, tuple(plain), UserList(changed)):
        net = refnet.forward(weights, IMAGE, blocks=blocks)
        assert np.array_equal(net, expected[blocks[-1] is changed[-1]])
