"""Compare the values of two runs of a network: which is which, how they lie in memory, and how far they are off."""
