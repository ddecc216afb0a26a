"""The mean over height and width (rule A5). TF-Slim: ``tf.reduce_mean(net, [1, 2])``, ``pool5``.

The binary64 sum in row-major order of (h, w), divided by the count, rounded once to binary32.
float32 [N, H, W, C] gives float32 [N, 1, 1, C].
"""
