"""What the page runs: one network of refnet's selfcheck, by the NumPy definitions."""

import json
import platform
import sys
import time
from collections.abc import Callable

import numpy as np

import refnet
from refnet.evidence.digest import digest, digest_all
from refnet.evidence.selfcheck import CASES, hashes, published


def names() -> str:
    """The names of the networks, the small ones first, as JSON."""
    return json.dumps([case.name for case in CASES])


def run(name: str, tell: Callable[[str], object]) -> str:
    """Compute a network, and compare its end points with the published ones.

    Parameters
    ----------
    name : str
        Of a `Case` of ``refnet selfcheck``.
    tell : callable
        Takes what is being done, in words.

    Returns
    -------
    str
        JSON, for the page.
    """
    (case,) = [case for case in CASES if case.name == name]
    expected = published()["cases"][name]
    tell(f"making the weights and the images of {name}")
    weights, images = case.weights(), case.images()
    differing = [
        what
        for what, found in (("weights", digest_all(weights, weights)), ("images", digest(images)))
        if found != expected[what]
    ]
    tell(f"computing {name}: {len(expected['end_points'])} end points")
    started = time.perf_counter()
    found = hashes(case, weights, images, device="reference")
    seconds = time.perf_counter() - started
    differing += [point for point, sha256 in expected["end_points"].items() if found.get(point) != sha256]
    return json.dumps(
        {
            "check": name,
            "input": case.options_text(),
            "end_points": len(found),
            "differing": differing,
            "sha256": found["net"],
            "published": expected["end_points"]["net"],
            "seconds": seconds,
            "versions": f"refnet {refnet.__version__}, NumPy {np.__version__}, Python {platform.python_version()} "
            f"on {sys.platform}",
        }
    )
