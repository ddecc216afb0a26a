"""The page of examples/browser: by itself, with a stand-in for Pyodide, and with the real one where there is one.

``REFNET_TEST_PYODIDE`` names a folder with Pyodide of the version in ``worker.js`` and its wheel of NumPy.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from types import ModuleType

import pytest

import refnet
from refnet.evidence import selfcheck
from tools.draw_page import BROWSERS, FLAGS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "examples" / "browser"
WORKER = (PAGE / "worker.js").read_text(encoding="utf-8")
ADDRESS, WHEEL = re.findall(r'^const (?:PYODIDE|WHEEL) = "(.*)";$', WORKER, re.MULTILINE)
PUBLISHED = selfcheck.published()["cases"]["nominal"]["end_points"]
TYPES = {".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm"}
#: Hang limit, in seconds.
LONGEST = 400

#: Counts how often the page's own thread is free while the worker computes, and tells the server how all ended.
OBSERVER = """<script>
let free = 0;
setInterval(() => { if (document.body.dataset.state === "computing") ++free; }, 20);
new MutationObserver((_, observer) => {
  const state = document.body.dataset.state;
  if (state !== "done" && state !== "failed") return;
  observer.disconnect();
  fetch("told", { method: "POST", body: JSON.stringify({ state, free, text: document.body.innerText }) });
}).observe(document.body, { attributes: true });
</script></body>"""

#: Pyodide as far as the worker calls it. It computes for as long as a small network takes.
STAND_IN = """
self.loadPyodide = async () => ({
  loadPackage: async (name) => { if (name !== "numpy") throw new Error(name); },
  unpackArchive: (wheel, format) => {
    if (format !== "wheel" || !(wheel instanceof ArrayBuffer)) throw new Error(format);
  },
  runPython: (code) => code === "names()" ? '["nominal", "v1"]' : undefined,
  globals: new Map([["run", (check, tell) => {
    tell(`computing ${check}`);
    for (const end = performance.now() + 1000; performance.now() < end;);
    return ANSWER;
  }]]),
});
"""


@contextmanager
def served(files: Mapping[str, bytes], folder: Path | None = None) -> Iterator[tuple[str, Queue[bytes]]]:
    """A server on this machine of files, and of ``pyodide/`` from a folder: its address, and what is sent to it."""
    told: Queue[bytes] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.lstrip("/") or "index.html"
            content = files.get(name)
            if content is None and folder is not None and re.fullmatch(r"pyodide/[\w.+-]+", name):
                file = folder / name.removeprefix("pyodide/")
                content = file.read_bytes() if file.is_file() else None
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Type", TYPES.get(Path(name).suffix, "application/octet-stream"))
            self.end_headers()
            self.wfile.write(content or b"")

        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", told
        finally:
            server.shutdown()
            thread.join()


def wheel() -> bytes:
    """refnet's packages as a wheel has them."""
    content, info = io.BytesIO(), f"refnet-{refnet.__version__}.dist-info"
    with zipfile.ZipFile(content, "w") as archive:
        for package in (ROOT / "refnet", ROOT / "kernels" / "refnet_kernels"):
            for file in sorted(package.rglob("*")):
                if file.is_file() and file.suffix != ".pyc":
                    archive.write(file, file.relative_to(package.parent))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: refnet\nVersion: {refnet.__version__}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    return content.getvalue()


def seen(profile: Path, more: Mapping[str, bytes], folder: Path | None = None) -> dict[str, object]:
    """What the page shows in the end, in Chromium."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium is installed")
    assert WORKER.count(ADDRESS) == 1
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    files = {
        "index.html": page.replace("</body>", OBSERVER).encode(),
        "worker.js": WORKER.replace(ADDRESS, "pyodide/").encode(),
        "check.py": (PAGE / "check.py").read_bytes(),
        **more,
    }
    with served(files, folder) as (address, told):
        command = [browser, *FLAGS, f"--user-data-dir={profile}", address]
        running = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            answer: dict[str, object] = json.loads(told.get(timeout=LONGEST))
        except Empty:
            pytest.fail("the page never came to an end")
        finally:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    return answer


@pytest.fixture
def check() -> ModuleType:
    """The page's Python, here."""
    spec = importlib.util.spec_from_file_location("check_of_the_page", PAGE / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_wheel_is_of_this_version() -> None:
    assert f"refnet-{refnet.__version__}-py3-none-any.whl" == WHEEL


def test_its_python_finds_the_published_bits(check: ModuleType) -> None:
    stages: list[str] = []
    answer = json.loads(check.run("nominal", stages.append))
    assert answer["sha256"] == answer["published"] == PUBLISHED["net"]
    assert (answer["end_points"], answer["differing"]) == (len(PUBLISHED), [])
    assert len(stages) == 2
    assert "nominal" in json.loads(check.names())


@pytest.mark.parametrize("where", ["weights", "images", "resnet_v2/conv1"])
def test_its_python_names_what_differs(check: ModuleType, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    case = json.loads(json.dumps(selfcheck.published()["cases"]["nominal"]))
    (case if where in case else case["end_points"])[where] = "0" * 64
    monkeypatch.setattr(check, "published", lambda: {"cases": {"nominal": case}})
    assert json.loads(check.run("nominal", str))["differing"] == [where]


def test_without_pyodide_the_page_says_so(tmp_path: Path) -> None:
    told = seen(tmp_path, {})
    assert told["state"] == "failed"
    assert "Pyodide cannot be had from pyodide/" in str(told["text"])


def test_without_the_wheel_the_page_says_so(tmp_path: Path) -> None:
    told = seen(tmp_path, {"pyodide/pyodide.js": STAND_IN.encode()})
    assert told["state"] == "failed"
    assert f"{WHEEL} cannot be had (404)" in str(told["text"])


@pytest.mark.parametrize("differing", [[], ["resnet_v2/conv1"]], ids=["same", "differs"])
def test_the_page_shows_the_answer_and_is_not_frozen(tmp_path: Path, check: ModuleType, differing: list[str]) -> None:
    answer = {**json.loads(check.run("nominal", str)), "differing": differing}
    stand_in = STAND_IN.replace("ANSWER", json.dumps(json.dumps(answer)))
    told = seen(tmp_path, {"pyodide/pyodide.js": stand_in.encode(), WHEEL: b"wheel"})
    assert told["state"] == "done"
    text = str(told["text"])
    assert text.count(PUBLISHED["net"]) == 2
    assert ("all 45 have the published bits" in text) == (not differing)
    assert ("1 of 45 differ, first resnet_v2/conv1" in text) == bool(differing)
    assert int(str(told["free"])) > 2


def test_in_pyodide_the_bits_are_the_published_ones(tmp_path: Path) -> None:
    folder = os.environ.get("REFNET_TEST_PYODIDE")
    if not folder:
        pytest.skip("REFNET_TEST_PYODIDE does not name a folder with Pyodide")
    told = seen(tmp_path, {WHEEL: wheel()}, Path(folder))
    text = str(told["text"])
    assert told["state"] == "done", text
    assert text.count(PUBLISHED["net"]) == 2
    assert f"all {len(PUBLISHED)} have the published bits" in text
    assert "on emscripten" in text
    assert int(str(told["free"])) > 2
