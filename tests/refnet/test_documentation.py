"""The examples in the documentation run: those of docstrings, and the ``python`` blocks of the pages."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
import shlex
import subprocess
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import refnet
import refnet_kernels
from refnet import golden, plots, seeded
from refnet.cli import _parser
from refnet.cli.explain import CLASSES
from refnet.diagnosis import search
from refnet.diagnosis.catalogue import PARTS
from refnet.run import devices, inputs
from refnet.weights import formats, homes
from refnet_kernels import catalog
from refnet_kernels.system.settings import SETTINGS
from tests.documentation import PAGES, ROOT, SESSIONS, TEXTS, python_blocks
from tools import draw_site

#: These run in `test_readme.py` and `tests/keras/test_walk_through.py`, or need PyTorch and a GPU.
ELSEWHERE = {"README.md", "docs/zh/first-result.md", "docs/keras.md", "docs/gpu.md"}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_python(page: str) -> None:
    compile(python_blocks(page), page, "exec")


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """The image of the pages, where its file lies, and that of the weights: the pages' network with few channels."""
    blocks = [
        refnet.resnet_v2_block(f"block{i + 1}", 4, units, 2 if i < 3 else 1) for i, units in enumerate((3, 4, 6, 3))
    ]
    monkeypatch.chdir(tmp_path)
    refnet.save_weights("resnet_v2_50.ckpt", refnet.random_weights(blocks, 1001, scope="resnet_v2_50"))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (320, 300, 3), np.uint8)).save("cat.jpg")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes((tmp_path / "cat.jpg").read_bytes())
    return refnet.load_image("cat.jpg")


@pytest.mark.parametrize("page", SESSIONS)
def test_the_sessions_print_what_the_page_says(page: str, image: np.ndarray) -> None:
    # Of an error's message a page may leave out the rest.
    test = doctest.DocTestParser().get_doctest(python_blocks(page, "pycon"), {}, page, page, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
    assert runner.tries > 0


#: The lists to which docs/adding.md adds.
LISTS = (
    (catalog, "OPS"), (formats, "FORMATS"), (homes, "HOMES"), (search, "MISTAKES"), (devices, "BACKENDS"),
    (inputs, "BACKENDS"), (refnet_kernels, "__path__"),
)  # fmt: skip


@pytest.fixture
def lists(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is added to a list in a test is not there in the next one."""
    for module, name in LISTS:
        monkeypatch.setattr(module, name, copy(getattr(module, name)))


@pytest.mark.usefixtures("lists")
@pytest.mark.parametrize("page", [page for page in PAGES if page not in ELSEWHERE])
def test_the_blocks_run(page: str, image: np.ndarray) -> None:

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
    found = [line for page in TEXTS for line in python_blocks(page, "").splitlines() if line.startswith("refnet ")]
    return sorted({line.partition(" #")[0].strip() for line in found})


@pytest.mark.parametrize("line", command_lines())
def test_command_lines_are_understood(line: str) -> None:
    assert callable(_parser().parse_args(shlex.split(line)[1:]).run)


def test_there_are_command_lines() -> None:
    assert {line.split()[1] for line in command_lines()} >= {"demo", "predict", "convert", "golden", "selfcheck"}


ERRORS = {page: text for page, text in TEXTS.items() if page.startswith("docs/errors/")}


def test_the_site_has_every_public_name_once() -> None:
    listed, module = [], ""
    for directive, name in re.findall(r"^\.\. ([\w:]+):: ([\w.]+)", TEXTS["docs/api.md"], re.MULTILINE):
        module = name if directive == "currentmodule" else module
        if directive != "currentmodule" and "." not in name:
            listed.append(f"{module}.{name}")
    listed += re.findall(r"^\.\. autoexception:: ([\w.]+)$", "\n".join(ERRORS.values()), re.MULTILINE)
    public = {f"refnet.{name}" for name in refnet.__all__ if name not in CLASSES}
    public |= {f"refnet.golden.{name}" for name in golden.__all__} | {
        f"refnet.seeded.{name}" for name in seeded.__all__
    }
    public |= {f"refnet.plots.{name}" for name in plots.__all__}
    public |= {"refnet.testing.assert_golden"} | {f"refnet.errors.{name}" for name in CLASSES}
    assert sorted(listed) == sorted(public)


def test_each_error_has_its_page() -> None:
    for name in CLASSES:
        text = ERRORS[f"docs/errors/{name}.md"]
        assert text.startswith(f"# {name}\n")
        assert f".. autoexception:: refnet.errors.{name}\n" in text
        assert f"`refnet explain {name}`" in text
    assert len(ERRORS) == len(CLASSES)
    rows = re.findall(r"^\| \[(\w+)\]\(errors/(\w+)\.md\) \| (\d?) +\| (.*) \|$", TEXTS["docs/errors.md"], re.MULTILINE)
    assert [name for name, *_ in rows] == list(CLASSES)
    for name, page, code, summary in rows:
        assert page == name
        assert code == str(getattr(CLASSES[name], "exit_code", ""))
        assert summary == " ".join(inspect.getdoc(CLASSES[name]).partition("\n\n")[0].split())


def variables_of(file: Path) -> set[str]:
    """The environment variables that a module asks for by name."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case (
                ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name)))
                | ast.Compare(left=ast.Constant(value=str(name)), comparators=[ast.Attribute(attr="environ")])
                | ast.Call(
                    func=ast.Attribute(value=ast.Attribute(attr="environ")), args=[ast.Constant(value=str(name)), *_]
                )
                | ast.Call(func=ast.Attribute(attr="getenv"), args=[ast.Constant(value=str(name)), *_])
            ):
                found.add(name)
    return found


