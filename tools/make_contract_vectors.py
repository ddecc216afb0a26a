"""Write the contract vectors: inputs of every op, and their outputs by exact arithmetic.

    python tools/make_contract_vectors.py

writes ``docs/contract-vectors-1.txt``, the same bytes on every machine. Add a case at the end of its op; the numbers
of the others stay, as each array is drawn by its own name.
"""

from __future__ import annotations

import math
import random

import numpy as np

from refnet_kernels.contract import ConvGeometry, PoolGeometry
from tests.exact import ops
from tests.exact.arithmetic import Format
from tests.kernels.vectors import DTYPES, FILE, FORMATS, Vector, problem, write
from tests.problems.conv import conv_same
from tests.problems.group_norm import cancelling
from tests.problems.pools import pool_cut_off, pool_keras, pool_same
from tests.problems.softmax import NEXT_TO_A_TIE
from tests.support.arrays import Arrays

NORM = ("mean", "scale", "beta")
NEXT_NORM = tuple(f"next_{role}" for role in NORM)


def _special(f: Format) -> list[float]:
    finest, tiny = f.rounded(1, 2 - f.emax - f.precision), f.rounded(1, 1 - f.emax)
    largest = f.rounded(2**f.precision - 1, f.emax + 1 - f.precision)
    return [sign * a for a in (0.0, 1.0, finest, tiny, largest, math.inf) for sign in (1.0, -1.0)] + [math.nan]


