"""Names of variables and end points, and the numbers in them, where a name can be any text that a file holds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from refnet.checks import listed, shown
from refnet.errors import ConfigError
from refnet_kernels.system.forks import making

# A comparison takes time that grows with the product of two lengths.
_MAX_LENGTH = 300

#: A pattern for the number of a block or a unit, as frameworks write it: a few of ASCII's digits, without zeros before
#: them, so that it has one spelling and its value is small.
NUMBER = "(?:0|[1-9][0-9]{0,3})"


def natural(name: str) -> list[str | tuple[int, str]]:
    """A key that puts "block10" after "block2".

    Parameters
    ----------
    name : str

    Returns
    -------
    list of str or (int, str)
        Texts and numbers by turns. A number is not converted, as it can have any length.
    """
    texts_and_numbers = re.split("0*([0-9]+)", name)
    return [(len(part), part) if i % 2 else part for i, part in enumerate(texts_and_numbers)]


def full_names(asked: Iterable[str], names: Sequence[str], what: str) -> list[str]:
    """The names that were asked for, each in full or by its last parts, if only one name ends in these.

    Parameters
    ----------
    asked : iterable of str
        "block4" stands for "resnet_v2_50/block4".
    names : sequence of str
        All that there are.
    what : str
        What has these names, in the singular: "end point".

    Returns
    -------
    list of str

    Raises
    ------
    ConfigError
        A name is not there, or stands for several.
    """
    return [_full_name(name, names, what) for name in asked]


def _full_name(name: str, names: Sequence[str], what: str) -> str:
    if name in names:
        return name
    ends = [other for other in names if name and other.endswith(f"/{name}")]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise ConfigError(
            f"{len(ends)} {what}s end in {shown(name)}: {listed(ends)}. Give more of the name.", found=name
        )
    with making:
        from difflib import get_close_matches  # only if something is wrong

    near = get_close_matches(name, names, n=3) if len(name) <= _MAX_LENGTH else []
    hint = f" Did you mean {listed(near)}?" if near else ""
    raise ConfigError(
        f"There is no {what} {listed([name])}.{hint} There are {len(names)}: {listed(names)}.", found=name
    )
