"""Each check of an argument has one wording, and lets through what it should."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from refnet.checks import as_int, check_choice, check_fraction, check_positive, listed, plain_json
from refnet.errors import ConfigError


@pytest.mark.parametrize("value", [0, -1, True, 2.0, "2", None, np.int64(2)])
def test_a_whole_number_of_1_or_more(value: Any) -> None:
    check_positive(height=1, width=2**31 - 1)
    with pytest.raises(ConfigError, match=r"width is .*; it is a whole number of 1 or more\.") as caught:
        check_positive(height=1, width=value)
    assert caught.value.found is value


@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan"), True, "1", None])
def test_a_number_above_0_up_to_1(value: Any) -> None:
    check_fraction(part=1, whole=np.float32(0.5))
    with pytest.raises(ConfigError, match=r"part is .*; it is a number above 0, up to 1\."):
        check_fraction(part=value)


def test_a_choice() -> None:
    check_choice("mode", "b", ("a", "b", None))
    with pytest.raises(ConfigError, match=r"^mode is 'c'; it can be 'a', 'b' or None\.$"):
        check_choice("mode", "c", ("a", "b", None))
    with pytest.raises(ConfigError, match=r"^mode is 'c'; it can be 'a' or 'b'\.$"):
        check_choice("mode", "c", ("a", "b"))


def test_numpys_integers_become_pythons() -> None:
    assert type(as_int(np.uint8(3))) is int
    assert as_int(3.5) == 3.5
    assert as_int(None) is None


@pytest.mark.parametrize(
    ("names", "most", "text"),
    [
        ([], 8, ""),
        (["a"], 8, "a"),
        (list("abc"), 3, "a, b, c"),
        (list("abcde"), 3, "a, b, c and 2 more"),
        ({"a": 1, "b": 2}.keys(), 1, "a and 1 more"),
        (["x" * 300, 7, None], 8, f"{'x' * 300}, 7, None"),
        (["x" * 999], 8, f"{'x' * 280} ... {'x' * 12}"),
    ],
)
def test_names_are_listed(names: Iterable[object], most: int, text: str) -> None:
    assert listed(names, most) == text


def test_plain_json_loses_no_number() -> None:
    numbers = [float("nan"), float("inf"), float("-inf"), 1e308, np.float64("nan")]
    text = json.dumps(plain_json({"numbers": tuple(numbers)}), allow_nan=False)
    assert list(map(float, json.loads(text)["numbers"])) == pytest.approx(numbers, nan_ok=True)
