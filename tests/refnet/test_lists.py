"""A row in its list is all that a new backend, format or home takes: each is added here, and used from end to end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.errors import ConfigError, DeviceError, FormatError
from refnet.run import devices, inputs
from refnet.run.backends import BACKENDS, Backend, OwnMemory
from refnet.run.reference import ReferenceExecutor
from refnet.weights import formats, homes
from refnet.weights.conversion import Conversion
from refnet.weights.formats.format import Format, by_suffix
from refnet.weights.formats.loaded import Loaded
from refnet.weights.homes.home import Home, Named
from refnet_kernels.contract import BINARY32
from tests.documentation import ROOT, TEXTS
from tests.links import anchors_of
from tests.support.arrays import digest, random_images
from tests.support.nets import lively_weights

IMAGE = random_images(9, 11, 3)


class Elsewhere:
    """Images in a memory that NumPy cannot read."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A backend that computes by the definitions, in binary32, and has two devices; which of them were opened."""
    opened: list[int] = []

    def open_toy(plan: Any, constants: Any, index: int, _: int, dtype: Any, zeros: bool) -> ReferenceExecutor:
        opened.append(index)
        return ReferenceExecutor(plan, constants, dtype)

    row = Backend(
        "toy", "Toy", open_toy, dtypes=(BINARY32,),
        missing=lambda index: None if index < 2 else "there are 2",
        memory=OwnMemory(
            lambda images: isinstance(images, Elsewhere), ".array",
            lambda images, index, stream: pytest.fail("the executor takes host arrays"), lambda stream, index: stream,
        ),
    )  # fmt: skip
    for module in (devices, inputs):
        monkeypatch.setattr(module, "BACKENDS", (*BACKENDS, row))
    return opened


def test_a_backend(toy: list[int]) -> None:
    weights = lively_weights()
    expected = digest(refnet.forward(weights, IMAGE))
    assert digest(refnet.forward(weights, IMAGE, device="toy:1")) == expected
    assert digest(refnet.Engine(weights, device="toy")(IMAGE, stream=3)) == expected
    assert toy == [1, 0]
    with pytest.raises(DeviceError, match="The Toy device 'toy:2' cannot be used: there are 2"):
        refnet.Engine(weights, device="toy:2")
    with pytest.raises(DeviceError, match="The Toy kernels compute in float32; float64 is for 'cpu' and 'reference'"):
        refnet.Engine(weights, device="toy", dtype="float64")
    with pytest.raises(ConfigError, match="the device 'cpu' has none; streams are for 'cuda' and 'toy'"):
        refnet.forward(weights, IMAGE, stream=3)
    with pytest.raises(refnet.RefnetError, match=r"are on a Toy device.*\(.array\), or make .* device='toy'"):
        refnet.forward(weights, Elsewhere(IMAGE))


@pytest.mark.parametrize("name", ["toy", "gpu", "cpu:0", "reference:1", "cuda:", "cuda:1000", "CPU", "", 3, None])
def test_names_that_no_backend_has(name: object) -> None:
    with pytest.raises(DeviceError, match=r"the devices are 'cpu', 'reference', 'cuda', 'cuda:1' and so on"):
        refnet.Engine(lively_weights(), device=name)


def _read_lines(path: str) -> Loaded:
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()[1:]]
    return Loaded({name: np.array(values, np.float32) for name, values in lines[1:]}, "lines", lines[0], Conversion())


def _write_lines(path: str, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> None:
    lines = [dict(metadata), *([name, array.tolist()] for name, array in tensors.items())]
    Path(path).write_text("\n".join(["LINES", *map(json.dumps, lines)]))


def test_a_format(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = Format("lines", lambda path, head: head.startswith(b"LINES"), _read_lines, by_suffix(".lines", _write_lines))
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, row))
    recipe = refnet.Recipe(40, 48)
    weights = refnet.Weights(lively_weights(), recipe=recipe, labels=list("abcdefg"), options={"pool_mode": "keras"})
    refnet.save_weights(tmp_path / "w.lines", weights)
    loaded = refnet.load_weights((tmp_path / "w.lines").rename(tmp_path / "any name"))
    assert loaded.source == "lines"
    assert (loaded.recipe, loaded.labels, loaded.options) == (weights.recipe, weights.labels, weights.options)
    assert digest(*(loaded[name] for name in weights)) == digest(*weights.values())
    with pytest.raises(ConfigError, match=r"its name can end in \.ckpt, \.npz, \.safetensors or \.lines"):
        refnet.save_weights(tmp_path / "w.txt", weights)
    (tmp_path / "text").write_text("something else")
    with pytest.raises(FormatError, match=r"refnet reads .*, safetensors, ONNX and lines\."):
        refnet.load_weights(tmp_path / "text")


def test_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def read(tensors: Mapping[str, np.ndarray]) -> Named:
        slim = {name.removeprefix("toy:").replace(".", "/"): name for name in tensors}
        recipe = refnet.Recipe(8, 8, 1.0, "tf")
        arrays = {name: tensors[old] for name, old in slim.items()}
        return Named(arrays, slim, {"pool_mode": "torch"}, recipe, [], ["toys are small"])

    row = Home("toys", lambda loaded: any(name.startswith("toy:") for name in loaded.tensors), read)
    monkeypatch.setattr(homes, "HOMES", (*homes.HOMES, row))
    weights = lively_weights()
    np.savez(tmp_path / "w.npz", **{f"toy:{name.replace('/', '.')}": value for name, value in weights.items()})
    loaded = refnet.load_weights(tmp_path / "w.npz")
    assert loaded.keys() == weights.keys()
    assert (loaded.options, loaded.recipe) == ({"pool_mode": "torch"}, refnet.Recipe(8, 8, 1.0, "tf"))
    assert "toys are small" in loaded.notes
    assert loaded.conversion.renamed["resnet_v2/conv1/weights"] == "toy:resnet_v2.conv1.weights"
    assert digest(refnet.forward(loaded, IMAGE[:8, :8])) == digest(
        refnet.forward(weights, IMAGE[:8, :8], pool_mode="torch")
    )


def test_the_help_of_the_command_line_names_the_formats(capsys: pytest.CaptureFixture[str]) -> None:
    from refnet.cli import main

    main(["convert", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for row in formats.FORMATS:
        assert row.title.split(" (")[0].removesuffix("s").removeprefix("Keras' ") in text
        assert row.writer is None or row.writer.suffix in text


def test_the_guide_names_the_lists_and_their_records() -> None:
    rows = [line.split("|") for line in TEXTS["docs/adding.md"].splitlines() if line.startswith("| [")]
    assert len(rows) > 7
    headings = anchors_of(TEXTS["docs/adding.md"])
    sources = "\n".join(file.read_text() for folder in ("refnet", "kernels") for file in (ROOT / folder).rglob("*.py"))
    for _, what, where, record, _ in rows:
        assert re.findall(r"\]\(#([^)]+)\)", what)[0] in headings
        for file in re.findall(r"`([\w/]+\.py)`", where):
            for name in re.findall(r"`(_?[A-Z_]{3,})`", where):
                assert re.search(rf"^{name}\b.*= ", (ROOT / file).read_text(), re.MULTILINE), f"{name} in {file}"
        for name in re.findall(r"`(\w+)`", record):
            assert re.search(rf"^class {name}\b", sources, re.MULTILINE), name