def test_the_site_has_every_environment_variable() -> None:
    files = [*(ROOT / "refnet").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")]
    asked = set().union(*map(variables_of, files)) | set(SETTINGS)
    assert "REFNET_CACHE" in asked
    # Whatever the code or the text of a module calls by refnet's prefix is one of them.
    named = {name for file in files for name in re.findall(r"REFNET_[A-Z]\w*", file.read_text(encoding="utf-8"))}
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", TEXTS["docs/environment.md"], re.MULTILINE))
    assert set(rows) == asked | named
    for name, choices in SETTINGS.items():
        assert rows[name] == ", ".join(f"`{choice}`" for choice in choices)


def test_each_op_has_a_page() -> None:
    pages = {Path(page).stem for page in TEXTS if page.startswith("docs/kernels/")} - {"index"}
    assert pages == {file.parent.name for file in ROOT.glob("kernels/refnet_kernels/*/reference.py")}


def test_the_page_of_each_op_shows_how_its_work_is_divided_and_how_near_its_limit_it_is() -> None:
    for page, text in TEXTS.items():
        if page.startswith("docs/kernels/") and Path(page).stem not in ("index", "softmax"):
            divided, _, limit = text.partition("## How the work is divided")[2].partition("## How near to the limit")
            assert "](../pictures/" in divided, page
            assert "<!-- table: roofline " in limit, page


def test_the_site_is_shown_by_five_small_pictures() -> None:
    drawn = {f"{name}.png" for name in draw_site.PAGES}
    folder = ROOT / "docs" / "pictures" / "site"
    assert len(drawn) == 5
    assert {path.name for path in folder.iterdir()} == drawn
    assert set(re.findall(r"\]\(pictures/site/(\S+)\)", TEXTS["docs/this-site.md"])) == drawn
    for path in folder.iterdir():
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.size == draw_site.SHOWN
    for page in draw_site.PAGES.values():
        assert (ROOT / page).with_suffix(".md").is_file()


def test_the_page_of_diagnose_names_every_mistake() -> None:
    _, _, known = TEXTS["docs/diagnose.md"].partition("## The mistakes that are known")
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \|$", known.partition("\n## ")[0], re.MULTILINE)
    assert {part: re.findall(r"`([^`]+)`", ids) for part, ids in rows} == {
        part: [mistake.id for mistake in mistakes] for part, mistakes in PARTS.items()
    }


def test_the_site_has_a_table_of_every_part_of_the_catalogue() -> None:
    pytest.importorskip("sphinx")
    done = subprocess.run([sys.executable, "docs/site/mistakes.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^\| `([^`]+)`", done.stdout, re.MULTILINE) == [m.id for part in PARTS.values() for m in part]


def test_the_diagrams_are_those_that_the_code_draws() -> None:
    done = subprocess.run(
        [sys.executable, "docs/site/pictures.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
