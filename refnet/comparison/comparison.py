"""Compare a run of a network with a reference: where they diverge first, and by how much at every layer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from refnet.checks import check_mapping, listed
from refnet.comparison.alignment import GUESSED, SAME_NAME, Alignment, Pair, align
from refnet.comparison.layouts import distance, layouts_of
from refnet.comparison.page import fragment, save_page
from refnet.comparison.plot import save_plot
from refnet.comparison.reference import ComputedReference, GivenReference
from refnet.comparison.result import AGREES, DIFFERS, NOT_COMPARED, SAME, Result, Row
from refnet.comparison.sources import arrays_of
from refnet.comparison.statistics import (
    FACTOR,
    FLOAT32,
    FLOAT64,
    Precision,
    coarsest,
    dead_channels,
    differences,
    errors,
    off_by,
    patch,
    precision_of,
    rounding,
    scale_of,
    size_of,
    top_1,
)
from refnet.errors import ConfigError, InputError
from refnet.network.options import KEYWORDS
from refnet.resources import for_images
from refnet.signatures import shows
from refnet.weights.weights import Weights
from refnet_kernels.system.float_mode import contract_mode

#: A value at which the array is as close as this, relative to its size, is what it holds.
_HOLDS = 1e-2
#: Differing rows whose worst element's neighbourhood is kept.
_PATCHES = 8
_NOTED = 8


class Comparison(Result):
    """A run beside the reference: what was found, as text, JSON, a picture or a page."""

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the error along the network, beside the rounding scale.

        Parameters
        ----------
        path : path
            A .png, .svg, or what else matplotlib writes.

        Raises
        ------
        ConfigError
            matplotlib (extra ``plots``) is missing, or the file cannot be written.
        """
        save_plot(self, path)

    def html(self, path: str | os.PathLike[str], diagnosis: str = "") -> None:
        """Write a page that needs nothing else: the chart, the table, and the neighbourhood of the worst elements.

        Parameters
        ----------
        path : path
        diagnosis : str
            What is known about the cause, as plain text.

        Raises
        ------
        ConfigError
            The file cannot be written.
        """
        save_page(self, path, diagnosis)

    def _repr_html_(self) -> str:
        return fragment(self)


@shows(KEYWORDS, without=("dtype",))
@for_images
@contract_mode()
def compare(
    reference: Any, observed: Any, images: Any = None, *, mapping: Mapping[str, str] | None = None, **options: Any
) -> Comparison:
    """Compare the values of a network that ran elsewhere with a reference, in network order.

    Names need not be TF-Slim's: those of Keras, PyTorch's libraries, ONNX and others are understood; what is not is
    found by shape, order and value. Layouts are recognised: NCHW, flattened, squeezed, height and width swapped.

    Parameters
    ----------
    reference : path, Golden, mapping of str to array, or array; with ``images`` weights, as for `Engine`
        An .npz, .npy or safetensors file, a golden, or a directory of .npy files. With weights the reference is
        computed, and can be compared at every operation.
    observed : path, Golden, mapping of str to array, or array
        The run that is compared.
    images : array [H, W, C] or [N, H, W, C], optional
        What ``observed`` was computed from, as for `Engine`: floats are normalised pixels, uint8 are raw ones.
    mapping : mapping of str to str, optional
        For names of observed arrays, those of the reference's values.
    **options
        As for `Engine`, with weights.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        The arrays cannot be used: nothing matches, shapes are those of another network, a file is damaged.
    ConfigError
        ``mapping`` names what is not there, or an option does not fit.
    WeightsError, DeviceError
        As `Engine` raises them.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> ours = {"resnet_v2/pool5": np.ones((1, 1, 1, 4), np.float32)}
    >>> theirs = {"avgpool": np.ones((1, 4, 1, 1), np.float32)}
    >>> refnet.compare(ours, theirs)
    <Comparison of 1 values, agrees>
    """
    if mapping is not None:
        check_mapping(mapping=mapping)
    theirs = arrays_of(observed, "the observed arrays")
    ours: ComputedReference | GivenReference
    if images is not None:
        ours, title = ComputedReference(reference, images, **options), _title(reference)
    else:
        if options:
            raise ConfigError(f"These options are for weights, which need images: {listed(sorted(options))}.")
        if isinstance(reference, Weights):
            raise ConfigError("The reference is weights: pass the images from which the other side was computed.")
        given = arrays_of(reference, "the reference")
        ours, title = GivenReference(given.arrays, given.roundings), given.title
    return compare_sides(ours, theirs.arrays, mapping, (title, theirs.title), theirs.left_out)[0]


