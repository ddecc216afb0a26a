"""What is allowed in weights but looks wrong: one sentence each, for the notes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

_CONVOLUTION_BIASES = re.compile(r"(^|/)(conv3|shortcut|conv1)/biases\Z")


def biases(variables: Mapping[str, np.ndarray]) -> str | None:
    """Whether all the convolutions' biases of trained weights are zero.

    Every framework has the same shapes; this is the only sign of one whose convolutions have no biases.

    Parameters
    ----------
    variables : mapping of str to array

    Returns
    -------
    str or None
        A sentence, if they are.
    """
    found = [value for name, value in variables.items() if _CONVOLUTION_BIASES.search(name)]
    trained = any(value.any() for name, value in variables.items() if name.endswith("/moving_mean"))
    if not found or not trained or any(value.any() for value in found):
        return None
    return (
        "all the convolutions' biases are zero, as if the weights came from PyTorch or MXNet: there, blocks stride in "
        'their first unit and pool1 pads both sides (stride_place="first_unit", pool_mode="torch")'
    )
