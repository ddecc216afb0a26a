"""From labels alone: which mistake makes the network say what a port said of many images.

A label tells little: most mistakes change few of them, and then most often to the second likeliest class. So mistakes
are ranked by how many labels they reproduce, and one is named only if it reproduces nearly all, and so many that differ
from what is meant that this is no chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from refnet.diagnosis.judgement import CHANCE
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Ending, Hypothesis
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.search import Progress, hypotheses_of
from refnet.errors import InputError, RefnetError
from refnet.weights.weights import Weights

Labels = npt.NDArray[np.int64]

#: Images on which all mistakes are tried: some whose label is not what is meant, and some whose label is.
DIFFERING, AGREEING = 6, 2
#: Mistakes that are tried on all images, and images at a time.
FINALISTS, AT_ONCE = 16, 8
#: The probability that a wrong hypothesis reproduces a label that differs from what is meant: the second likeliest
#: class is hit by many.
BY_CHANCE = 0.5
#: Labels that tell, of those which change from the same class to the same class.
MOST_OF_A_KIND = 8
#: A port's own rounding may decide this part of the labels otherwise.
UNDECIDED = 0.01
#: And something else beside an offset of the classes, which leaves no label as it is meant, so many.
UNDECIDED_BESIDE_OFFSET = 0.05


class Ranked(NamedTuple):
    """A mistake, and how many labels it reproduces.

    Attributes
    ----------
    hypothesis : Hypothesis
    agrees : int
        Labels that it reproduces.
    labels : tuple of int
        All that it gives.
    """

    hypothesis: Hypothesis
    agrees: int
    labels: tuple[int, ...]


class ByLabels(NamedTuple):
    """What labels tell.

    Attributes
    ----------
    differing : int
        Labels that are not what is meant.
    ranked : list of Ranked
        The mistakes that reproduce most labels first.
    explained : bool
        Whether the first one explains the labels.
    tried : int
    chance : float
        The probability, at most, that the first one reproduces so many labels by chance.
    """

    differing: int
    ranked: list[Ranked]
    explained: bool
    tried: int
    chance: float = 1.0


def by_labels(
    weights: Weights, pipeline: Pipeline, options: Mapping[str, Any], labels: Labels, progress: Progress
) -> ByLabels:
    """Rank the mistakes by the labels that they reproduce.

    Parameters
    ----------
    weights : Weights
    pipeline : Pipeline
        Of all images.
    options : mapping of str to Any
    labels : int array [N]
    progress : callable
    """
    parts = [slice(start, start + AT_ONCE) for start in range(0, len(labels), AT_ONCE)]

    def lab_of(images: Any) -> Lab:
        return Lab(weights, replace(pipeline, image=pipeline.image[images]), options)

    ranks = np.concatenate([_ranked(lab_of(part)) for part in parts])
    meant = ranks[:, 0]
    wrong = np.flatnonzero(meant != labels)
    if not wrong.size:
        return ByLabels(0, [], False, 0)
    some = np.r_[wrong[:DIFFERING], np.flatnonzero(meant == labels)[:AGREEING]]
    lab = lab_of(some)
    hypotheses = [hypothesis for hypothesis in hypotheses_of(lab) if not hypothesis.late]
    scores = []
    for number, hypothesis in enumerate(hypotheses):
        progress("mistakes", number, len(hypotheses))
        said = _said(lab, (hypothesis,))
        scores.append(int(np.count_nonzero(said == labels[some])) if said.size else -1)
    finalists = [hypotheses[i] for i in np.argsort(np.negative(scores), kind="stable")[:FINALISTS]]
    found: list[list[Labels]] = [[] for _ in finalists]
    for part in parts:
        lab = lab_of(part)
        for entry, hypothesis in zip(found, finalists, strict=True):
            entry.append(_said(lab, (hypothesis,)))
    ranked = []
    for hypothesis, said_by_part in zip(finalists, found, strict=True):
        said = np.concatenate(said_by_part)
        if said.size == labels.size:
            ranked.append(Ranked(hypothesis, int(np.count_nonzero(said == labels)), tuple(said.tolist())))
    ranked.sort(key=lambda entry: -entry.agrees)
    chance = _chance(ranked[0], ranks, labels, len(hypotheses)) if ranked else 1.0
    enough = bool(ranked) and ranked[0].agrees >= (1 - _undecided(ranked[0])) * labels.size
    return ByLabels(wrong.size, ranked, enough and chance < CHANCE, len(hypotheses), chance)


def _is_offset(entry: Ranked) -> bool:
    """Whether a hypothesis is about the classes' indices alone."""
    hypothesis = entry.hypothesis
    return hypothesis.end is not None and bool(hypothesis.end(Ending()).offset)


def _undecided(entry: Ranked) -> float:
    return UNDECIDED_BESIDE_OFFSET if _is_offset(entry) else UNDECIDED


def _chance(entry: Ranked, ranks: Labels, labels: Labels, tried: int) -> float:
    """The probability, at most, that a hypothesis hits so many labels that differ from what is meant by chance."""
    meant = ranks[:, 0]
    wrong = meant != labels
    hit = wrong & (np.array(entry.labels) == labels)
    hits = int(np.count_nonzero(hit))
    # A shift between the same two classes is one coincidence, however often it is seen.
    changes = len(set(zip(meant[hit].tolist(), labels[hit].tolist(), strict=True)))
    hits = min(hits, MOST_OF_A_KIND * changes)
    by_chance = BY_CHANCE
    if _is_offset(entry):
        # Other mistakes lead to the second likeliest class: how often is that the one beside the likeliest?
        beside = int(np.count_nonzero(ranks[:, 1] == np.array(entry.labels)))
        by_chance = min((beside + 1) / (len(labels) + 2), BY_CHANCE)
    return float(min(tried * by_chance**hits, 1.0))


def _ranked(lab: Lab) -> Labels:
    """The likeliest class of each image, and the second one, of the network as it is meant."""
    value = lab.value(lab.reference, lab.reference.net)
    if value is None or value.ndim != 2 or value.shape[1] < 2:
        raise InputError(
            "Labels are the likeliest of several classes, and this network gives values of shape "
            f"{lab.reference.net.shape}: pass what the port gives in place of labels.",
            found=lab.reference.net.shape,
        )
    return np.asarray(np.argsort(-value, axis=1, kind="stable")[:, :2], np.int64)


def _said(lab: Lab, hypotheses: tuple[Hypothesis, ...]) -> Labels:
    """The likeliest class of each image, if a port has these mistakes; empty if it cannot be told."""
    nothing = np.zeros(0, np.int64)
    try:
        traced = lab.trace(hypotheses)
    except RefnetError:
        return nothing
    value = lab.value(traced, traced.net)
    lab.forget(traced)
    if value is None or value.ndim != 2 or not np.isfinite(value).all():
        return nothing
    return np.asarray(value.argmax(1) + traced.ending.offset, np.int64)
