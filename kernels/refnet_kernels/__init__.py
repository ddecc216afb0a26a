"""The kernels of refnet: one folder per op, under the arithmetic contract of ``kernels/README.md``."""
