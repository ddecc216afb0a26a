"""`refnet.diagnose`: which porting mistake a port's outputs come from."""

from __future__ import annotations

import html
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from refnet.checks import check_bool, check_mapping, check_number, listed, plain_json, shown
from refnet.comparison.sources import on_host
from refnet.diagnosis import PAIR_SECONDS
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.labels import Labels, Ranked, by_labels
from refnet.diagnosis.layers import Stretch, add_pairs, chosen, stretches
from refnet.diagnosis.mistake import Context, Hypothesis
from refnet.diagnosis.observing import Point, observe
from refnet.diagnosis.pairs import pairs as pairs_of
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.search import Candidate, Explanation, Progress, Search, hypotheses_of
from refnet.errors import ConfigError, InputError
from refnet.images.files import load_image
from refnet.network.options import KEYWORDS
from refnet.resources import for_images
from refnet.run.inputs import as_array, check_floats
from refnet.signatures import shows
from refnet.weights.files import weights_of
from refnet.weights.weights import Weights
from refnet_kernels.system.float_mode import contract_mode


@dataclass(frozen=True)
class Finding:
    """A mistake that a port makes.

    Attributes
    ----------
    id : str
    site : str
        A layer, unit or block by its path below the network's scope; "everywhere"; "*/conv1": that layer of all units.
    value : str, float or None
        Which variant of the mistake.
    error_before, error_after : float
        Norm of the difference between what was observed and what the network gives, relative to what was observed:
        without any mistake, and with all those that are named.
    does, should : str
        What the port does, and what it must do.
    mend : dict of str to str
        How to mend it, by framework.
    sources : tuple of str
        Where people met it.
    """

    id: str
    site: str
    value: str | float | None
    error_before: float
    error_after: float
    does: str = ""
    should: str = ""
    mend: Mapping[str, str] = field(default_factory=dict)
    sources: tuple[str, ...] = ()

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value}"
        return f"{self.id}{value} ({self.site})"


@dataclass(frozen=True)
class Diagnosis:
    """What `refnet.diagnose` found.

    Attributes
    ----------
    explained : bool
        Whether known mistakes reproduce what was observed.
    correct : bool
        Whether what was observed is right, within rounding.
    mistakes : tuple of Finding
        The mistakes that together reproduce it. Unless ``explained``, there are some only where values within the
        network were observed: those that explain a part of them.
    ties : tuple of Finding
        Mistakes that would do so in place of one of them: these images cannot tell them apart.
    nearest : tuple of Finding
        If nothing explains it: the mistakes that leave the least error, which prove nothing.
    notes : tuple of str
        What else is to be said, in sentences.
    error : float
        Norm of the difference from what is meant, relative to what was observed.
    rounding : float
        What rounding explains, in the same measure.
    tried : int
        How many hypotheses were tried.
    seconds : float
    of : {"outputs", "activations", "labels"}
        What was observed. Of labels, errors are the parts of them that are wrong.
    """

    explained: bool = False
    correct: bool = False
    mistakes: tuple[Finding, ...] = ()
    ties: tuple[Finding, ...] = ()
    nearest: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    error: float = 0.0
    rounding: float = 0.0
    tried: int = 0
    seconds: float = 0.0
    of: str = "outputs"

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types; NaN and infinities are the strings "nan", "inf" and "-inf"."""
        found: dict[str, Any] = plain_json(asdict(self))
        return found

    def to_json(self) -> str:
        """All of it as a JSON object."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        labels = self.of == "labels"
        if self.correct:
            found = f"the relative error {self.error:.1e} is within rounding ({self.rounding:.1e})"
            return "The labels are right." if labels else f"The {self.of} are right: {found}."
        what = "part of wrong labels" if labels else "relative error"
        if self.explained:
            alike: dict[tuple[str, object], list[Finding]] = {}
            for entry in self.mistakes:
                alike.setdefault((entry.id, entry.value), []).append(entry)
            named = " and ".join(
                str(replace(entries[0], site=listed([entry.site for entry in entries]))) for entries in alike.values()
            )
            return (
                f"The port's mistake: {named}. With it the {what} falls from {self.error:.1e} to "
                f"{self.mistakes[0].error_after:.1e}."
            )
        return f"No known mistake explains the {self.of}; the {what} is {self.error:.1e}."

    def __repr__(self) -> str:
        return f"<Diagnosis: {self.summary}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<li><b>{html.escape(str(finding))}</b>: the port {html.escape(finding.does)}; "
            f"{html.escape(finding.should)}.</li>"
            for finding in self.mistakes
        )
        return f"<p>{html.escape(self.summary)}</p><ul>{rows}</ul>"


