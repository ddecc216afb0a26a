"""Shards made by the workers of Daft: processes on this machine, or those of a Ray cluster.

A worker is given the ids and places of a shard's inputs, and writes the shard itself; only counts come back. So nothing
passes through the process that began the job, and what is there after a kill is whole.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import refnet.errors
from refnet.bulk.pipeline import Settings, rows_of
from refnet.bulk.predictor import Predictor
from refnet.bulk.shards import write_shard
from refnet.bulk.sources import Item
from refnet.errors import ConfigError, DeviceError, RefnetError
from refnet_kernels.system.cores import count_cores
from refnet_kernels.system.extras import how_to_get
from refnet_kernels.system.forks import making, once

#: Shards that a worker is given at a time: after them, the job can be stopped.
SHARDS_PER_WORKER = 4


class Work(NamedTuple):
    """A shard to make."""

    path: str
    items: list[Item]


class Made(NamedTuple):
    """A shard that was made."""

    rows: int
    errors: int


@once
def _daft() -> Any:
    try:
        import daft
    except ImportError as error:
        raise ConfigError(
            f"The package daft is missing, which runs several processes: {how_to_get('batch')}."
        ) from error
    return daft


def check(runner: str) -> None:
    """Refuse a runner whose packages are missing.

    Raises
    ------
    ConfigError
    """
    _daft()
    if runner == "ray":
        with making:
            try:
                import ray  # noqa: F401
            except ImportError as error:
                raise ConfigError("The package ray is missing: python -m pip install ray.") from error


class Team:
    """Workers of Daft.

    Parameters
    ----------
    runner : {"daft", "ray"}
    workers : int, optional
    predictor : Predictor
    settings : Settings
    """

    def __init__(self, runner: str, workers: int | None, predictor: Predictor, settings: Settings) -> None:
        self._daft = _daft()
        threads = predictor.threads
        self._spread = runner == "ray"
        wanted = "ray" if runner == "ray" else "native"
        if runner == "ray" and self._daft.get_or_infer_runner_type() != "ray":
            self._daft.set_runner_ray(noop_if_initialized=True)
        found = self._daft.get_or_infer_runner_type()
        if found != wanted:
            raise ConfigError(
                f"Daft has the runner {found!r} in this process, and {wanted!r} is asked for.", found=found
            )
        if runner == "ray":
            with making:
                import ray
            cores = int(ray.cluster_resources().get("CPU", 1))
            threads = threads or max(1, cores // (workers or cores))
            self.workers = workers or max(1, cores // threads)
        else:
            self.workers = workers or 1
            # The cores of this machine are shared.
            threads = threads or max(1, count_cores() // self.workers)
        self._threads = threads
        settings = settings._replace(decoders=settings.decoders or threads)
        self._state = pickle.dumps((predictor.with_threads(threads), settings))

    def run(self, works: Iterator[Work], stopped: Callable[[], bool]) -> Iterator[Made]:
        """Make shards.

        Yields
        ------
        Made
            For each, in some order.

        Raises
        ------
        RefnetError
            As a worker raised it.
        """
        column = self._column()
        while not stopped() and (some := list(islice(works, self.workers * SHARDS_PER_WORKER))):
            frame = self._daft.from_pydict({"work": [pickle.dumps(work) for work in some]})
            if self._spread:
                frame = frame.into_partitions(min(len(some), self.workers))
            frame = frame.select(column.alias("made"))
            try:
                answers = frame.to_pydict()["made"]
            except Exception as error:
                raise DeviceError(f"Daft gave up: {' '.join(str(error).split())[-500:]}") from error
            for answer in map(json.loads, answers):
                if "error" in answer:
                    kind = getattr(refnet.errors, answer["error"], RefnetError)
                    raise kind(f"A worker: {answer['message']}")
                yield Made(**answer)

    def _column(self) -> Any:
        """The expression that makes the shards of a column ``work``."""
        daft = self._daft

        class Shards(_Worker):
            @daft.method.batch(return_dtype=daft.DataType.string(), batch_size=1)  # type: ignore[untyped-decorator]
            def make(self, works: Any) -> list[str]:
                return [self.made(work) for work in works.to_pylist()]

        cpus = float(self._threads) if self._spread else None
        worker = daft.cls(Shards, max_concurrency=self.workers, use_process=True, cpus=cpus)(self._state)
        return worker.make(daft.col("work"))


class _Worker:
    """What is in each process."""

    def __init__(self, state: bytes) -> None:
        self._predictor, self._settings = pickle.loads(state)

    def made(self, work: bytes) -> str:
        """Make a shard; the answer is JSON."""
        path, items = pickle.loads(work)
        try:
            rows = list(rows_of(self._predictor, items, self._settings))
            write_shard(path, rows, self._predictor.fields)
        except RefnetError as error:
            return json.dumps({"error": type(error).__name__, "message": error.message})
        except OSError as error:
            return json.dumps(
                {"error": "RefnetError", "message": f"{error.filename or path}: {error.strerror or error}"}
            )
        return json.dumps(Made(len(rows), sum(row.failure is not None for row in rows))._asdict())
