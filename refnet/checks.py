"""Checks of arguments, each with one wording wherever the argument comes from."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from refnet.errors import ConfigError


def check_positive(**values: object) -> None:
    """Refuse, by its name, a value that is not a whole number of 1 or more.

    NumPy's integers are refused too, as they overflow where Python's grow; see `as_int`.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{name} is {value!r}; it is a whole number of 1 or more.", found=value)


def check_fraction(**values: object) -> None:
    """Refuse, by its name, a value that is not a number above 0, up to 1.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value <= 1:
            raise ConfigError(f"{name} is {value!r}; it is a number above 0, up to 1.", found=value)


def check_bool(**values: object) -> None:
    """Refuse, by its name, a value that is not True or False; words such as "no" would be true to Python.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ConfigError(f"{name} is {value!r}; it can be True or False.", found=value)


#: How true and false are written where options are text.
_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def bool_of(name: str, text: str) -> bool:
    """True or False, by one of their usual words.

    Raises
    ------
    ConfigError
        The text is not one of them.
    """
    if text.lower() not in _WORDS:
        *others, last = _WORDS
        raise ConfigError(f"{name} is {text!r}; it can be {', '.join(others)} or {last}.", found=text)
    return _WORDS[text.lower()]


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not one of the choices.

    Raises
    ------
    ConfigError
    """
    if value not in choices:
        *others, last = map(repr, choices)
        raise ConfigError(f"{name} is {value!r}; it can be {', '.join(others)} or {last}.", found=value)


def labels_of(labels: object) -> tuple[str, ...]:
    """The names of the classes.

    Raises
    ------
    ConfigError
        They are not a sequence of strings, or one is not Unicode.
    """
    if isinstance(labels, str | bytes) or not isinstance(labels, Sequence | np.ndarray):
        raise ConfigError(
            f"labels is {reprlib.repr(labels)}; it is a sequence of strings, one per class.", found=labels
        )
    wrong = [label for label in labels if not isinstance(label, str) or not _is_unicode(label)]
    if wrong:
        raise ConfigError(f"A label is {reprlib.repr(wrong[0])}; it is a string of Unicode characters.", found=wrong[0])
    return tuple(map(str, labels))


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: a surrogate by itself cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def as_int(value: Any) -> Any:
    """NumPy's integers as Python's; anything else as it is."""
    return int(value) if isinstance(value, np.integer) else value
