"""The examples in the documentation run: those of docstrings, and the ``python`` blocks of the pages."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet.cli import _parser
from tests.documentation import PAGES, ROOT, python_blocks

MODULES = ["refnet.network.resnet_utils", "refnet.network.resnet_v1", "refnet.network.resnet_v2"]
#: These run in `tests/keras/test_walk_through.py`, or need PyTorch and a GPU.
ELSEWHERE = {"docs/keras.md", "docs/gpu.md"}


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_docstrings(module: str) -> None:
    runner = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(importlib.import_module(module)):
        runner.run(test)
    assert runner.failures == 0
    assert runner.tries > 0


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_python(page: str) -> None:
    compile(python_blocks(page), page, "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_the_blocks_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The network of the pages with few channels, under the name of its file.
    blocks = [
        refnet.resnet_v2_block(f"block{i + 1}", 4, units, 2 if i < 3 else 1) for i, units in enumerate((3, 4, 6, 3))
    ]
    monkeypatch.chdir(tmp_path)
    refnet.save_weights("resnet_v2_50.ckpt", refnet.random_weights(blocks, 1001, scope="resnet_v2_50"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (320, 300, 3), np.uint8)).save("cat.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes((tmp_path / "cat.jpg").read_bytes())
    image = refnet.load_image("cat.jpg")

    def port(image: np.ndarray) -> dict[str, np.ndarray]:
        net, end_points = refnet.forward("resnet_v2_50.ckpt", image, end_points=True)
        return {**end_points, "net": net}

    namespace = {"image": image, "port": port}
    exec(compile(python_blocks(page), page, "exec"), namespace)
    for name, function in list(namespace.items()):
        if name.startswith("test_"):
            function()


def command_lines() -> list[str]:
    """The lines of the pages in blocks that begin with ``refnet``, without what is said beside them."""
    texts = [page.read_text(encoding="utf-8") for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))]
    blocks = [block for text in texts for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]
    found = [line for block in blocks for line in re.findall(r"^refnet .+$", block, re.MULTILINE)]
    return sorted({line.partition(" #")[0].strip() for line in found})


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_are_understood(line: str) -> None:
    assert callable(_parser().parse_args(shlex.split(line)[1:]).run)


def test_there_are_command_lines() -> None:
    assert {line.split()[1] for line in command_lines()} >= {"demo", "predict", "convert", "golden", "selfcheck"}


def test_links_lead_somewhere() -> None:
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kernels/*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} has a link to {target}"
