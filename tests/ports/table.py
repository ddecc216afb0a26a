"""The confusion table of `refnet.diagnose`: what it makes of ports with each mistake, of right ones, and of other bugs.

::

    python -m tests.ports.table                      # small networks, every kind but the labels
    python -m tests.ports.table --full               # resnet_v2_50 at 224
    python -m tests.ports.table --kind unknown       # one kind, or all; --only epsilon: one mistake; --json: as JSON
    python -m tests.ports.table --port pytorch       # PyTorch's ports in place of TensorFlow's
    python -m tests.ports.table --resume FILE        # keeps each result in FILE, and asks for those that are not there
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import refnet
from tests.ports import tensorflow_port, torch_port
from tests.ports.cases import cases, place_of
from tests.ports.correct import correct_ports
from tests.ports.mistakes import Mistake, Planted
from tests.ports.networks import (
    Variables,
    draw_variables,
    for_mistake,
    inception_scaled,
    published_net,
    small_net,
    smooth_images,
)
from tests.ports.pixels import (
    Steps,
    arranged,
    array_cases,
    decoded,
    images_of,
    pixel_cases,
    slim_v1,
    slim_v2,
    torchvision,
)
from tests.ports.tensorflow_port import restrided
from tests.ports.unknown import unknown_ports
from tests.slim.oracle import Net

Arrays = dict[str, np.ndarray]

#: The ports that make mistakes, by framework; the first one that is installed makes them.
PORTS = {"tensorflow": tensorflow_port.run, "pytorch": torch_port.run}
MODULES = {"tensorflow": "tensorflow", "pytorch": "torch"}

KINDS = ("correct", "singles", "unknown", "pairs", "layers", "pairs-layers", "pixels", "labels")

#: For how long pairs of mistakes are tried for what is none of them, with small networks; with large ones as always.
UNKNOWN_SECONDS = 10.0

#: Mistakes that compute the same numbers, and those that are none: no output tells one from the other.
EQUAL = {
    "fold-without-mean": {"mean-ignored"},
    "fold-without-beta": {"beta-ignored"},
    "mean-ignored": {"fold-without-mean"},
    "beta-ignored": {"fold-without-beta"},
}


@dataclass(frozen=True)
class Problem:
    """A network with weights and an image.

    Attributes
    ----------
    net : Net
    variables : dict of str to ndarray
    images : ndarray
        What the reference takes.
    recipe : refnet.Recipe, optional
        How pixels become that; by default refnet's own.
    name : str
    port : {"tensorflow", "pytorch"}
        Who makes the mistakes.
    limit : float
        Seconds for which pairs of mistakes are tried.
    """

    net: Net
    variables: Variables
    images: np.ndarray
    recipe: refnet.Recipe | None = None
    name: str = ""
    port: str = "tensorflow"
    limit: float = 120.0

    def run(
        self, mistakes: Iterable[Mistake] = (), *, variables: Variables | None = None, images: np.ndarray | None = None
    ) -> Arrays:
        """What a port with some mistakes gives, by TF-Slim's names."""
        variables, images = (
            (self.variables if variables is None else variables),
            self.images if images is None else images,
        )
        return PORTS[self.port](variables, images, self.net, mistakes)

    @property
    def weights(self) -> refnet.Weights:
        """For refnet, with the options that travel with weights."""
        return self.weights_of(self.variables)

    def weights_of(self, variables: Variables) -> refnet.Weights:
        """The same with other variables."""
        net = self.net
        options: dict[str, Any] = {"pool_mode": net.pool_mode, "avg_down": net.avg_down, "stride_place": place_of(net)}
        if net.batch_norm_epsilon != 1e-5:
            options["batch_norm_epsilon"] = net.batch_norm_epsilon
        return refnet.Weights(variables, options=options, recipe=self.recipe)

    def diagnosis(self, observed: Any, image: Any = None, variables: Variables | None = None) -> Any:
        """What refnet says of a port's outputs, by default for these images and variables."""
        weights = self.weights if variables is None else self.weights_of(variables)
        options = {} if self.net.output_stride is None else {"output_stride": self.net.output_stride}
        return refnet.diagnose(
            weights, self.images if image is None else image, observed, limit=self.limit, threads=1, **options
        )


