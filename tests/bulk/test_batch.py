"""``refnet.batch``: a row for each input, the same hash however the work is cut, and what is refused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import refnet
from refnet.bulk import pipeline, shards
from refnet.bulk.job import Progress, status_of
from refnet.bulk.predictor import threads_of_worker
from refnet.bulk.sources import Item
from refnet.errors import ConfigError, CorruptError, InputError
from refnet_kernels.system.cores import count_cores
from tests.bulk.inputs import BAD, RECIPE, WEIGHTS, expected, hash_of, write_images
from tests.reliability.disks import no_room
from tests.support.needed import missing
from tests.support.nets import lively_weights

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    missing("pyarrow is missing")

COUNT = 40


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT)
    (folder / "readme.txt").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def rows(images: Path) -> dict[str, tuple[Any, bytes]]:
    return expected(images)


def read(folder: Path) -> list[dict[str, Any]]:
    """All rows of a job, by other readers than refnet's."""
    found: list[dict[str, Any]] = []
    for path in sorted(folder.glob("part-*")):
        if path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        else:
            found += map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return found


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_every_input_has_the_row_of_its_own_forward(
    format: Any, images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path
) -> None:
    done = refnet.batch(images, WEIGHTS, tmp_path / "o", format=format, shard_rows=9)
    found = read(tmp_path / "o")
    assert [row["id"] for row in found] == sorted(rows, key=lambda id: id.split("/"))
    for row in found:
        outcome, digest = rows[row["id"]]
        assert row["digest"] == digest.hex()
        assert outcome == (row["classes"] if row["error"] is None else row["error"])
        assert (row["error"] is None) == (row["message"] is None) == (row["probabilities"] is not None)
    assert done.sha256 == hash_of(rows)
    assert (done.rows, done.errors, done.made) == (len(rows), len(BAD), len(rows))
    assert done.by_type == {"InputError": len(BAD)}
    assert done.left_out == {".txt": 1}


@pytest.mark.parametrize(("batch_size", "shard_rows"), [(1, 1000), (8, 7), (33, 1)])
def test_the_hash_does_not_depend_on_how_the_work_is_cut(
    batch_size: int, shard_rows: int, images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path
) -> None:
    done = refnet.batch(images, WEIGHTS, tmp_path / "o", batch_size=batch_size, shard_rows=shard_rows, threads=1)
    assert done.sha256 == hash_of(rows)


def test_features_and_end_points(images: Path, tmp_path: Path) -> None:
    image = refnet.load_image(images / "class 0" / "0003.png")
    _, ends = refnet.forward(WEIGHTS, image, end_points=["global_pool", "block2"])
    refnet.batch(images, WEIGHTS, tmp_path / "a", features="pooled", top=2, end_points=["block2"])
    row = next(row for row in read(tmp_path / "a") if row["id"] == "class 0/0003.png")
    assert np.array_equal(np.float32(row["features"]), ends["global_pool"].reshape(-1))
    assert np.array_equal(np.float32(row["block2"]).reshape(row["block2_shape"]), ends["block2"])
    assert len(row["classes"]) == 2
    refnet.batch(images, WEIGHTS, tmp_path / "b", features="dense", output_stride=4, format="jsonl")
    row = next(row for row in read(tmp_path / "b") if row["id"] == "class 0/0003.png")
    dense = refnet.forward(WEIGHTS, image, num_classes=None, global_pool=False, output_stride=4)
    assert np.array_equal(np.float32(row["features"]).reshape(row["features_shape"]), dense)


def test_images_of_any_size_and_binary64(images: Path, tmp_path: Path) -> None:
    weights = refnet.Weights(WEIGHTS, recipe=refnet.Recipe(None, None, 1.0))
    refnet.batch(images, weights, tmp_path / "o", features="pooled", dtype="float64", batch_size=16)
    row = next(row for row in read(tmp_path / "o") if row["id"] == "class 1/0001.png")
    image = refnet.load_image(images / row["id"])
    _, ends = refnet.forward(weights, image, end_points=["global_pool"], dtype="float64")
    assert np.array_equal(row["features"], ends["global_pool"].reshape(-1))


def test_values_that_are_not_finite_give_error_rows(images: Path, tmp_path: Path) -> None:
    large = {name: value * 1e30 if name.endswith("weights") else value for name, value in WEIGHTS.items()}
    done = refnet.batch(images, refnet.Weights(large, recipe=RECIPE), tmp_path / "o")
    assert done.errors == done.rows
    assert all("NaN or infinite" in row["message"] for row in read(tmp_path / "o") if Path(row["id"]).name not in BAD)