def _number(rng: random.Random, f: Format, kind: str) -> float:
    """A number of a kind, with a random significand; from `random.random` alone, whose values Python guarantees."""
    significand = 2**f.precision + int(rng.random() * 2**f.precision)
    signed = significand if rng.random() < 0.5 else -significand
    size = int(rng.random() * 4) - 2 - f.precision
    if kind == "special" or (kind == "rarely-special" and rng.random() < 0.08):
        return _special(f)[int(rng.random() * len(_special(f)))]
    if kind == "integers":
        return float(int(rng.random() * 7) - 3)
    if kind == "zeros":
        return (0.0, -0.0, 1.0, -1.0)[int(rng.random() * 4)]
    if kind == "far-from-0":
        return f.add(1000.0, f.rounded(signed, size - 10))
    if kind == "huge":
        return f.rounded(signed, size + f.emax // 2)
    if kind == "tiny":
        # The products are subnormal, or less.
        return f.rounded(signed, size - (f.emax + f.precision) // 2)
    return f.rounded(signed, size)


#: The rules are the same in binary64, so fewer cases are enough there.
KINDS = {
    "binary32": ("normal", "far-from-0", "integers", "zeros", "tiny", "huge", "rarely-special", "special"),
    "binary64": ("normal", "rarely-special"),
}


def _inputs(case: str, format_: str, kind: str, shapes: dict[str, tuple[int, ...]]) -> Arrays:
    arrays = {}
    for name, shape in shapes.items():
        rng = random.Random(f"{case} {format_} {name}")
        values = [_number(rng, FORMATS[format_], kind) for _ in range(math.prod(shape))]
        arrays[name] = np.array(values, DTYPES[format_]).reshape(shape)
    return arrays


def _conv(format_: str, name: str, g: ConvGeometry, kind: str = "normal", epilogue: str = "") -> Vector:
    parts = epilogue.split("+")
    shapes: dict[str, tuple[int, ...]] = {
        "x": (g.batch, g.height, g.width, g.channels),
        "weights": (g.kernel_height, g.kernel_width, g.channels, g.out_channels),
    }
    if "shortcut" in parts:
        shapes["shortcut"] = (g.batch, g.out_height, g.out_width, g.out_channels)
    channels = [*(["bias"] if "bias" in parts else []), *(NORM if "norm" in parts else [])]
    channels += NEXT_NORM if "preact" in parts else []
    shapes |= dict.fromkeys(channels, (g.out_channels,))
    integers = g._asdict() | {"relu": int("relu" in parts)} | ({"sum_relu": 1} if "sum_relu" in parts else {})
    return Vector("conv", name, format_, integers, _inputs(name, format_, kind, shapes), {})


EPILOGUES = ("bias", "norm", "relu", "shortcut", "preact", "norm+relu", "relu+shortcut", "norm+relu+shortcut+preact")


def _geometries() -> list[Vector]:
    cases = [_conv("binary32", f"{c}-products", conv_same(1, 1, 1, c, 1, 1, 1)) for c in (1, 63, 64, 65, 128, 130)]
    shapes = {
        "3x3-same": conv_same(2, 2, 3, 8, 2, 3, 1),
        "stride-2-even": conv_same(1, 4, 6, 3, 2, 3, 2),
        "2x3-kernel": ConvGeometry(1, 4, 4, 3, 3, 2, 2, 2, 3, 1, 1, 0, 0),
        "atrous": ConvGeometry(1, 5, 4, 3, 3, 4, 2, 3, 3, 1, 2, 1, 2),
    }
    cases += [_conv("binary32", name, g) for name, g in shapes.items()]
    # Padding beside infinite weights.
    outside = ConvGeometry(1, 2, 2, 2, 3, 3, 2, 2, 2, 3, 3, 4, 4)
    return [*cases, _conv("binary32", "nothing-but-zeros-around", outside, "rarely-special")]


def _convs(format_: str) -> list[Vector]:
    # 147 products: runs of 64, 64 and 19, which cross taps.
    cases = [_conv(format_, "root-7x7", ConvGeometry(1, 7, 6, 3, 2, 2, 1, 7, 7, 2, 1, 3, 3), epilogue="bias")]
    cases += [_conv(format_, kind, conv_same(1, 3, 3, 4, 2, 3, 1), kind) for kind in KINDS[format_][1:]]
    cases += [
        _conv(format_, f"{epilogue}-{kind}", conv_same(1, 2, 2, 2, 3, 1, 1), kind, epilogue)
        for epilogue in EPILOGUES
        for kind in ("zeros", "rarely-special")
        if kind in KINDS[format_]
    ]
    cases.append(_conv(format_, "all-parts", conv_same(1, 2, 2, 3, 3, 3, 1), "normal", "bias+" + EPILOGUES[-1]))
    return cases + [
        _conv(format_, f"{epilogue}-{kind}", conv_same(1, 2, 2, 2, 3, 1, 1), kind, epilogue)
        for epilogue in ("norm+shortcut+sum_relu", "relu+shortcut+sum_relu+preact")
        for kind in ("zeros", "rarely-special")
        if kind in KINDS[format_]
    ]


def _norms(format_: str) -> list[Vector]:
    shapes = {"x": (1, 2, 3, 4)} | dict.fromkeys(NORM, (4,))
    return [
        Vector("batch_norm", name, format_, {"relu": relu}, _inputs(name, format_, kind, shapes), {})
        for kind in KINDS[format_]
        for relu in (0, 1)
        for name in [f"{kind}-relu" if relu else kind]
    ]


def _scales(format_: str) -> list[Vector]:
    cases = []
    for kind in KINDS[format_]:
        for with_gamma in (False, True):
            name = kind if with_gamma else f"{kind}-no-gamma"
            per_channel = {"variance": (8,)} | ({"gamma": (8,)} if with_gamma else {})
            inputs = _inputs(name, format_, kind, per_channel)
            # Most variances are positive; a negative one gives NaN.
            inputs["variance"][:6] = abs(inputs["variance"][:6])
            inputs["epsilon"] = np.array(1.001e-5)
            cases.append(Vector("norm_scale", name, format_, {}, inputs, {}))
    return cases


def _statistics(format_: str) -> list[Vector]:
    cases = []
    for kind in KINDS[format_]:
        inputs = _inputs(kind, format_, kind, {"x": (2, 2, 3, 4), "gamma": (4,)}) | {"epsilon": np.array(1e-5)}
        cases.append(Vector("batch_statistics", kind, format_, {}, inputs, {}))
    inputs = _inputs("no-gamma", format_, "normal", {"x": (1, 5, 3, 2)}) | {"epsilon": np.array(1e-3)}
    return [*cases, Vector("batch_statistics", "no-gamma", format_, {}, inputs, {})]


def _group_norms(format_: str) -> list[Vector]:
    cases = []
    for kind in KINDS[format_]:
        for relu in (0, 1):
            name = f"{kind}-relu" if relu else kind
            inputs = _inputs(name, format_, kind, {"x": (2, 3, 4, 6), "gamma": (6,), "beta": (6,)})
            inputs["epsilon"] = np.array(1e-5)
            cases.append(Vector("group_norm", name, format_, {"groups": 2, "relu": relu}, inputs, {}))
    shapes: dict[str, dict[str, tuple[int, ...]]] = {
        "no-gamma": {"x": (1, 5, 3, 4), "beta": (4,)},
        "a-channel-to-a-group": {"x": (1, 3, 2, 4), "gamma": (4,), "beta": (4,)},
        "one-group": {"x": (1, 2, 3, 5), "gamma": (5,), "beta": (5,)},
        "one-number": {"x": (1, 1, 1, 3), "gamma": (3,), "beta": (3,)},
    }
    groups = {"no-gamma": 2, "a-channel-to-a-group": 4, "one-group": 1, "one-number": 3}
    for name, arrays in shapes.items():
        inputs = _inputs(name, format_, "normal", arrays) | {"epsilon": np.array(1e-3)}
        cases.append(Vector("group_norm", name, format_, {"groups": groups[name], "relu": 0}, inputs, {}))
    for name, shape, count in (("order", (2, 3, 4, 6), 2), ("order-of-many-channels", (1, 3, 2, 72), 8)):
        inputs = _inputs(name, format_, "normal", {"x": shape, "gamma": shape[-1:], "beta": shape[-1:]})
        inputs |= {"x": cancelling(inputs["x"], count), "beta": np.zeros_like(inputs["beta"])}
        inputs["epsilon"] = np.array(1e-5)
        cases.append(Vector("group_norm", name, format_, {"groups": count, "relu": 0}, inputs, {}))
    return cases


def _rounded_once() -> list[Vector]:
    """``1 + 2^-23 +- a * b`` lies 2^-70 from the middle of two numbers, which an fma in binary64 cannot see."""
    a, b, c = math.ldexp(2**23 + 1, -35), math.ldexp(2**23 - 1, -35), math.ldexp(2**23 + 1, -23)
    one_tap = conv_same(2, 1, 1, 2, 1, 1, 1)
    x, weights = np.array([[[[c, a]]], [[[c, -a]]]], np.float32), np.array([[[[1], [b]]]], np.float32)
    arrays = {"x": [[[[a, -a]]]], "mean": [0, 0], "scale": [b, b], "beta": [c, c]}
    inputs = {name: np.array(values, np.float32) for name, values in arrays.items()}
    return [
        Vector("conv", "rounded-once", "binary32", one_tap._asdict() | {"relu": 0}, {"x": x, "weights": weights}, {}),
        Vector("batch_norm", "rounded-once", "binary32", {"relu": 0}, inputs, {}),
    ]


def _signed_zeros() -> list[Vector]:
    """A convolution's sum is +0; batch norm makes it -0 in the last channel, and the steps after it keep that."""
    values = {
        "x": [[[[0.0]]]],
        "weights": [[[[0.0] * 4]]],
        "mean": [0.0] * 4,
        "scale": [1.0, 1.0, -1.0, -1.0],
        "beta": [0.0, -0.0, 0.0, -0.0],
        "next_mean": [0.0] * 4,
        "next_scale": [1.0] * 4,
        "next_beta": [-0.0] * 4,
    }
    inputs = {name: np.array(array, np.float32) for name, array in values.items()}
    integers = conv_same(1, 1, 1, 1, 4, 1, 1)._asdict() | {"relu": 1}
    shortcut = {"shortcut": np.full((1, 1, 1, 4), -0.0, np.float32)}
    return [
        Vector("conv", "signed-zeros", "binary32", integers, inputs, {}),
        Vector("conv", "signed-zeros-shortcut", "binary32", integers, inputs | shortcut, {}),
    ]


def _pools() -> list[Vector]:
    geometries = {
        "3x3-stride-2": pool_same(1, 5, 4, 2, 3, 2),
        "windows-outside": PoolGeometry(1, 2, 3, 2, 3, 3, 2, 2, 3, 2),
    }
    kinds = ("normal", "zeros", "special")
    cases = [_pool(name, g, kind) for kind in kinds for name, g in geometries.items()]
    return cases + [_pool("zero-padding", pool_keras(1, 5, 4, 2), kind) for kind in kinds]


def _pool(name: str, g: PoolGeometry, kind: str) -> Vector:
    shapes: dict[str, tuple[int, ...]] = {"x": (g.batch, g.height, g.width, g.channels)}
    case = f"{name}-{kind}"
    inputs = _inputs(case, "binary32", kind, shapes | dict.fromkeys(NEXT_NORM, (g.channels,)))
    return Vector("max_pool", case, "binary32", g._asdict(), inputs, {})


def _avg_pools(format_: str) -> list[Vector]:
    geometries = {
        "cut-off": pool_cut_off(1, 3, 4, 2),
        "3x3-stride-2": pool_same(1, 5, 4, 2, 3, 2),
        "windows-outside": PoolGeometry(1, 2, 3, 2, 3, 3, 2, 2, 3, 2),
        "zero-padding": pool_keras(1, 5, 4, 2),
    }
    cases = []
    for kind in ("normal", "zeros", "huge", "special") if format_ == "binary32" else ("normal",):
        for name, g in geometries.items():
            case = f"{name}-{kind}"
            x = _inputs(case, format_, kind, {"x": (g.batch, g.height, g.width, g.channels)})
            cases.append(Vector("avg_pool", case, format_, g._asdict(), x, {}))
    return cases


def _subsamples() -> list[Vector]:
    x = _inputs("subsample", "binary32", "special", {"x": (1, 4, 5, 2)})
    return [Vector("subsample", f"by-{factor}", "binary32", {"factor": factor}, x, {}) for factor in (2, 3)]


def _sums(format_: str) -> list[Vector]:
    cases = []
    for kind in KINDS[format_]:
        inputs = _inputs(kind, format_, kind, {"shortcut": (1, 2, 2, 6), "x": (1, 2, 2, 6)})
        cases.append(Vector("residual", kind, format_, {}, inputs, {}))
    for kind in ("zeros", "special") if format_ == "binary32" else ("normal",):
        inputs = _inputs(f"{kind}-relu", format_, kind, {"shortcut": (1, 2, 2, 6), "x": (1, 2, 2, 6)})
        cases.append(Vector("residual", f"{kind}-relu", format_, {"relu": 1}, inputs, {}))
    for kind in KINDS[format_]:
        cases.append(Vector("mean", kind, format_, {}, _inputs(kind, format_, kind, {"x": (2, 3, 3, 3)}), {}))
    # The sum of binary32 numbers is finite only in binary64.
    largest = np.full((1, 2, 2, 1), np.finfo(DTYPES[format_]).max)
    return [*cases, Vector("mean", "largest", format_, {}, {"x": largest}, {})]


def _softmaxes(format_: str) -> list[Vector]:
    shape = {"x": (4, 5)}
    cases = [Vector("softmax", kind, format_, {}, _inputs(kind, format_, kind, shape), {}) for kind in KINDS[format_]]
    wide = _inputs("wide", format_, "normal", {"x": (2, 24)})["x"] * DTYPES[format_](16)
    inf, nan = math.inf, math.nan
    # -708 is the last argument whose power is not 0.
    ends = [[0, -708, -709], [5, 5, -inf], [inf, 0, 1], [0, nan, 1], [-inf, -inf, -inf], [-0.0, 0.0, -1e-30]]
    rows = {
        "wide": wide,
        "ends": np.array(ends, DTYPES[format_]),
        "next-to-a-tie": NEXT_TO_A_TIE.astype(DTYPES[format_]),
    }
    for name, x in rows.items():
        cases.append(Vector("softmax", name, format_, {}, {"x": x}, {}))
    return cases


def _solved(v: Vector) -> Vector:
    """The case with its outputs."""
    if v.op == "norm_scale":
        gammas = v.inputs["gamma"].tolist() if "gamma" in v.inputs else [None] * v.inputs["variance"].size
        epsilon = v.inputs["epsilon"].item()
        values = [
            ops.scale(v.numbers, g, s, epsilon) for g, s in zip(gammas, v.inputs["variance"].tolist(), strict=True)
        ]
        return v._replace(outputs={"scale": np.array(values, DTYPES[v.format])})
    truth = problem(v).exact(v.numbers)
    places = [truth.at(place) for place in np.ndindex(truth.shape)]
    return v._replace(
        outputs={
            name: np.array([values[name] for values in places], DTYPES[v.format]).reshape(truth.shape)
            for name in places[0]
        }
    )


def vectors() -> list[Vector]:
    """Every case; those about geometry and single roundings are only in binary32."""
    cases = [*_geometries(), *_rounded_once(), *_signed_zeros(), *_pools(), *_subsamples()]
    for format_ in FORMATS:
        for make in (_convs, _norms, _scales, _statistics, _sums, _softmaxes, _avg_pools, _group_norms):
            cases += make(format_)
    return [_solved(v) for v in cases]


if __name__ == "__main__":
    FILE.write_text(write(vectors()))
