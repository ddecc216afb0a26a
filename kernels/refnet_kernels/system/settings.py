"""The environment variables of refnet that can have only some values, in one list.

``REFNET_CACHE`` can be any path; see `refnet_kernels.jit`.
"""

from __future__ import annotations

import os

#: What each can be. Where it is not set, or empty, it says nothing.
SETTINGS = {
    "REFNET_LANES": ("4", "8", "16"),
    "REFNET_TUNE": ("on", "off"),
    "REFNET_UPDATE_GOLDENS": ("0", "1"),
}


def setting(name: str) -> str | None:
    """The value of a setting; None where it is not set.

    Raises
    ------
    ValueError
        It cannot have this value. refnet asks `wrong_setting` before, whose sentence it gives its own class.
    """
    value, choices = os.environ.get(name), SETTINGS[name]
    if value and value not in choices:
        *others, last = choices
        raise ValueError(f"{name} is {value[:40]!r}; it can be {', '.join(others)} or {last}")
    return value or None


def wrong_setting() -> str | None:
    """What is wrong with the first setting that has a value which it cannot have; None if none has."""
    try:
        for name in SETTINGS:
            setting(name)
    except ValueError as error:
        return str(error)
    return None
