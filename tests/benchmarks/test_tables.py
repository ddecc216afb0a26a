"""The figures in the documentation are those of the kept results."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks.common import RESULTS, ROOT
from benchmarks.plots import save_kernels
from tests.documentation import TEXTS
from tools import make_tables


def test_the_documentation_has_the_figures_of_the_results() -> None:
    command = [sys.executable, "tools/make_tables.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the results, from which the tables are made."""
    shutil.copytree(RESULTS, tmp_path / "results")
    monkeypatch.setattr(make_tables, "RESULTS", tmp_path / "results")
    return tmp_path / "results"


def change(path: Path, *keys: str, to: Any) -> None:
    result = json.loads(path.read_text())
    part = result
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = to
    path.write_text(json.dumps(result))


def test_a_result_reaches_every_page_that_shows_it(results: Path) -> None:
    change(results / "zen4" / "peers_resnet_v2_50_224_1_2.json", "rows", "refnet", "ms", "min", to=11.04)
    for name in ("README.md", "docs/speed.md"):
        assert make_tables.page(TEXTS[name]) != TEXTS[name]
        assert "| **refnet** | **11.0 / " in make_tables.page(TEXTS[name])


def test_a_newer_result_brings_its_day_and_its_revision(results: Path) -> None:
    for path in (results / "zen4").glob("peers*.json"):
        change(path, "machine", "date", to="2031-02-03")
        change(path, "machine", "revision", to="abc1234")
    assert "(2031-02-03, revision `abc1234`)" in make_tables.page(TEXTS["README.md"])
    assert "(2031-02-03, revision `abc1234`)" in make_tables.page(TEXTS["docs/speed.md"])


def test_a_version_that_computed_all_products_is_told(results: Path) -> None:
    assert "leaves out" in make_tables.version_of("zen4")
    path = results / "zen4" / "peers_resnet_v2_50_224_1_2.json"
    result = json.loads(path.read_text())
    del result["zeros"]
    path.write_text(json.dumps(result))
    assert "still computed all products" in make_tables.version_of("zen4")


def test_every_kept_result_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, read = set(), make_tables.read

    def noted(name: str) -> dict[str, Any]:
        shown.add(name)
        return read(name)

    monkeypatch.setattr(make_tables, "read", noted)
    for text in TEXTS.values():
        make_tables.page(text)
    kept = {str(path.relative_to(RESULTS).with_suffix("")) for path in RESULTS.glob("*/*.json")}
    assert kept - shown == set(), "docs/speed.md needs a section for these"


def test_no_table_of_times_is_written_by_hand() -> None:
    pages = [name for name in TEXTS if name in ("README.md", "docs/speed.md", "docs/gpu.md")]
    pages += [name for name in TEXTS if name.startswith("docs/kernels/")]
    for name in pages:
        by_hand = re.sub(r"<!-- table: .*?<!-- end -->", "", TEXTS[name], flags=re.DOTALL)
        assert re.findall(r"^\|.*\d\.\d.*\|$", by_hand, re.MULTILINE) == [], name


def test_a_layer_is_bound_by_the_slower_of_its_operations_and_its_operands() -> None:
    result = {
        "machine": {"caches": {"L2": 1000, "L3": 5000}},
        "peak_gflops": 100.0,
        "gb_per_s": {"DRAM": 1.0, "L3": 2.0, "L2": 4.0},
    }
    # 10 MFLOP take 0.1 ms at 100 GFLOP/s; 1000 bytes take 0.00025 ms at 4 GB/s.
    limits = make_tables.limits_of({"flop": 10**7, "bytes": 1000}, result)
    assert limits == pytest.approx({"multiply-adds": 0.1, "copies in L2": 0.00025})
    assert make_tables.limits_of({"flop": 0, "bytes": 2000}, result)["copies in L3"] == pytest.approx(0.001)
    assert make_tables.limits_of({"flop": 0, "bytes": 6000}, result)["copies in memory"] == pytest.approx(0.006)


def test_a_roofline_has_every_op_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    result = make_tables.read("zen4/kernels_ops")
    save_kernels([result], tmp_path / "roofline.svg")
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    computing = {row["op"] for row in result["rows"].values() if row["flop"]}
    assert computing <= {text.get_text() for text in legend.get_texts()}
