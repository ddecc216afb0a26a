"""The kernels of refnet: one folder an op, under the arithmetic contract of ``kernels/README.md``."""
