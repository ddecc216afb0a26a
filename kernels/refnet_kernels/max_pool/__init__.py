"""Max pool over NHWC images (rule A4). TF-Slim: ``slim.max_pool2d``, ``pool1``.

``m = -inf``; then for each pixel of the window that is inside the image, in row-major order,
``m = v if v > m or v is NaN else m``. Padding never wins; of +0 and -0 the first one stays.
With ``zero_padding``, as in Keras, each pixel outside the image is +0 and takes part, in the same order.
"""
