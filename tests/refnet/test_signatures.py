"""What ``help()``, editors and `inspect.signature` show of the public functions: every option, and none that is not."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import refnet
from refnet import golden, seeded, summary, testing
from tests.support.nets import lively_weights

ON_ARRAYS = {"variables", "device", "threads", "dtype", *refnet.resnet_arg_scope._fields}
OF_ENGINES = set(inspect.signature(refnet.Engine).parameters) - {"weights"}
NETWORKS = [f"resnet_v{version}_{layers}" for version in (1, 2) for layers in (18, 34, 50, 101, 152, 200)]
IMAGES = np.linspace(-1, 1, 2 * 33 * 33 * 3, dtype=np.float32).reshape(2, 33, 33, 3)


def public() -> dict[str, Callable[..., Any]]:
    """Every public function, class and method."""
    found = {f"refnet.{name}": getattr(refnet, name) for name in refnet.__all__}
    for module in (golden, seeded, summary, testing):
        found |= {f"{module.__name__}.{name}": getattr(module, name) for name in names_of(module)}
    methods = {
        f"{name}.{method}": getattr(value, method)
        for name, value in found.items()
        if isinstance(value, type)
        for method, function in vars(value).items()
        if inspect.isfunction(function) and (not method.startswith("_") or method == "__call__")
    }
    return found | methods


def names_of(module: ModuleType) -> list[str]:
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


@pytest.mark.parametrize("name", [name for name in public() if name != "refnet.RefnetWarning"])
def test_no_option_is_hidden(name: str) -> None:
    parameters = inspect.signature(public()[name]).parameters.values()
    assert [p.name for p in parameters if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)] == []
    assert all("ForwardRef" not in str(p.annotation) for p in parameters if p.kind is p.KEYWORD_ONLY)


@pytest.mark.parametrize(
    "name",
    ["subsample", "conv2d_same", "stack_blocks_dense", "bottleneck", "basic", "resnet_v1", "resnet_v2", *NETWORKS],
)
def test_the_keywords_of_arrays_are_shown(name: str) -> None:
    function = getattr(refnet, name)
    shown = inspect.signature(function).parameters
    assert set(shown) >= ON_ARRAYS
    assert all(shown[option].kind is inspect.Parameter.KEYWORD_ONLY for option in ("variables", "device", "dtype"))
    assert "threads" in pydoc.plaintext.document(function).splitlines()[0]


@pytest.mark.parametrize(
    "function", [refnet.forward, golden.record, testing.assert_golden, refnet.diagnose, refnet.batch]
)
def test_the_options_of_an_engine_are_shown(function: Callable[..., Any]) -> None:
    assert set(inspect.signature(function).parameters) >= OF_ENGINES


def test_refused_options_are_not_shown() -> None:
    assert OF_ENGINES - set(inspect.signature(refnet.compare).parameters) == {"dtype"}
    # Keras has its own names for these.
    assert OF_ENGINES - set(inspect.signature(refnet.KerasModel).parameters) == {"num_classes", "global_pool"}


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_shown_defaults_are_the_real_ones() -> None:
    """Whatever is shown can be passed, and the value that is shown changes no bit."""
    weights = refnet.Weights(lively_weights())
    given = {**defaults(refnet.forward), "scope": None}
    assert refnet.forward(weights, IMAGES).tobytes() == refnet.forward(weights, IMAGES, **given).tobytes()
    model = refnet.KerasModel(weights)
    again = refnet.KerasModel(weights, **defaults(refnet.KerasModel))
    assert model.predict(IMAGES).tobytes() == again.predict(IMAGES).tobytes()
    kernel = {"Conv/weights": np.full((3, 3, 3, 4), 0.1, np.float32), "Conv/biases": np.ones(4, np.float32)}
    net = refnet.conv2d_same(IMAGES, 4, 3, 2, variables=kernel)
    every = {**defaults(refnet.conv2d_same), "variables": kernel}
    assert refnet.conv2d_same(IMAGES, 4, 3, 2, **every).tobytes() == net.tobytes()
    assert (refnet.subsample(IMAGES, 2, **defaults(refnet.subsample)) == IMAGES[:, ::2, ::2]).all()


def test_options_that_do_not_exist_are_still_refused() -> None:
    with pytest.raises(TypeError, match="strid"):
        refnet.conv2d_same(IMAGES, 4, 3, 1, variables={}, strid=2)
    with pytest.raises(TypeError, match="thread"):
        refnet.forward(lively_weights(), IMAGES, thread=2)