@dataclass(frozen=True)
class Case:
    """What is asked, and what should be answered.

    Attributes
    ----------
    kind, title : str
    place : Problem
    wanted : tuple of Mistake
        Empty for a correct port and for an unknown bug.
    ask : callable
        Gives the diagnosis; None where the mistake has no effect, so that there is nothing to ask.
    """

    kind: str
    title: str
    place: Problem
    wanted: tuple[Mistake, ...]
    ask: Callable[[], Any]


@dataclass
class Answer:
    """What came of a case.

    Attributes
    ----------
    kind, title : str
        The case's.
    mistake : str
        The ids of its mistakes.
    verdict : str
        "named", "variant" (the right mistake at another site or with another value), "tie", "other", "nothing",
        "correct", "error", or "no effect" where there was nothing to ask.
    found : str
    seconds : float
    tried : int
    """

    kind: str
    title: str
    mistake: str
    verdict: str
    found: str = ""
    seconds: float = 0.0
    tried: int = 0

    @property
    def is_good(self) -> bool:
        """Whether it is what was wanted: with ties, as far as a diagnosis can tell."""
        return self.verdict in WANTED.get(self.kind, ("named", "tie"))


@dataclass
class Row:
    """A line of the table."""

    answers: list[Answer] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)


# The problems.


def first_strides(net: Net) -> Net:
    """The same network as PyTorch's homes build it."""
    return net.replace(blocks=restrided(net.blocks, "first_unit"))


def problem(net: Net, size: int, seed: int, name: str = "", port: str = "tensorflow") -> Problem:
    """With seeded weights and a smooth image, whose sides are not equal."""
    images = inception_scaled(smooth_images(1, size, size + 6, 3, seed=seed + 50))
    return Problem(net, draw_variables(net, size, seed), images, name=name or net.scope, port=port)


def problems(full: bool, port: str) -> list[Problem]:
    """The networks for mistakes inside them: the plain ones, and those that some mistakes need."""
    if full:
        return [problem(published_net(), 224, 0, "resnet_v2_50", port)]
    d = first_strides(small_net(1, (1, 2, 2), pool_mode="torch", avg_down=True))
    found = [
        problem(small_net(2, (2, 2)), 66, 1, "v2", port),
        problem(small_net(1, (2, 2)), 72, 2, "v1", port),
        problem(small_net(2, (2, 3, 2), output_stride=4), 70, 3, "v2 dense", port),
        problem(d, 67, 4, "v1 d", port),
        problem(first_strides(small_net(2, (1, 2, 2), pool_mode="torch")), 66, 5, "v2 with torch's pool", port),
    ]
    # The port to PyTorch has neither rates nor the shortcuts of the variants d.
    return [entry for entry in found if port != "pytorch" or not (entry.net.output_stride or entry.net.avg_down)]


def sampled(found: Sequence[Mistake], count: int, seed: int) -> list[Mistake]:
    """Of each mistake everywhere and some other sites and values, so many in all; chosen by chance."""
    rng, by_id = np.random.default_rng(seed), defaultdict(list)
    for mistake in found:
        by_id[mistake.id].append(mistake)
    chosen: list[Mistake] = []
    for same in by_id.values():
        everywhere = [mistake for mistake in same if mistake.site is None]
        first = [everywhere[rng.integers(len(everywhere))]] if everywhere else []
        rest = [mistake for mistake in same if mistake not in first]
        count_left = min(count - len(first), len(rest))
        chosen += first + [rest[i] for i in sorted(rng.choice(len(rest), count_left, replace=False))]
    return chosen


# The cases.


def _single(kind: str, place: Problem, mistakes: Sequence[Mistake]) -> Case:
    """From the logits, or the predictions where only they show the mistake; "layers": from every end point."""
    net = place.net
    variables = place.variables
    for mistake in mistakes:
        variables = for_mistake(variables, mistake)

    def ask() -> Any:
        found = place.run(mistakes, variables=variables)
        # Each one must count beside the others: what another one hides is not to be found.
        rest = [[other for other in mistakes if other is not mistake] for mistake in mistakes]
        least = 1e-5 if len(mistakes) == 1 else 1e-3
        if not all(_differ(net, place.run(others, variables=variables), found, least) for others in rest):
            return None
        ends = [mistake.id for mistake in mistakes if mistake.id.startswith("softmax")]
        observed: Any = {"predictions": found["predictions"]} if ends else found[f"{net.scope}/logits"].ravel()
        if kind.endswith("layers"):
            observed = {name: value for name, value in found.items() if not name.endswith(("avg_pool", "pool5"))}
        return place.diagnosis(observed, variables=variables)

    title = f"{place.name} {' and '.join(map(str, mistakes))}"
    return Case(kind, title, place, tuple(mistakes), ask)


