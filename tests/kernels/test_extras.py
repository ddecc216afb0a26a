"""The hints by which packages are got that refnet does without."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from refnet_kernels.system import extras

ROOT = Path(__file__).parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_in_a_clone() -> None:
    assert extras.how_to_get("plots") == "uv run --extra plots ..."


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"all"}))
def test_where_it_was_installed(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """pip gets the packages by their own names, with their versions."""
    monkeypatch.setattr(extras, "_is_clone", lambda root: False)
    python, *options, first = shlex.split(extras.how_to_get(extra))[:5]
    assert (python, options, first.partition("=")[0][:3]) == ("python", ["-m", "pip", "install"], first[:3])
    names = {re.match(r"[\w.-]+", name)[0].replace("_", "-").lower() for name in extras.packages_of(extra)}
    assert names == {re.match(r"[\w.-]+", name)[0].lower() for name in EXTRAS[extra]}


def test_without_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib import metadata

    def missing(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", missing)
    assert extras.packages_of("plots") == ["refnet[plots]"]
    assert not extras._is_clone(tmp_path)
    (tmp_path / "pyproject.toml").write_bytes(b'name = "other"\xff')
    assert not extras._is_clone(tmp_path)


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_hint_in_the_code_goes_this_way(extra: str) -> None:
    """refnet may not be on any index, where its name would be a stranger's."""
    for folder in ("refnet", "kernels/refnet_kernels"):
        for file in (ROOT / folder).rglob("*.py"):
            assert f"pip install refnet[{extra}]" not in file.read_text(), file
