"""A network, its images, and what it gives if a port has some mistakes."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from refnet.diagnosis.mistake import Context, Ending, Hypothesis
from refnet.diagnosis.patched import Label, Patch, PatchedGraph
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.runner import Key, Runner
from refnet.engine import Engine
from refnet.errors import RefnetError
from refnet.graph.graph import Tensor
from refnet.run.devices import check_threads
from refnet.weights.weights import Weights
from refnet_kernels.contract import BINARY32, BINARY64, FloatArray

#: The name of the images as they are meant.
AS_MEANT = "as meant"


class Traced(NamedTuple):
    """A variant of the network, as operations.

    Attributes
    ----------
    graph : PatchedGraph
    net : Tensor
    end_points : dict of str to Tensor
    images : hashable
        The name of its images.
    keys : list of int
    ending : Ending
    """

    graph: PatchedGraph
    net: Tensor
    end_points: dict[str, Tensor]
    images: Hashable
    keys: list[Key]
    ending: Ending


class Lab:
    """Runs variants of one network on one batch of images.

    Parameters
    ----------
    weights : Weights
    pipeline : Pipeline
    options : mapping of str to Any
        As for `Engine`.
    """

    def __init__(self, weights: Weights, pipeline: Pipeline, options: Mapping[str, Any]) -> None:
        self._weights = weights
        self._options = dict(options)
        self._threads = check_threads(self._options.pop("threads", None))
        self._engines: dict[str, Engine] = {}
        self.pipeline = pipeline
        self.images = pipeline.input()
        self._given: dict[Label, FloatArray] = {}
        self._runners: dict[str, Runner] = {}
        self.runner = self._runners["single"] = Runner(weights, BINARY32, self._threads)
        self.runner.images(AS_MEANT, self.images)
        self._inputs: dict[Hashable, FloatArray] = {AS_MEANT: self.images}
        self.reference = self.trace(())
        self.reference.graph.check_variables()
        # What variants may begin with.
        kept = {tensor.index: tensor for tensor in self.reference.end_points.values() if tensor.op != "squeeze"}
        self.runner.values(self.reference.graph, self.reference.keys, list(kept.values()), keep=True)

    @property
    def exact(self) -> Runner:
        """The runner in binary64, made when it is first needed."""
        if "double" not in self._runners:
            runner = self._runners["double"] = Runner(self._weights, BINARY64, self._threads)
            runner.images(AS_MEANT, self.images)
            graph = self.reference.graph
            kept = {tensor.index: tensor for tensor in self.reference.end_points.values() if tensor.op != "squeeze"}
            runner.values(graph, runner.keys(graph, AS_MEANT), list(kept.values()), keep=True)
        return self._runners["double"]

    def within(self, given: Mapping[Label, FloatArray]) -> Lab:
        """The same, with some values as they were observed in place of those that are computed."""
        lab = copy(self)
        lab._given = dict(given)
        for runner in (lab.runner, lab.exact):
            for label, values in given.items():
                runner.images(("given", label), values)
        lab.reference = lab.trace(())
        return lab

    def sites(self, wanted: Tensor) -> set[str]:
        """The sites between what is given, or the images, and a value of the network as it is meant."""
        graph, found, waiting = self.reference.graph, set(), [wanted]
        given = {graph.made[label].index for label in self._given if label in graph.made}
        while waiting:
            tensor = waiting.pop()
            if tensor.index not in found and tensor.index not in given:
                found.add(tensor.index)
                waiting.extend(tensor.inputs)
        return {site for (_, site), tensor in graph.made.items() if tensor.index in found}

    def context(self) -> Context:
        """What the mistakes need to know."""
        engine = self._engine({})
        resolved = vars(engine.options)
        graph = self.reference.graph
        shapes = {name: array.shape for name, array in self._weights.items()}
        standardized = self._weights.conversion.standardized
        moments = {graph.site(name.rpartition("/")[0]): found for name, found in standardized.items()}
        return Context(graph.calls, engine.architecture, resolved, shapes, self.pipeline, engine.num_classes, moments)

    def trace(self, hypotheses: Sequence[Hypothesis]) -> Traced:
        """The network as a port with these mistakes builds it.

        Raises
        ------
        RefnetError
            It cannot be built.
        """
        options: dict[str, Any] = {}
        patches: list[Patch] = []
        ending = Ending()
        for hypothesis in hypotheses:
            options |= hypothesis.options
            patches += hypothesis.patches
            ending = ending if hypothesis.end is None else hypothesis.end(ending)
        images, array = self._images(hypotheses)
        engine = self._engine(options)
        made: list[PatchedGraph] = []

        def make(variables: Mapping[str, Any], arg_scope: Any) -> PatchedGraph:
            made.append(PatchedGraph(variables, arg_scope, engine.architecture.scope, patches))
            return made[-1]

        net, end_points = engine._trace(array.shape, make)
        (graph,) = made
        return Traced(graph, net, end_points, images, self._keys(self.runner, graph, images), ending)

    def value(self, traced: Traced, wanted: Tensor) -> FloatArray | None:
        """A value of a variant; None if it cannot be computed."""
        return self._value(self.runner, traced, traced.keys, wanted)

    def exact_value(self, traced: Traced, wanted: Tensor) -> FloatArray | None:
        """The same in binary64."""
        runner = self.exact
        if traced.images != AS_MEANT:
            runner.images(traced.images, self._inputs[traced.images])
        return self._value(runner, traced, self._keys(runner, traced.graph, traced.images), wanted)

    def shaken(self, traced: Traced, wanted: Tensor, levels: float, draw: int) -> FloatArray | None:
        """The value if the images have noise of so many levels, and what a port rounds that of other engines' sums."""
        name = (traced.images, "noise")
        self.runner.images(name, self._inputs[traced.images] + noise_of(self, levels, draw))
        graph = copy(traced.graph)
        graph.tensors = [
            replace(tensor, op=f"{tensor.op}~{draw}") if tensor.op.startswith("host:round:") else tensor
            for tensor in graph.tensors
        ]
        try:
            return self._value(self.runner, traced._replace(graph=graph), self._keys(self.runner, graph, name), wanted)
        finally:
            self.runner.forget(name)

    @contextmanager
    def based_on(self, hypotheses: Sequence[Hypothesis]) -> Iterator[None]:
        """Within this, variants may begin with the values of this one."""
        traced = self.trace(hypotheses)
        kept = {tensor.index: tensor for tensor in traced.end_points.values() if tensor.op != "squeeze"}
        with ExitStack() as stack:
            # Outside of a stretch that is looked at, a variant may have values that cannot be computed.
            with suppress(RefnetError):
                stack.enter_context(self.runner.based_on(traced.graph, traced.keys, list(kept.values())))
            yield

    def forget(self, traced: Traced) -> None:
        """Drop the images of a variant."""
        if traced.images != AS_MEANT:
            del self._inputs[traced.images]
            for runner in self._runners.values():
                runner.forget(traced.images)

    def _keys(self, runner: Runner, graph: PatchedGraph, images: Hashable) -> list[Key]:
        given = {
            graph.made[label].index: ("given", label)
            for label, values in self._given.items()
            if label in graph.made and graph.made[label].shape == values.shape
        }
        return runner.keys(graph, images, given)

    @staticmethod
    def _value(runner: Runner, traced: Traced, keys: Sequence[Key], wanted: Tensor) -> FloatArray | None:
        try:
            return runner.values(traced.graph, keys, [wanted])[0]
        except (RefnetError, KeyError):
            # A variance without a root; a variable that two mistakes have taken from each other.
            return None

    def _images(self, hypotheses: Sequence[Hypothesis]) -> tuple[Hashable, FloatArray]:
        changes = tuple(hypothesis.pixels for hypothesis in hypotheses if hypothesis.pixels is not None)
        if not changes:
            return AS_MEANT, self.images
        if changes not in self._inputs:
            pipeline = self.pipeline
            for change in changes:
                pipeline = change(pipeline)
            self._inputs[changes] = pipeline.input()
            self.runner.images(changes, self._inputs[changes])
        return changes, self._inputs[changes]

    def _engine(self, options: Mapping[str, Any]) -> Engine:
        key = repr(sorted(options.items()))
        if key not in self._engines:
            self._engines[key] = Engine(self._weights, **{**self._options, **options}, threads=self._threads)
        return self._engines[key]


def noise_of(lab: Lab, levels: float, draw: int = 0) -> FloatArray:
    """Noise on scaled pixels, of so many levels of 255."""
    values = lab.images
    span = float(values.max() - values.min()) or 1.0
    generator = np.random.default_rng(draw)
    return generator.uniform(-1, 1, values.shape).astype(np.float32) * np.float32(levels * span / 255)
