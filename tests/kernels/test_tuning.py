"""How the CPU's convolution finds the numbers that fit a machine, and what it makes of bad ones. Bits: test_kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refnet_kernels import jit
from refnet_kernels.contract import BINARY32, Target
from refnet_kernels.conv import cpu, tuning
from refnet_kernels.conv.trials import Trial, fitted
from refnet_kernels.conv.tuning import FILE, GROUPS, LIMITS, Tuning
from refnet_kernels.jit import function_address

TABLE = Tuning(most_nonzero=700, group_panels=GROUPS[0])
#: Other numbers than the table of any processor has.
OTHER = Tuning(most_nonzero=456, group_panels=GROUPS[0], fewest_pixels=77)


def trial(*times: float, other: float = 2.0, is_steady: bool = True) -> Trial:
    """All products take 1; without zeros in the table's groups ``times``, and in the other groups ``other`` of that."""
    groups = {GROUPS[0]: 1.0, GROUPS[1]: other}
    shares = (250, 500, 800)
    return Trial(1.0, {g: dict(zip(shares, (f * t for t in times), strict=True)) for g, f in groups.items()}, is_steady)


@pytest.mark.parametrize(
    ("times", "most_nonzero"),
    [
        # The share at which the line through the neighbours reaches 1.
        ((0.4, 0.7, 1.0), 800),
        ((0.4, 0.7, 1.1), 725),
        ((0.4, 0.6, 0.9), 900),
        ((0.5, 1.0, 1.5), 500),
        ((0.75, 1.25, 1.5), 375),
        # No further than known machines differ.
        ((0.1, 0.2, 0.3), 950),
        ((0.99, 9.0, 20.0), 300),
    ],
)
def test_the_share_of_zeros_from_which_they_pay(times: tuple[float, ...], most_nonzero: int) -> None:
    assert fitted(trial(*times), TABLE) == TABLE._replace(most_nonzero=most_nonzero)


@pytest.mark.parametrize(("other", "group"), [(0.5, 1), (0.96, 1), (0.98, 0), (1.0, 0), (2.0, 0)])
def test_the_tables_group_unless_the_other_is_clearly_faster(other: float, group: int) -> None:
    found = fitted(trial(0.4, 0.7, 1.0, other=other), TABLE)
    assert found is not None
    assert found.group_panels == GROUPS[group]


ABSURD = {
    "zeros cost more than all products at three quarters": trial(1.1, 1.2, 1.3),
    "fewer zeros take less": trial(0.7, 0.4, 1.0),
    "as long with any zeros": trial(0.7, 0.7, 0.7),
    "no time at all": trial(0.0, 0.5, 0.8),
    "not a number": trial(0.4, float("nan"), 1.0),
    "endless": trial(0.4, float("inf"), float("inf")),
    "a busy machine": trial(0.4, 0.7, 1.0, is_steady=False),
}


@pytest.mark.parametrize("absurd", ABSURD.values(), ids=ABSURD)
def test_what_cannot_be_says_nothing(absurd: Trial) -> None:
    assert fitted(absurd, TABLE) is None


def test_a_trial_of_this_machine_can_be_believed_or_not_but_gives_no_absurd_numbers() -> None:
    function_address(*cpu.KERNEL, "float32")
    found = cpu.measured(BINARY32, 0.01)
    assert found.without_zeros.keys() == set(GROUPS)
    numbers = fitted(found, TABLE)
    assert numbers is None or tuning.can_be(numbers)


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the cache, and a process that has chosen nothing yet."""
    monkeypatch.setenv("REFNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("REFNET_TUNE", raising=False)
    monkeypatch.setattr(tuning, "_chosen", None)
    directory = jit.cache_directory()
    assert directory is not None
    return directory


def chosen(is_compiled_here: bool = False, measured: Tuning | None = None) -> Tuning:
    """The numbers of a process that starts now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "_chosen", None)
        return tuning.tuning(is_compiled_here, lambda: measured)


def never() -> Tuning:
    pytest.fail("nothing is measured at a later start")


def test_what_is_measured_where_the_kernel_is_compiled_stays(fresh: Path) -> None:
    assert chosen(is_compiled_here=True, measured=OTHER) == OTHER
    assert chosen() == OTHER
    # Another process compiled the kernel meanwhile, too.
    assert chosen(is_compiled_here=True, measured=TABLE) == OTHER


def test_nothing_is_measured_where_the_kernel_comes_from_the_cache(fresh: Path) -> None:
    assert tuning.tuning(False, never) == tuning.of_table()
    assert list(fresh.iterdir()) == []


def test_a_trial_without_a_result_leaves_the_table(fresh: Path) -> None:
    assert chosen(is_compiled_here=True, measured=None) == tuning.of_table()
    assert list(fresh.iterdir()) == []


