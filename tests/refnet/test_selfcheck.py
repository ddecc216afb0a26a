"""``refnet selfcheck``: the published hashes hold, and a wrong bit is found where it arises."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import refnet
from refnet.cli import main
from refnet.evidence import selfcheck
from refnet.evidence.digest import digest, digest_all
from refnet.evidence.selfcheck import CASES, FORMAT, FORMAT_VERSION, Case, cases_of, check, hashes, published
from refnet.network.resnet_v2 import NETWORKS
from refnet_kernels.contract import CONTRACT_VERSION
from tools.record_selfcheck import record


def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


SMALL = [case.name for case in CASES if case.network not in NETWORKS]
#: Without a root block among the weights, the images cannot have one.
OPTIONS = [(name, o) for name in SMALL for o in case_named(name).options if o != "include_root_block"]
CONV3 = "resnet_v2/block2/unit_1/bottleneck_v2/conv3"


def test_the_file_says_what_it_is() -> None:
    content = published()
    assert (content["format"], content["version"], content["contract"]) == (FORMAT, FORMAT_VERSION, CONTRACT_VERSION)
    assert list(content["cases"]) == [case.name for case in CASES]
    assert {entry["device"] for entry in content["cases"].values()} == {"reference"}


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_have_the_published_bits(name: str) -> None:
    outcome = check(case_named(name), published()["cases"][name])
    assert outcome.differing == []
    assert outcome.total >= 38


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_changes_bits(name: str, option: str) -> None:
    case = case_named(name)
    others = {other: value for other, value in case.options.items() if other != option}
    found = hashes(case._replace(options=others), case.weights(), case.images())
    assert found != published()["cases"][name]["end_points"]


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS)])
def test_the_definitions_give_what_is_published(name: str) -> None:
    assert record(case_named(name)) == published()["cases"][name]


@pytest.mark.parametrize(
    "name", ["resnet_v2_50", *(pytest.param(f"resnet_v2_{n}", marks=pytest.mark.slow) for n in (101, 152, 200))]
)
def test_published_networks_have_the_published_bits(name: str) -> None:
    assert check(case_named(name), published()["cases"][name]).differing == []


def test_subnormal_numbers_reach_the_logits() -> None:
    case = case_named("subnormal")
    net, end_points = refnet.forward(case.weights(), case.images(), end_points=True)
    end_points.pop("predictions")
    for name, value in {"net": net, **end_points}.items():
        assert 0 < np.abs(value).max() < 2.0**-126, name


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["selfcheck", *arguments])
    return code, capsys.readouterr().out


def test_the_table_of_a_good_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = run(capsys, "nominal", "training", "--threads", "2")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["nominal", "2x37x50x3", "45", "of", "45"]
    assert lines[-1][:4] == ["All", "90", "end", "points"]


def test_unknown_checks_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "nominl"]) == 2
    assert "no check nominl; there are nominal, dense" in capsys.readouterr().err


def corrupt(monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], None]) -> None:
    """Publish something else about the case "nominal"."""
    content = copy.deepcopy(published())
    change(content["cases"]["nominal"])
    monkeypatch.setattr("refnet.cli.selfcheck.published", lambda: content)


def test_a_published_hash_that_is_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt(monkeypatch, lambda entry: entry["end_points"].update({CONV3: "0" * 64}))
    monkeypatch.setenv("NUMBA_OPT", "3")
    code, out = run(capsys, "nominal", "training")
    assert code == 1
    rows = out.splitlines()
    assert rows[1].split() == ["nominal", "2x37x50x3", "44", "of", "45", CONV3]
    assert rows[2].split()[-3:] == ["45", "of", "45"]
    _, block, last = out.split("-" * 72 + "\n")
    assert f"nominal (2x37x50x3): 1 of 45 end points differ, first {CONV3}" in block
    for line in ("numpy: ", "numba: ", "cpu: ", "features: ", "system: ", "NUMBA_OPT: 3"):
        assert f"\n{line}" in block
    assert last == "1 of 2 networks differ: this machine does NOT compute the published bits.\n"
    code, out = run(capsys, "nominal", "--json")
    assert code == 1
    result = json.loads(out)
    assert (result["same"], result["checks"][0]["differing"]) == (False, [CONV3])
    assert result["environment"]["numpy"] == np.__version__


@pytest.mark.parametrize("what", ["weights", "images"])
def test_other_weights_or_images_are_not_blamed_on_the_kernels(
    what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt(monkeypatch, lambda entry: entry.update({what: "0" * 64}))
    code, out = run(capsys, "nominal")
    assert code == 1
    assert "not run, of 45" in out
    assert f"the seeded {what} differ already" in out


def test_an_end_point_that_is_not_published_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt(monkeypatch, lambda entry: entry["end_points"].pop(CONV3))
    code, out = run(capsys, "nominal", "--json")
    assert (code, json.loads(out)["checks"][0]["differing"]) == (1, [CONV3])


def test_a_bit_that_goes_wrong_is_found_where_it_arises(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bias that is one ULP too large reaches every later end point; the first that differs is its own."""

    class WrongEngine(refnet.Engine):
        def __init__(self, weights: refnet.Weights, **options: Any) -> None:
            biases = np.nextafter(weights[f"{CONV3}/biases"], np.float32(np.inf))
            options = {**weights.options, **options}
            super().__init__({**weights, f"{CONV3}/biases": biases}, **options)

    monkeypatch.setattr(selfcheck, "Engine", WrongEngine)
    entry = published()["cases"]["nominal"]
    differing = check(case_named("nominal"), entry).differing
    assert differing[0] == CONV3
    assert differing[-2:] == ["net", "predictions"]
    names = list(entry["end_points"])
    # What comes before, and in the same unit from the same input, is as it was.
    assert set(differing) <= set(names[names.index(CONV3) :])


def test_digests_are_of_little_endian_values_and_one_nan() -> None:
    values = np.array([[1.0, -0.0], [np.nan, 2.5]], np.float32)
    other = values.copy()
    other.view(np.uint32)[1, 0] |= 0x80000123
    assert digest(values) == digest(other) == digest(values.astype(">f4")) == digest(np.asfortranarray(values))
    assert digest(values) != digest(np.abs(values))
    assert digest(np.zeros(0, np.float32)) == digest(np.zeros((0, 3), np.float32))
    one = digest_all({"a": values, "b": values[0]}, ["b", "a"])
    assert one == digest_all({"b": values[0], "a": values}, ["a", "b"])
    assert one != digest_all({"a": values, "b": values[0].reshape(2, 1)}, ["a", "b"])


def test_cuda_is_checked_in_binary32_alone() -> None:
    left_out = [case.name for case in CASES if case not in cases_of("cuda:1")]
    assert left_out == ["binary64", "v1_binary64", "resnet_d_binary64"]
    assert cases_of("cpu") == list(CASES)
