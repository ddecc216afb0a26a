"""Each mistake of the catalogue is the one that ports make: the network with it gives their logits."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.diagnosis.lab import Lab
from refnet.diagnosis.mistake import Hypothesis
from refnet.diagnosis.observing import observe
from refnet.diagnosis.pixels import Pipeline
from refnet.diagnosis.search import Search, hypotheses_of
from refnet_kernels.system.float_mode import contract_mode
from tests.ports.agreement import FILE, VERSIONS, problem
from tests.ports.cases import place_of
from tests.ports.mistakes import Mistake
from tests.ports.networks import draw_variables, inception_scaled, small_net, smooth_images
from tests.ports.tensorflow_port import run
from tests.slim.oracle import Net

#: What is left of a mistake's effect.
LEFT = 2e-3
#: Mistakes that the file has with variables of their own; and those of which rounding decides what they give.
LEFT_OUT = ("mean-variance-swapped", "arithmetic")
DENSE = ("dilation-early", "dilation-first-only", "dilation-missing")


def lab_of(net: Net, variables: Mapping[str, np.ndarray], images: np.ndarray, **options: Any) -> Lab:
    weights = refnet.Weights(variables, options={"pool_mode": net.pool_mode, "stride_place": place_of(net)})
    return Lab(weights, Pipeline(images, weights.recipe), {"threads": 1, **options})


def left(lab: Lab, observed: Mapping[str, np.ndarray], hypotheses: Sequence[Hypothesis]) -> float:
    """The part of an observation's error that the best of some hypotheses leaves, rounding apart."""
    (point,), _ = observe(dict(observed), lab, lab._weights, {}, {})
    search = Search(lab, point.outputs)
    if search.before.is_within:
        return 0.0
    least = min((entry.error for entry in search.singles(hypotheses)), default=np.inf)
    return max(least - search.before.bound, 0.0) / search.before.error


@pytest.mark.parametrize("version", VERSIONS)
def test_each_mistake_gives_what_the_ports_with_it_give(version: int) -> None:
    with contract_mode():
        net, variables, images = problem(version)
        lab = lab_of(net, variables, images)
        known = defaultdict(list)
        for entry in hypotheses_of(lab):
            known[entry.mistake.id].append(entry)
        wrong = []
        for name, row in json.loads(FILE.read_text())[str(version)].items():
            id, *words = name.split(" ", 1)
            if not id or id in LEFT_OUT:
                continue
            candidates = [entry for entry in known[id] if is_named(entry, *words)]
            outputs = "predictions" if id.startswith("softmax") else "logits"
            if left(lab, {outputs: np.array(row, np.float32)}, candidates) > LEFT:
                wrong.append(name)
        assert wrong == []


def is_named(hypothesis: Hypothesis, words: str = "") -> bool:
    """Whether it has the site and the value of a port's case; with no site it may have any."""
    site, value = hypothesis.site, "" if hypothesis.value is None else str(hypothesis.value)
    return words in (site, f"{site} {value}", value, "")


@pytest.mark.parametrize("name", DENSE)
def test_mistakes_of_dilation(name: str) -> None:
    net = small_net(2, (2, 3, 2), output_stride=4)
    variables, images = draw_variables(net, 48, seed=1), inception_scaled(smooth_images(1, 48, 50, 3, seed=2))
    logits = run(variables, images, net, [Mistake(name)])[f"{net.scope}/logits"]
    with contract_mode():
        lab = lab_of(net, variables, images, output_stride=4)
        everywhere = [h for h in hypotheses_of(lab) if h.mistake.id == name and h.site == "everywhere"]
        assert left(lab, {"logits": logits}, everywhere) < LEFT
