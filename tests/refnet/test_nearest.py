"""Which left-over tensor is proposed for a missing one."""

from __future__ import annotations

import difflib
import time

from hypothesis import given
from hypothesis import strategies as st

import refnet
from refnet.graph.nearest import nearest
from tests.support.nets import small_blocks

TEXTS = st.text("ab/1_", min_size=1, max_size=8)


@given(missing=st.lists(TEXTS, max_size=3, unique=True), left=st.lists(TEXTS, max_size=4, unique=True), data=st.data())
def test_few_names_are_all_compared(missing: list[str], left: list[str], data: st.DataObject) -> None:
    shapes = st.sampled_from([(), (2,), (2, 3)])
    wanted = [(name, data.draw(shapes)) for name in missing]
    there = {name: data.draw(shapes) for name in left}
    rest, expected = dict(there), {}
    for name, shape in wanted:
        names = [other for other in rest if rest[other] == shape]
        if names:
            expected[name] = max(names, key=lambda other: (difflib.SequenceMatcher(None, other, name).ratio(), other))
            del rest[expected[name]]
    assert nearest(wanted, there) == expected


def test_one_among_thousands_is_found_by_its_start_or_its_end() -> None:
    missing = refnet.random_weights(small_blocks(units=1), 7).architecture.variables()
    others = {f"m{number}/{'x' * (number % 40)}/v": shape for number in range(3000) for _, shape in missing[:3]}
    for change in (lambda name: f"{name}_1", lambda name: f"model/{name}"):
        moved = {change(name): shape for name, shape in missing}
        assert nearest(missing, others | moved) == {name: change(name) for name, _ in missing}


def test_it_takes_little_time_whatever_the_names_are() -> None:
    """A generous limit: each of these took minutes, or hours, when every name was compared with every other."""
    missing = refnet.random_weights("resnet_v2_50", 1001).architecture.variables()
    alike = {f"{name}{number}": shape for number in range(100) for name, shape in missing}
    long = {f"{'a' * 100_000}{number}": shape for number, (_, shape) in enumerate(missing)}
    many = [(f"{name}{number}", shape) for number in range(100) for name, shape in missing]
    start = time.process_time()
    assert len(nearest(missing, alike)) == len(missing)
    assert nearest(missing, long) == {}
    assert nearest(list(long.items()), dict(missing)) == {}
    assert len(nearest(many, alike)) == 1000
    assert time.process_time() - start < 30