def test_off_is_the_table(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuning.keep(OTHER)
    assert chosen() == OTHER
    monkeypatch.setenv("REFNET_TUNE", "off")
    assert tuning.tuning(True, never) == tuning.of_table()


def written(data: bytes) -> None:
    """A file whose checksum is right."""
    assert jit.write_note(FILE, data) is not None


def of(place: object = None, **numbers: Any) -> bytes:
    """What a file says, with some numbers changed."""
    return json.dumps({"place": place or tuning._place(), "numbers": {**OTHER._asdict(), **numbers}}).encode()


BAD: dict[str, Callable[[], bytes]] = {
    "another version's": lambda: of(place="0" * 24),
    "nobody's": lambda: json.dumps({"numbers": OTHER._asdict()}).encode(),
    "not JSON": lambda: b"{",
    "not text": lambda: b"\xff\xfe",
    "a list": lambda: b"[1]",
    "a number": lambda: b"1",
    "deep": lambda: b"[" * 100_000,
    "another field": lambda: of(more=1),
    "text": lambda: of(most_nonzero="456"),
    "a fraction": lambda: of(most_nonzero=456.0),
    "a truth": lambda: of(fewest_pixels=True),
    "not a number": lambda: of(tile_cost=float("nan")),
    "endless": lambda: of(item_cost=float("inf")),
    "a group that is not compiled": lambda: of(group_panels=7),
    "huge": lambda: of(fewest_pixels=10**400),
    **{f"{name} too small": lambda name=name: of(**{name: LIMITS[name][0] - 1}) for name in LIMITS},
    **{f"{name} too large": lambda name=name: of(**{name: LIMITS[name][1] + 1}) for name in LIMITS},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_numbers_that_cannot_be_are_not_used(bad: Callable[[], bytes], fresh: Path) -> None:
    written(of())
    assert chosen() == OTHER
    written(bad())
    assert chosen() == tuning.of_table()
    # Where the kernel is compiled anyway, they are replaced.
    assert chosen(is_compiled_here=True, measured=OTHER) == OTHER
    assert chosen() == OTHER


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: b"", lambda data: data[:32], lambda data: b"x" + data[1:]]
)
def test_a_damaged_file_is_not_used(damage: Callable[[bytes], bytes], fresh: Path) -> None:
    written(of())
    (fresh / FILE).write_bytes(damage((fresh / FILE).read_bytes()))
    assert chosen() == tuning.of_table()


def test_the_place_of_another_file_is_not_read(fresh: Path) -> None:
    jit.write_note("other.tuning", of())
    (fresh / "other.tuning").rename(fresh / FILE)
    assert chosen() == tuning.of_table()


def test_where_nothing_can_be_kept_the_table_holds(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFNET_CACHE", "off")
    assert chosen() == tuning.of_table()
    # Others may write there.
    monkeypatch.setenv("REFNET_CACHE", str(fresh.parent))
    written(of())
    fresh.chmod(0o770)
    assert chosen() == tuning.of_table()


def test_an_interrupted_trial_leaves_nothing_and_is_tried_again(fresh: Path) -> None:
    def interrupted() -> Tuning:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuning.tuning(True, interrupted)
    assert list(fresh.iterdir()) == []
    assert tuning.tuning(True, lambda: OTHER) == OTHER


#: Which numbers a process uses for its convolutions, and whether it made trials.
SCRIPT = """
import sys
import numpy as np
from refnet_kernels.conv import cpu
made = []
measured = cpu.measured
cpu.measured = lambda *a: made.append(1) or measured(*a)
x = np.ones((1, 8, 8, 64), np.float32)
w = np.ones((1, 1, 64, 64), np.float32)
from refnet_kernels.contract import ConvGeometry
out, _ = cpu.call(x, w, ConvGeometry.same(x, w))
assert (out == 64).all()
from refnet_kernels.conv.tuning import tuning
print(len(made), "refnet_kernels.conv.trials" in sys.modules, tuple(tuning(False, None)))
"""


def start(cache: object, **environment: str) -> subprocess.Popen[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "REFNET_TUNE"}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), "REFNET_CACHE": str(cache), **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> list[str]:
    out, errors = process.communicate(timeout=180)
    assert process.returncode == 0, errors
    return out.split(maxsplit=2)


def test_the_first_process_makes_trials_and_no_later_one(tmp_path: Path) -> None:
    cache, table = tmp_path / "cache", f"{tuple(tuning.of_table())}\n"
    # Both compile the kernel.
    for process in [start(cache) for _ in range(2)]:
        made, imported, _ = finish(process)
        assert (made, imported) in (("1", "True"), ("0", "False"))
    (file,) = cache.rglob(FILE) if list(cache.rglob(FILE)) else [None]
    kept = f"{tuple(Tuning(**json.loads(file.read_bytes()[32:])['numbers']))}\n" if file else table
    assert finish(start(cache)) == ["0", "False", kept]
    assert finish(start(cache, REFNET_TUNE="off")) == ["0", "False", table]
    if file:
        file.unlink()
    assert finish(start(cache)) == ["0", "False", table]
    assert not list(cache.rglob(FILE))


def test_the_kernel_is_asked_before_its_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch in a process that has the kernel from the cache."""
    monkeypatch.setattr(tuning, "_chosen", None)
    monkeypatch.setattr(jit, "_written", set())
    monkeypatch.setattr(cpu, "measured", lambda *_: never())
    g = cpu.ConvGeometry.same(np.empty((1, 8, 8, 64)), np.empty((1, 1, 64, 64)))
    cpu.launch(g, dict.fromkeys(("x", "weights", "out"), 0), cpu.Flags(), Target())