# Sources


def ids(folder: Path) -> list[str]:
    return [row["id"] for row in read(folder)]


def some(images: Path, count: int = 3) -> list[Path]:
    return sorted(images.glob("class 0/0*.png"))[:count]


def test_a_pattern_and_a_list(images: Path, tmp_path: Path) -> None:
    refnet.batch(images / "class [02]" / "*.png", WEIGHTS, tmp_path / "a")
    assert ids(tmp_path / "a")[0] == "class 0/0000.png"
    listed = tmp_path / "some.txt"
    lines = [os.path.relpath(path, tmp_path) for path in some(images)]
    listed.write_text("\n".join([*lines, "", "nowhere.png"]) + "\n")
    refnet.batch(listed, WEIGHTS, tmp_path / "b")
    assert ids(tmp_path / "b") == [*lines, "nowhere.png"]
    assert read(tmp_path / "b")[-1]["error"] == "FileNotFoundError"
    # As a shell makes them of a pattern.
    refnet.batch(some(images), WEIGHTS, tmp_path / "c")
    assert ids(tmp_path / "c") == list(map(str, some(images)))


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_tars(images: Path, tmp_path: Path) -> None:
    contents = {path.name: path.read_bytes() for path in some(images, 6)}
    names = list(contents)
    for part in (0, 1):
        chosen = {name: contents[name] for name in names[3 * part : 3 * part + 3]}
        write_tar(tmp_path / f"{part}.tar", {**chosen, f"{part}.cls": b"1", "inner.tar": b"", "bad.jpg": b"x"})
    with tarfile.open(tmp_path / "0.tar", "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, names[0]
        tar.addfile(link)
    done = refnet.batch(tmp_path / "*.tar", WEIGHTS, tmp_path / "o")
    found = {row["id"]: row for row in read(tmp_path / "o")}
    assert list(found) == [
        *(f"0.tar/{name}" for name in [*names[:3], "bad.jpg", "link.png"]),
        *(f"1.tar/{name}" for name in [*names[3:], "bad.jpg"]),
    ]
    assert {id for id, row in found.items() if row["error"]} == {"0.tar/bad.jpg", "0.tar/link.png", "1.tar/bad.jpg"}
    assert done.left_out == {".cls": 2, ".tar": 2}
    alone = refnet.Predictor(WEIGHTS).rows([contents[names[4]]], [f"1.tar/{names[4]}"])
    assert found[f"1.tar/{names[4]}"]["digest"] == alone[0]["digest"]


def test_a_tar_with_a_damaged_header_is_refused(images: Path, tmp_path: Path) -> None:
    """tarfile takes it for the end, and what follows would be lost."""
    write_tar(tmp_path / "a.tar", {path.name: path.read_bytes() for path in some(images)})
    content = bytearray((tmp_path / "a.tar").read_bytes())
    with tarfile.open(tmp_path / "a.tar") as tar:
        content[tar.getmembers()[1].offset + 150] ^= 1  # its checksum
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(InputError, match="damaged: no header"):
        refnet.batch(tmp_path / "a.tar", WEIGHTS, tmp_path / "o")
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize("kind", ["bytes", "paths", "structs"])
def test_parquet(kind: str, images: Path, tmp_path: Path) -> None:
    paths = some(images, 7)
    values: list[Any] = {
        "bytes": [path.read_bytes() for path in paths],
        "paths": [os.path.relpath(path, tmp_path) for path in paths],
        "structs": [{"bytes": path.read_bytes(), "path": None} for path in paths],
    }[kind]
    table = pa.table({"picture": [*values, None], "key": list(range(8))})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=3)
    done = refnet.batch(tmp_path / "t.parquet", WEIGHTS, tmp_path / "a", column="picture")
    assert ids(tmp_path / "a") == [f"t.parquet#{number}" for number in range(8)]
    assert done.errors == 1
    refnet.batch(tmp_path / "t.parquet", WEIGHTS, tmp_path / "b", column="picture", id_column="key", batch_size=2)
    found = read(tmp_path / "b")
    assert [row["id"] for row in found] == list("01234567")
    assert found[6]["digest"] == refnet.Predictor(WEIGHTS).rows([paths[6]], ["6"])[0]["digest"]
    assert "missing" in found[7]["message"]


