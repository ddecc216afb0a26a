"""Kernels as a convolution with weight standardisation uses them.

Such a network standardises its kernels anew with each use, and always to the same values. Here they are standardised
once, when they are read.

Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
"""

from __future__ import annotations

import numpy as np

from refnet_kernels.system.float_mode import contract_mode

#: Rows of a block, which bounds the memory; and below how many values of a row a running sum is faster than a loop.
_ROWS, _FEW = 4096, 64


@contract_mode()
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
    if kernel.ndim != 4 or not kernel.size or kernel.dtype.kind != "f":
        return kernel
    weights = kernel.astype(np.float64, order="C").reshape(-1, kernel.shape[3])
    centred = np.subtract(weights, _sum(weights) / len(weights), out=weights)
    variance = _sum(centred, squared=True) / len(weights)
    result = np.divide(centred, np.sqrt(variance + epsilon), out=centred)
    return result.astype(np.float32).reshape(kernel.shape)


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
