"""Images that are refused, in files and in arrays; soon, and in little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

import refnet
from refnet.errors import InputError
from tests.refnet.bad_images import ARRAYS, FILES
from tests.support.limits import within_limits
from tests.support.nets import lively_weights


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    bad = FILES[name]
    path = bad.write(tmp_path)
    with within_limits(), pytest.raises(bad.error, match=bad.message):
        refnet.load_image(path)


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays(name: str) -> None:
    images, message = ARRAYS[name]
    engine = refnet.Engine(lively_weights())
    with within_limits(), pytest.raises(InputError, match=message):
        engine(images)
