"""Batch norm over the channels, with stored statistics or the batch's own (rule A3).

``fma(x - mean, scale, beta)``, each step rounded, then optionally ``0 if v < 0 else v``;
``scale = gamma / sqrt(variance + epsilon)`` in binary64, rounded once to the dtype.

The batch's own statistics are binary64 sums over (n, h, w) in row-major order: ``mean = sum(x) / count``, then
``variance = sum((x - mean) * (x - mean)) / count`` with the unrounded mean, each operation rounded.

TF-Slim: ``slim.batch_norm``. Ioffe and Szegedy, "Batch Normalization", 2015.
"""
