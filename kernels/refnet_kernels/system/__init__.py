"""The operating system: cores, memory, forks."""
