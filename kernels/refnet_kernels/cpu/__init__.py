"""What the CPU's kernels share: register tiles, memory layout, and the threads that walk a program."""