def _differ(net: Net, right: Arrays, wrong: Arrays, least: float) -> bool:
    """Whether a port's outputs are others than the right ones at all, and numbers."""
    for name in (f"{net.scope}/logits", "predictions"):
        if right[name].shape != wrong[name].shape:
            return True
        if np.abs(right[name] - wrong[name]).max() > least * np.abs(right[name]).max():
            return bool(np.isfinite(wrong[name]).all())
    return False


def singles(full: bool, port: str, count: int, kind: str = "singles") -> Iterator[Case]:
    """One mistake in a port, sites and values by chance; those of no effect are left out."""
    special = (
        "dilation-early",
        "dilation-first-only",
        "dilation-missing",
        "pool-counts-padding",
        "stride-place",
        "pool1",
    )
    for i, place in enumerate(problems(full, port)):
        found = cases(place.net)
        if i > 1:
            found = [mistake for mistake in found if mistake.id in special]
        if port == "pytorch":
            found = [mistake for mistake in found if mistake.id not in torch_port.LEFT_OUT]
        for mistake in sampled(found, count, seed=i):
            yield _single(kind, place, [mistake])


def pairs(full: bool, port: str, count: int, kind: str = "pairs") -> Iterator[Case]:
    """Two different mistakes."""
    for place in problems(full, port)[:2]:
        rng = np.random.default_rng(7)
        single = sampled(cases(place.net), 3, seed=8)
        single = [m for m in single if not m.id.startswith(("softmax", "class-offset", "arithmetic"))]
        for _ in range(4 * count):
            one, other = (single[i] for i in rng.choice(len(single), 2, replace=False))
            if one.id != other.id and other.id not in EQUAL.get(one.id, ()):
                yield _single(kind, place, [one, other])


def from_pixels(full: bool) -> Iterator[Case]:
    """From an image file, a PNG and a JPEG; and from the network's input."""
    # 110 / 0.875 = 125.7: some libraries round it, others cut it.
    inception = refnet.Recipe(110, 110, 0.875, "inception")
    vgg = refnet.Recipe(112, 112, 1.0, "vgg", 128)
    torch = refnet.Recipe(112, 112, 1.0, "torch", 128, "bilinear")
    kinds: list[tuple[Net, Steps, refnet.Recipe | None]] = [(published_net(), slim_v2(299), None)]
    if not full:
        kinds = [
            (small_net(2, (1, 2)), slim_v2(110), inception),
            (small_net(1, (1, 2)), slim_v1(112), vgg),
            (small_net(2, (1, 1)), torchvision(112), torch),
        ]
    for i, (net, steps, recipe) in enumerate(kinds):
        raw = smooth_images(1, 333, 412, 3, seed=i)[0]
        variables = draw_variables(net, 128, seed=6)
        if steps.mode == "vgg":  # pixels of 127.5 times the size
            norm = f"{net.scope}/conv1/BatchNorm"
            for name, factor in ((f"{norm}/moving_mean", 127.5), (f"{norm}/moving_variance", 127.5**2)):
                variables[name] = np.float32(variables[name] * factor)
        place = Problem(net, variables, images_of(raw, steps), recipe, f"{net.scope} {steps.size}")
        for mistake in pixel_cases(steps):
            yield _from_file(place, raw, mistake, images_of(raw, steps, [mistake]), "PNG")
        reversed_ = Mistake("channels-reversed")
        for by in ("Pillow", "accurate"):
            pixels = decoded(_encoded(raw, "JPEG"), by)
            yield _from_file(place, raw, reversed_, images_of(pixels, steps, [reversed_]), f"JPEG by {by}")
        for mistake in array_cases():
            yield _from_array(place, mistake)


def _encoded(raw: np.ndarray, form: str) -> bytes:
    data = io.BytesIO()
    Image.fromarray(raw).save(data, form, **({"quality": 92} if form == "JPEG" else {}))
    return data.getvalue()


