"""What the shapes of all the variables of a network have in common, and the axes of kernels, whatever the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from refnet.checks import listed
from refnet.errors import ShapeMismatchError
from refnet.graph.graph import GROUPS
from refnet.network.names import NUMBER
from refnet.network.networks import BY_UNIT

_UNIT = f"[^/]+/unit_{NUMBER}/(?:{'|'.join(BY_UNIT)})/"
_LAYER = f"(?:conv{NUMBER}(?:_{NUMBER})?|shortcut|preact|postnorm|input|logits)(?:/(?:Batch|Group)Norm)?"
_VARIABLE = re.compile(rf"(?:{_UNIT})?{_LAYER}/(?:weights|biases|gamma|beta|moving_mean|moving_variance)\Z", re.DOTALL)

#: A group norm's, or in a network with group norms perhaps one's.
_OF_NORM = re.compile(r"(?P<norm>.*(?:/GroupNorm|(?:^|/)(?:preact|postnorm)))/(?:gamma|beta)\Z", re.DOTALL)

# The most variables that one error lists.
_LISTED = 20


def check_ranks(variables: Mapping[str, Any], scope: str) -> None:
    """Refuse kernels without four dimensions, other variables without one, sizes of 0, and groups that do not come out.

    What reads an architecture off the shapes, and then compares all of them, can take this for granted.

    Parameters
    ----------
    variables : mapping of str to array
    scope : str
        The prefix of the network's names; other variables are not looked at.

    Raises
    ------
    ShapeMismatchError
        It lists all of them.
    """
    prefix = f"{scope}/" if scope else ""
    grouped = any("/GroupNorm/" in name for name in variables)
    wrong: dict[str, str] = {}
    for name, value in variables.items():
        shape, is_kernel = np.shape(value), name.endswith("/weights")
        if len(shape) != (4 if is_kernel else 1):
            what = "a kernel has four dimensions" if is_kernel else "it has one value per channel"
        elif 0 in shape:
            what = "none of its sizes can be 0"
        elif grouped and shape[0] % GROUPS and _is_of_group_norm(name, variables):
            what = f"a group norm has {GROUPS} groups of the same number of channels"
        else:
            continue
        if name.startswith(prefix) and _VARIABLE.match(name, len(prefix)):
            wrong[name] = what
    if wrong:
        lines = [f"{name} has shape {np.shape(variables[name])}; {what}" for name, what in wrong.items()]
        first = next(iter(wrong))
        raise ShapeMismatchError(f"{listed(lines, _LISTED)}.", tensor=first, found=np.shape(variables[first]))


def _is_of_group_norm(name: str, variables: Mapping[str, Any]) -> bool:
    match = _OF_NORM.match(name)
    return match is not None and not any(f"{match['norm']}/moving_{what}" in variables for what in ("mean", "variance"))


def hwio(kernel: np.ndarray, *, outputs_first: bool) -> np.ndarray:
    """A convolution's kernel as TF-Slim has it, from that of a dense layer or a convolution.

    Parameters
    ----------
    kernel : array
        A matrix, or four-dimensional; others are returned as they are.
    outputs_first : bool
        Whether it is [outputs, inputs], or OIHW, as in PyTorch; else [inputs, outputs], or HWIO.

    Returns
    -------
    array [height, width, inputs, outputs]
    """
    if kernel.ndim == 2:
        kernel = kernel[:, :, np.newaxis, np.newaxis] if outputs_first else kernel[np.newaxis, np.newaxis]
    return kernel.transpose(2, 3, 1, 0) if outputs_first and kernel.ndim == 4 else kernel
