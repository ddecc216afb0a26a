"""The right ports are right and the strange ones strange; the table counts what a diagnosis says of them."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.ports.agreement import problem
from tests.ports.correct import correct_ports
from tests.ports.mistakes import Mistake
from tests.ports.networks import draw_variables, inception_scaled, small_net, smooth_images
from tests.ports.table import WANTED, Answer, Case, Kept, Problem, _single, all_cases, answered, judged, rows_of, shown
from tests.ports.tensorflow_port import run
from tests.ports.unknown import unknown_ports
from tests.slim.oracle import Net

#: Engines that compile for seconds.
SLOW = ("xla", "Keras", "LiteRT", "OpenVINO", "tf_slim")
NETS = {"V2": small_net(2, (2, 2)), "v1": small_net(1, (2, 2)), "Keras' pool": small_net(2, (1, 1), pool_mode="keras")}


def is_right(net: Net, slow: bool) -> None:
    variables, x = draw_variables(net, 64, seed=3), inception_scaled(smooth_images(1, 64, 67, 3, seed=5))
    logits = f"{net.scope}/logits"
    truth = run(variables, x, net, dtype="float64")[logits]
    ports = {n: port for n, port in correct_ports(net).items() if slow == any(word in n for word in SLOW)}
    assert len(ports) > 3
    for name, port in ports.items():
        found = port(variables, x, net)[logits]
        assert found.dtype == np.float32, name
        assert found.shape == truth.shape, name
        assert np.abs(found - truth).max() <= 32 * 2.0**-24 * np.abs(truth).max(), name


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_correct_ports_are_correct(net: Net) -> None:
    is_right(net, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_slow_correct_ports_are_correct(net: Net) -> None:
    is_right(net, slow=True)


@pytest.mark.parametrize("version", [1, 2])
def test_every_unknown_bug_has_an_effect(version: int) -> None:
    net = small_net(version, (1, 3))
    variables, x = draw_variables(net, 64, seed=3), inception_scaled(smooth_images(1, 64, 67, 3, seed=5))
    right = run(variables, x, net)[f"{net.scope}/logits"]
    assert len(unknown_ports()) >= 60
    for name, port in unknown_ports().items():
        wrong = port(variables, x, net)[f"{net.scope}/logits"]
        assert np.isfinite(wrong).all(), name
        assert np.abs(wrong - right).max() > 1e-4 * np.abs(right).max(), name


def case(*wanted: Mistake, kind: str = "singles", result: Any = None) -> Case:
    return Case(kind, "x", Problem(*problem(2)), wanted, lambda: result)


def result(*named: tuple[Any, ...], ties: tuple[tuple[Any, ...], ...] = (), correct: bool = False) -> Any:
    fields = ("id", "site", "value")
    found, tied = ([SimpleNamespace(**dict(zip(fields, m, strict=True))) for m in group] for group in (named, ties))
    return SimpleNamespace(mistakes=found, ties=tied, correct=correct, seconds=1.0, tried=3)


def test_verdicts() -> None:
    same, epsilon = Mistake("conv1-same"), Mistake("epsilon", "postnorm", 1e-3)
    named = ("epsilon", "postnorm", 1e-3)
    assert judged(case(epsilon), result(named))[0] == "named"
    assert judged(case(epsilon), result(("epsilon", "postnorm", 1e-4)))[0] == "variant"
    assert judged(case(epsilon), result(("gamma-ignored", "postnorm", None)))[0] == "other"
    assert judged(case(epsilon), result(("gamma-ignored", "postnorm", None), ties=(named,)))[0] == "tie"
    assert judged(case(epsilon), result())[0] == "nothing"
    assert judged(case(epsilon), result(correct=True))[0] == "correct"
    # The root is the only place where this mistake can be made.
    assert judged(case(same), result(("conv1-same", "conv1", None)))[0] == "named"
    forgotten = Mistake("fold-without-mean", "postnorm")
    assert judged(case(forgotten), result(("mean-ignored", "postnorm", None)))[0] == "named"
    assert judged(case(same, epsilon), result(named, ("conv1-same", "conv1", None)))[0] == "named"
    assert judged(case(same, epsilon), result(named))[0] == "other"
    assert judged(case(epsilon), result(named, ("conv1-same", "conv1", None)))[0] == "other"
    assert judged(case(kind="unknown"), result())[0] == "nothing"
    assert judged(case(kind="unknown"), result(named))[0] == "other"
    assert judged(case(kind="correct"), result(correct=True))[0] == "correct"


def test_a_mistake_of_no_effect_is_not_asked_about() -> None:
    place = Problem(*problem(2))
    answer = answered(_single("singles", place, [Mistake("stride-place", None, "first_conv")]))
    assert answer.verdict == "no effect"
    assert "singles" not in shown([answer])


def test_the_table_counts_verdicts_and_times() -> None:
    epsilon = Mistake("epsilon", "postnorm", 1e-3)
    answers = [
        answered(case(epsilon, result=result(("epsilon", "postnorm", 1e-3)))),
        answered(case(epsilon, result=result(("gamma-ignored", "postnorm", None)))),
        Answer("unknown", "x", "", "nothing", "", 2.0),
        answered(Case("unknown", "x", Problem(*problem(2)), (), lambda: 1 / 0)),
    ]
    assert [answer.verdict for answer in answers] == ["named", "other", "nothing", "error"]
    row = rows_of(answers)["singles", "epsilon"]
    assert row.verdicts == {"named": 1, "other": 1}
    assert row.others == {"gamma-ignored": 1}
    text = shown(answers)
    assert "singles: 2 cases, named or tie 1 = 50.0 %" in text
    assert "unknown: 2 cases, nothing 1 = 50.0 %" in text


def test_an_interrupted_table_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[str] = []

    def ask(title: str) -> Any:
        asked.append(title)
        return result()

    def cases_named(*titles: str) -> list[Case]:
        return [Case("unknown", title, Problem(*problem(2)), (), partial(ask, title)) for title in titles]

    kept = Kept(tmp_path / "results.jsonl")
    for asked_now in cases_named("a", "b"):
        kept.asked(asked_now)
    assert "unknown 2/2 1.0 s b: nothing" in capsys.readouterr().err
    again = Kept(tmp_path / "results.jsonl")
    answers = [again.asked(asked_now) for asked_now in cases_named("a", "b", "c")]
    assert asked == ["a", "b", "c"]
    assert [answer.verdict for answer in answers] == ["nothing"] * 3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["singles", "pixels", "correct", "unknown"])
def test_the_diagnosis_of_small_networks(kind: str) -> None:
    """Nine of ten single mistakes are named; no right port is called wrong, and no unknown bug is given a name."""
    asked = [answered(case) for case in all_cases([kind], full=False, count=1)]
    answers = [answer for answer in asked if answer.verdict != "no effect"]
    good = [answer for answer in answers if answer.is_good]
    assert len(good) >= (1 if kind in WANTED else 0.9) * len(answers), shown(answers)