def _from_file(place: Problem, raw: np.ndarray, mistake: Mistake | None, x: np.ndarray, form: str) -> Case:
    def ask() -> Any:
        logits = place.run(images=x)[f"{place.net.scope}/logits"].ravel()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"image.{form.split()[0].lower()}")
            path.write_bytes(_encoded(raw, path.suffix[1:].upper()))
            return place.diagnosis(logits, str(path))

    wanted = () if mistake is None else (mistake,)
    return Case("pixels" if wanted else "correct", f"{place.name} {form} {mistake or 'right'}", place, wanted, ask)


def _from_array(place: Problem, mistake: Mistake) -> Case:
    def ask() -> Any:
        x = arranged(place.images, Planted([mistake]))
        logits = place.run(images=x)[f"{place.net.scope}/logits"].ravel()
        return place.diagnosis(logits)

    return Case("pixels", f"{place.name} array {mistake}", place, (mistake,), ask)


def correct(full: bool) -> Iterator[Case]:
    """Right ports on every engine that is installed; and right pixels by other decoders."""
    nets = [(published_net(), 224)] if full else [
        (small_net(2, (3, 2)), 66), (small_net(1, (3, 2)), 72), (small_net(2, (2, 2, 1), pool_mode="keras"), 64),
        (small_net(2, (2, 1, 1), depth=8, classes=5), 97), (small_net(1, (1, 1)), 65),
    ]  # fmt: skip
    for i, (net, size) in enumerate(nets):
        for seed in (0,) if full else (0, 1):
            place = problem(net, size, 10 * i + seed)
            for name, port in correct_ports(net).items():
                yield Case("correct", f"{net.scope} {i} {seed} {name}", place, (), _asking(place, port))
    yield from () if full or not find_spec("tensorflow") else _decoders("correct", SAME_DECODERS)


def _asking(place: Problem, port: Callable[..., dict[str, np.ndarray]]) -> Callable[[], Any]:
    def ask() -> Any:
        logits = port(place.variables, place.images, place.net)[f"{place.net.scope}/logits"].ravel()
        return place.diagnosis(logits)

    return ask


def unknown(full: bool) -> Iterator[Case]:
    """Bugs that no catalogue has."""
    nets = problems(full, "tensorflow") if full else [
        replace(problem(small_net(version, (1, 3)), 66, 20 + version), limit=UNKNOWN_SECONDS) for version in (2, 1)
    ]  # fmt: skip
    for place in nets:
        for name, port in unknown_ports().items():
            yield Case("unknown", f"{place.name} {name}", place, (), _asking(place, port))
    yield from () if full else _decoders("unknown", OTHER_DECODERS)


#: Decoders of JPEG whose pixels are refnet's, and others.
SAME_DECODERS, OTHER_DECODERS = ("Pillow", "accurate"), ("fast", "plain chroma")


def _decoders(kind: str, names: Iterable[str]) -> Iterator[Case]:
    """The right outputs for a JPEG file that somebody else decoded."""
    net, steps = small_net(2, (2, 2)), slim_v2(299)
    place = Problem(net, draw_variables(net, 128, seed=6), np.zeros(0), name="from a file", limit=UNKNOWN_SECONDS)
    raw = smooth_images(1, 333, 412, 3, seed=1)[0]
    if kind == "correct":
        yield _from_file(place, raw, None, images_of(raw, steps), "PNG")
    for by in names:
        images = images_of(decoded(_encoded(raw, "JPEG"), by), steps)
        yield replace(_from_file(place, raw, None, images, f"JPEG by {by}"), kind=kind)


def labels(full: bool, port: str, count: int = 200) -> Iterator[Case]:
    """Nothing but the classes of many images; mistakes that change none of them are left out."""
    place = problems(full, port)[0]
    logits, biases = f"{place.net.scope}/logits", f"{place.net.scope}/logits/biases"
    images = inception_scaled(smooth_images(count, *place.images.shape[1:], seed=77))

    def all_logits(variables: Variables, mistakes: Sequence[Mistake] = ()) -> np.ndarray:
        return np.array([place.run(mistakes, variables=variables, images=x[None])[logits].ravel() for x in images])

    # A network of random weights calls nearly all images the same; one that was trained tells them apart.
    base = dict(place.variables)
    base[biases] = np.float32(base[biases] - all_logits(base).mean(0))
    meant: dict[int, np.ndarray] = {}
    for mistake in sampled(cases(place.net), 2, seed=11):
        if mistake.id.startswith(("softmax", "epsilon")):
            continue

        def ask(mistake: Mistake = mistake) -> Any:
            variables = for_mistake(base, mistake)
            key = hash(tuple((name, array.tobytes()) for name, array in sorted(variables.items())))
            if key not in meant:
                meant[key] = all_logits(variables).argmax(1)
            found = all_logits(variables, [mistake]).argmax(1)
            return None if (found == meant[key]).all() else place.diagnosis(found, images, variables)

        yield Case("labels", f"{place.name} {mistake}", place, (mistake,), ask)


