"""For test suites: compare a network, or a port of one, with a golden.

.. code-block:: python

    from refnet.testing import assert_golden


    def test_bits():
        assert_golden("goldens/net.safetensors", "resnet_v2_50.ckpt", image)


    def test_port():
        assert_golden("goldens/net.safetensors", end_points=port(image), max_ulps=64)

``REFNET_UPDATE_GOLDENS=1 pytest`` records the goldens of the first kind that are missing or differ. The fixture
``refnet_golden`` of refnet's plugin for pytest finds a golden by the test's name. A scale for the second kind: the same
sums in another order, one long chain each, are up to 31 units in the last place off in resnet_v2_50, and up to 154 in
resnet_v2_200, on the images of ``refnet selfcheck``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from refnet.checks import check_bool, check_mapping, check_number, path_of
from refnet.errors import ConfigError, RefnetError, RefnetWarning
from refnet.evidence.golden import check, compare_end_points, encode_options
from refnet.evidence.golden_file import read_golden
from refnet.evidence.updating import UPDATE as UPDATE
from refnet.evidence.updating import is_updating, update_golden
from refnet.network.options import KEYWORDS
from refnet.run.devices import check_settings
from refnet.signatures import shows


@shows(KEYWORDS)
def assert_golden(
    path: str | os.PathLike[str],
    weights: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    images: Any = None,
    *,
    end_points: Mapping[str, Any] | None = None,
    max_ulps: float = 0,
    hashes_only: bool = False,
    **options: Any,
) -> None:
    """Fail unless refnet, or another engine, computes what the golden holds.

    Parameters
    ----------
    path : path
        What `refnet.golden.record` or ``refnet golden record`` wrote.
    weights, images
        As for `refnet.golden.record`; not needed where the golden holds them, or with ``end_points``.
    end_points : mapping of str to array, optional
        Results of another engine: these are compared, and refnet computes nothing. "net" is the network's output.
    max_ulps : float
        How far another engine may be off, in units in the last place of each end point's largest value. 0: not by a
        bit.
    hashes_only : bool
        For recording the golden: see `refnet.golden.record`.
    **options
        As for `Engine`: those with which the golden was recorded. Also ``device`` and ``threads``.

    Raises
    ------
    AssertionError
        There is no such golden, it was recorded with other options, or an end point differs. The message names the
        first one in network order, and the element that is furthest off.
    GoldenError, WeightsError, InputError, ConfigError
        The golden, the weights, the images or the end points cannot be used, or are not those of the golden.

    Examples
    --------
    >>> import numpy as np, refnet
    >>> from refnet.testing import assert_golden
    >>> image = refnet.load_image("digit3.png")
    >>> _ = refnet.golden.record("digit.safetensors", "digits.ckpt", image)
    >>> assert_golden("digit.safetensors", "digits.ckpt", image)
    >>> with np.load("theirs.npz") as theirs:  # of a port with a mistake
    ...     assert_golden("digit.safetensors", end_points=theirs, max_ulps=64)
    Traceback (most recent call last):
      ...
    AssertionError: 42 of 44 end points differ from digit.safetensors by more than 64 ULPs; in network order:
      resnet_v2_digits/block1/unit_1/bottleneck_v2/preact [8, 8, 64]: 2,163 of 4,096 elements differ, ...
    """
    __tracebackhide__ = True
    try:
        _compare(path_of(path), weights, images, end_points, max_ulps, hashes_only, options)
    except (AssertionError, RefnetError, RefnetWarning) as error:
        # pytest shows every frame of a traceback with the arrays that were passed to it; the message says all.
        raise error.with_traceback(None) from None


def _compare(
    path: str,
    weights: Mapping[str, Any] | str | os.PathLike[str] | None,
    images: Any,
    end_points: Mapping[str, Any] | None,
    max_ulps: float,
    hashes_only: bool,
    options: dict[str, Any],
) -> None:
    where = {name: options.pop(name) for name in ("device", "threads") if name in options}
    check_settings()
    check_number(max_ulps=max_ulps)
    check_bool(hashes_only=hashes_only)
    if end_points is not None:
        check_mapping(end_points=end_points)
    if max_ulps and end_points is None:
        raise ConfigError("max_ulps is for end_points of another engine; refnet itself gives the same bits.")
    if is_updating() and weights is not None and images is not None:
        update_golden(path, weights, images, hashes_only=hashes_only, **where, **options)
    if not os.path.exists(path):
        raise AssertionError(_how_to_record(path))
    kept, given = read_golden(path).options, encode_options(options)
    if kept != given and (options or end_points is None):
        raise AssertionError(f"{path} was recorded with the options {kept}, not {given}.")
    if end_points is None:
        report = check(path, weights, images, **where)
    else:
        report = compare_end_points(path, end_points, max_ulps)
    if report.differing:
        raise AssertionError(str(report))


def _how_to_record(name: str) -> str:
    return (
        f"There is no golden {name}. Make it with `refnet golden record {name} --weights W --image I`, or, if the "
        f"test passes weights and images, by running it once with {UPDATE}=1."
    )
