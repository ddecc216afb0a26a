"""Average pool over NHWC images (rule A5). PyTorch: ``AvgPool2d``; timm: the shortcuts of ``resnetv2_50d``.

The binary64 sum over the pixels of the window that are inside the image, in row-major order, divided by their count,
rounded once to the dtype. With ``zero_padding`` each pixel outside the image is +0 and counts too.
"""