# What comes of them.


def _equals(place: Problem, wanted: Mistake, found: Any) -> bool:
    """Whether a finding is the mistake, in these or in other words: a port gives the same with either."""
    if found.id != wanted.id and found.id not in EQUAL.get(wanted.id, ()):
        return False
    value = None if wanted.value is None else str(wanted.value).split(",")[0]
    if (found.site, None if found.value is None else str(found.value)) == (wanted.site or "everywhere", value):
        return True
    variables = for_mistake(place.variables, wanted)
    mistake = Mistake(found.id, None if found.site == "everywhere" else found.site, found.value)
    with suppress(Exception):  # a value that the port has not
        one, other = (place.run([m], variables=variables)["predictions"] for m in (wanted, mistake))
        return one.shape == other.shape and bool(np.allclose(one, other, rtol=1e-5, atol=1e-7))
    return False


def judged(case: Case, result: Any) -> tuple[str, str]:
    """The verdict, and what was named."""
    named, ties = list(result.mistakes), list(result.ties)
    text = " and ".join(f"{m.id} {m.site} {'' if m.value is None else m.value}".strip() for m in named)
    text += f" [or {', '.join(sorted({tie.id for tie in ties}))}]" if ties else ""
    if not case.wanted:
        if result.correct:
            return "correct", ""
        return ("other", text) if named else ("nothing", "")
    if result.correct:
        return "correct", ""
    if not named:
        nearest = getattr(result, "nearest", ())
        return "nothing", f"nearest {', '.join(str(m.id) for m in nearest)}; error {getattr(result, 'error', 0):.1e}"

    def among(findings: Sequence[Any]) -> bool:
        return all(any(_equals(case.place, wanted, found) for found in findings) for wanted in case.wanted)

    ids = [wanted.id for wanted in case.wanted]
    if len(named) > len(ids):
        return "other", text
    if among(named) and len(named) == len(ids):
        return "named", text
    if among([*named, *ties]):
        return "tie", text
    if sorted(found.id for found in named) == sorted(ids):
        return "variant", text
    if all(any(found.id == name or found.id in EQUAL.get(name, ()) for found in named + ties) for name in ids):
        return "tie", text
    return "other", text


def answered(case: Case) -> Answer:
    """Ask, and judge."""
    answer = Answer(case.kind, case.title, " and ".join(mistake.id for mistake in case.wanted), "no effect")
    try:
        result = case.ask()
    except Exception as error:  # a table shows every case
        return replace(answer, verdict="error", found=f"{type(error).__name__}: {error}")
    if result is None:
        return answer
    verdict, found = judged(case, result)
    seconds = float(result.seconds)
    return replace(answer, verdict=verdict, found=found, seconds=seconds, tried=int(result.tried))


def all_cases(
    kinds: Iterable[str], full: bool, count: int, only: str | None = None, port: str = "tensorflow"
) -> Iterator[Case]:
    """The cases of these kinds, in their order."""
    makers: dict[str, Callable[[], Iterator[Case]]] = {
        "correct": lambda: correct(full),
        "singles": lambda: singles(full, port, count),
        "unknown": lambda: unknown(full),
        "pairs": lambda: pairs(full, port, count),
        "layers": lambda: singles(full, port, count, "layers"),
        "pairs-layers": lambda: pairs(full, port, count, "pairs-layers"),
        "pixels": lambda: from_pixels(full),
        "labels": lambda: labels(full, port),
    }
    for kind in kinds:
        for case in makers[kind]():
            if only is None or only in case.title:
                yield case


#: The verdict that is wanted, by kind.
WANTED = {"correct": ("correct",), "unknown": ("nothing",)}
VERDICTS = ("named", "variant", "tie", "other", "nothing", "correct", "error")


