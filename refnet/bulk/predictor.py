"""Images by their bytes or paths in, rows out: what every runner has in its workers."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from itertools import islice
from typing import Any, Literal, NamedTuple

import numpy as np

from refnet.bulk import BATCH, TOP, arrow
from refnet.bulk.rows import COLUMNS, TEXT, Failure, Field, Row, check_ids, id_of_path, make_row
from refnet.checks import as_int, check_choice, check_positive, labels_of, names_of, path_of, shown
from refnet.engine import Engine
from refnet.errors import ConfigError, InputError, RefnetError, RefnetWarning
from refnet.evidence.digest import digest_all
from refnet.images import doubts
from refnet.images.files import image_and_doubts
from refnet.images.preprocess import Recipe, check_recipe, fields_of, preprocess
from refnet.network.names import full_names
from refnet.network.options import BIT_OPTIONS, KEYWORDS
from refnet.resources import for_images, for_weights, is_want
from refnet.run.devices import check_threads
from refnet.signatures import shows
from refnet.weights.files import weights_of
from refnet.weights.weights import Weights
from refnet_kernels.contract import CONTRACT_VERSION, Float32Array
from refnet_kernels.system.cores import count_cores
from refnet_kernels.system.forks import Lock

#: The side of an image where the recipe keeps its size: to know the ranks of end points, any will do.
_ANY_SIDE = 224


class _Opened(NamedTuple):
    weights: Weights
    engine: Engine


class Prepared(NamedTuple):
    """An image as the network takes it.

    Attributes
    ----------
    pixels : float32 array [H, W, C]
    note : str or None
        What the pixels leave out: transparency, further frames.
    """

    pixels: Float32Array
    note: str | None


class Predictor:
    """A network that takes encoded images and gives rows: the classes with the highest probabilities, features, or
    end points. An image that cannot be used gives a row that says why.

    It can be pickled, and so sent to the workers of Daft, Ray or Spark, each of which makes its own engine from it.

    Parameters
    ----------
    weights : path, Weights, or mapping of str to array
        A path is read by each worker; the others travel in the pickle. A plain mapping needs a ``recipe``.
    top : int, optional
        How many classes; None: five if nothing else is wanted, else none.
    features : {"pooled", "dense"}, optional
        "pooled": the mean over all places of the last features. "dense": these features themselves, [h, w, channels];
        the option ``output_stride`` makes them finer. They come from a network without logits, so neither ``top`` nor
        ``end_points`` can be wanted beside them.
    end_points : sequence of str
        Names of end points, in full or their last parts.
    recipe : Recipe, optional
        How pixels are prepared; None: as the weights say.
    labels : sequence of str, optional
        A name per class; None: the weights' own, if they have some.
    batch : int
        Images that go through the network at once. The bits do not depend on it.
    **options
        As for `refnet.Engine`. ``threads=None`` means as many as the worker may use: the cores of the process, and no
        more than the environment variable ``OMP_NUM_THREADS`` says, which Ray and Spark set in their workers.

    Raises
    ------
    WeightsError, ConfigError, DeviceError
        As for `refnet.Engine`; or what is wanted does not fit the network, or an option makes the results depend on
        the batch (``is_training``).

    Examples
    --------
    >>> import refnet
    >>> predictor = refnet.Predictor("digits.ckpt", top=1)
    >>> images = ["digit3.png", "digit8.png", "theirs.npz"]
    >>> for row in predictor.rows(images):  # dictionaries, without pyarrow
    ...     print(row["id"], row["error"] or row["labels"])
    digit3.png ['3']
    digit8.png ['8']
    theirs.npz InputError
    >>> predictor(images).field("error").is_null().to_pylist()  # a pyarrow.StructArray
    [True, True, False]
    >>> predictor.type.field("probabilities")
    pyarrow.Field<probabilities: list<item: float>>
    """

    @shows(KEYWORDS)
    @for_weights
    def __init__(
        self,
        weights: Mapping[str, Any] | str | os.PathLike[str],
        *,
        top: int | None = None,
        features: Literal["pooled", "dense"] | None = None,
        end_points: Sequence[str] = (),
        recipe: Recipe | None = None,
        labels: Sequence[str] | None = None,
        batch: int = BATCH,
        **options: Any,
    ) -> None:
        self._batch: int = as_int(batch)
        check_positive(batch=self._batch)
        if features is not None:
            check_choice("features", features, ("pooled", "dense"))
        names = names_of(end_points)
        if isinstance(names, bool):
            raise ConfigError(f"end_points is {shown(end_points)}; for rows it is names of end points.")
        self._features, self._end_points = features, names
        self._recipe = None if recipe is None else check_recipe(recipe)
        self._labels = None if labels is None else labels_of(labels)
        if isinstance(weights, str | os.PathLike):
            weights = os.path.abspath(path_of(weights))
        elif isinstance(weights, Mapping) and not isinstance(weights, Weights) and recipe is None:
            raise ConfigError("A plain mapping of weights has no recipe for pixels: pass recipe=, or refnet.Weights.")
        #: What each worker's engine is made from.
        self._source: Any = weights
        self._options = {**options, **self._for_features(options, top)}
        self._lock = Lock()
        self._opened: _Opened | None = None
        engine = self.engine
        if engine.options.is_training:
            raise ConfigError("With is_training=True a result depends on the other images of its batch: leave it out.")
        self._top = self._checked_top(top, engine.num_classes)
        self._names, self.fields = self._wanted(engine)
        self._doubt_size()

    def _doubt_size(self) -> None:
        """Warn about a recipe for images of another size than those that the classifier was trained on."""
        weights, _ = self._open()
        height, width = weights.recipe.height, weights.recipe.width
        if self._top and height and width and self._options.get("output_stride") is None:
            doubt = doubts.size((height, width), weights.image_size)
            if doubt:
                warnings.warn(doubt, RefnetWarning, stacklevel=4)

    def _for_features(self, options: Mapping[str, Any], top: object) -> dict[str, Any]:
        """The engine's options that the features need."""
        if self._features == "pooled" and options.get("global_pool", True) is not True:
            raise ConfigError('features="pooled" needs the pool: leave out global_pool, or ask for features="dense".')
        if self._features != "dense":
            return {}
        if top is not None or self._end_points:
            raise ConfigError('features="dense" needs a network without logits: ask for top or end_points apart.')
        return {"num_classes": None, "global_pool": False}

    def _checked_top(self, top: int | None, classes: int | None) -> int | None:
        if top is None and (self._features or self._end_points):
            return None
        if top is not None:
            top = as_int(top)
            check_positive(top=top)
        if classes is None:
            raise ConfigError('There are no logits, so there are no classes: ask for features="pooled" or end points.')
        if self._options.get("global_pool", True) is not True:
            raise ConfigError("With global_pool=False each place has its own classes: ask for end points.")
        if top is not None and top > classes:
            raise ConfigError(f"top is {top}, but there are {classes} classes.", expected=classes, found=top)
        return min(TOP, classes) if top is None else top

    def _wanted(self, engine: Engine) -> tuple[tuple[str, ...], tuple[Field, ...]]:
        """The end points that the engine is asked for, and the fields of the rows."""
        weights, recipe = self._open().weights, self._open().weights.recipe
        channels = engine.architecture.channels
        if channels not in (1, 3):
            raise ConfigError(f"The network takes {channels} channels, and image files have 1 or 3.", found=channels)
        net, traced = engine.trace((recipe.height or _ANY_SIDE, recipe.width or _ANY_SIDE, channels))
        full = full_names(self._end_points, list(traced), "end point")
        dtype = str(engine.options.dtype)
        names: list[str] = []
        fields: list[Field] = []
        if self._top:
            names.append("predictions")
            fields += [Field("classes", "int32"), Field("probabilities", dtype)]
            if weights.labels is not None:
                _check_labels(weights.labels, engine.num_classes)
                fields.append(Field("labels", TEXT))
        if self._features is not None:
            names += ["global_pool"] if self._features == "pooled" else []
            fields.append(Field("features", dtype, self._features == "dense"))
        for name, of in zip(self._end_points, full, strict=True):
            fields.append(Field(name, dtype, len(traced[of].shape) > 2))
        columns = [*COLUMNS, *(name for field in fields for name in field.columns)]
        twice = sorted({name for name in columns if columns.count(name) > 1})
        if twice:
            raise ConfigError(f"What is wanted would give several columns one name: {', '.join(twice)}.", found=twice)
        shapes = [traced[of].shape for of in full] + ([net.shape] if self._features == "dense" else [])
        self._row_bytes: int = sum(np.dtype(dtype).itemsize * math.prod(shape) for shape in shapes)
        return (*names, *self._end_points), tuple(fields)

    def _open(self) -> _Opened:
        """The weights and the engine of this process."""
        with self._lock.held():
            if self._opened is None:
                options = dict(self._options)
                options["threads"] = threads_of_worker(options.get("threads"))
                weights = weights_of(self._source, options.get("scope"))
                if weights is not self._source:
                    # It chose among the networks of the file.
                    options["scope"] = None
                weights = weights.replace(recipe=self._recipe, labels=self._labels)
                self._opened = _Opened(weights, Engine(weights, **options))
            return self._opened

    @property
    def engine(self) -> Engine:
        """The engine of this process."""
        return self._open().engine

    @property
    def batch(self) -> int:
        """Images that go through the network at once."""
        return self._batch

    @property
    def row_bytes(self) -> int:
        """The bytes of a row's values, about; without those that are few."""
        return self._row_bytes

    def with_threads(self, threads: int | None) -> Predictor:
        """The same, with so many threads per worker; None: as many as it may use."""
        other = copy(self)
        other._options = {**self._options, "threads": threads}
        return other

    @property
    def threads(self) -> int | None:
        """The threads that were asked for."""
        return self._options.get("threads")

    def job(self) -> dict[str, Any]:
        """All that the rows of an image depend on, as JSON has it."""
        weights, engine = self._open()
        options = {name: getattr(engine.options, name) for name in sorted(BIT_OPTIONS - {"scope"})}
        labels = None if weights.labels is None else hashlib.sha256("\n".join(weights.labels).encode()).hexdigest()
        found = {
            "contract": CONTRACT_VERSION,
            "weights": digest_all(weights, weights),
            "recipe": fields_of(weights.recipe),
            "labels": labels,
            "options": options,
            "wanted": {"top": self._top, "features": self._features, "end_points": self._end_points},
        }
        # As it is once it was read again.
        plain: dict[str, Any] = json.loads(json.dumps(found, default=_plain))
        return plain

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_opened")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _lock=Lock(), _opened=None)

    def __repr__(self) -> str:
        return f"<Predictor of {', '.join(field.name for field in self.fields)} by {self.engine!r}>"

    def __call__(self, images: Any, ids: Iterable[Any] | None = None) -> Any:
        """The rows of images, in Arrow.

        Parameters
        ----------
        images : sequence, Arrow array, or Arrow table
            For each image its encoded bytes, or its path; None gives an error row. A table has them in its column
            ``image``, and ids in its column ``id``.
        ids : iterable, optional
            An id per image; other values than strings are written as such. None: for a path the path, else the number
            of the image.

        Returns
        -------
        pyarrow.StructArray, or pyarrow.Table
            ``id``, ``digest``, ``error``, ``message``, and the fields that are wanted. For a table, these beside its
            other columns.

        Raises
        ------
        ConfigError
            The package pyarrow is missing, or the table has no such column.
        InputError
            There is not one id per image.
        """
        if not arrow.is_table(images):
            return arrow.struct_of(self._rows(images, ids), self.fields)
        contents, ids = arrow.contents_of(images)
        return arrow.with_rows(images, self._rows(contents, ids), self.fields)

    @property
    def type(self) -> Any:
        """The Arrow type of the rows: a ``pyarrow.StructType``."""
        return arrow.type_of(self.fields)

    def rows(self, images: Any, ids: Iterable[Any] | None = None) -> list[dict[str, Any]]:
        """The rows of images, as dictionaries of strings, lists and numbers; this needs no pyarrow.

        Parameters
        ----------
        images, ids
            As for a call.

        Returns
        -------
        list of dict

        Raises
        ------
        InputError
            There is not one id per image.
        """
        return [row.as_dict(self.fields) for row in self._rows(images, ids)]

    def _rows(self, images: Any, ids: Iterable[Any] | None) -> list[Row]:
        contents = _listed(images, "image")
        names = _ids(contents) if ids is None else [str(id) for id in _listed(ids, "id")]
        check_ids(names)
        if len(names) != len(contents):
            raise InputError(f"There are {len(names)} ids for {len(contents)} images; there is one for each.")
        rows: list[Row] = []
        for start in range(0, len(contents), self._batch):
            part = slice(start, start + self._batch)
            prepared = [self.prepared(content) for content in contents[part]]
            rows += map(self.row, names[part], self.outcomes(prepared), prepared)
        return rows

    def row(self, id: str, outcome: Sequence[Any] | Failure, prepared: Prepared | Failure) -> Row:
        """The row of an input."""
        note = None if isinstance(prepared, Failure) else prepared.note
        return make_row(id, self.fields, outcome, note)

    def prepared(self, content: object) -> Prepared | Failure:
        """An image as the network takes it; or why it is not.

        Parameters
        ----------
        content : bytes or path

        Returns
        -------
        Prepared or Failure

        Raises
        ------
        ConfigError
            Pillow is set to load truncated images.
        """
        opened = self._open()
        if not isinstance(content, _CONTENTS):
            wanted = f"The image is {'missing (null)' if content is None else shown(content)}"
            return Failure(InputError.__name__, f"{wanted}; it is encoded bytes, or a path.")
        try:
            channels = opened.engine.architecture.channels
            image, doubts_of_image = image_and_doubts(content, channels)
        except ConfigError:
            raise
        except Exception as error:
            return failure_of(error)
        try:
            return Prepared(preprocess(image, opened.weights.recipe), "; ".join(doubts_of_image) or None)
        except Exception as error:
            return failure_of(error)

    def outcomes(self, prepared: Sequence[Prepared | Failure]) -> list[Sequence[Any] | Failure]:
        """Run the network on prepared images, those of one size at once.

        Parameters
        ----------
        prepared : sequence
            What `prepared` gave.

        Returns
        -------
        list
            For each a value per field; or a Failure.

        Raises
        ------
        DeviceError, WeightsError
            It is not an image's fault.
        """
        found: list[Any] = list(prepared)
        sizes: dict[tuple[int, ...], list[int]] = {}
        for place, image in enumerate(prepared):
            if not isinstance(image, Failure):
                sizes.setdefault(image.pixels.shape, []).append(place)
        for places in sizes.values():
            for place, outcome in zip(places, self._run([found[place].pixels for place in places]), strict=True):
                found[place] = outcome
        return found

    def _run(self, images: list[Float32Array]) -> list[Sequence[Any] | Failure]:
        """Outcomes of images of one size."""
        try:
            return self._run_at_once(np.stack(images))
        except (InputError, MemoryError) as error:
            if len(images) == 1:
                return [failure_of(error)]
        # There may be memory for fewer.
        half = len(images) // 2
        return self._run(images[:half]) + self._run(images[half:])

    @for_images
    def _run_at_once(self, batch: Float32Array) -> list[Sequence[Any] | Failure]:
        weights, engine = self._open()
        (net, *values), _ = engine.prepared(batch.shape, self._names).run(batch)
        if not self._names:
            values = [net]
        return [self._outcome([value[i] for value in values], weights.labels) for i in range(len(batch))]

    def _outcome(self, values: list[Any], labels: Sequence[str] | None) -> Sequence[Any] | Failure:
        """The values of the fields of one image."""
        wrong = sum(int(np.count_nonzero(~np.isfinite(value))) for value in values)
        if wrong:
            total = sum(value.size for value in values)
            return Failure(
                InputError.__name__,
                f"{wrong:,} of {total:,} values are NaN or infinite. Is the recipe the one that these weights were "
                "trained with?",
            )
        found: list[Any] = []
        if self._top:
            probabilities = values.pop(0)
            classes = np.argsort(-probabilities, kind="stable")[: self._top]
            found += [classes.astype(np.int32), probabilities[classes]]
            found += [[labels[index] for index in classes]] if labels is not None else []
        if self._features == "pooled":
            found.append(values.pop(0).reshape(-1))
        return found + values


