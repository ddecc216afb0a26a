"""Checks of arguments, each with one wording wherever the argument comes from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeGuard

import numpy as np

from refnet.errors import ConfigError, InputError, RefnetError

#: The largest whole number that an argument can be: products of two of them fit into the 64 bits of the kernels.
MOST = 2**31 - 1

#: Characters of a value, and of a name in a list, that a message shows.
_SHOWN, _NAME = 80, 300

#: The longest list that is read: of labels, names of end points or sizes.
_LISTED = 1_000_000


def shown(value: object) -> str:
    """The value as a message shows it: in one line, not too long, whatever its own ``repr`` does."""
    if isinstance(value, np.ndarray) and value.size > 4:
        return f"an array of {value.dtype} of shape {value.shape}"
    try:
        text = " ".join(repr(value).split())
    except Exception:  # of a number with thousands of digits, or somebody else's
        text = f"a value of type {type(value).__name__}"
    return _cut(text, _SHOWN)


def plain_json(value: Any) -> Any:
    """A value in JSON's types, which have neither NaN nor infinity: those are "nan", "inf" and "-inf".

    Python's ``float``, and that of most languages, reads these strings.

    Parameters
    ----------
    value : object
        Mappings, lists and tuples of numbers and strings, also within each other.
    """
    if isinstance(value, Mapping):
        return {str(name): plain_json(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else str(float(value))
    # Python does not write down thousands of digits.
    return shown(value) if isinstance(value, int) and abs(value) > 2**1000 else value


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 20]} ... {text[-12:]}"


def listed(names: Iterable[object], most: int = 8) -> str:
    """Names as a message lists them: the first ones, and how many more there are; "" if there are none."""
    every = list(names)
    texts = [_cut(name, _NAME) if isinstance(name, str) else shown(name) for name in every[:most]]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(texts) + more


def _is_whole(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_float(value: object) -> float:
    """The number in binary64; NaN if it is not a real number."""
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf


def check_positive(**values: object) -> None:
    """Refuse, by its name, a value that is not a whole number from 1 to `MOST`.

    NumPy's integers are refused too, as they overflow where Python's grow; see `as_int`.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not _is_whole(value) or value < 1:
            raise ConfigError(f"{name} is {shown(value)}; it is a whole number of 1 or more.", found=value)
        if value > MOST:
            raise ConfigError(f"{name} is {shown(value)}; it is a whole number up to {MOST:,}.", found=value)


def seed_of(seed: object) -> int:
    """The seed as Python's int.

    Raises
    ------
    ConfigError
        It is not a whole number of at most 64 bits.
    """
    seed = as_int(seed)
    if not _is_whole(seed) or not -(2**63) <= seed < 2**64:
        raise ConfigError(f"seed is {shown(seed)}; it is a whole number of at most 64 bits.", found=seed)
    return seed


def shape_of(shape: object, name: str = "shape") -> tuple[int, ...]:
    """The shape of an array as a tuple of Python's ints.

    Raises
    ------
    InputError
        It is not a sequence of whole numbers of 0 or more, or an array of this shape could not be addressed.
    """
    sizes = [as_int(size) for size in _listed(shape) or ()]
    if not sizes or not all(_is_whole(size) and size >= 0 for size in sizes):
        raise InputError(f"{name} is {shown(shape)}; it is a sequence of whole numbers of 0 or more.", found=shape)
    if max(sizes, default=0) > MOST or math.prod(max(size, 1) for size in sizes) >= 2**60:
        raise InputError(f"{name} is {shown(shape)}; an array of this shape is too large.", found=shape)
    return tuple(sizes)


def _listed(values: Any) -> list[Any] | None:
    """The values in a list; None if they are not values one after the other, or more than anybody lists."""
    if isinstance(values, str | bytes | Mapping):
        return None
    try:
        listed = list(islice(values, _LISTED + 1))
    except TypeError:
        return None
    return listed if len(listed) <= _LISTED else None


