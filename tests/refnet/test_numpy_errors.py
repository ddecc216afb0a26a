"""No result depends on `numpy.seterr`, and no call raises because of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

import refnet
from tests.refnet.bad_calls import WEIGHTS, Function, functions, make_files
from tests.support.arrays import digest

#: In binary32 a subnormal number, which is not this one exactly.
TINY = 1e-42


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Function]:
    folder = tmp_path_factory.mktemp("sound")
    make_files(folder)
    return functions(folder)


@pytest.mark.parametrize("name", ["forward", "Engine.__call__", "KerasModel.predict", "golden.record", "subsample"])
@pytest.mark.parametrize("pixel", [TINY, 1e300, np.nan, np.inf], ids=str)
def test_numpy_is_not_asked_to_raise(name: str, pixel: float, every: dict[str, Function]) -> None:
    call, arguments, kinds = every[name]
    (parameter,) = (parameter for parameter, kind in kinds.items() if kind.endswith("images"))
    given = {**arguments, parameter: np.full(np.shape(arguments[parameter]), pixel)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", refnet.RefnetWarning)
        expected = call(**given)
        with np.errstate(all="raise"):
            found = call(**given)
    if isinstance(expected, np.ndarray):
        assert digest(found) == digest(expected)


def test_numpy_is_not_asked_to_raise_by_any_function(every: dict[str, Function], tmp_path: Path) -> None:
    """With weights and predictions whose conversion to another dtype underflows."""
    small = {name: value * np.longdouble(TINY) for name, value in WEIGHTS.items()}
    np.savez(tmp_path / "wide.npz", **{name: np.float64(value) for name, value in small.items()})
    with np.errstate(all="raise"):
        for function in every.values():
            function.call(**function.arguments)
        refnet.Weights(small)
        refnet.seeded.lively_weights(small)
        refnet.save_weights(tmp_path / "small.npz", small)
        refnet.load_weights(tmp_path / "wide.npz")
        found = refnet.decode_predictions(np.array([0, np.longdouble("1e-4000"), 1]), labels=list("abc"))
    assert found[0][0].name == "c"
