"""Record the hashes for ``refnet selfcheck``: every end point by its NumPy definition.

    uv run tools/record_selfcheck.py

takes some minutes, and uses no compiled kernel. The hashes change with the arithmetic contract, with `random_weights`
or with the cases, and with nothing else: another run writes the same file.
"""

import json
import sys
from typing import Any

import numpy as np

from refnet.engine import Engine
from refnet.evidence.digest import digest, digest_all
from refnet.evidence.end_points import in_network_order
from refnet.evidence.selfcheck import CASES, FORMAT, FORMAT_VERSION, PUBLISHED, Case
from refnet_kernels.contract import CONTRACT_VERSION


def record(case: Case) -> dict[str, Any]:
    """The hashes of a case.

    Raises
    ------
    SystemExit
        The values make a poor test: some are not finite, or most of them are the same number.
    """
    print(f"{case.name} ...", file=sys.stderr, flush=True)
    weights, images = case.weights(), case.images()
    net, end_points = Engine(weights, **case.options, device="reference")(images, end_points=True)
    values = in_network_order(end_points, net)
    for name, value in values.items():
        distinct = len(np.unique(value))
        # Three quarters may be the zeros of a ReLU; the softmax of subnormal logits is flat by nature.
        flat = distinct < value.size / 8 and not (case.subnormal and name == "predictions")
        if not np.isfinite(value).all() or flat:
            raise SystemExit(
                f"{case.name}: {name} has {distinct} distinct values of {value.size}: this is a poor test."
            )
    return {
        "device": "reference",
        "weights": digest_all(weights, weights),
        "images": digest(images),
        "end_points": {name: digest(value) for name, value in values.items()},
    }


def main() -> None:
    """Write the file."""
    content = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "contract": CONTRACT_VERSION,
        "command": "uv run tools/record_selfcheck.py",
        "cases": {case.name: record(case) for case in CASES},
    }
    PUBLISHED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