def check_number(**values: object) -> None:
    """Refuse, by its name, a value that is not a finite number of 0 or more.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not 0 <= _as_float(value) < math.inf:
            raise ConfigError(f"{name} is {shown(value)}; it is a number of 0 or more.", found=value)


def check_text(**values: object) -> None:
    """Refuse, by its name, a value that is not a string, or one that no file can hold.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not isinstance(value, str) or not _is_unicode(value):
            raise ConfigError(f"{name} is {shown(value)}; it is a string of Unicode characters.", found=value)


def _is_unicode(text: str) -> bool:
    """Whether it can be encoded: a surrogate by itself cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def names_of(names: object) -> bool | tuple[str, ...]:
    """Which end points: True, False, or their names.

    Raises
    ------
    ConfigError
        The names are not strings.
    """
    if isinstance(names, bool | np.bool_):
        return bool(names)
    if isinstance(names, str):
        return (names,)
    listed = _listed(names)
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise ConfigError(f"end_points is {shown(names)}; it can be True, False, or names of end points.", found=names)
    return tuple(listed)


def labels_of(labels: object) -> tuple[str, ...]:
    """The names of the classes.

    Raises
    ------
    ConfigError
        They are not a sequence of strings, or one is not Unicode.
    """
    listed = _listed(labels)
    if listed is None or not all(isinstance(label, str) for label in listed):
        raise ConfigError(f"labels is {shown(labels)}; it is a sequence of strings, one per class.", found=labels)
    wrong = next((label for label in listed if not _is_unicode(label)), None)
    if wrong is not None:
        raise ConfigError(f"A label is {shown(wrong)}; it is a string of Unicode characters.", found=wrong)
    return tuple(map(str, listed))


def numbers_of(name: str, values: object) -> tuple[float, ...]:
    """The numbers as Python's floats.

    Raises
    ------
    ConfigError
        They are not a sequence of finite numbers.
    """
    numbers = [_as_float(value) for value in _listed(values) or [None]]
    if not all(map(math.isfinite, numbers)):
        raise ConfigError(f"{name} is {shown(values)}; it is a sequence of finite numbers.", found=values)
    return tuple(numbers)


def check_mapping(**values: object) -> None:
    """Refuse, by its name, a value that is not a mapping of strings to values.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            raise ConfigError(f"{name} is {shown(value)}; it is a mapping of names to values.", found=value)


def path_of(path: object, error: type[RefnetError] = ConfigError) -> str:
    """The path as a string.

    Raises
    ------
    RefnetError
        Of the given kind: it is not a path, or holds a character that no path can have.
    """
    try:
        name = os.fsdecode(path)  # type: ignore[arg-type]
        is_path = bool(name) and b"\0" not in os.fsencode(name)
    except (TypeError, ValueError):
        is_path = False
    if not is_path:
        raise error(f"The path is {shown(path)}; it is a string or an os.PathLike that names a file.", found=path)
    return name


def check_fraction(**values: object) -> None:
    """Refuse, by its name, a value that is not a number above 0, up to 1.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not 0 < _as_float(value) <= 1:
            raise ConfigError(f"{name} is {shown(value)}; it is a number above 0, up to 1.", found=value)


def check_bool(**values: object) -> None:
    """Refuse, by its name, a value that is not True or False; words such as "no" would be true to Python.

    Raises
    ------
    ConfigError
    """
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise ConfigError(f"{name} is {shown(value)}; it can be True or False.", found=value)


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
        raise ConfigError(f"{name} is {shown(text)}; it can be {', '.join(others)} or {last}.", found=text)
    return _WORDS[text.lower()]


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Refuse a value that is not one of the choices.

    Raises
    ------
    ConfigError
    """
    # Other types first: an array would compare each of its elements.
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        *others, last = map(repr, choices)
        raise ConfigError(f"{name} is {shown(value)}; it can be {', '.join(others)} or {last}.", found=value)


def as_int(value: Any) -> Any:
    """NumPy's integers as Python's; anything else as it is."""
    return int(value) if isinstance(value, np.integer) else value
