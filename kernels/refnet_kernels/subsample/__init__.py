"""Every ``factor``-th row and column of NHWC images. TF-Slim: ``resnet_utils.subsample``."""
