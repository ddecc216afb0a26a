"""Kernels as a convolution with weight standardisation uses them.

Such a network standardises its kernels anew with each use, and always to the same values. Here they are standardised
once, when they are read.

Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from refnet.weights.conversion import Moments
from refnet_kernels.system.float_mode import contract_mode

#: Rows of a block, which bounds the memory; and below how many values of a row a running sum is faster than a loop.
_ROWS, _FEW = 4096, 64


def standardized_kernels(
    tensors: dict[str, np.ndarray], renamed: Mapping[str, str], epsilon: float
) -> tuple[dict[str, np.ndarray], str, dict[str, Moments]]:
    """The kernels of a network whose convolutions standardise them, all but the classifier; and a remark that says so.

    Parameters
    ----------
    tensors : dict of str to array
        By TF-Slim's names.
    renamed : mapping of str to str
        The tensors of the network.
    epsilon : float

    Returns
    -------
    tensors : dict of str to array
    remark : str
    moments : dict of str to Moments
        What the kernels were before, as far as that is gone.
    """
    kernels = [name for name in renamed if name.endswith("/weights") and not name.endswith("/logits/weights")]
    remark = f"{len(kernels)} kernels are standardised, as their network does with each use (epsilon {epsilon:g})"
    results = {name: _standardized(tensors[name], epsilon) for name in kernels}
    moments = {name: found for name, (_, found) in results.items() if found is not None}
    return tensors | {name: kernel for name, (kernel, _) in results.items()}, remark, moments


def standardized(kernel: np.ndarray, epsilon: float) -> np.ndarray:
    """``(w - mean) / sqrt(variance + epsilon)``, for each output over height, width and inputs.

    In binary64: both sums go through height, width and inputs in this order, the variance is the biased one, about the
    unrounded mean, and the result is rounded once.

    Parameters
    ----------
    kernel : array [height, width, inputs, outputs]
        Others, and those that do not hold floats, are returned as they are: a later check refuses them.
    epsilon : float

    Returns
    -------
    float32 array [height, width, inputs, outputs]
    """
    return _standardized(kernel, epsilon)[0]


@contract_mode()
def _standardized(kernel: np.ndarray, epsilon: float) -> tuple[np.ndarray, Moments | None]:
    if kernel.ndim != 4 or not kernel.size or kernel.dtype.kind != "f":
        return kernel, None
    weights = kernel.astype(np.float64, order="C").reshape(-1, kernel.shape[3])
    mean = _sum(weights) / len(weights)
    centred = np.subtract(weights, mean, out=weights)
    variance = _sum(centred, squared=True) / len(weights)
    result = np.divide(centred, np.sqrt(variance + epsilon), out=centred)
    return result.astype(np.float32).reshape(kernel.shape), Moments(mean, variance, epsilon)


def _sum(rows: np.ndarray, squared: bool = False) -> np.ndarray:
    """The sum of all rows, or of their squares, one after the other. NumPy's own sum may have any order."""
    total = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _ROWS):
        block = rows[start : start + _ROWS]
        block = block * block if squared else block
        if len(total) < _FEW:
            columns = np.vstack((total, block)).T
            total = np.add.accumulate(np.ascontiguousarray(columns), axis=1)[:, -1]
        else:
            for row in block:
                total = total + row
    return total
