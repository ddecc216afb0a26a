"""Numbers in the names of variables, where a name can be any text that a file holds."""

from __future__ import annotations

import re

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