#: What an image can be given as.
_CONTENTS = (bytes, bytearray, memoryview, str, os.PathLike)


def _plain(value: Any) -> str:
    """A dtype, or the function of a unit, without what differs from one process to another."""
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)


def failure_of(error: Exception, unnamed: str = "") -> Failure:
    """Why an input gave no result; ``unnamed`` is what a system's error without a file's name is about."""
    kind = MemoryError if is_want(error) else type(error)
    if isinstance(error, OSError):
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else unnamed
        where = f"{name}: " if name else ""
        return Failure(kind.__name__, f"{where}{error.strerror or error}.")
    return Failure(kind.__name__, error.message if isinstance(error, RefnetError) else shown(error))


def _check_labels(labels: Sequence[str], classes: int | None) -> None:
    if len(labels) != classes:
        raise ConfigError(f"There are {len(labels)} labels for {classes} classes.", expected=classes)


#: Images, or ids, of one call: a range can be longer than any memory.
_MOST = 1_000_000


def _listed(values: Any, what: str) -> list[Any]:
    """The values one by one, as Python's: of a list, a NumPy array, an Arrow array, or a pandas Series."""
    found = None
    if isinstance(values, Iterable) and not isinstance(values, (*_CONTENTS, Mapping)):
        with suppress(TypeError):  # of an array without axes
            found = list(islice(values, _MOST + 1))
    if found is None or len(found) > _MOST:
        raise InputError(f"The {what}s are {shown(values)}; they are a sequence of at most {_MOST:,}.", found=values)
    return [value.as_py() if hasattr(type(value), "as_py") else value for value in found]


def _ids(contents: Sequence[object]) -> list[str]:
    return [
        id_of_path(os.fsdecode(content)) if isinstance(content, str | os.PathLike) else str(number)
        for number, content in enumerate(contents)
    ]


def threads_of_worker(threads: int | None = None) -> int:
    """How many threads a worker has: those that were asked for, or as many as it may use.

    Ray and Spark tell a worker its share of the machine by ``OMP_NUM_THREADS``.

    Parameters
    ----------
    threads : int, optional

    Returns
    -------
    int
    """
    if threads is not None:
        return check_threads(threads)
    cores, said = count_cores(), os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(said)) if said.isdecimal() and len(said) < 5 and int(said) > 0 else cores
