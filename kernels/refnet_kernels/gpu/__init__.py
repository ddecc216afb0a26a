"""The building blocks of CUDA kernels, and access to a device."""
