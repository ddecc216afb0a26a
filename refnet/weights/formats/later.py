"""Rows whose modules are imported when they are needed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

from refnet_kernels.system.forks import making

_Row = TypeVar("_Row")


class _Later:
    """A row that is like the one in its module, but answers `fits` without it where a sign of its kind is missing."""

    def __init__(self, module: str, name: str, may_fit: Callable[..., bool]) -> None:
        self._place = module, name
        self._may_fit = may_fit
        self._found: Any = None

    def fits(self, *found: Any) -> bool:
        return self._may_fit(*found) and bool(self._row().fits(*found))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._row(), name)

    def _row(self) -> Any:
        if self._found is None:
            module, name = self._place
            with making:
                self._found = getattr(importlib.import_module(module), name)
        return self._found


def later(kind: type[_Row], module: str, may_fit: Callable[..., bool], name: str) -> _Row:
    """A row of a list that is in a module which is imported only when the row may fit, or is looked at.

    Parameters
    ----------
    kind : type
        Of the row; it has a method ``fits``.
    module : str
    may_fit : callable
        From the arguments of ``fits`` to whether the row can fit; quick, and wrong in one direction only.
    name : str
        The row's name in the module.

    Returns
    -------
    kind
    """
    return cast(_Row, _Later(module, name, may_fit))
