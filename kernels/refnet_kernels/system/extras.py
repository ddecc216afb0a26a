"""How to get the packages of an extra, by how refnet itself was installed."""

from __future__ import annotations

import shlex
from pathlib import Path

from refnet_kernels.system.forks import making


def how_to_get(extra: str) -> str:
    """The command that brings the packages of an extra.

    Parameters
    ----------
    extra : str
        A name in ``[project.optional-dependencies]``: "plots".

    Returns
    -------
    str
        In a clone uv's, else pip's with the packages by name: refnet itself may not be on any index.

    Examples
    --------
    >>> from refnet_kernels.system.extras import how_to_get
    >>> how_to_get("plots")
    'uv run --extra plots ...'
    """
    if _is_clone(Path(__file__).parents[3]):
        return f"uv run --extra {extra} ..."
    return f"python -m pip install {' '.join(map(shlex.quote, packages_of(extra)))}"


def packages_of(extra: str) -> list[str]:
    """The requirements of an extra, "matplotlib>=3.9", as the installed package states them."""
    with making:
        from importlib.metadata import PackageNotFoundError, requires

    try:
        stated = requires("refnet") or []
    except PackageNotFoundError:
        stated = []
    found = []
    for requirement in stated:
        name, _, marker = requirement.partition(";")
        if f'extra == "{extra}"' in marker.replace("'", '"'):
            found.append(name.strip())
    return found or [f"refnet[{extra}]"]


def _is_clone(root: Path) -> bool:
    try:
        return 'name = "refnet"' in (root / "pyproject.toml").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
