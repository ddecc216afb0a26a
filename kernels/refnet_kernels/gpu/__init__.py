"""What CUDA kernels are made from, and the way to a device."""
