"""Shared by the CPU's kernels: register tiles, memory layout, and the threads that walk a program."""