def rows_of(answers: Iterable[Answer]) -> dict[tuple[str, str], Row]:
    """By kind and mistake; pairs together."""
    rows: dict[tuple[str, str], Row] = defaultdict(Row)
    for answer in answers:
        row = rows[answer.kind, "" if " and " in answer.mistake else answer.mistake]
        row.answers.append(answer)
        row.verdicts[answer.verdict] += 1
        if answer.verdict == "other":
            row.others[answer.found.split()[0]] += 1
    return rows


def summary(answers: Sequence[Answer]) -> str:
    """Cases, how many of them are good, and their times."""
    good, seconds = sum(answer.is_good for answer in answers), np.array([answer.seconds for answer in answers])
    return (
        f"{len(answers)} cases, {' or '.join(WANTED.get(answers[0].kind, ('named', 'tie')))} {good} = "
        f"{100 * good / len(answers):.1f} %; {np.median(seconds):.1f} s per case, at most {seconds.max():.1f} s"
    )


def shown(answers: Sequence[Answer]) -> str:
    """The table as text: a line per mistake, and a line per kind."""
    answers = [answer for answer in answers if answer.verdict != "no effect"]
    head = f"{'':40}{'cases':>7}" + "".join(f"{verdict:>9}" for verdict in VERDICTS)
    lines = [f"{head}{'per cent':>10}{'seconds':>9}   others"]
    for (kind, name), row in rows_of(answers).items():
        counts = "".join(f"{row.verdicts[verdict] or '':>9}" for verdict in VERDICTS)
        others = ", ".join(f"{other} {count}" for other, count in row.others.items())
        share = 100 * sum(answer.is_good for answer in row.answers) / len(row.answers)
        seconds = np.median([answer.seconds for answer in row.answers])
        line = f"{f'{kind} {name}':40}{len(row.answers):>7}{counts}{share:>10.1f}{seconds:>9.1f}   {others}"
        lines.append(line.rstrip())
    lines.append("")
    by_kind: dict[str, list[Answer]] = defaultdict(list)
    for answer in answers:
        by_kind[answer.kind].append(answer)
    return "\n".join([*lines, *(f"{kind}: {summary(same)}" for kind, same in by_kind.items())])


class Kept:
    """The answers so far; with a file, a line of JSON for each, so that an interrupted table goes on."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path is not None and path.exists() else []
        self.answers = {(a.kind, a.title): a for a in (Answer(**json.loads(line)) for line in lines)}

    def asked(self, case: Case) -> Answer:
        """The answer that is there, or else what comes of asking."""
        key = case.kind, case.title
        if key not in self.answers:
            self.answers[key] = answer = answered(case)
            self._tell(answer)
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps(asdict(answer)) + "\n")
        return self.answers[key]

    def _tell(self, answer: Answer) -> None:
        same = [a for a in self.answers.values() if a.kind == answer.kind and a.verdict != "no effect"]
        score = f"{sum(a.is_good for a in same)}/{len(same)}"
        found = "" if answer.is_good and answer.verdict != "tie" else f": {answer.found}"
        line = f"{answer.kind} {score} {answer.seconds:.1f} s {answer.title}: {answer.verdict}{found}"
        print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true", help="small networks (the default)")
    size.add_argument("--full", action="store_true", help="resnet_v2_50 at 224 x 224")
    parser.add_argument("--kind", choices=(*KINDS, "all"), action="append", help="one kind of cases; may be repeated")
    parser.add_argument("--port", choices=PORTS, help="who makes the mistakes; by default TensorFlow, if it is there")
    parser.add_argument("--count", type=int, default=3, help="sites and values per mistake")
    parser.add_argument("--only", help="only cases with this in their titles")
    parser.add_argument("--resume", metavar="FILE", type=Path, help="where results are kept, a line each")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    kinds = options.kind or KINDS[:-1]
    port = options.port or next((name for name, module in MODULES.items() if find_spec(module)), "tensorflow")
    kept, answers = Kept(options.resume), []
    with suppress(KeyboardInterrupt):
        for case in all_cases(KINDS if "all" in kinds else kinds, options.full, options.count, options.only, port):
            answers.append(kept.asked(case))
    answers = list({(a.kind, a.title): a for a in answers}.values())
    print(json.dumps([asdict(answer) for answer in answers], indent=1) if options.json else shown(answers))


if __name__ == "__main__":
    main()
