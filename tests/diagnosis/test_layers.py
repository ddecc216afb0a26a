"""From values within the network: what is named holds in every stretch, the right ones too, and no site is too wide."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import refnet
from refnet.diagnosis import norms, search
from refnet.diagnosis.diagnosis import Diagnosis
from tests.ports.mistakes import Mistake
from tests.ports.networks import Variables, draw_variables, inception_scaled, small_net, smooth_images, units
from tests.ports.tensorflow_port import run

IMAGE = inception_scaled(smooth_images(1, 40, 44, 3, seed=5))
NETS = {version: small_net(version, (1, 2)) for version in (1, 2)}
VARIABLES = {version: draw_variables(net, 40, seed=0) for version, net in NETS.items()}
UNITS = {version: [path for path, _, _ in units(net)] for version, net in NETS.items()}


def observed(version: int, *mistakes: Mistake, variables: Variables | None = None) -> dict[str, np.ndarray]:
    found = run(VARIABLES[version] if variables is None else variables, IMAGE, NETS[version], mistakes)
    return {name: value for name, value in found.items() if not name.endswith("pool5")}


def diagnosed(version: int, what: Any, variables: Variables | None = None, **options: Any) -> Diagnosis:
    weights = VARIABLES[version] if variables is None else variables
    return refnet.diagnose(weights, IMAGE, what, **{"pairs": False, "threads": 1, **options})


def named(found: Diagnosis) -> list[tuple[str, str, object]]:
    return [(entry.id, entry.site, entry.value) for entry in found.mistakes]


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param("block2/unit_1/bottleneck_v1/conv2", marks=pytest.mark.slow),
        "block2/unit_2/bottleneck_v1/conv1",
    ],
)
def test_a_dead_layer_does_not_spoil_what_is_known_everywhere_else(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a layer of zeros several mistakes give the same; with a beta of -100 nothing of conv2 or conv1 is left."""
    monkeypatch.setattr(search, "MISTAKES", norms.MISTAKES)  # a part of the catalogue, for speed
    beta = f"resnet_v1/{layer}/BatchNorm/beta"
    variables = VARIABLES[1] | {beta: np.full_like(VARIABLES[1][beta], -100)}
    both = [Mistake("mean-ignored"), Mistake("variance-ignored")]
    found = diagnosed(1, observed(1, *both, variables=variables), variables, pairs=True)
    assert found.explained
    assert sorted(named(found)) == [("mean-ignored", "everywhere", None), ("variance-ignored", "everywhere", None)]
    assert {entry.id for entry in found.ties} <= {"fold-without-mean"}


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ends", ["", "units"])
def test_a_mistake_from_some_unit_on_is_named_where_it_is_made(version: int, ends: str) -> None:
    block = UNITS[version][-2].split("/")[0]
    places = UNITS[version][1:] + (["postnorm"] if version == 2 else [])
    what = observed(version, *(Mistake("epsilon", place, 1e-3) for place in places))
    if ends:
        what = {name: value for name, value in what.items() if name.endswith((f"bottleneck_v{version}", "logits"))}
    found = diagnosed(version, what)
    wanted = [("epsilon", block, 1e-3)] + ([("epsilon", "postnorm", 1e-3)] if version == 2 else [])
    assert found.explained
    assert named(found) == wanted
    assert f"epsilon 0.001 ({', '.join(site for _, site, _ in wanted)})" in found.summary


def test_units_in_which_a_mistake_is_made_are_named_and_said_to_be_all() -> None:
    sites = [UNITS[2][0], UNITS[2][2]]
    found = diagnosed(2, observed(2, *(Mistake("gamma-ignored", site) for site in sites)))
    assert named(found)[-1] == ("gamma-ignored", sites[1], None)
    assert named(found)[:-1] == [("gamma-ignored", "block1", None)]  # of one unit
    assert found.notes == (f"gamma-ignored is not everywhere where it could be: only in block1, {sites[1]}.",)


def test_a_wide_mistake_beside_another_one() -> None:
    """Where both are made only both together explain what is observed; no search for pairs is needed."""
    wide, narrow = Mistake("beta-ignored"), Mistake("relu-before-add", UNITS[2][1])
    found = diagnosed(2, observed(2, wide, narrow))
    assert found.explained
    assert {name[:2] for name in named(found)} == {("beta-ignored", "everywhere"), (narrow.id, narrow.site)}


def test_what_is_made_of_the_logits_is_not_made_of_other_values() -> None:
    what = observed(1, Mistake("class-offset", None, 1))
    assert named(diagnosed(1, what)) == [("class-offset", "logits", 1)]


@pytest.mark.parametrize(
    ("mistake", "logits"),
    [
        (Mistake("weights-rounded", UNITS[2][1], "float16"), False),
        (Mistake("weights-rounded", f"{UNITS[2][1]}/conv2", "int8"), False),
        (Mistake("statistics-unscaled", "block2", 999.98), False),
        (Mistake("statistics-unscaled", f"{UNITS[2][1]}/preact", 0.001), False),
        (Mistake("weights-rounded", UNITS[2][1], "bfloat16"), True),
        pytest.param(Mistake("weights-rounded", "block2", "int8 by channel"), True, marks=pytest.mark.slow),
        pytest.param(Mistake("statistics-unscaled", UNITS[2][1], 999.98), True, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_rounded_weights_and_unscaled_statistics_have_sites(mistake: Mistake, logits: bool) -> None:
    what = observed(2, mistake)
    found = diagnosed(2, what["resnet_v2/logits"] if logits else what)
    assert named(found) == [(mistake.id, mistake.site, mistake.value)]