def test_links_and_names_that_are_not_text(images: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (first, *_) = some(images)
    (folder / "broken.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "link.png").symlink_to(first)
    (folder / "linked").symlink_to(first.parent.parent / "class 2")
    os.mkfifo(folder / "fifo.png")
    odd = os.fsencode(folder) + b"/\xff.png"
    with open(odd, "wb") as file:
        file.write(first.read_bytes())
    done = refnet.batch(folder, WEIGHTS, tmp_path / "o", format="jsonl")
    found = {row["id"]: row["error"] for row in read(tmp_path / "o")}
    assert done.rows == len(found)
    assert found["broken.png"] == "FileNotFoundError"
    assert found["fifo.png"] == "InputError"
    assert found["link.png"] is found["//\\xff.png"] is found["linked/0002.png"] is None
    (folder / "loop").symlink_to(folder)
    with pytest.raises(InputError, match="link to a directory above it"):
        refnet.batch(folder, WEIGHTS, tmp_path / "p")


@pytest.mark.skipif(os.name != "posix" or os.getuid() == 0, reason="root may read all")
def test_a_directory_that_cannot_be_read_is_an_error(images: Path, tmp_path: Path) -> None:
    (tmp_path / "in" / "closed").mkdir(parents=True)
    (tmp_path / "in" / "closed").chmod(0)
    with pytest.raises(PermissionError):
        refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.txt"], r"no images in the directory .* \(files that are not images by their names: 1 \.txt\)"),
        ([], "no images"),
    ],
)
def test_nothing_to_do(names: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in names:
        (tmp_path / "in" / name).touch()
    with pytest.raises(InputError, match=message):
        refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_two_inputs_with_one_id(images: Path, tmp_path: Path) -> None:
    (first, second, _) = some(images)
    with pytest.raises(InputError, match=r"one id: .*0000\.png\."):
        refnet.batch([first, second, first], WEIGHTS, tmp_path / "o")
    write_tar(tmp_path / "a.tar", {"a.png": b"", "b.png": b""})
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(InputError, match=r"one id: a\.tar/a\.png"):
        refnet.batch(tmp_path / "a.tar", WEIGHTS, tmp_path / "o")


# Going on


def interrupt_after(images: Path, out: Path, rows: int, **options: Any) -> int:
    """Have a job end early, and return how many rows it kept."""

    def stop(now: Progress) -> None:
        if now.done >= rows:
            raise RuntimeError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("refnet.bulk.job._TELL_SECONDS", 0)
        with pytest.raises(RuntimeError):
            refnet.batch(images, WEIGHTS, out, progress=stop, batch_size=2, **options)
    return len(read(out))


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_what_is_done_is_not_done_again(
    format: Any, images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path
) -> None:
    kept = interrupt_after(images, tmp_path, 17, format=format, shard_rows=5)
    assert 17 <= kept < len(rows)
    assert status_of(tmp_path).sha256 is None
    done = refnet.batch(images, WEIGHTS, tmp_path, format=format)
    assert done.made == len(rows) - kept
    assert sorted(ids(tmp_path)) == sorted(rows)
    assert done.sha256 == hash_of(rows) == status_of(tmp_path).sha256
    assert refnet.batch(images, WEIGHTS, tmp_path, format=format).made == 0


def test_a_source_may_grow_but_not_shrink(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 9, bad=False)
    first = refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o", shard_rows=4)
    write_images(tmp_path / "in", 20)
    grown = refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o", shard_rows=3)
    assert (first.made, grown.made) == (9, 11 + len(BAD))
    assert status_of(tmp_path / "o").rows == 20 + len(BAD)
    whole = expected(tmp_path / "in")
    assert grown.sha256 == hash_of(whole)
    write_images(tmp_path / "in", 25)
    again = refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o")
    assert again.made == 5
    assert again.sha256 == hash_of(expected(tmp_path / "in"))
    (tmp_path / "in" / "class 0" / "0003.png").unlink()
    with pytest.raises(InputError, match=r"rows for class 0/0003\.png, which the source has no longer"):
        refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o")


def test_of_the_shards_only_one_is_looked_into_at_a_time() -> None:
    """What is kept grows with the shards, not with the rows: each is read when the listing comes to it."""
    size, count = 50, 40
    names = [f"{number:05d}" for number in range(size * count)]
    heads = [shards.Head(str(n), size, names[n * size], {}) for n in range(count)]
    listed = iter(names)
    opened: list[int] = []

    def index(path: str) -> shards.Index:
        opened.append(int(path))
        return shards.Index(names[int(path) * size : (int(path) + 1) * size], [])

    items = (Item(name, ("file", name)) for name in listed)
    for number, _ in enumerate(shards.not_done(items, heads, index)):
        pytest.fail(f"{number} is done again")
    assert opened == list(range(count))


def test_errors_are_tried_again(tmp_path: Path) -> None:
    write_images(tmp_path / "in", 9)
    for format in ("parquet", "jsonl"):
        out = tmp_path / format
        first = refnet.batch(tmp_path / "in", WEIGHTS, out, shard_rows=2, format=format)  # type: ignore[arg-type]
        assert first.errors == len(BAD)
        assert {id for id, _, _ in status_of(out).examples} == {f"class 1/{name}" for name in BAD}
    good = (tmp_path / "in" / "class 0" / "0000.png").read_bytes()
    for name in BAD:
        (tmp_path / "in" / "class 1" / name).write_bytes(good)
    for format in ("parquet", "jsonl"):
        out = tmp_path / format
        again = refnet.batch(tmp_path / "in", WEIGHTS, out, format=format)  # type: ignore[arg-type]
        assert (again.made, again.errors) == (0, len(BAD))
        again = refnet.batch(tmp_path / "in", WEIGHTS, out, format=format, retry_errors=True)  # type: ignore[arg-type]
        assert (again.made, again.errors, again.rows) == (len(BAD), 0, 9 + len(BAD))
        assert len(set(ids(out))) == len(ids(out)) == again.rows


@pytest.mark.filterwarnings("ignore:The images are 19 x 17, but the recipe:refnet.RefnetWarning")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top": 3}, "wanted.top is 5 there and 3 here"),
        ({"recipe": RECIPE._replace(height=19)}, "recipe.height is 17 there and 19 here"),
        ({"weights": refnet.Weights(lively_weights(1), recipe=RECIPE, labels=list("abcdefg"))}, "weights is"),
        ({"labels": list("hijklmn")}, "labels is"),
        ({"output_stride": 4}, "options.output_stride is null there and 4"),
        ({"format": "jsonl"}, "format is"),
        ({"source": "class 0"}, "source is"),
    ],
)
def test_a_directory_belongs_to_one_job(changes: dict[str, Any], message: str, images: Path, tmp_path: Path) -> None:
    refnet.batch(images, WEIGHTS, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = {"weights": WEIGHTS, "source": images, **changes}
    arguments["source"] = images / arguments["source"]
    with pytest.raises(ConfigError, match=message):
        refnet.batch(out=tmp_path, **arguments)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    # These change no bit.
    assert refnet.batch(images, WEIGHTS, tmp_path, threads=1, batch_size=3, shard_rows=2).made == 0


def test_two_jobs_in_one_directory(images: Path, tmp_path: Path) -> None:
    directory = shards.Directory(str(tmp_path))
    refnet.batch(images, WEIGHTS, tmp_path)
    with directory.locked():
        assert status_of(tmp_path).running
        with pytest.raises(ConfigError, match=rf"Another job writes to .* \(process {os.getpid()}\)"):
            refnet.batch(images, WEIGHTS, tmp_path)
    assert not status_of(tmp_path).running


def test_a_damaged_shard_is_found(images: Path, tmp_path: Path) -> None:
    for format in ("parquet", "jsonl"):
        out = tmp_path / format
        refnet.batch(images, WEIGHTS, out, shard_rows=10, format=format)  # type: ignore[arg-type]
        shard = out / f"part-000001.{format}"
        content = shard.read_bytes()
        for damaged in (content[:-9], content[: len(content) // 2], b""):
            shard.write_bytes(damaged)
            with pytest.raises(CorruptError, match="part-000001"):
                refnet.batch(images, WEIGHTS, out, format=format)  # type: ignore[arg-type]
        shard.unlink()
        assert refnet.batch(images, WEIGHTS, out, format=format).made == 10  # type: ignore[arg-type]


def test_a_full_disk(images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path) -> None:
    refnet.batch(some(images), WEIGHTS, tmp_path / "small")  # its manifest has room
    with no_room(tmp_path, 3000), pytest.raises(OSError, match="File too large"):
        refnet.batch(images, WEIGHTS, tmp_path / "o", shard_rows=20)
    assert not [path.name for path in (tmp_path / "o").iterdir() if path.name.endswith(".tmp")]
    assert refnet.batch(images, WEIGHTS, tmp_path / "o").sha256 == hash_of(rows)


# Errors, time, and where it runs


def test_too_many_errors_end_the_job(images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"3 inputs gave errors, and 2 may\. The last one is class 1/"):
        refnet.batch(images, WEIGHTS, tmp_path, max_errors=2, batch_size=2, shard_rows=3)
    found = read(tmp_path)
    assert sum(row["error"] is not None for row in found) == 3
    with pytest.raises(InputError, match="and 2 may"):
        refnet.batch(images, WEIGHTS, tmp_path, max_errors=2)
    assert refnet.batch(images, WEIGHTS, tmp_path, max_errors=len(BAD)).sha256 == hash_of(rows)


def test_an_input_that_hangs(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row is an error, the others come, and nobody waits for its thread."""
    let_go, prepared = threading.Event(), refnet.Predictor.prepared

    def hanging(self: refnet.Predictor, content: Any) -> Any:
        if "0003.png" in str(content) or "0012.png" in str(content):
            let_go.wait(60)
        return prepared(self, content)

    monkeypatch.setattr(refnet.Predictor, "prepared", hanging)
    started = time.monotonic()
    # More than any other row takes, on a busy machine too.
    done = refnet.batch(images, WEIGHTS, tmp_path, row_seconds=2)
    assert time.monotonic() - started < 50
    let_go.set()
    found = {row["id"]: row for row in read(tmp_path)}
    assert done.rows == len(found) == COUNT + len(BAD)
    assert {id for id, row in found.items() if row["error"] == "TimeoutError"} == {
        "class 0/0003.png",
        "class 0/0012.png",
    }
    monkeypatch.undo()
    again = refnet.batch(images, WEIGHTS, tmp_path, retry_errors=True)
    assert again.errors == len(BAD)


def test_a_place_where_everything_hangs(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(refnet.Predictor, "prepared", lambda *_: let_go.wait(60))
    monkeypatch.setattr(pipeline, "_MOST_HANGING", 3)
    with pytest.raises(refnet.errors.DeviceError, match="4 inputs took more than"):
        refnet.batch(images, WEIGHTS, tmp_path, row_seconds=0.1)
    let_go.set()


def test_without_pyarrow(images: Path, rows: dict[str, tuple[Any, bytes]], tmp_path: Path) -> None:
    code = """
import sys
sys.modules["pyarrow"] = sys.modules["daft"] = None
import refnet
from tests.bulk.inputs import WEIGHTS
print(refnet.batch(sys.argv[1], WEIGHTS, sys.argv[2], format="jsonl").sha256)
print(refnet.Predictor(WEIGHTS).rows([b""])[0]["error"])
for act in (
    lambda: refnet.batch(sys.argv[1], WEIGHTS, sys.argv[3]),
    lambda: refnet.Predictor(WEIGHTS)([b""]),
    lambda: refnet.batch(sys.argv[1], WEIGHTS, sys.argv[3], format="jsonl", runner="daft"),
):
    try:
        act()
    except refnet.errors.ConfigError as error:
        print(error)
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(images), str(tmp_path / "a"), str(tmp_path / "b")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    first, error, *refusals = done.stdout.splitlines()
    assert (first, error) == (hash_of(rows), "InputError")
    assert [line.split(" is missing")[0] for line in refusals] == [
        "The package pyarrow",
        "The package pyarrow",
        "The package daft",
    ]
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("said", "asked", "threads"),
    [("1", None, 1), ("", None, count_cores()), ("9999", None, count_cores()), ("x", None, count_cores()), ("1", 3, 3)],
)
def test_a_worker_takes_no_more_threads_than_it_may(
    said: str, asked: int | None, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert threads_of_worker(asked) == threads


def test_what_a_result_leaves_out_of_its_image_is_in_its_message(tmp_path: Path) -> None:
    """Not a warning per file, and no error where warnings are errors."""
    (tmp_path / "in").mkdir()
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "in" / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "in" / "b.webp", lossless=True)
    done = refnet.batch(tmp_path / "in", WEIGHTS, tmp_path / "o")
    first, second = read(tmp_path / "o")
    assert (done.rows, done.errors) == (2, 0)
    assert "frame" in first["message"]
    assert second["message"] is None
    assert first["classes"] is not None