def _title(reference: Any) -> str:
    if isinstance(reference, str | os.PathLike):
        return f"refnet with {os.fsdecode(reference)}"
    return "refnet"


def compare_sides(
    ours: ComputedReference | GivenReference,
    theirs: Mapping[str, np.ndarray],
    mapping: Mapping[str, str] | None = None,
    titles: tuple[str, str] = ("the reference", "the observed arrays"),
    left_out: Mapping[str, str] | None = None,
) -> tuple[Comparison, Alignment]:
    """`compare`, with the alignment that it rests on.

    Parameters
    ----------
    ours : ComputedReference or GivenReference
    theirs : mapping of str to float array
    mapping : mapping of str to str, optional
    titles : (str, str)
        Where the two come from.
    left_out : mapping of str to str, optional
        Arrays that are not compared, and why.

    Returns
    -------
    Comparison
    Alignment

    Raises
    ------
    ConfigError, InputError
    """
    alignment = align(theirs, ours, mapping)
    _check_shapes(alignment, theirs)
    comparer = _Comparer(ours, theirs, alignment)
    rows = comparer.rows()
    rows += [
        Row(name, "", NOT_COMPARED, note=f"it matches nothing{f'; the nearest name is {near}' if near else ''}",
            found_shape=theirs[name].shape)
        for name, near in alignment.unmatched.items()
    ]  # fmt: skip
    rows += [Row(name, "", NOT_COMPARED, note=reason) for name, reason in (left_out or {}).items()]
    seen = {pair.value.index for pair in alignment.pairs}
    # The logits and their squeezed form are the same numbers.
    twice = {pair.value.place for pair in alignment.pairs if pair.value.stage in ("bias", "squeeze")}
    missing = [
        value.name
        for value in ours.values
        if value.end_point and value.index not in seen and not (value.place == "logits" and value.place in twice)
    ]
    measured = isinstance(ours, ComputedReference)
    notes = _notes(rows, alignment, comparer, measured)
    return Comparison(*titles, rows, notes, missing, measured), alignment


def _check_shapes(alignment: Alignment, theirs: Mapping[str, np.ndarray]) -> None:
    """Refuse a run in which no shape is the reference's: there is nothing to compare.

    Raises
    ------
    InputError
    """
    if any(pair.layout is not None for pair in alignment.pairs):
        return
    shapes = [(theirs[pair.name].shape, pair.value.shape) for pair in alignment.pairs]
    batches = {(found[0], expected[0]) for found, expected in shapes if found and expected}
    if all(found and layouts_of(found, (found[0], *expected[1:])) for found, expected in shapes) and len(batches) == 1:
        found, expected = batches.pop()
        raise InputError(
            f"The observed batch has {found} images, the reference's {expected}: compare the same images.",
            expected=expected,
            found=found,
        )
    lines = [
        f"{pair.name} has shape {found}, {pair.value.name} {expected}"
        for pair, (found, expected) in zip(alignment.pairs, shapes, strict=True)
    ]
    raise InputError(
        f"No shape is the reference's: it is another network, or the images have another size. {'; '.join(lines[:5])}"
        f"{f'; and {len(lines) - 5} more' if len(lines) > 5 else ''}.",
        expected=shapes[0][1],
        found=shapes[0][0],
    )


