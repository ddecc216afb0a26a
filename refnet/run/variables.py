"""The variables of a network as the kernels need them: float32 arrays, by TF-Slim's names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from refnet.checks import shown
from refnet.errors import DtypeError, WeightsError
from refnet.resources import for_weights, is_want
from refnet_kernels.contract import Float32Array
from refnet_kernels.system.float_mode import contract_mode


class Variables(NamedTuple):
    """The result of `as_variables`.

    Attributes
    ----------
    arrays : dict of str to float32 array
        Read-only and C-contiguous.
    converted : dict of str to str
        The dtype that a tensor had before its conversion to float32.
    left_out : dict of str to str
        Why a tensor is not among the arrays.
    """

    arrays: dict[str, Float32Array]
    converted: dict[str, str]
    left_out: dict[str, str]


@for_weights
@contract_mode()
def as_variables(tensors: Mapping[str, Any], copy: bool = True) -> Variables:
    """Read-only, contiguous float32 arrays of a mapping's floating-point tensors.

    Wider and narrower floats are converted, integers (``global_step``) left out. Without ``copy`` arrays that need no
    conversion are taken themselves.

    Raises
    ------
    WeightsError
        A key is not a string, or a value is not an array.
    DtypeError
        A tensor of the network itself has a dtype of integers, complex numbers, strings or booleans.
    """
    if not isinstance(tensors, Mapping):
        raise WeightsError(f"The weights must be a mapping of names to arrays, not {type(tensors).__name__}.")
    result = Variables({}, {}, {})
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise WeightsError(f"The names of weights are strings; {shown(name)} is {type(name).__name__}.")
        array = array_of(name, value)
        if array.dtype.kind == "f":
            if array.dtype.itemsize != 4:
                result.converted[name] = str(array.dtype)
            array = np.array(array, np.float32, order="C", copy=copy or None)
            array.flags.writeable = False
            result.arrays[name] = array
        elif _VARIABLE.search(name):
            raise DtypeError(
                f"{name} has dtype {array.dtype}; it must be a float dtype.",
                tensor=name,
                expected="float32",
                found=array.dtype,
            )
        else:
            result.left_out[name] = f"{array.dtype} is not a float dtype"
    return result


#: The leaves of the network's own variables.
_VARIABLE = re.compile(r"(^|/)(weights|biases|gamma|beta|moving_mean|moving_variance)\Z")


def array_of(name: str, value: Any) -> np.ndarray:
    """A tensor as a NumPy array of numbers.

    Parameters
    ----------
    name : str
        Its name in an error.
    value : array

    Returns
    -------
    array

    Raises
    ------
    WeightsError, DtypeError
        It is not an array, or not of numbers.
    """
    try:
        array = np.asarray(value)
    except Exception as error:
        if is_want(error):
            raise
        raise WeightsError(f"{name} cannot be read as an array: {error}", tensor=name) from error
    if array.dtype.kind in "OSUV":
        raise DtypeError(
            f"{name} has dtype {array.dtype}; it must be an array of numbers.", tensor=name, found=array.dtype
        )
    return array
