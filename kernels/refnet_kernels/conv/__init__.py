"""Convolution of NHWC images with an HWIO kernel (rules A1 and A2).

For each output the products are taken in the order k = (kh, kw, c), c fastest, in runs of 64::

    t = +0
    for each run:  s = +0;  for k in the run: s = fma(x[k], w[k], s);  t = t + s

Taps outside the image are products with x = +0. Then, each step rounded and each optional: ``t + bias``;
``fma(t - mean, scale, beta)``; ``0 if t < 0 else t``; ``shortcut + t``; ``0 if t < 0 else t`` of that sum. From the
last value a second output may be made: ``0 if u < 0 else u`` with ``u = fma(t - next_mean, next_scale, next_beta)``.

TF-Slim: ``slim.conv2d``, ``resnet_utils.conv2d_same``. Inputs and outputs are float32, or all float64 (rule A8).
"""
