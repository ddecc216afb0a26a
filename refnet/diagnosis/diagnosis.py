"""`refnet.diagnose`: which porting mistake a port's outputs come from."""

from __future__ import annotations

import html
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from refnet.checks import check_bool
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Context, Hypothesis
from refnet.diagnosis.observation import Outputs, outputs_of
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.search import Explanation, Progress, Search
from refnet.errors import InputError
from refnet.images.files import load_image
from refnet.resources import for_images
from refnet.run.inputs import as_array, check_floats
from refnet.weights.files import weights_of
from refnet.weights.weights import Weights


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
        The mistakes that together reproduce it; empty unless ``explained``.
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
    """

    explained: bool
    correct: bool
    mistakes: tuple[Finding, ...]
    ties: tuple[Finding, ...]
    nearest: tuple[Finding, ...]
    notes: tuple[str, ...]
    error: float
    rounding: float
    tried: int
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """All of it in JSON's types."""
        return asdict(self)

    def to_json(self) -> str:
        """All of it as a JSON object."""
        return json.dumps(self.to_dict())

    @property
    def summary(self) -> str:
        """The result in one sentence."""
        if self.correct:
            return (
                f"The outputs are right: the relative error {self.error:.1e} is within rounding ({self.rounding:.1e})."
            )
        if self.explained:
            named = " and ".join(map(str, self.mistakes))
            return (
                f"The port's mistake: {named}. With it the relative error falls from {self.error:.1e} to "
                f"{self.mistakes[0].error_after:.1e}."
            )
        return f"No known mistake explains the outputs; their relative error is {self.error:.1e}."

    def __repr__(self) -> str:
        return f"<Diagnosis: {self.summary}>"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<li><b>{html.escape(str(finding))}</b>: the port {html.escape(finding.does)}; "
            f"{html.escape(finding.should)}.</li>"
            for finding in self.mistakes
        )
        return f"<p>{html.escape(self.summary)}</p><ul>{rows}</ul>"


@for_images
def diagnose(
    weights: Mapping[str, Any] | str | os.PathLike[str],
    image: Any,
    observed: Any,
    *,
    pairs: bool = True,
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
    observed : array or mapping of str to array
        The port's logits, probabilities or features for it.
    pairs : bool
        Whether to look for two mistakes at once if no single one explains the outputs.
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
    """
    check_bool(pairs=pairs)
    begun = time.monotonic()
    loaded = weights_of(weights, options.get("scope"))
    lab = Lab(loaded, _pipeline(image, loaded), options)
    outputs = _outputs(observed, lab)
    search = Search(lab, outputs, progress)
    context = lab.context()
    found: list[Explanation] = []
    nearest: list[Finding] = []
    if not search.before.is_within:
        candidates = search.singles()
        found = search.explanations(candidates)
        if not found:
            best = sorted(candidates, key=lambda candidate: candidate.error)[:3]
            scale = search.before.scale or 1.0
            nearest = [
                _finding(hypothesis, context, search, candidate.error / scale)
                for candidate in best
                if candidate.error < search.before.error
                for hypothesis in candidate.hypotheses
            ]
    named = [_findings(explanation, context, search) for explanation in found]
    ties = [finding for findings in named[1:] for finding in findings]
    return Diagnosis(
        explained=bool(found),
        correct=search.before.is_within,
        mistakes=tuple(named[0]) if named else (),
        ties=tuple(ties),
        nearest=tuple(nearest),
        notes=(),
        error=search.before.relative,
        rounding=search.before.bound / (search.before.scale or 1.0),
        tried=search.tried,
        seconds=time.monotonic() - begun,
    )


def _findings(explanation: Explanation, context: Context, search: Search) -> list[Finding]:
    return [
        _finding(hypothesis, context, search, explanation.fit.relative)
        for hypothesis in explanation.candidate.hypotheses
    ]


def _finding(hypothesis: Hypothesis, context: Context, search: Search, after: float) -> Finding:
    mistake = hypothesis.mistake
    words = {
        "site": "all layers where it can be" if hypothesis.site == "everywhere" else hypothesis.site,
        "value": "its default variant" if hypothesis.value is None else str(hypothesis.value),
        "epsilon": f"{context.options['batch_norm_epsilon']:g}",
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
        search.before.relative,
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
    array = as_array(image)
    if array.ndim not in (3, 4):
        raise InputError(
            f"The image has shape {array.shape}; it can be [H, W, {channels}] or [N, H, W, {channels}].",
            found=array.shape,
        )
    batch = array if array.ndim == 4 else array[None]
    if batch.dtype != np.uint8:
        batch = check_floats(batch).astype(np.float32)
    return Pipeline(batch, weights.recipe)


_NAMES = {
    "logits": False, "predictions": True, "probabilities": True, "probs": True, "softmax": True, "scores": None,
    "output": None, "net": None,
}  # fmt: skip


def _outputs(observed: Any, lab: Lab) -> Outputs:
    """The port's outputs, in the form of the network's."""
    named = None
    if isinstance(observed, Mapping):
        for name in observed:
            if str(name).rsplit("/", 1)[-1] in _NAMES:
                named, observed = _NAMES[str(name).rsplit("/", 1)[-1]], observed[name]
                break
    array = as_array(observed, "The outputs")
    net = lab.reference.net
    dtype = str(array.dtype)
    array = check_floats(array.astype(np.float32) if dtype == "bfloat16" else array)
    shape = _shape(array.shape, net.shape)
    if shape is None:
        raise InputError(
            f"The outputs have shape {array.shape}; the network's are {net.shape}.",
            expected=net.shape,
            found=array.shape,
        )
    return outputs_of(array.reshape(shape), dtype, "logits", named)


def _shape(found: Sequence[int], expected: Sequence[int]) -> tuple[int, ...] | None:
    """The shape of outputs as the network's have it, but for a few classes more or less."""
    if not found:
        return None
    shape = (*expected[:-1], found[-1])
    sizes = [size for size in found[:-1] if size != 1]
    if sizes != [size for size in expected[:-1] if size != 1] or abs(found[-1] - expected[-1]) > 2:
        return None
    return shape
