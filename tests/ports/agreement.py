"""On what the two ports agree: the logits of each mistake, in a file, since few have both frameworks in one place.

``python -m tests.ports.agreement`` writes the file anew, by the port to TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tests.ports.cases import cases
from tests.ports.mistakes import Mistake
from tests.ports.networks import Variables, draw_variables, for_mistake, inception_scaled, small_net, smooth_images
from tests.slim.oracle import Net

FILE = Path(__file__).parent / "data" / "logits.json"
VERSIONS = (1, 2)
#: Of the largest logit: ten times the ports' rounding errors. Where inputs of products are rounded to fewer bits, an
#: error in the last bit can tip one of them to its other neighbour.
TOLERANCE, ROUNDED_TOLERANCE = 2e-5, 2e-3

Run = Callable[..., dict[str, np.ndarray]]


def some(found: Iterable[Mistake], count: int = 2) -> list[Mistake]:
    """Of each mistake and value the first few sites, everywhere among them."""
    kinds = groupby(found, key=lambda mistake: (mistake.id, mistake.value))
    return [mistake for _, sites in kinds for mistake in list(sites)[:count]]


def problem(version: int) -> tuple[Net, Variables, np.ndarray]:
    """A network, its variables and an image."""
    net = small_net(version, (3, 2))
    return net, draw_variables(net, 64, seed=3), inception_scaled(smooth_images(1, 64, 67, 3, seed=5))


def output(net: Net, mistake: Mistake, found: dict[str, np.ndarray]) -> np.ndarray:
    """Where the mistake shows."""
    return found["predictions" if mistake.id.startswith("softmax") else f"{net.scope}/logits"].ravel()


def outputs(run: Run, version: int, left_out: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The logits, or predictions, of some of each mistake's cases, by the mistake; of no mistake by ""."""
    net, variables, x = problem(version)
    found = {"": run(variables, x, net)[f"{net.scope}/logits"].ravel()}
    for mistake in some(cases(net)):
        if mistake.id not in left_out:
            own = for_mistake(variables, mistake)
            found[str(mistake)] = output(net, mistake, run(own, x, net, [mistake]))
    return found


def disagreements(found: dict[str, np.ndarray], version: int) -> list[str]:
    """The cases in which a port's outputs are not those of the file."""
    expected: dict[str, Any] = json.loads(FILE.read_text())[str(version)]

    def differs(name: str, value: np.ndarray) -> bool:
        wanted = np.array(expected.get(name, np.nan), np.float64)
        tolerance = ROUNDED_TOLERANCE if name.startswith("arithmetic") else TOLERANCE
        return not np.allclose(value, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())

    return [name for name, value in found.items() if name not in expected or differs(name, value)]


def main() -> None:
    """Write the file."""
    from tests.ports.tensorflow_port import run

    logits = {
        version: {name: [float(f"{x:.7g}") for x in value] for name, value in outputs(run, version).items()}
        for version in VERSIONS
    }
    FILE.parent.mkdir(exist_ok=True)
    lines = [
        f'"{version}": {{\n'
        + ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
        + "\n}"
        for version, rows in logits.items()
    ]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