@shows(KEYWORDS)
@for_images
def diagnose(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    image: Any,
    observed: Any,
    *,
    mapping: Mapping[str, str] | None = None,
    pairs: bool = True,
    limit: float = PAIR_SECONDS,
    progress: Progress | None = None,
    **options: Any,
) -> Diagnosis:
    """Name the porting mistake that reproduces what a port gave.

    Every mistake of the catalogue is tried at every place. One is named only if the network with it gives what was
    observed, within rounding, and without it does not.

    Parameters
    ----------
    weights : Weights, mapping of str to array, or path
        As for `Engine`.
    image : path or array
        An image file; raw uint8 pixels [H, W, C]; or what the network takes, normalised floats [H, W, C]; or several,
        [N, H, W, C].
    observed : path, mapping of str to array, or array
        What the port gave for it: logits, probabilities or features; or values within the network by their names,
        those of TF-Slim, Keras, PyTorch's libraries or ONNX, as `refnet.compare` takes them. Or an array of integers:
        the likeliest class of each of many images; then errors are parts of the labels.
    mapping : mapping of str to str, optional
        For names of observed arrays, those of the network's values.
    pairs : bool
        Whether to look for two mistakes at once if no single one explains the outputs.
    limit : float
        Seconds after which no more pairs are tried.
    progress : callable, optional
        ``progress(what, done, total)`` is told how far it is.
    **options
        As for `Engine`: those of the network that is meant.

    Returns
    -------
    Diagnosis

    Raises
    ------
    InputError
        The image or what was observed cannot be used.
    WeightsError, ConfigError
        As `Engine` raises them.

    Examples
    --------
    >>> import refnet
    >>> blocks = [refnet.resnet_v2_block("block1", base_depth=4, num_units=1, stride=1)]
    >>> weights = refnet.random_weights(blocks, num_classes=20)
    >>> images = refnet.seeded.random_images((1, 33, 33, 3))
    >>> theirs = refnet.forward(weights, images, batch_norm_epsilon=1e-3)  # a port with another epsilon
    >>> (mistake,) = refnet.diagnose(weights, images, theirs, pairs=False).mistakes
    >>> mistake.id, mistake.value
    ('epsilon', 0.001)
    """
    check_bool(pairs=pairs)
    check_number(limit=limit)
    mapping = {} if mapping is None else mapping
    check_mapping(mapping=mapping)
    if mapping and not isinstance(observed, str | os.PathLike | Mapping):
        raise ConfigError("mapping is for the names of several arrays, and one array alone was observed.")
    if progress is not None and not callable(progress):
        raise ConfigError(f"progress is {shown(progress)}; it is a function of what is done, how much and of how much.")
    begun = time.monotonic()
    loaded = weights_of(weights, options.get("scope"))
    with contract_mode():
        told = progress if progress is not None else (lambda what, done, total: None)
        labels = _labels(observed)
        if labels is not None:
            found = _by_labels(loaded, _pipeline(image, loaded), options, labels, told)
            return replace(found, seconds=time.monotonic() - begun)
        lab = Lab(loaded, _pipeline(image, loaded), options)
        points, notes = observe(observed, lab, loaded, options, mapping)
        if len(points) == 1:
            found = _by_outputs(lab, points[0], float(limit) if pairs else None, told)
        else:
            found = _by_layers(lab, points, float(limit) if pairs else None, told)
    return replace(found, notes=(*notes, *found.notes), seconds=time.monotonic() - begun)


def _labels(observed: Any) -> Labels | None:
    """The labels of many images, if that is what was observed."""
    if isinstance(observed, str | os.PathLike | Mapping):
        return None
    array = as_array(on_host(observed), "What was observed")
    return array.astype(np.int64) if array.dtype.kind in "iu" and array.ndim == 1 and array.size else None


