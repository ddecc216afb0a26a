"""Group norm: each image is normalised by itself, in groups of neighbouring channels (rule A9).

``fma(x - mean, scale, beta)``, each step rounded, then optionally ``0 if v < 0 else v``, with the mean and the variance
of an image's group, and ``scale = gamma / sqrt(variance + epsilon)`` in binary64, rounded once to the dtype.

The sums are binary64: over each row of a channel, then over the rows of the channel, then over the channels of the
group, each in order. ``mean = sum(x) / count``, then ``variance = sum((x - mean) * (x - mean)) / count`` with the
unrounded mean, each operation rounded. So vectors may run over channels, and threads over rows.

TF-Slim: ``slim.group_norm``. Wu and He, "Group Normalization", 2018.
"""
