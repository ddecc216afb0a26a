"""What is asked of the operating system: cores, memory, forks."""
