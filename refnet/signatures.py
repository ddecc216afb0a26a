"""What ``help()`` and editors show of functions that pass their options on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any, ForwardRef, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def keywords_of(source: Callable[..., Any]) -> list[inspect.Parameter]:
    """The options of a function or class: its parameters with a default, as keywords.

    Parameters
    ----------
    source : callable

    Returns
    -------
    list of inspect.Parameter
    """
    return [
        parameter.replace(kind=parameter.KEYWORD_ONLY, annotation=_text(parameter.annotation))
        for parameter in inspect.signature(source).parameters.values()
        if parameter.default is not parameter.empty
    ]


def _text(annotation: Any) -> Any:
    """An annotation as it was written; a `NamedTuple` keeps it in an object whose ``repr`` hides it."""
    return annotation.__forward_arg__ if isinstance(annotation, ForwardRef) else annotation


def shows(options: Iterable[inspect.Parameter], without: Collection[str] = ()) -> Callable[[F], F]:
    """Make a function's signature name the options that it passes on, in place of ``**options``.

    Parameters
    ----------
    options : iterable of inspect.Parameter
        Those that the function has itself are left as they are.
    without : collection of str
        Names of options that it refuses.

    Returns
    -------
    callable
        A decorator; what the function does stays the same.
    """

    def shown(function: F) -> F:
        signature = inspect.signature(function)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        known = {*without, *(parameter.name for parameter in own)}
        added = [parameter for parameter in options if parameter.name not in known]
        function.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        return function

    return shown
