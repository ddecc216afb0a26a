"""What a kernel's ``call`` is given is checked, as a kernel that reads past an array ends the process.

A step of a network is launched with addresses, and nothing is checked there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np

from refnet_kernels.contract import (
    BINARY32,
    BINARY64,
    ConvGeometry,
    Norm,
    PoolGeometry,
    SubsampleGeometry,
)

#: The largest size, stride, rate or padding, and the most elements of an array.
MOST = 2**31 - 1
MOST_ELEMENTS = 2**48
#: Fields of a geometry that cannot be 0.
_AT_LEAST_1 = ("kernel_height", "kernel_width", "window", "stride", "rate", "factor")
_GEOMETRIES = (ConvGeometry, PoolGeometry, SubsampleGeometry)
_NORMS = ("norm", "next_norm")
#: Arrays with one value per channel.
_PER_CHANNEL = ("bias", "gamma", "beta")


def checked(call: Callable[..., Any], dtypes: Sequence[np.dtype[Any]] = (BINARY32, BINARY64)) -> Callable[..., Any]:
    """A kernel's ``call`` that refuses arrays which do not fit each other or the geometry.

    Parameters
    ----------
    call : callable
        Its parameters have the names that all ops share: ``x``, ``weights``, ``geometry``, ``norm``, ...
    dtypes : sequence of numpy.dtype
        The dtypes in which the backend computes.

    Returns
    -------
    callable
        It gives an array where ``call`` gives a pair whose second part is None.

    Raises
    ------
    TypeError
        An argument is not an array of floats, or not a geometry of the op.
    ValueError
        An array has another shape or another dtype than the others and the geometry ask for.
    """

    @wraps(call)
    def checking(*args: Any, **kwargs: Any) -> Any:
        # Not before it is called: a network's steps only launch.
        signature = inspect.signature(call)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        _check(given.arguments, _geometry_type(signature), dtypes)
        result = call(*given.args, **given.kwargs)
        return result[0] if isinstance(result, tuple) and len(result) == 2 and result[1] is None else result

    return checking


def _geometry_type(signature: inspect.Signature) -> type | None:
    if "geometry" not in signature.parameters:
        return None
    name = signature.parameters["geometry"].annotation
    return next(kind for kind in _GEOMETRIES if name in (kind, kind.__name__))


def _check(given: Mapping[str, Any], kind: type | None, dtypes: Sequence[np.dtype[Any]]) -> None:
    x = given["x"]
    _check_array("x", x, None, None)
    if x.dtype not in dtypes:
        names = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"x has the dtype {x.dtype}; this kernel computes in {names}.")
    if x.ndim not in (1, 2, 3, 4):
        raise ValueError(f"x has the shape {x.shape}; it has up to four axes, the last one for the channels.")
    channels = x.shape[-1]
    if kind is not None:
        geometry = given["geometry"]
        _check_geometry(geometry, kind)
        _check_array("x", x, geometry[:4], x.dtype)
        channels = getattr(geometry, "out_channels", channels)
    _check_others(given, x, channels)


def _check_others(given: Mapping[str, Any], x: np.ndarray, channels: int) -> None:
    geometry = given.get("geometry")
    if "weights" in given:
        _check_array("weights", given["weights"], _kernel_shape(geometry), x.dtype)
    for name in _PER_CHANNEL:
        if given.get(name) is not None:
            _check_array(name, given[name], (channels,), x.dtype)
    for name in _NORMS:
        if given.get(name) is not None:
            _check_norm(name, given[name], channels, x.dtype)
    if given.get("shortcut") is not None:
        shape = x.shape if geometry is None else (*geometry[:1], *geometry[4:7])
        _check_array("shortcut", given["shortcut"], shape, x.dtype)
    if "groups" in given and not (
        _is_whole(given["groups"]) and given["groups"] > 0 and not channels % given["groups"]
    ):
        raise ValueError(f"groups is {given['groups']!r}; it divides the {channels} channels of x.")


def _kernel_shape(g: Any) -> tuple[int, ...]:
    return g.kernel_height, g.kernel_width, g.channels, g.out_channels


def _check_norm(name: str, norm: Any, channels: int, dtype: np.dtype[Any]) -> None:
    if not isinstance(norm, Norm):
        raise TypeError(f"{name} is a {type(norm).__name__}; it is a Norm(mean, scale, beta).")
    for role, values in norm._asdict().items():
        _check_array(f"{name}.{role}", values, (channels,), dtype)


def _check_array(name: str, array: Any, shape: Sequence[int] | None, dtype: np.dtype[Any] | None) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; it is a NumPy array.")
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(f"{name} has the shape {array.shape}, where {tuple(shape)} is needed.")
    if dtype is not None and array.dtype != dtype:
        raise TypeError(f"{name} has the dtype {array.dtype}, and x has {dtype}: all have the same one.")


def _check_geometry(geometry: Any, kind: type) -> None:
    if not isinstance(geometry, kind):
        raise TypeError(f"geometry is a {type(geometry).__name__}; it is a {kind.__name__}.")
    values: dict[str, Any] = geometry._asdict()  # type: ignore[attr-defined]
    for name, value in values.items():
        least = int(name in _AT_LEAST_1)
        if not _is_whole(value) or not least <= value <= MOST:
            raise ValueError(f"geometry.{name} is {value!r}; it is a whole number from {least} to {MOST:,}.")
    if values.get("zero_padding", 0) > 1:
        raise ValueError(f"geometry.zero_padding is {values['zero_padding']}; it is 0 or 1.")
    outputs = getattr(geometry, "pixels") * values.get("out_channels", values["channels"])  # noqa: B009
    if outputs > MOST_ELEMENTS:
        raise ValueError(f"The geometry has {outputs:,} outputs; it can have {MOST_ELEMENTS:,}.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
