"""Make the network's functions compute immediately when they are given arrays."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import DTypeLike

from refnet.errors import InputError
from refnet.graph.graph import ArgScope, Graph, Tensor
from refnet.resources import for_images
from refnet.run.compute import compute
from refnet.run.devices import check_dtype
from refnet.run.inputs import images_of
from refnet.signatures import keywords_of, shows


def _with_arrays(
    *,
    variables: Mapping[str, Any] | None = None,
    device: str = "cpu",
    threads: int | None = None,
    dtype: DTypeLike = "float32",
) -> None:
    """The keywords that a function takes with an array, beside the fields of `ArgScope`."""


_WITH_ARRAYS = [*keywords_of(_with_arrays), *keywords_of(ArgScope)]


def works_on_arrays(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function of symbolic tensors accept an array in place of its first argument, and compute.

    With an array it also takes the keywords ``variables`` (a mapping of names, in its scopes, to arrays), the
    fields of `ArgScope`, ``device``, ``threads`` and ``dtype``, and its signature shows them. It returns arrays in
    place of tensors. It raises `refnet.errors.InputError` if the array does not hold images [N, H, W, C].

    Parameters
    ----------
    function : callable
        Its first argument is a `Tensor`; it returns a `Tensor`, or a `Tensor` and a dict of them.

    Returns
    -------
    callable
        The function for tensors and arrays.
    """
    own = inspect.signature(function).parameters
    first = next(iter(own))

    @shows(_WITH_ARRAYS)
    @functools.wraps(function)
    @for_images
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        inputs = args[0] if args else kwargs.get(first)
        if isinstance(inputs, Tensor) or not (args or first in kwargs):
            return function(*args, **kwargs)
        options = {name: kwargs.pop(name) for name in ArgScope._fields if name in kwargs and name not in own}
        where = {name: kwargs.pop(name) for name in ("device", "threads") if name in kwargs}
        images = images_of(inputs, check_dtype(kwargs.pop("dtype", "float32")))
        if images.ndim != 4:
            hint = "; pass one image as images[None]" if images.ndim == 3 else ""
            raise InputError(
                f"{function.__name__} takes images of shape [N, H, W, C], not {images.shape}{hint}.", found=images.shape
            )
        variables = kwargs.pop("variables", None)
        graph = Graph({} if variables is None else variables, ArgScope(**options))
        placeholder = graph.placeholder(images.shape)
        kwargs.pop(first, None)
        result = function(placeholder, *args[1:], **kwargs)
        graph.check_variables()
        return compute(graph, images, result, **where)

    return wrapper