def _by_labels(
    weights: Weights, pipeline: Pipeline, options: Mapping[str, Any], labels: Labels, progress: Progress
) -> Diagnosis:
    """From the labels of many images."""
    if len(labels) != len(pipeline.image):
        raise InputError(
            f"There are {len(labels)} whole numbers and {len(pipeline.image)} images. Whole numbers are taken for "
            "labels: pass one label per image, or logits as floats.",
            expected=len(pipeline.image),
            found=len(labels),
        )
    found = by_labels(weights, pipeline, options, labels, progress)
    count = len(labels)
    context = Lab(weights, replace(pipeline, image=pipeline.image[:1]), options).context()
    before = found.differing / count

    def finding(entry: Ranked) -> Finding:
        return _finding(entry.hypothesis, context, before, 1 - entry.agrees / count)

    alike = [entry for entry in found.ranked if entry.agrees == found.ranked[0].agrees]
    best = [finding(entry) for entry in (alike if found.explained else found.ranked[:3])]
    notes = [f"{found.differing} of {count} labels are not what is meant."] if found.differing else []
    if found.ranked:
        first = found.ranked[0]
        notes.append(
            f"{first.hypothesis.mistake.id} reproduces {first.agrees} of {count} labels"
            + (
                f": by chance, over all that was tried, with a probability below {max(found.chance, 1e-99):.0e}."
                if found.explained
                else "; that many could be chance, or are too few."
            )
        )
        if found.explained and first.agrees < count:
            notes.append(f"{count - first.agrees} labels are others for a reason that these do not tell.")
    return Diagnosis(
        explained=found.explained,
        correct=found.differing == 0,
        mistakes=tuple(best[:1]) if found.explained else (),
        ties=tuple(best[1:]) if found.explained else (),
        nearest=() if found.explained else tuple(best),
        notes=tuple(notes),
        error=before,
        tried=found.tried,
        of="labels",
    )


def _by_outputs(lab: Lab, point: Point, pair_seconds: float | None, progress: Progress) -> Diagnosis:
    """From one value of the network; pairs of mistakes are tried for so long, or not at all."""
    search = Search(lab, point.outputs, progress)
    context = lab.context()
    before = search.before
    result = Diagnosis(
        correct=before.is_within,
        error=before.relative,
        rounding=before.bound / before.scale if before.scale else 0.0,
        notes=_doubts(search),
    )
    if before.is_within or search.telling == 0:
        return result
    hypotheses = hypotheses_of(lab)
    candidates, found = search.in_turn(hypotheses)
    if not found and pair_seconds is not None:
        usual = [candidate for candidate in candidates if not candidate.hypotheses[0].late]
        found = pairs_of(search, usual, [entry for entry in hypotheses if not entry.late], pair_seconds)
    named = [_findings(explanation, context, search) for explanation in found]
    return replace(
        result,
        explained=bool(found),
        mistakes=tuple(named[0]) if named else (),
        ties=tuple(finding for findings in named[1:] for finding in findings),
        nearest=() if named else tuple(_nearest(candidates, context, search)),
        tried=search.tried,
    )


def _by_layers(lab: Lab, points: Sequence[Point], pair_seconds: float | None, progress: Progress) -> Diagnosis:
    """From several values of the network: stretch by stretch."""
    context = lab.context()
    hypotheses = hypotheses_of(lab)
    found = stretches(lab, points, hypotheses, progress)
    choice = chosen(found, hypotheses, context)
    if choice.unexplained:
        # What was observed under a name may be another value: of a unit that runs twice, the later one.
        whole = _by_outputs(lab, points[-1], None, progress)
        if whole.explained:
            return replace(
                whole,
                notes=(*whole.notes, f"Said of {points[-1].name} alone: other values are not those of their names."),
                tried=whole.tried + sum(stretch.search.tried for stretch in found),
            )
        if pair_seconds is not None:
            add_pairs(choice.unexplained, pair_seconds)
            choice = chosen(found, hypotheses, context)

    def findings(shown: Sequence[tuple[Explanation, Stretch]]) -> tuple[Finding, ...]:
        return tuple(finding for entry, stretch in shown for finding in _findings(entry, context, stretch.search))

    differing = [stretch for stretch in found if not stretch.is_right]
    mistakes = findings(choice.mistakes)
    last = (differing or found)[0].search.before
    notes = [_limited(hypothesis, mistakes) for hypothesis in choice.limited]
    notes += [
        f"{stretch.point.name} differs by {stretch.search.before.relative:.1e} from what the values observed before "
        "it give, and no known mistake explains that."
        for stretch in choice.unexplained
    ]
    return Diagnosis(
        explained=bool(mistakes) and not choice.unexplained,
        correct=not differing,
        mistakes=mistakes,
        ties=findings(choice.ties),
        nearest=tuple(
            finding
            for stretch in choice.unexplained[:1]
            for finding in _nearest(stretch.candidates, context, stretch.search)
        ),
        notes=tuple(dict.fromkeys(filter(None, notes))),
        error=last.relative,
        rounding=last.bound / last.scale if last.scale else 0.0,
        tried=sum(stretch.search.tried for stretch in found),
        of="activations",
    )


