"""The same rows in the workers of others: what they are sent, what they are given, and the programs of docs/bulk.md."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

import refnet
from refnet.bulk.daft_runner import Work, _Worker
from refnet.bulk.job import hash_of
from refnet.bulk.pipeline import Settings
from refnet.bulk.sources import Item
from refnet.cli import main
from refnet.errors import CorruptError, InputError, RefnetWarning
from tests.bulk.inputs import RECIPE, WEIGHTS, expected, write_images
from tests.bulk.runners import PROGRAMS, has, programs, runners
from tests.support.needed import missing

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    missing("pyarrow is missing")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, 9)
    return folder


def test_a_pickled_predictor_gives_the_same_rows_from_all_that_workers_are_given(images: Path, tmp_path: Path) -> None:
    wanted = expected(images)
    digests = [digest.hex() for _, digest in wanted.values()]
    paths = [images / id for id in wanted]
    contents = [path.read_bytes() for path in paths]
    refnet.save_weights(tmp_path / "w.npz", WEIGHTS)
    for weights in (WEIGHTS, tmp_path / "w.npz"):
        predictor = pickle.loads(pickle.dumps(refnet.Predictor(weights, batch=4)))
        # A Series of pandas and an array of objects are iterated alike.
        for given in (paths, contents, np.array(contents, object), pa.array(contents), pa.array(map(str, paths))):
            struct = predictor(given, list(wanted))
            assert struct.type == predictor.type
            assert struct.field("digest").to_pylist() == digests
        table = pa.table({"id": list(wanted), "image": contents, "split": ["train"] * len(wanted)})
        made = predictor(table)
        assert made.column_names[:3] == ["split", "id", "digest"]
        assert made.column("digest").to_pylist() == digests
        # As Spark has them, by way of JSON.
        rows = json.loads(json.dumps(predictor.rows(contents, list(wanted))))
        assert [row["digest"] for row in rows] == digests
        struct = predictor(contents, list(wanted))
        assert pa.Table.from_pylist(rows, schema=pa.schema(list(predictor.type))).to_pylist() == struct.to_pylist()
    with pytest.raises(refnet.errors.ConfigError, match="no column 'image'"):
        predictor(pa.table({"id": ["a"]}))


def test_the_ids_of_paths_and_bytes(images: Path) -> None:
    path = images / "class 0" / "0000.png"
    rows = refnet.Predictor(WEIGHTS).rows([path, str(path), b""])
    assert [row["id"] for row in rows] == [str(path), str(path), "2"]


def test_a_pickle_by_path_holds_no_weights(tmp_path: Path) -> None:
    refnet.save_weights(tmp_path / "w.npz", WEIGHTS)
    by_path, by_value = (len(pickle.dumps(refnet.Predictor(given))) for given in (tmp_path / "w.npz", WEIGHTS))
    assert by_path < 2000 < by_value


def test_a_recipe_for_another_size_is_doubted() -> None:
    with pytest.warns(RefnetWarning, match="19 x 17, but the recipe of these weights says 17 x 17"):
        refnet.Predictor(WEIGHTS, recipe=RECIPE._replace(height=19))


def test_what_a_worker_of_daft_does(images: Path, tmp_path: Path) -> None:
    wanted = expected(images)
    worker = _Worker(pickle.dumps((refnet.Predictor(WEIGHTS, threads=1), Settings(decoders=1))))
    items = [Item(id, ("file", str(images / id))) for id in wanted]
    for number, half in enumerate((items[:5], items[5:])):
        answer = json.loads(worker.made(pickle.dumps(Work(str(tmp_path / f"part-{number:06d}.parquet"), half))))
        failures = sum(isinstance(wanted[item.id][0], str) for item in half)
        assert answer == {"rows": len(half), "errors": failures}
    assert hash_of(tmp_path) == hash_of_files(tmp_path)
    assert (
        refnet.batch(images, WEIGHTS, tmp_path / "o").sha256 == hash_of(tmp_path / "o")[1] == hash_of_files(tmp_path)[1]
    )
    answer = json.loads(worker.made(pickle.dumps(Work(str(tmp_path / "no" / "part-000000.parquet"), items))))
    assert answer["error"] == "RefnetError"
    assert "No such file" in answer["message"]


def hash_of_files(folder: Path) -> tuple[int, str]:
    """The hash by the files beside each other, without those of folders."""
    import hashlib

    rows = [row for path in folder.glob("part-*.parquet") for row in pq.read_table(path).to_pylist()]
    rows.sort(key=lambda row: row["id"].encode())
    return len(rows), hashlib.sha256(b"".join(bytes.fromhex(row["digest"]) for row in rows)).hexdigest()


def test_the_hash_of_rows_that_others_wrote(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = refnet.batch(images, WEIGHTS, tmp_path / "o", shard_rows=4)
    # In other files, in another order, with other columns.
    tables = [pq.read_table(path).select(["digest", "id"]) for path in sorted((tmp_path / "o").glob("*.parquet"))]
    (tmp_path / "p" / "sub").mkdir(parents=True)
    pq.write_table(tables[1].append_column("x", [[0] * len(tables[1])]), tmp_path / "p" / "1.parquet")
    pq.write_table(pa.concat_tables([tables[3], tables[2], tables[0]]), tmp_path / "p" / "sub" / "0.parquet")
    assert hash_of(tmp_path / "p") == (done.rows, done.sha256)
    assert main(["batch", "--hash", str(tmp_path / "p")]) == 0
    assert done.sha256 in capsys.readouterr().out
    pq.write_table(tables[1], tmp_path / "p" / "2.parquet")
    with pytest.raises(InputError, match="more than one row"):
        hash_of(tmp_path / "p")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p" / "2.parquet")
    with pytest.raises(CorruptError, match=r"2\.parquet"):
        hash_of(tmp_path / "p")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_programs_are_python(name: str) -> None:
    compile(programs()[name], name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_one_hash(name: str) -> None:
    if not has(PROGRAMS[name]):
        pytest.skip(f"{PROGRAMS[name]} is not installed")
    assert len(runners(60, (2, 3), (8,), [name])) >= 2
