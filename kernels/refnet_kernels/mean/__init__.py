"""The mean over height and width (rule A5). TF-Slim: ``tf.reduce_mean(net, [1, 2])``, ``pool5``.

The binary64 sum in row-major order of (h, w), divided by the count, rounded once to the dtype.
float32 or float64 [N, H, W, C] gives the same of shape [N, 1, 1, C].
"""
