"""A kernel that is called by hand refuses what does not fit, in place of reading past an array."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from refnet_kernels.catalog import rows, select
from refnet_kernels.contract import ConvGeometry, Norm, PoolGeometry, SubsampleGeometry, same_padding

BACKENDS = ["reference", "cpu"]
X = np.random.default_rng(0).normal(size=(2, 9, 8, 5)).astype(np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(3, 3, 5, 7)).astype(np.float32)
G = ConvGeometry.same(X, WEIGHTS, stride=2)
POOL, SUB = PoolGeometry.same(X, 3, 2), SubsampleGeometry.of(X, 2)


def norm(channels: int, dtype: type = np.float32) -> Norm:
    return Norm(*np.ones((3, channels), dtype))


#: Op, arguments, the error and words of its message.
BAD: dict[str, tuple[str, tuple[Any, ...], type[Exception], str]] = {
    "more rows than there are": ("conv", (X, WEIGHTS, G._replace(height=900)), ValueError, r"x has the shape \(2, 9"),
    "more channels": ("conv", (X, WEIGHTS, G._replace(channels=50)), ValueError, r"x has the shape"),
    "more outputs than weights": ("conv", (X, WEIGHTS, G._replace(out_channels=70)), ValueError, "weights has the sh"),
    "a larger kernel": ("conv", (X, WEIGHTS, G._replace(kernel_height=5)), ValueError, "weights has the shape"),
    "weights of float64": ("conv", (X, WEIGHTS.astype(np.float64), G), TypeError, "weights has the dtype float64"),
    "integers": ("conv", (X.astype(np.int32), WEIGHTS, G), TypeError, "x has the dtype int32; .* float32 or float64"),
    "float16": ("conv", (X.astype(np.float16), WEIGHTS, G), TypeError, "x has the dtype float16"),
    "a list": ("conv", (X.tolist(), WEIGHTS, G), TypeError, "x is a list; it is a NumPy array"),
    "no geometry": ("conv", (X, WEIGHTS, None), TypeError, "geometry is a NoneType; it is a ConvGeometry"),
    "another op's geometry": ("conv", (X, WEIGHTS, POOL), TypeError, "geometry is a PoolGeometry; it is a ConvG"),
    "a stride of 0": ("conv", (X, WEIGHTS, G._replace(stride=0)), ValueError, r"geometry\.stride is 0"),
    "a negative pad": ("conv", (X, WEIGHTS, G._replace(pad_top=-1)), ValueError, r"geometry\.pad_top is -1"),
    "a size that is not whole": ("conv", (X, WEIGHTS, G._replace(out_width=1.5)), ValueError, r"out_width is 1\.5"),
    "far too many outputs": ("conv", (X, WEIGHTS, G._replace(out_width=2**31 - 1, out_height=2**31 - 1)), ValueError,
                             "outputs; it can have"),
    "a pool of more rows": ("max_pool", (X, POOL._replace(height=10)), ValueError, "x has the shape"),
    "an average pool of more images": ("avg_pool", (X, POOL._replace(batch=3)), ValueError, "x has the shape"),
    "a subsample by 0": ("subsample", (X, SUB._replace(factor=0)), ValueError, r"geometry\.factor is 0"),
    "a shortcut of another shape": ("residual", (X[:1], X, False), ValueError, "shortcut has the shape"),
    "a norm of fewer channels": ("batch_norm", (X, norm(4), False), ValueError, r"norm\.mean has the shape \(4,\)"),
    "a norm of float64": ("batch_norm", (X, norm(5, np.float64), False), TypeError, r"norm\.mean has the dtype"),
    "a tuple for a norm": ("batch_norm", (X, tuple(norm(5)), False), TypeError, "norm is a tuple; it is a Norm"),
    "a gamma of fewer channels": ("batch_statistics", (X, X[0, 0, 0, :4], 1e-5), ValueError, "gamma has the shape"),
    "groups that do not divide": ("group_norm", (X, None, X[0, 0, 0], 2, 1e-5, False), ValueError, "groups is 2"),
    "an image too many axes deep": ("softmax", (X[None],), ValueError, "x has the shape"),
}  # fmt: skip
#: Of a convolution alone.
EPILOGUE: dict[str, tuple[dict[str, Any], str]] = {
    "bias": ({"bias": np.ones(6, np.float32)}, r"bias has the shape \(6,\), where \(7,\) is needed"),
    "norm": ({"norm": norm(5)}, r"norm\.mean has the shape"),
    "shortcut": ({"shortcut": X}, r"shortcut has the shape \(2, 9, 8, 5\), where \(2, 5, 4, 7\)"),
    "next norm": ({"next_norm": norm(3)}, r"next_norm\.mean has the shape"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_refused(name: str, backend: str) -> None:
    op, arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        select(op, backend).call(*arguments)


@pytest.mark.parametrize("name", EPILOGUE)
def test_an_epilogue_that_does_not_fit_is_refused(name: str) -> None:
    options, message = EPILOGUE[name]
    with pytest.raises(ValueError, match=message):
        select("conv", "cpu").call(X, WEIGHTS, G, **options)


def test_every_kernel_checks() -> None:
    for op, backend in rows():
        if backend in BACKENDS:
            with pytest.raises(TypeError):
                select(op, backend).call(*[None] * 6)


def test_an_array_where_the_definition_gives_one() -> None:
    found = [select("conv", backend).call(X, WEIGHTS, G) for backend in BACKENDS]
    assert isinstance(found[1], np.ndarray)
    assert found[0].tobytes() == found[1].tobytes()
    out, preact = select("conv", "cpu").call(X, WEIGHTS, G, next_norm=norm(7))
    assert out.shape == preact.shape == found[0].shape
    assert isinstance(select("max_pool", "cpu").call(X, POOL), np.ndarray)


@pytest.mark.parametrize("transposed", [False, True])
def test_any_layout_in_memory(transposed: bool) -> None:
    x = np.asfortranarray(X) if transposed else np.repeat(X, 2, axis=2)[:, :, ::2]
    weights = np.asfortranarray(WEIGHTS)
    assert select("conv", "cpu").call(x, weights, G).tobytes() == select("conv", "cpu").call(X, WEIGHTS, G).tobytes()


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("rate", [1, 2])
def test_geometries_from_arrays(stride: int, rate: int) -> None:
    """conv2d_same as TF-Slim writes it, and TensorFlow's "SAME" by its formula."""
    extent = 3 + 2 * (rate - 1)
    before, after = (extent - 1) // 2, extent - 1 - (extent - 1) // 2
    rows = [(9 + before + after - extent) // stride + 1, (8 + before + after - extent) // stride + 1]
    g = ConvGeometry.same(X, WEIGHTS, stride, rate)
    assert (g.out_height, g.out_width, g.pad_top, g.pad_left) == (*rows, before, before)
    g = ConvGeometry.tensorflow_same(X.shape, WEIGHTS.shape, stride, rate)
    (height, top), (width, left) = same_padding(9, extent, stride), same_padding(8, extent, stride)
    assert (g.out_height, g.out_width, g.pad_top, g.pad_left) == (height, width, top, left)
    with pytest.raises(ValueError, match="x has 5 channels, and the weights 4"):
        ConvGeometry.same(X, WEIGHTS[:, :, :4])
    with pytest.raises(ValueError, match="has 3 axes, where four are needed"):
        ConvGeometry.same(X[0], WEIGHTS)


#: Any numbers of the right type: the definition's result, or an error of Python.
RANDOM = """
import numpy as np
from refnet_kernels.catalog import select
from refnet_kernels.contract import ConvGeometry, PoolGeometry, SubsampleGeometry

KINDS = {"conv": ConvGeometry, "max_pool": PoolGeometry, "avg_pool": PoolGeometry, "subsample": SubsampleGeometry}
MAY_BE_0 = ("pad_top", "pad_left", "zero_padding")
rng = np.random.default_rng(0)
refused = 0
for round in range(400):
    op = list(KINDS)[round % 4]
    sizes = dict.fromkeys(KINDS[op]._fields)
    for name in sizes:
        least = -1 if round % 3 == 0 else int(name not in MAY_BE_0)
        sizes[name] = int(rng.integers(least, 2 if name == "zero_padding" else 6))
    g = KINDS[op](**sizes)
    arguments = [np.ones([max(size, 0) for size in g[:4]], np.float32)]
    if op == "conv":
        shape = g.kernel_height, g.kernel_width, g.channels, g.out_channels
        arguments.append(np.ones([max(size, 0) for size in shape], np.float32))
    if 0 in g[:4]:
        continue  # the sound ones are among the problems of every op
    try:
        found = select(op, "cpu").call(*arguments, g)
    except (TypeError, ValueError):
        refused += 1
        continue
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(found, select(op, "reference").call(*arguments, g), str((op, g)))
print(refused)
"""


def test_random_geometries_end_no_process() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", RANDOM], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 0 < int(done.stdout) < 300