def _limited(hypothesis: Hypothesis, mistakes: Sequence[Finding]) -> str:
    """What is to be said of a mistake that is made in some of its places, and not in others; "" if it is not named."""
    sites = [entry.site for entry in mistakes if (entry.id, entry.value) == (hypothesis.mistake.id, hypothesis.value)]
    name = " ".join(str(word) for word in (hypothesis.mistake.id, hypothesis.value) if word is not None)
    return f"{name} is not everywhere where it could be: only in {listed(sites)}." if sites else ""


def _doubts(search: Search) -> tuple[str, ...]:
    """What keeps the outputs from telling much."""
    values = search.outputs.values
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        return (f"{bad} of the {values.size} values are NaN or infinite: they tell nothing.",)
    if values.size and np.ptp(values) == 0:
        return ("All values are equal: they tell nothing.",)
    if search.outputs.are_probabilities and search.telling == 0 and not search.before.is_within:
        return ("The probabilities are saturated: give the logits.",)
    return ()


def _nearest(candidates: Sequence[Candidate], context: Context, search: Search) -> Iterator[Finding]:
    """The mistakes that leave the least error."""
    scale = search.before.scale or 1.0
    for candidate in sorted(candidates, key=lambda candidate: candidate.error)[:3]:
        if candidate.error < search.before.error:
            for hypothesis in candidate.hypotheses:
                yield _finding(hypothesis, context, search.before.relative, candidate.error / scale)


def _findings(explanation: Explanation, context: Context, search: Search) -> list[Finding]:
    return [
        _finding(hypothesis, context, search.before.relative, explanation.fit.relative)
        for hypothesis in explanation.candidate.hypotheses
    ]


def _finding(hypothesis: Hypothesis, context: Context, before: float, after: float) -> Finding:
    mistake = hypothesis.mistake
    words = {
        "site": "all layers where it can be" if hypothesis.site == "everywhere" else hypothesis.site,
        "value": "its default variant" if hypothesis.value is None else str(hypothesis.value),
        "epsilon": f"{context.options['batch_norm_epsilon']:g}",
        "kernel_epsilon": f"{next((entry.epsilon for entry in context.moments.values()), 0):g}",
        "pool_mode": str(context.options["pool_mode"]),
        "stride_place": str(context.options["stride_place"]),
        "mode": context.pipeline.recipe.mode,
        "interpolation": context.pipeline.recipe.interpolation,
        "crop": str(context.pipeline.recipe),
    }

    def filled(text: str) -> str:
        for name, word in words.items():
            text = text.replace(f"{{{name}}}", word)
        return text

    return Finding(
        mistake.id,
        hypothesis.site,
        hypothesis.value,
        before,
        after,
        filled(mistake.does),
        filled(mistake.should),
        {name: filled(line) for name, line in mistake.mend._asdict().items()},
        mistake.sources,
    )


def _pipeline(image: Any, weights: Weights) -> Pipeline:
    """The way from the image to the network's input."""
    channels = weights.architecture.channels
    if isinstance(image, str | os.PathLike):
        image = load_image(image, channels)
    array = as_array(on_host(image))
    if array.ndim not in (3, 4) or array.shape[-1] != channels:
        first = array.ndim in (3, 4) and array.shape[-3] == channels
        raise InputError(
            f"The image has shape {array.shape}; it can be [H, W, {channels}] or [N, H, W, {channels}]."
            + (" It looks like CHW: move the channels last." if first else ""),
            found=array.shape,
        )
    batch = array if array.ndim == 4 else array[None]
    if batch.dtype != np.uint8:
        batch = check_floats(batch).astype(np.float32)
    return Pipeline(batch, weights.recipe)