class _Comparer:
    """Makes the rows."""

    def __init__(
        self, ours: ComputedReference | GivenReference, theirs: Mapping[str, np.ndarray], alignment: Alignment
    ) -> None:
        self._ours, self._theirs, self._pairs = ours, theirs, alignment.pairs
        self._computed = ours if isinstance(ours, ComputedReference) else None
        #: Where most names are understood, the others are those of helpers, and what they seem to be is a guess.
        self._guesses_count = 2 * sum(pair.how.startswith(GUESSED) for pair in self._pairs) >= len(self._pairs)
        fitting = [pair for pair in self._pairs if pair.layout is not None]
        #: The precision up to each pair: coarse values upstream make all that follow coarse.
        self._precisions = _precisions(self._pairs, theirs)
        values = [pair.value for pair in fitting]
        self._single = ours.arrays(values)
        self._roundings = self._computed.roundings(values) if self._computed else {}
        finest = [pair.value for pair in fitting if self._precisions[pair.name] is FLOAT64]
        self._double = self._computed.arrays(finest, "float64") if self._computed else {}
        self.precisions = [p for p in dict.fromkeys(self._precisions.values()) if p is not FLOAT32]

    def rows(self) -> list[Row]:
        """All rows of pairs, in network order."""
        rows: list[Row] = []
        patches = 0
        for pair in self._pairs:
            row = self._row(pair, with_patch=patches < _PATCHES)
            patches += row.patch is not None
            rows.append(row)
        return self._with_origins(self._blamed(self._without_dead(rows)))

    def _arrays(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        """The reference's array and the observed one, in one layout."""
        assert pair.layout is not None
        precision = self._precisions[pair.name]
        double = precision is FLOAT64 and self._computed is not None
        ours = (self._double if double else self._single)[pair.value.index]
        theirs = self._theirs[pair.name]
        if theirs.dtype == np.float64 and precision is not FLOAT64:
            theirs = theirs.astype(np.float32)
        return pair.layout.own(ours), pair.layout.arranged(theirs)

    def _row(self, pair: Pair, *, with_patch: bool) -> Row:
        theirs = self._theirs[pair.name]
        own_name = pair.name if pair.how == SAME_NAME else pair.value.name
        known = Row(pair.name, own_name, DIFFERS, pair.how, "", pair.note, pair.value.shape, theirs.shape)
        if pair.layout is None:
            note = f"its shape is {theirs.shape}, the reference's {pair.value.shape}"
            return replace(known, note=note)
        precision = self._precisions[pair.name]
        ours, theirs = self._arrays(pair)
        scale = scale_of(pair.value.roundings, precision, self._roundings.get(pair.value.index))
        found = errors(ours, theirs, precision)
        agrees = found.largest <= scale.tolerance
        if pair.how.startswith(GUESSED) and not agrees and not self._guesses_count:
            note = f"its name is not known, and it is none of the reference's values; the closest is {pair.value.name}"
            return replace(known, reference="", status=NOT_COMPARED, note=note)
        if pair.instead and not agrees:
            passed = _apart_from_relu(ours, theirs, scale.tolerance)
            if not passed:
                note = f"it is {pair.instead}, which the reference does not have"
                return replace(known, status=NOT_COMPARED, note=note)
            known, agrees = replace(known, note=passed), True
        classes = (pair.value.place == "logits" and pair.value.stage in ("bias", "squeeze", "")) or (
            pair.value.place == "predictions"
        )
        return replace(
            known,
            status=SAME if found.same else AGREES if agrees else DIFFERS,
            layout=pair.layout.text,
            precision=precision.name,
            scale=scale.relative,
            largest=found.largest,
            median=found.median,
            ulps=found.ulps,
            correlation=found.correlation,
            share=_share(ours, theirs, scale.tolerance * found.size),
            where=found.where,
            expected=found.expected,
            found=found.found,
            nan_both=found.nan_both,
            nan_one=found.nan_one,
            top_1=top_1(ours, theirs) if classes and ours.shape[-1] > 1 else None,
            patch=patch(ours, theirs, found.where) if with_patch and not agrees else None,
        )

    def _without_dead(self, rows: list[Row]) -> list[Row]:
        """Pass rows that differ only in channels that are zero on one side, where nothing that follows differs."""
        result = list(rows)
        later = False
        for i in range(len(rows) - 1, -1, -1):
            row, pair = rows[i], self._pairs[i]
            if row.status == DIFFERS and later and pair.layout is not None:
                only = self._only_dead(pair, row)
                if only is None:
                    return result
                note = f"channels {listed([str(c) for c in only])} are zero on one side only, and nothing reads them"
                result[i] = replace(row, status=AGREES, note="; ".join(filter(None, (row.note, note))))
            elif row.status == DIFFERS:
                return result
            elif row.status in (SAME, AGREES):
                later = True
        return result

    def _blamed(self, rows: list[Row]) -> list[Row]:
        """Blame what only looked harmless, where what is computed from it is the first to differ.

        A value with too few rows and columns may have its stride elsewhere, and a value before its ReLU be one that a
        hook saw; or the stride comes too early, and the ReLU is missing.
        """
        first = next((i for i, row in enumerate(rows) if row.status == DIFFERS), None)
        if first is None:
            return rows
        doubtful = {i: text for i in range(first) if (text := _doubt(rows[i], self._pairs[i]))}
        result, waiting = list(rows), [first]
        while waiting:
            i = waiting.pop()
            sources = self._sources_of(i)
            for j in [j for j in doubtful if j < i and self._pairs[j].value.index in sources]:
                note = "; ".join(filter(None, (rows[j].note, doubtful.pop(j))))
                result[j] = replace(rows[j], status=DIFFERS, note=note, origin="born")
                waiting.append(j)
        return result

    def _sources_of(self, i: int) -> set[int]:
        """The values from which that of a pair is computed, among those that were observed before it."""
        before = {pair.value.index for pair in self._pairs[:i]} - {self._pairs[i].value.index}
        if self._computed is None:
            return {max(before, default=-1)}
        tensor = self._computed.graph.tensors[self._pairs[i].value.index]
        return set(self._computed.sources(tensor, before) or ())

    def _only_dead(self, pair: Pair, row: Row) -> list[int] | None:
        """The channels that are zero on one side, if the others agree."""
        ours, theirs = self._arrays(pair)
        dead = dead_channels(ours) != dead_channels(theirs)
        if not dead.any() or dead.all():
            return None
        rest = float(differences(ours[..., ~dead], theirs[..., ~dead]).max(initial=0))
        allowed = FACTOR * (row.scale or 0) * size_of(ours)
        return [int(c) for c in np.flatnonzero(dead)] if rest <= allowed else None

    def _with_origins(self, rows: list[Row]) -> list[Row]:
        """Say of each row that differs whether its layer made the difference."""
        result = list(rows)
        observed: dict[int, tuple[str, np.ndarray]] = {}
        #: Values that differ, and of which only a part can be compared: what is computed from them cannot be judged.
        unusable = {pair.value.index for pair in self._pairs if pair.layout is None}
        for i, (row, pair) in enumerate(zip(rows, self._pairs, strict=True)):
            index = pair.value.index
            if row.status == DIFFERS:
                first = not any(earlier.status == DIFFERS for earlier in rows[:i])
                odd = unusable - {index} - observed.keys()
                result[i] = self._with_origin(row, pair, observed, odd, rows[:i], first)
            if pair.layout is None:
                continue
            if pair.layout.step == pair.layout.own_step == 1:
                observed.setdefault(index, (row.name, pair.layout.arranged(self._theirs[row.name])))
            elif result[i].status == DIFFERS and result[i].origin != "inherited":
                unusable.add(index)
        return result

    def _with_origin(
        self,
        row: Row,
        pair: Pair,
        observed: Mapping[int, tuple[str, np.ndarray]],
        unusable: Iterable[int],
        before: Sequence[Row],
        first: bool,
    ) -> Row:
        origin, own_error, note = "born" if first else "unknown", None, row.note
        since: tuple[str, ...]
        if self._computed is None:
            agreeing = [earlier.name for earlier in before if earlier.status in (SAME, AGREES)]
            since = tuple(agreeing[-1:]) if first else ()
        else:
            tensor = self._computed.graph.tensors[pair.value.index]
            sources = self._computed.sources(tensor, observed, unusable) or []
            since = tuple(observed[index][0] if index in observed else "the images" for index in sources)
            if row.origin:
                origin = row.origin
            elif pair.layout is not None and any(index in observed for index in sources):
                own = self._own_error(pair, {index: array for index, (_, array) in observed.items()}, sources)
                if own is not None:
                    own_error, inherited = own
                    origin = "inherited" if inherited else "born"
            note = "; ".join(filter(None, (note, self._missing_relu(pair))))
        return replace(row, origin=origin, since=since or ("the start",), own_error=own_error, note=note)

    def _own_error(
        self, pair: Pair, observed: Mapping[int, np.ndarray], sources: Sequence[int]
    ) -> tuple[float, bool] | None:
        """How far an array is from what its own inputs give, and whether that is no more than rounding."""
        assert self._computed is not None
        assert pair.layout is not None
        tensor = self._computed.graph.tensors[pair.value.index]
        needed = {index: observed[index] for index in sources if index in observed}
        single = self._computed.recomputed(tensor, needed, "float32")
        double = self._computed.recomputed(tensor, needed, "float64")
        precision = self._precisions[pair.name]
        behind = min(self._computed.values[index].roundings for index in sources)
        scale = scale_of(pair.value.roundings - behind, precision, rounding(single, double))
        expected = pair.layout.own(double if precision is FLOAT64 else single)
        found = off_by(expected, pair.layout.arranged(self._theirs[pair.name]))
        return found, found <= scale.tolerance

    def _missing_relu(self, pair: Pair) -> str:
        """Whether an array that should be a ReLU's is the value before it."""
        assert self._computed is not None
        tensor = self._computed.graph.tensors[pair.value.index]
        if pair.layout is None or tensor.op != "relu":
            return ""
        before = self._computed.values[tensor.inputs[0].index]
        array = self._computed.arrays([before])[before.index]
        holds = distance(array, self._theirs[pair.name], pair.layout) < _HOLDS
        return "it holds the value before the ReLU: the ReLU is missing" if holds else ""


def _doubt(row: Row, pair: Pair) -> str:
    """What may be wrong with a value that agrees, after all."""
    if row.status not in (SAME, AGREES) or pair.layout is None or pair.preferred is None:
        return ""
    if pair.layout.own_step > 1:
        return f"its shape is {row.found_shape}, the reference's {row.shape}: is there a stride too early?"
    if pair.preferred.stage == "act" and pair.value.index < pair.preferred.index:
        return "is the ReLU missing?"
    return ""


def _precisions(pairs: Sequence[Pair], theirs: Mapping[str, np.ndarray]) -> dict[str, Precision]:
    """The precision up to each array: the coarsest so far; that of images says nothing about the network."""
    found: dict[str, Precision] = {}
    so_far: Precision | None = None
    own = {pair.name: precision_of(theirs[pair.name]) for pair in pairs}
    for pair in pairs:
        if pair.value.place != "input":
            so_far = coarsest([so_far, own[pair.name]])
        found[pair.name] = so_far or FLOAT32
    return found


def _apart_from_relu(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> str:
    """Whether one side is the ReLU of the other, in words; "" if it is not."""
    for before, after, text in (
        (theirs, ours, "it holds the value before the ReLU, the reference the one after it: its ReLU agrees"),
        (ours, theirs, "it holds the value after the ReLU, the reference the one before it: its ReLU agrees"),
    ):
        if off_by(after, np.where(before < 0, before.dtype.type(0), before)) <= tolerance:
            return text
    return ""


def _share(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> float:
    return float(np.count_nonzero(differences(ours, theirs) > tolerance)) / max(ours.size, 1)


def _notes(rows: Sequence[Row], alignment: Alignment, comparer: _Comparer, measured: bool) -> list[str]:
    """What was recognised, in sentences; equal ones are counted."""
    notes = []
    if alignment.dialects:
        notes.append(f"The names are those of {' and '.join(alignment.dialects)}.")
    notes += _grouped((row.layout, row.name) for row in rows if row.layout)
    notes += _grouped((row.note, row.name) for row in rows if row.note and row.status != NOT_COMPARED)
    by_value = [row.name for row in rows if row.how.startswith(GUESSED) and row.status != NOT_COMPARED]
    if by_value:
        notes.append(
            f"{len(by_value)} were found by shape, order or value, as their names are not known: {listed(by_value)}."
        )
    sized = [row for row in rows if row.status != NOT_COMPARED and len(row.shape) == 4 and max(row.shape[1:3]) > 1]
    if len(sized) > 1 and all(row.largest is None for row in sized):
        notes.append(
            "All values that have height and width have other shapes than the reference's: were the images of another "
            "size? Pass what went into the port as the image."
        )
    nan = [row.name for row in rows if row.nan_both and not row.nan_one]
    if nan:
        notes.append(f"NaN stands at the same places on both sides: {listed(nan)}.")
    for precision in comparer.precisions:
        notes.append(f"Some values are {precision.name}, whatever their dtype: rounding is judged by its precision.")
    if not measured:
        notes.append(
            "Without weights the rounding scale is an estimate: the unit roundoff times the root of the number of "
            "roundings before."
        )
    return notes


def _grouped(entries: Iterable[tuple[str, str]]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for text, name in entries:
        groups.setdefault(text, []).append(name)
    return [
        f"{text[0].upper()}{text[1:]}: {listed(names) if len(names) <= _NOTED else shown_names(names)}."
        for text, names in groups.items()
    ]


def shown_names(names: Sequence[str]) -> str:
    """The first of many names, and how many there are.

    Parameters
    ----------
    names : sequence of str

    Returns
    -------
    str
    """
    return f"{listed(names[:3])} and {len(names) - 3} more"
